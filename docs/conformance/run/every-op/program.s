.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {"layers":[1,null,true],"model":"every op","share":0.25}
.cfg 0x510 = 0x7
.const 07000000ff804001000000000000000000000000000000000000000000000000
.const 0000000000000000000000000000000000000000000000000000000000000000
.const 578bd82644afb13697d31a8a32ecbbb08cc79316e9d67da88da3bd7c8c3d82cd
.const 3b0b60d118606064c627d70af2a4d68193c5aeedfe97ed381b1e8e05f0b8949f
.smap 0102
.contract k=12 k_lo=8 k_hi=16 period=16 margin_lo=60000 margin_hi=64000
.kernel copy_add_i8 dtype=int8 m=64 n=1 k=0 input_bytes=64 output_bytes=64 operands=const+0x40:64

start:
    cfgw.config src=const+0x0 dst=config+0x500 run_bytes=4 tag=1
    smap_load.config src=const+0x4 dst=smap+0x8 run_bytes=4
    contract.config rel=1+1 contract=5
    copy.in rel=2+1 src=dram+0x0 dst=tile0+0x0 run_bytes=16 reps1=4 reps2=1 src_st1=32 dst_st1=16  ; four rows; every second one
    compute.link acq=2>=1 rel=3+1 src=tile0+0x0 dst=tile0+0x40
    nop.out tag=65535
    wait.out acq=1>=1
    send.out scored register acq=3>=1 rel=4+1 codec=bitmask contract=5 k=16 tile_n=64 tiles=1 src=tile0+0x40 dst=link+0x0 run_bytes=64 reps1=1 reps2=1 dst_st1=64 dst_st2=16 smap=8 fill=7
    recv.in acq=4>=1 codec=bitmask k=16 tile_n=64 tiles=1 src=link+0x0 dst=tile1+0x0 run_bytes=64 reps1=1 reps2=1 src_st1=64 fill=7
    fence.config
skip:
    smap_upd.config tile_n=64 tiles=1 src=tile1+0x0 run_bytes=64 reps1=1 reps2=1 dst_st2=16 smap=8
    signal.in rel=31+2
done:
    end.config  ; the last
