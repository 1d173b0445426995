.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {}
.cfg 0x510 = 0x8
.contract k=32 k_lo=16 k_hi=48 period=1 margin_lo=30000 margin_hi=60000

    contract.config contract=7
    send.config register codec=bitmask contract=7 k=48 tile_n=64 tiles=4 src=tile0+0x0 dst=link+0x0 run_bytes=256 reps1=1 reps2=1 dst_st1=96
    recv.config codec=bitmask k=48 tile_n=64 tiles=4 src=link+0x0 dst=tile1+0x0 run_bytes=256 reps1=1 reps2=1 src_st1=96
    send.config codec=bitmask k=30 tile_n=40 tiles=1 src=tile0+0x100 dst=link+0x180 run_bytes=40 reps1=1 reps2=1 dst_st1=64
    recv.config codec=bitmask k=30 tile_n=40 tiles=1 src=link+0x180 dst=tile1+0x100 run_bytes=40 reps1=1 reps2=1 src_st1=64
    contract.config contract=7
    send.config register codec=bitmask contract=7 k=48 tile_n=64 tiles=4 src=tile0+0x140 dst=link+0x1c0 run_bytes=256 reps1=1 reps2=1 dst_st1=96
    recv.config codec=bitmask k=48 tile_n=64 tiles=4 src=link+0x1c0 dst=tile1+0x140 run_bytes=256 reps1=1 reps2=1 src_st1=96
    send.config codec=bitmask k=30 tile_n=40 tiles=1 src=tile0+0x240 dst=link+0x340 run_bytes=40 reps1=1 reps2=1 dst_st1=64
    recv.config codec=bitmask k=30 tile_n=40 tiles=1 src=link+0x340 dst=tile1+0x240 run_bytes=40 reps1=1 reps2=1 src_st1=64
    end.config
