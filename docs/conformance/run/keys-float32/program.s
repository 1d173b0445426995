.target scu-v1 d7e02c8feb49fccdac4db9747d5814468cf2d3f4cec2b8eb7c46fbc6250e395e
.meta {}
.cfg 0x50c = 0x3d00
.cfg 0x51c = 0x3
.smap fffffffd0cf4f8f328a58e6c720001

    send.config dtype=float32 codec=bitmask k=14 tile_n=40 tiles=2 src=tile0+0x0 dst=link+0x0 run_bytes=320 reps1=1 reps2=1 dst_st1=96
    recv.config dtype=float32 codec=bitmask k=14 tile_n=40 tiles=2 src=link+0x0 dst=tile1+0x0 run_bytes=320 reps1=1 reps2=1 src_st1=96
    send.config wide_keys dtype=float32 codec=bitmask k=14 tile_n=40 tiles=2 src=tile0+0x140 dst=link+0xc0 run_bytes=320 reps1=1 reps2=1 dst_st1=96
    recv.config dtype=float32 codec=bitmask k=14 tile_n=40 tiles=2 src=link+0xc0 dst=tile1+0x140 run_bytes=320 reps1=1 reps2=1 src_st1=96
    send.config scored dtype=float32 codec=bitmask k=14 tile_n=40 tiles=2 src=tile0+0x280 dst=link+0x180 run_bytes=320 reps1=1 reps2=1 dst_st1=96 dst_st2=7 smap=3
    recv.config dtype=float32 codec=bitmask k=14 tile_n=40 tiles=2 src=link+0x180 dst=tile1+0x280 run_bytes=320 reps1=1 reps2=1 src_st1=96
    send.config scored wide_keys dtype=float32 codec=bitmask k=14 tile_n=40 tiles=2 src=tile0+0x3c0 dst=link+0x240 run_bytes=320 reps1=1 reps2=1 dst_st1=96 dst_st2=7 smap=3
    recv.config dtype=float32 codec=bitmask k=14 tile_n=40 tiles=2 src=link+0x240 dst=tile1+0x3c0 run_bytes=320 reps1=1 reps2=1 src_st1=96
    send.config wide_keys dtype=float32 codec=bitmask k=1 tile_n=10 tiles=1 src=tile0+0x500 dst=link+0x300 run_bytes=40 reps1=1 reps2=1 dst_st1=32
    recv.config dtype=float32 codec=bitmask k=1 tile_n=10 tiles=1 src=link+0x300 dst=tile1+0x500 run_bytes=40 reps1=1 reps2=1 src_st1=32
    send.config wide_keys dtype=float32 codec=bitmask k=5 tile_n=10 tiles=1 src=tile0+0x540 dst=link+0x320 run_bytes=40 reps1=1 reps2=1 dst_st1=64
    recv.config dtype=float32 codec=bitmask k=5 tile_n=10 tiles=1 src=link+0x320 dst=tile1+0x540 run_bytes=40 reps1=1 reps2=1 src_st1=64
    end.config
