.target conformance-small b5e3b16da897a4e610c0901c650fc4ed4329dbe2c8fa3d1cd906db420b666028
.meta {}
.cfg 0x600 = 0x7

    send.out rel=3+1 codec=index k=50 tile_n=200 tiles=1 src=tile0+0x0 dst=link+0x0 run_bytes=200 reps1=1 reps2=1 dst_st1=128
    recv.in acq=3>=1 codec=index k=50 tile_n=200 tiles=1 src=link+0x0 dst=tile1+0x0 run_bytes=200 reps1=1 reps2=1 src_st1=128
    end.config
