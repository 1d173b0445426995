"""From a kernel's identity to its S-TIR function."""

from __future__ import annotations

from typing import Any

from .attention import attention
from .elementwise import elementwise
from .planes import shift, window
from .pools import global_average, pool
from .script import RegisterFile
from .spec import (
    Attention,
    AveragePool,
    Dense,
    Elementwise,
    Gemv,
    GlobalAverage,
    KernelSpec,
    LayerNorm,
    LoadTokens,
    MaxPool,
    Shift,
    Spmm,
    Spmv,
    SpmvSell,
    StoreTokens,
    VectorNorm,
    Window,
)
from .spmm import dense, spmm
from .spmv import gemv, spmv, spmv_sell
from .tokens import layer_norm, load_tokens, store_tokens, vector_norm


def source(spec: KernelSpec, file: RegisterFile) -> Any:
    """The PrimFunc of a kernel for a target with these registers."""
    match spec:
        case Spmm():
            return spmm(spec, file)
        case Dense():
            return dense(spec, file)
        case Spmv():
            return spmv(spec)
        case SpmvSell():
            return spmv_sell(spec, file)
        case Gemv():
            return gemv(spec)
        case Shift():
            return shift(spec)
        case Window():
            return window(spec)
        case MaxPool() | AveragePool():
            return pool(spec)
        case GlobalAverage():
            return global_average(spec)
        case Elementwise():
            return elementwise(spec)
        case LoadTokens():
            return load_tokens(spec, file)
        case StoreTokens():
            return store_tokens(spec, file)
        case LayerNorm():
            return layer_norm(spec)
        case VectorNorm():
            return vector_norm(spec)
        case Attention():
            return attention(spec, file)
