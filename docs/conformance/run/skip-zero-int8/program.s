.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {}
.cfg 0x500 = 0x7
.cfg 0x510 = 0x7

    send.config skip_zero codec=bitmask k=20 tile_n=32 tiles=2 src=tile0+0x0 dst=link+0x0 run_bytes=64 reps1=1 reps2=1 dst_st1=64 fill=7
    recv.config codec=bitmask k=20 tile_n=32 tiles=2 src=link+0x0 dst=tile1+0x0 run_bytes=64 reps1=1 reps2=1 src_st1=64 fill=7
    send.config skip_zero codec=index k=20 tile_n=32 tiles=2 src=tile0+0x40 dst=link+0x80 run_bytes=64 reps1=1 reps2=1 dst_st1=64 fill=7
    recv.config codec=index k=20 tile_n=32 tiles=2 src=link+0x80 dst=tile1+0x40 run_bytes=64 reps1=1 reps2=1 src_st1=64 fill=7
    send.config skip_zero codec=run k=20 tile_n=32 tiles=2 src=tile0+0x80 dst=link+0x100 run_bytes=64 reps1=1 reps2=1 dst_st1=64 fill=7
    recv.config codec=run k=20 tile_n=32 tiles=2 src=link+0x100 dst=tile1+0x80 run_bytes=64 reps1=1 reps2=1 src_st1=64 fill=7
    send.config skip_zero k=32 tile_n=32 tiles=2 src=tile0+0xc0 dst=link+0x180 run_bytes=64 reps1=1 reps2=1 dst_st1=64 fill=7
    recv.config k=32 tile_n=32 tiles=2 src=link+0x180 dst=tile1+0xc0 run_bytes=64 reps1=1 reps2=1 src_st1=64 fill=7
    send.config skip_zero codec=bitmask k=16 tile_n=64 tiles=1 src=tile0+0x100 dst=link+0x200 run_bytes=64 reps1=1 reps2=1 dst_st1=64 fill=7
    recv.config codec=bitmask k=16 tile_n=64 tiles=1 src=link+0x200 dst=tile1+0x100 run_bytes=64 reps1=1 reps2=1 src_st1=64 fill=7
    send.config skip_zero codec=bitmask k=40 tile_n=64 tiles=1 src=tile0+0x140 dst=link+0x240 run_bytes=64 reps1=1 reps2=1 dst_st1=64
    recv.config codec=bitmask k=40 tile_n=64 tiles=1 src=link+0x240 dst=tile1+0x140 run_bytes=64 reps1=1 reps2=1 src_st1=64
    end.config
