.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {}
.cfg 0x508 = 0x3d00
.cfg 0x518 = 0x3
.smap fffffffd0cf4f8f328a50001

    send.config dtype=bfloat16 codec=bitmask k=11 tile_n=30 tiles=2 src=tile0+0x0 dst=link+0x0 run_bytes=120 reps1=1 reps2=1 dst_st1=64
    recv.config dtype=bfloat16 codec=bitmask k=11 tile_n=30 tiles=2 src=link+0x0 dst=tile1+0x0 run_bytes=120 reps1=1 reps2=1 src_st1=64
    send.config wide_keys dtype=bfloat16 codec=bitmask k=11 tile_n=30 tiles=2 src=tile0+0x80 dst=link+0x80 run_bytes=120 reps1=1 reps2=1 dst_st1=64
    recv.config dtype=bfloat16 codec=bitmask k=11 tile_n=30 tiles=2 src=link+0x80 dst=tile1+0x80 run_bytes=120 reps1=1 reps2=1 src_st1=64
    send.config scored dtype=bfloat16 codec=bitmask k=11 tile_n=30 tiles=2 src=tile0+0x100 dst=link+0x100 run_bytes=120 reps1=1 reps2=1 dst_st1=64 dst_st2=7 smap=3
    recv.config dtype=bfloat16 codec=bitmask k=11 tile_n=30 tiles=2 src=link+0x100 dst=tile1+0x100 run_bytes=120 reps1=1 reps2=1 src_st1=64
    send.config scored wide_keys dtype=bfloat16 codec=bitmask k=11 tile_n=30 tiles=2 src=tile0+0x180 dst=link+0x180 run_bytes=120 reps1=1 reps2=1 dst_st1=64 dst_st2=7 smap=3
    recv.config dtype=bfloat16 codec=bitmask k=11 tile_n=30 tiles=2 src=link+0x180 dst=tile1+0x180 run_bytes=120 reps1=1 reps2=1 src_st1=64
    send.config wide_keys dtype=bfloat16 codec=bitmask k=1 tile_n=10 tiles=1 src=tile0+0x200 dst=link+0x200 run_bytes=20 reps1=1 reps2=1 dst_st1=32
    recv.config dtype=bfloat16 codec=bitmask k=1 tile_n=10 tiles=1 src=link+0x200 dst=tile1+0x200 run_bytes=20 reps1=1 reps2=1 src_st1=32
    send.config wide_keys dtype=bfloat16 codec=bitmask k=5 tile_n=10 tiles=1 src=tile0+0x240 dst=link+0x220 run_bytes=20 reps1=1 reps2=1 dst_st1=32
    recv.config dtype=bfloat16 codec=bitmask k=5 tile_n=10 tiles=1 src=link+0x220 dst=tile1+0x240 run_bytes=20 reps1=1 reps2=1 src_st1=32
    end.config
