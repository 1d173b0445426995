.target scu-v1 3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc
.meta {}
.const ade972d6d7cd2fb3cb6cf440db51f9e428c42f93a4704e22bb2d95a01b5b3908
.const 4d4b92c0d87f74064ed216cde74e4284c2facdab560bcad06d637aaf9184e7aa
.const c7c1f26dd2e7b4fc685e93d05b348da46b95cb76c4cd3c0fbb823df77c6a249d
.kernel copy_add_i8 dtype=int8 m=64 n=1 k=0 input_bytes=64 output_bytes=64 operands=tile1+0x40:64

    compute.link src=const+0x20 dst=tile1+0x0
    end.config
