.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {}
.cfg 0x504 = 0x3000
.cfg 0x514 = 0x6

    send.config dtype=float16 codec=bitmask k=5 tile_n=16 tiles=2 src=tile0+0x64 dst=link+0x0 run_bytes=8 reps1=4 reps2=2 src_st1=-32 dst_st1=96 src_st2=8 fill=15360
    recv.config dtype=float16 codec=bitmask k=5 tile_n=16 tiles=2 src=link+0x0 dst=tile1+0x0 run_bytes=8 reps1=8 reps2=1 src_st1=96 dst_st1=24 fill=15360
    end.config
