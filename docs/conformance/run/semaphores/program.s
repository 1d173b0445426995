.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {}

    copy.in rel=1+2 src=dram+0x0 dst=tile0+0x0 run_bytes=1 reps1=1 reps2=1
    copy.in rel=1+2 src=dram+0x1 dst=tile0+0x1 run_bytes=1 reps1=1 reps2=1
    copy.in rel=1+2 src=dram+0x2 dst=tile0+0x2 run_bytes=1 reps1=1 reps2=1
    copy.in rel=1+2 src=dram+0x3 dst=tile0+0x3 run_bytes=1 reps1=1 reps2=1
    copy.in rel=1+2 src=dram+0x4 dst=tile0+0x4 run_bytes=1 reps1=1 reps2=1
    copy.in rel=1+2 src=dram+0x5 dst=tile0+0x5 run_bytes=1 reps1=1 reps2=1
    copy.in rel=1+2 src=dram+0x6 dst=tile0+0x6 run_bytes=1 reps1=1 reps2=1
    copy.in rel=1+2 src=dram+0x7 dst=tile0+0x7 run_bytes=1 reps1=1 reps2=1
    copy.in rel=1+2 src=dram+0x8 dst=tile0+0x8 run_bytes=1 reps1=1 reps2=1
    copy.in rel=1+2 src=dram+0x9 dst=tile0+0x9 run_bytes=1 reps1=1 reps2=1
    copy.in rel=1+2 src=dram+0xa dst=tile0+0xa run_bytes=1 reps1=1 reps2=1
    copy.in rel=1+2 src=dram+0xb dst=tile0+0xb run_bytes=1 reps1=1 reps2=1
    copy.out acq=1>=4 rel=2+1 src=tile0+0x0 dst=dram+0x40 run_bytes=2 reps1=1 reps2=1
    copy.out acq=1>=4 rel=2+1 src=tile0+0x2 dst=dram+0x42 run_bytes=2 reps1=1 reps2=1
    copy.out acq=1>=4 rel=2+1 src=tile0+0x4 dst=dram+0x44 run_bytes=2 reps1=1 reps2=1
    copy.out acq=1>=4 rel=2+1 src=tile0+0x6 dst=dram+0x46 run_bytes=2 reps1=1 reps2=1
    copy.out acq=1>=4 rel=2+1 src=tile0+0x8 dst=dram+0x48 run_bytes=2 reps1=1 reps2=1
    copy.out acq=1>=4 rel=2+1 src=tile0+0xa dst=dram+0x4a run_bytes=2 reps1=1 reps2=1
    wait.link acq=2>=6
    copy.link src=dram+0x40 dst=tile1+0x0 run_bytes=12 reps1=1 reps2=1
    signal.in rel=31+255
    wait.config acq=31>=250
    fence.out
    copy.in src=tile1+0x0 dst=dram+0x80 run_bytes=12 reps1=1 reps2=1
    end.config
