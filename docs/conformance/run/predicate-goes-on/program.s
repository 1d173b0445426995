.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {}

    nop.in predicated rel=1+1 src=tile0+0x3 next=after
    copy.in src=dram+0x0 dst=tile1+0x0 run_bytes=8 reps1=1 reps2=1
    copy.out src=dram+0x8 dst=tile1+0x8 run_bytes=8 reps1=1 reps2=1
after:
    copy.link acq=1>=1 src=dram+0x10 dst=tile1+0x10 run_bytes=8 reps1=1 reps2=1
    end.config
