.target scu-v1 d7e02c8feb49fccdac4db9747d5814468cf2d3f4cec2b8eb7c46fbc6250e395e
.meta {}
.cfg 0x500 = 0xfffffffd
.cfg 0x510 = 0xfff5
.smap fffffffd0cf4f8f328a58e6c720001

    send.config codec=bitmask k=14 tile_n=40 tiles=2 src=tile0+0x0 dst=link+0x0 run_bytes=80 reps1=1 reps2=1 dst_st1=64
    recv.config codec=bitmask k=14 tile_n=40 tiles=2 src=link+0x0 dst=tile1+0x0 run_bytes=80 reps1=1 reps2=1 src_st1=64
    send.config wide_keys codec=bitmask k=14 tile_n=40 tiles=2 src=tile0+0x80 dst=link+0x80 run_bytes=80 reps1=1 reps2=1 dst_st1=64
    recv.config codec=bitmask k=14 tile_n=40 tiles=2 src=link+0x80 dst=tile1+0x80 run_bytes=80 reps1=1 reps2=1 src_st1=64
    send.config scored codec=bitmask k=14 tile_n=40 tiles=2 src=tile0+0x100 dst=link+0x100 run_bytes=80 reps1=1 reps2=1 dst_st1=64 dst_st2=7 smap=3
    recv.config codec=bitmask k=14 tile_n=40 tiles=2 src=link+0x100 dst=tile1+0x100 run_bytes=80 reps1=1 reps2=1 src_st1=64
    send.config scored wide_keys codec=bitmask k=14 tile_n=40 tiles=2 src=tile0+0x180 dst=link+0x180 run_bytes=80 reps1=1 reps2=1 dst_st1=64 dst_st2=7 smap=3
    recv.config codec=bitmask k=14 tile_n=40 tiles=2 src=link+0x180 dst=tile1+0x180 run_bytes=80 reps1=1 reps2=1 src_st1=64
    end.config
