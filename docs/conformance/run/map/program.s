.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {}
.cfg 0x500 = 0x1
.cfg 0x510 = 0x7
.const 07c864094d03
.smap 0909090909090909ffff8040010101013f0894e48720fb19a878d1d391308596
.smap 84d39997331d86780000000000000000000000ffffffff

    smap_load.config src=const+0x0 dst=smap+0x1 run_bytes=6
    smap_upd.config tile_n=11 tiles=1 src=tile0+0x0 run_bytes=11 reps1=1 reps2=1 dst_st2=4 smap=2
    smap_upd.config tile_n=11 tiles=1 src=tile0+0x0 run_bytes=11 reps1=1 reps2=1 dst_st2=4 smap=2
    smap_upd.config dtype=float32 tile_n=4 tiles=2 src=tile0+0x40 run_bytes=32 reps1=1 reps2=1 dst_st2=2 smap=8
    smap_upd.config dtype=float16 tile_n=10 tiles=1 src=tile0+0x80 run_bytes=20 reps1=1 reps2=1 dst_st2=1 smap=16
    smap_upd.config dtype=bfloat16 tile_n=10 tiles=1 src=tile0+0xc0 run_bytes=20 reps1=1 reps2=1 dst_st2=1 smap=30
    smap_upd.config tile_n=4 tiles=1 src=tile0+0x0 run_bytes=4 reps1=1 reps2=1 dst_st2=4 smap=50
    send.config scored codec=bitmask k=4 tile_n=11 tiles=1 src=tile0+0x0 dst=link+0x0 run_bytes=11 reps1=1 reps2=1 dst_st1=32 dst_st2=4 smap=2
    recv.config codec=bitmask k=4 tile_n=11 tiles=1 src=link+0x0 dst=tile1+0x0 run_bytes=11 reps1=1 reps2=1 src_st1=32
    smap_upd.config dtype=float16 tile_n=4 tiles=1 src=tile0+0x100 run_bytes=8 reps1=1 reps2=1 dst_st2=1 smap=51
    copy.config src=tile1+0x40 dst=tile0+0x100 run_bytes=8 reps1=1 reps2=1
    smap_upd.config dtype=float16 tile_n=4 tiles=1 src=tile0+0x100 run_bytes=8 reps1=1 reps2=1 dst_st2=1 smap=51
    smap_load.config src=const+0x1 dst=smap+0x34 run_bytes=1
    smap_upd.config dtype=float16 tile_n=4 tiles=1 src=tile0+0x108 run_bytes=8 reps1=1 reps2=1 dst_st2=1 smap=51
    end.config
