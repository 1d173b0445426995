.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {}
.cfg 0x510 = 0x8
.const 64000200c8000100
.contract k=4 k_lo=4 k_hi=8 period=1 margin_lo=9 margin_hi=60000

    contract.config
    cfgw.config src=const+0x0 dst=config+0x0 run_bytes=8
    send.config register codec=bitmask k=8 tile_n=64 tiles=3 src=tile0+0x0 dst=link+0x0 run_bytes=192 reps1=1 reps2=1 dst_st1=32
    recv.config codec=bitmask k=8 tile_n=64 tiles=3 src=link+0x0 dst=tile1+0x0 run_bytes=192 reps1=1 reps2=1 src_st1=32
    send.config register k=64 tile_n=64 tiles=2 src=tile0+0x0 dst=link+0x400 run_bytes=128 reps1=1 reps2=1 dst_st1=96
    recv.config k=64 tile_n=64 tiles=2 src=link+0x400 dst=tile1+0x400 run_bytes=128 reps1=1 reps2=1 src_st1=96
    end.config
