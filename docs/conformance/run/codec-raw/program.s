.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {}
.cfg 0x500 = 0x0
.cfg 0x504 = 0x3000
.cfg 0x508 = 0x3d00
.cfg 0x50c = 0x3d00
.cfg 0x510 = 0x7
.cfg 0x514 = 0x6
.cfg 0x518 = 0x3
.cfg 0x51c = 0x3

    send.config k=25 tile_n=25 tiles=2 src=tile0+0x0 dst=link+0x0 run_bytes=50 reps1=1 reps2=1 dst_st1=64
    recv.config k=25 tile_n=25 tiles=2 src=link+0x0 dst=tile1+0x0 run_bytes=50 reps1=1 reps2=1 src_st1=64
    send.config dtype=float16 k=25 tile_n=25 tiles=2 src=tile0+0x40 dst=link+0x80 run_bytes=100 reps1=1 reps2=1 dst_st1=96
    recv.config dtype=float16 k=25 tile_n=25 tiles=2 src=link+0x80 dst=tile1+0x40 run_bytes=100 reps1=1 reps2=1 src_st1=96
    send.config dtype=bfloat16 k=25 tile_n=25 tiles=2 src=tile0+0xc0 dst=link+0x140 run_bytes=100 reps1=1 reps2=1 dst_st1=96
    recv.config dtype=bfloat16 k=25 tile_n=25 tiles=2 src=link+0x140 dst=tile1+0xc0 run_bytes=100 reps1=1 reps2=1 src_st1=96
    send.config dtype=float32 k=25 tile_n=25 tiles=2 src=tile0+0x140 dst=link+0x200 run_bytes=200 reps1=1 reps2=1 dst_st1=128
    recv.config dtype=float32 k=25 tile_n=25 tiles=2 src=link+0x200 dst=tile1+0x140 run_bytes=200 reps1=1 reps2=1 src_st1=128
    end.config
