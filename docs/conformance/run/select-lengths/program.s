.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {}
.cfg 0x510 = 0x7

    send.config codec=bitmask k=1 tile_n=1 tiles=1 src=tile0+0x0 dst=link+0x0 run_bytes=1 reps1=1 reps2=1 dst_st1=32
    recv.config codec=bitmask k=1 tile_n=1 tiles=1 src=link+0x0 dst=tile1+0x0 run_bytes=1 reps1=1 reps2=1 src_st1=32
    send.config codec=bitmask tile_n=1 tiles=1 src=tile0+0x40 dst=link+0x20 run_bytes=1 reps1=1 reps2=1 dst_st1=32
    recv.config codec=bitmask tile_n=1 tiles=1 src=link+0x20 dst=tile1+0x40 run_bytes=1 reps1=1 reps2=1 src_st1=32
    send.config codec=bitmask k=255 tile_n=1023 tiles=1 src=tile0+0x80 dst=link+0x40 run_bytes=1023 reps1=1 reps2=1 dst_st1=416
    recv.config codec=bitmask k=255 tile_n=1023 tiles=1 src=link+0x40 dst=tile1+0x80 run_bytes=1023 reps1=1 reps2=1 src_st1=416
    send.config codec=bitmask k=256 tile_n=1024 tiles=1 src=tile0+0x480 dst=link+0x1e0 run_bytes=1024 reps1=1 reps2=1 dst_st1=416
    recv.config codec=bitmask k=256 tile_n=1024 tiles=1 src=link+0x1e0 dst=tile1+0x480 run_bytes=1024 reps1=1 reps2=1 src_st1=416
    send.config codec=bitmask k=25 tile_n=100 tiles=1 src=tile0+0x880 dst=link+0x380 run_bytes=100 reps1=1 reps2=1 dst_st1=64
    recv.config codec=bitmask k=25 tile_n=100 tiles=1 src=link+0x380 dst=tile1+0x880 run_bytes=100 reps1=1 reps2=1 src_st1=64
    end.config
