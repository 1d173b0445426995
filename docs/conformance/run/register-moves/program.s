.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {}
.cfg 0x510 = 0x8
.contract k=16 k_lo=14 k_hi=48 period=2 margin_lo=30000 margin_hi=60000

    contract.config contract=7
    send.config register codec=bitmask contract=7 k=48 tile_n=64 tiles=10 src=tile0+0x0 dst=link+0x0 run_bytes=640 reps1=1 reps2=1 dst_st1=96
    recv.config codec=bitmask k=48 tile_n=64 tiles=10 src=link+0x0 dst=tile1+0x0 run_bytes=640 reps1=1 reps2=1 src_st1=96
    end.config
