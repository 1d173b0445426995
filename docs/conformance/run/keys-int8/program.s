.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {}
.cfg 0x500 = 0xfffffffd
.cfg 0x510 = 0xfff5
.smap fffffffd0cf4f8f328a50001

    send.config codec=bitmask k=11 tile_n=30 tiles=2 src=tile0+0x0 dst=link+0x0 run_bytes=60 reps1=1 reps2=1 dst_st1=32
    recv.config codec=bitmask k=11 tile_n=30 tiles=2 src=link+0x0 dst=tile1+0x0 run_bytes=60 reps1=1 reps2=1 src_st1=32
    send.config wide_keys codec=bitmask k=11 tile_n=30 tiles=2 src=tile0+0x40 dst=link+0x40 run_bytes=60 reps1=1 reps2=1 dst_st1=32
    recv.config codec=bitmask k=11 tile_n=30 tiles=2 src=link+0x40 dst=tile1+0x40 run_bytes=60 reps1=1 reps2=1 src_st1=32
    send.config scored codec=bitmask k=11 tile_n=30 tiles=2 src=tile0+0x80 dst=link+0x80 run_bytes=60 reps1=1 reps2=1 dst_st1=32 dst_st2=7 smap=3
    recv.config codec=bitmask k=11 tile_n=30 tiles=2 src=link+0x80 dst=tile1+0x80 run_bytes=60 reps1=1 reps2=1 src_st1=32
    send.config scored wide_keys codec=bitmask k=11 tile_n=30 tiles=2 src=tile0+0xc0 dst=link+0xc0 run_bytes=60 reps1=1 reps2=1 dst_st1=32 dst_st2=7 smap=3
    recv.config codec=bitmask k=11 tile_n=30 tiles=2 src=link+0xc0 dst=tile1+0xc0 run_bytes=60 reps1=1 reps2=1 src_st1=32
    end.config
