.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {"model":"every op","share":0.25}
.cfg 0x500 = 0x10
.cfg 0x504 = 0xffffffff
.const 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
.const 2021222324252627
.smap ff8001
.contract k=48 k_lo=32 k_hi=64 period=16 margin_lo=60000 margin_hi=64000
.kernel conv1 dtype=int8 m=64 n=16 k=27 input_bytes=256 output_bytes=1024 operands=const+0x14:12

start:
    cfgw.config src=const+0x0 dst=config+0x510 run_bytes=16
    smap_load.config src=const+0x10 dst=smap+0x0 run_bytes=4
    contract.config rel=1+1 contract=5
    copy.in rel=2+1 src=dram+0x0 dst=tile0+0x0 run_bytes=32 reps1=4 reps2=2 src_st1=64 dst_st1=32 src_st2=256 dst_st2=128 tag=7  ; load the image; two planes
    compute.in acq=2>=1 src=tile0+0x0 dst=tile0+0x100
    nop.in predicated src=tile0+0x500 next=skip
    wait.link acq=1>=1
    send.link scored register codec=bitmask contract=5 k=64 tile_n=256 tiles=4 src=tile0+0x100 dst=link+0x0 run_bytes=1024 reps1=1 reps2=1 dst_st1=128 dst_st2=256
    recv.out codec=bitmask k=64 tile_n=256 tiles=4 src=link+0x0 dst=tile1+0x0 run_bytes=1024 reps1=1 reps2=1 src_st1=128 fill=3
    smap_upd.config tile_n=256 tiles=4 src=tile1+0x0 run_bytes=1024 reps1=1 reps2=1 dst_st2=256
skip:
    signal.out rel=3+2
    fence.out
    end.in  ; done
