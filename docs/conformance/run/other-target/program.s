.target conformance-small bb122434fa73fb087ada31de1607c086054de56d9a12f0037ecbd0b05b28ea87
.meta {}
.cfg 0x600 = 0x7

    send.out rel=3+1 codec=index k=75 tile_n=300 tiles=1 src=tile0+0x0 dst=link+0x0 run_bytes=300 reps1=1 reps2=1 dst_st1=192
    recv.in acq=3>=1 codec=index k=75 tile_n=300 tiles=1 src=link+0x0 dst=tile1+0x0 run_bytes=300 reps1=1 reps2=1 src_st1=192
    end.config
