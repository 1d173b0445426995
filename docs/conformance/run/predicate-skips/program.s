.target scu-v1 d7e02c8feb49fccdac4db9747d5814468cf2d3f4cec2b8eb7c46fbc6250e395e
.meta {}

    nop.in predicated rel=1+1 src=tile0+0x3 next=after
    copy.in src=dram+0x0 dst=tile1+0x0 run_bytes=8 reps1=1 reps2=1
    copy.out src=dram+0x8 dst=tile1+0x8 run_bytes=8 reps1=1 reps2=1
after:
    copy.link acq=1>=1 src=dram+0x10 dst=tile1+0x10 run_bytes=8 reps1=1 reps2=1
    end.config
