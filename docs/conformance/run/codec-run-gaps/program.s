.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {}
.cfg 0x510 = 0x6

    send.config codec=run k=1 tile_n=61 tiles=1 src=tile0+0x0 dst=link+0x0 run_bytes=61 reps1=1 reps2=1 dst_st1=32
    recv.config codec=run k=1 tile_n=61 tiles=1 src=link+0x0 dst=tile1+0x0 run_bytes=61 reps1=1 reps2=1 src_st1=32
    send.config codec=run k=2 tile_n=61 tiles=1 src=tile0+0x40 dst=link+0x20 run_bytes=61 reps1=1 reps2=1 dst_st1=32
    recv.config codec=run k=2 tile_n=61 tiles=1 src=link+0x20 dst=tile1+0x40 run_bytes=61 reps1=1 reps2=1 src_st1=32
    send.config codec=run k=1 tile_n=61 tiles=1 src=tile0+0x80 dst=link+0x40 run_bytes=61 reps1=1 reps2=1 dst_st1=32
    recv.config codec=run k=1 tile_n=61 tiles=1 src=link+0x40 dst=tile1+0x80 run_bytes=61 reps1=1 reps2=1 src_st1=32
    send.config codec=run k=2 tile_n=61 tiles=1 src=tile0+0xc0 dst=link+0x60 run_bytes=61 reps1=1 reps2=1 dst_st1=32
    recv.config codec=run k=2 tile_n=61 tiles=1 src=link+0x60 dst=tile1+0xc0 run_bytes=61 reps1=1 reps2=1 src_st1=32
    send.config codec=run k=1 tile_n=61 tiles=1 src=tile0+0x100 dst=link+0x80 run_bytes=61 reps1=1 reps2=1 dst_st1=32
    recv.config codec=run k=1 tile_n=61 tiles=1 src=link+0x80 dst=tile1+0x100 run_bytes=61 reps1=1 reps2=1 src_st1=32
    send.config codec=run k=2 tile_n=61 tiles=1 src=tile0+0x140 dst=link+0xa0 run_bytes=61 reps1=1 reps2=1 dst_st1=32
    recv.config codec=run k=2 tile_n=61 tiles=1 src=link+0xa0 dst=tile1+0x140 run_bytes=61 reps1=1 reps2=1 src_st1=32
    end.config
