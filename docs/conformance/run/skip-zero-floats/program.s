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

    send.config skip_zero dtype=float16 codec=bitmask k=10 tile_n=10 tiles=1 src=tile0+0x0 dst=link+0x0 run_bytes=20 reps1=1 reps2=1 dst_st1=64
    recv.config dtype=float16 codec=bitmask k=10 tile_n=10 tiles=1 src=link+0x0 dst=tile1+0x0 run_bytes=20 reps1=1 reps2=1 src_st1=64
    send.config skip_zero dtype=float16 codec=bitmask k=10 tile_n=10 tiles=1 src=tile0+0x40 dst=link+0x40 run_bytes=20 reps1=1 reps2=1 dst_st1=64 fill=32768
    recv.config dtype=float16 codec=bitmask k=10 tile_n=10 tiles=1 src=link+0x40 dst=tile1+0x40 run_bytes=20 reps1=1 reps2=1 src_st1=64 fill=32768
    send.config skip_zero dtype=float16 codec=bitmask k=10 tile_n=10 tiles=1 src=tile0+0x80 dst=link+0x80 run_bytes=20 reps1=1 reps2=1 dst_st1=64 fill=32256
    recv.config dtype=float16 codec=bitmask k=10 tile_n=10 tiles=1 src=link+0x80 dst=tile1+0x80 run_bytes=20 reps1=1 reps2=1 src_st1=64 fill=32256
    send.config skip_zero dtype=float16 k=10 tile_n=10 tiles=1 src=tile0+0xc0 dst=link+0xc0 run_bytes=20 reps1=1 reps2=1 dst_st1=64 fill=32768
    recv.config dtype=float16 k=10 tile_n=10 tiles=1 src=link+0xc0 dst=tile1+0xc0 run_bytes=20 reps1=1 reps2=1 src_st1=64 fill=32768
    send.config skip_zero dtype=bfloat16 codec=bitmask k=10 tile_n=10 tiles=1 src=tile0+0x100 dst=link+0x100 run_bytes=20 reps1=1 reps2=1 dst_st1=64
    recv.config dtype=bfloat16 codec=bitmask k=10 tile_n=10 tiles=1 src=link+0x100 dst=tile1+0x100 run_bytes=20 reps1=1 reps2=1 src_st1=64
    send.config skip_zero dtype=bfloat16 codec=bitmask k=10 tile_n=10 tiles=1 src=tile0+0x140 dst=link+0x140 run_bytes=20 reps1=1 reps2=1 dst_st1=64 fill=32768
    recv.config dtype=bfloat16 codec=bitmask k=10 tile_n=10 tiles=1 src=link+0x140 dst=tile1+0x140 run_bytes=20 reps1=1 reps2=1 src_st1=64 fill=32768
    send.config skip_zero dtype=bfloat16 codec=bitmask k=10 tile_n=10 tiles=1 src=tile0+0x180 dst=link+0x180 run_bytes=20 reps1=1 reps2=1 dst_st1=64 fill=32704
    recv.config dtype=bfloat16 codec=bitmask k=10 tile_n=10 tiles=1 src=link+0x180 dst=tile1+0x180 run_bytes=20 reps1=1 reps2=1 src_st1=64 fill=32704
    send.config skip_zero dtype=bfloat16 k=10 tile_n=10 tiles=1 src=tile0+0x1c0 dst=link+0x1c0 run_bytes=20 reps1=1 reps2=1 dst_st1=64 fill=32768
    recv.config dtype=bfloat16 k=10 tile_n=10 tiles=1 src=link+0x1c0 dst=tile1+0x1c0 run_bytes=20 reps1=1 reps2=1 src_st1=64 fill=32768
    send.config skip_zero dtype=float32 codec=bitmask k=10 tile_n=10 tiles=1 src=tile0+0x200 dst=link+0x200 run_bytes=40 reps1=1 reps2=1 dst_st1=64
    recv.config dtype=float32 codec=bitmask k=10 tile_n=10 tiles=1 src=link+0x200 dst=tile1+0x200 run_bytes=40 reps1=1 reps2=1 src_st1=64
    send.config skip_zero dtype=float32 codec=bitmask k=10 tile_n=10 tiles=1 src=tile0+0x240 dst=link+0x240 run_bytes=40 reps1=1 reps2=1 dst_st1=64 fill=32768
    recv.config dtype=float32 codec=bitmask k=10 tile_n=10 tiles=1 src=link+0x240 dst=tile1+0x240 run_bytes=40 reps1=1 reps2=1 src_st1=64 fill=32768
    send.config skip_zero dtype=float32 codec=bitmask k=10 tile_n=10 tiles=1 src=tile0+0x280 dst=link+0x280 run_bytes=40 reps1=1 reps2=1 dst_st1=64 fill=32704
    recv.config dtype=float32 codec=bitmask k=10 tile_n=10 tiles=1 src=link+0x280 dst=tile1+0x280 run_bytes=40 reps1=1 reps2=1 src_st1=64 fill=32704
    send.config skip_zero dtype=float32 k=10 tile_n=10 tiles=1 src=tile0+0x2c0 dst=link+0x2c0 run_bytes=40 reps1=1 reps2=1 dst_st1=64 fill=32768
    recv.config dtype=float32 k=10 tile_n=10 tiles=1 src=link+0x2c0 dst=tile1+0x2c0 run_bytes=40 reps1=1 reps2=1 src_st1=64 fill=32768
    end.config
