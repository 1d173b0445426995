.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {}
.const 636f6e7374

    copy.config src=dram+0x3c dst=tile0+0x0 run_bytes=4 reps1=3 reps2=2 src_st1=-20 dst_st1=4 src_st2=4 dst_st2=16
    copy.config src=dram+0x0 dst=tile0+0x40 run_bytes=8 reps1=4 reps2=2 src_st1=8 dst_st1=3 src_st2=32 dst_st2=5
    copy.config src=dram+0x0 dst=dram+0x4 run_bytes=64 reps1=1 reps2=1
    copy.config src=dram+0x9 dst=tile0+0x80 run_bytes=3 reps1=5 reps2=1 dst_st1=3
    copy.config src=const+0x0 dst=link+0x0 run_bytes=5 reps1=2 reps2=1 dst_st1=8
    copy.config src=link+0x0 dst=tile1+0x0 run_bytes=16 reps1=1 reps2=1
    end.config
