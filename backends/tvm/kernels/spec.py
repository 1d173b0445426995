"""Which kernels exist and what each computes; parameters.py has the sizes each reads. Imports nothing of TVM.

Every kernel is one C function::

    void k(const float *x, float *y, const float *z, const int32_t *rows, const void *cols, const float *values,
           const float *bias, const int32_t *p, int32_t begin, int32_t end);

``p`` is the kernel's ``parameters`` tuple as int32; pointers that a kernel does not name below are never read.
``begin .. end`` are *units*: any split of [0, units) over calls, in any order or at once, gives the same result.

Shapes and units used throughout:
    elements      one float32; every offset, pitch and step below counts elements
    vector        16 lanes (one AVX-512 register, two AVX2 registers)
    value         a matrix [channels][pitch]; the first ``lanes`` of every row are real, the rest is garbage
    frame         a value as 3x3 convolutions read it: three copies [3][channels][rows][width], in copy s every pixel is
                  1 - s columns to the right of its place, and zeros surround the image: one row above, the rest below
    over-reaching a kernel so marked reads and writes whole vectors: its x, y and z need rows of whole vectors or slack
                  behind them; all others touch exactly the elements they name and may work on a user's tensor
    in place      y may be the memory of another operand of the same layout: see `in_place`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from .parameters import (
    AttentionParameters,
    ElementwiseParameters,
    GlobalAverageParameters,
    LayerNormParameters,
    MatmulParameters,
    PoolParameters,
    ShiftParameters,
    TokensParameters,
    VectorNormParameters,
    VectorParameters,
    WindowParameters,
)

Function = Literal["none", "relu", "gelu", "gelu_tanh"]
Index = Literal["uint16", "int32"]
Isa = Literal["avx2", "avx512"]

VECTOR_LANES = 16
WINDOW_ELEMS = 32  # of x that one step of a `SpmvSell` sees: two AVX-512 registers
COPIES = 3  # of a frame
QUERY_LANES = 32  # queries that `Attention` takes at once


@dataclass(frozen=True)
class Epilogue:
    """What happens to a sum before it is written: first ``+ z`` (z has y's layout), then the function."""

    function: Function = "none"
    add: bool = False

    def __str__(self) -> str:
        return "_".join(["add"] * self.add + [self.function] * (self.function != "none")) or "plain"


def _written(spec: Spmm | Dense) -> str:
    return str(spec.epilogue) + ("" if spec.frame_width is None else f"_frame{spec.frame_width or ''}")


@dataclass(frozen=True)
class Spmm:
    """y[m, t] = epilogue(bias[m] + sum_q values[q] * x[cols[q] * unit + t]): sparse times [columns][lanes].

    values [blocks, block_rows, block_cols], rows [block_rows of the matrix + 1], cols [blocks * block_cols]: one entry
    per column of a block. Values of the missing rows of a ragged last block row are ignored. bias [rows].
    One tile is ``vectors`` vectors of lanes. Over-reaching.
    ``frame_width`` is None where y is a plain value. Else y is a frame whose zeros stand already, and the function none
    or relu. Not 0: the width of its rows, a divisor or a multiple of 16, where every tile is whole rows and no more.

    ``sliced``: one slice of the columns after the other, so that the part of x that a slice reads stays in the
    first-level cache; the sums wait in y meanwhile (of a frame: in the middle copy), which must not be z. Every slice
    has the block rows in an order of its own, which keeps each in its chunk: rows [2 * slices * block_rows + 1] are the
    first block of each part (slice, place), the end, and then the block row of each part. Blocks are in the order in
    which they are read.
    """

    block_rows: int = 1
    block_cols: int = 1
    vectors: int = 4
    index: Index = "uint16"
    epilogue: Epilogue = field(default_factory=Epilogue)
    frame_width: int | None = None
    sliced: bool = False
    parameters: ClassVar[type[MatmulParameters]] = MatmulParameters

    @property
    def symbol(self) -> str:
        sliced = "_sliced" * self.sliced
        return f"spmm_{self.block_rows}x{self.block_cols}_v{self.vectors}{sliced}_{self.index}_{_written(self)}"


@dataclass(frozen=True)
class Dense:
    """`Spmm` with a row-major dense matrix: values [rows, columns] and one table cols [columns] for all rows.

    ``block_rows`` is the number of rows computed at once; any value is right for any matrix. Over-reaching.
    """

    block_rows: int = 6
    vectors: int = 4
    index: Index = "uint16"
    epilogue: Epilogue = field(default_factory=Epilogue)
    frame_width: int | None = None
    parameters: ClassVar[type[MatmulParameters]] = MatmulParameters

    @property
    def symbol(self) -> str:
        return f"dense_{self.block_rows}_v{self.vectors}_{self.index}_{_written(self)}"


@dataclass(frozen=True)
class Spmv:
    """`Spmm` for one lane: y[m] = epilogue(bias[m] + sum_q values[q] * x[cols[q] * unit]); y, z and bias [rows]."""

    block_rows: int = 1
    block_cols: int = 1
    index: Index = "uint16"
    epilogue: Epilogue = field(default_factory=Epilogue)
    parameters: ClassVar[type[VectorParameters]] = VectorParameters

    @property
    def symbol(self) -> str:
        return f"spmv_{self.block_rows}x{self.block_cols}_{self.index}_{self.epilogue}"


@dataclass(frozen=True)
class SpmvSell:
    """`Spmv` in sliced ELLPACK: a step takes at most one non-zero of each of 16 rows, all in a window of 32 columns.

    Rows 16 * g and following are group g. values [steps, 16], 0 where a row has none; cols [steps, 16] of uint8: the
    place in the window. rows [groups + 1 + steps]: the first step of each group and the end, then the first column of
    each step's window, which lies inside x: x has at least 32 elements. x is contiguous.
    """

    epilogue: Epilogue = field(default_factory=Epilogue)
    parameters: ClassVar[type[VectorParameters]] = VectorParameters

    @property
    def symbol(self) -> str:
        return f"spmv_sell_{self.epilogue}"


@dataclass(frozen=True)
class Gemv:
    """y[m] = epilogue(bias[m] + sum_k values[m, k] * x[k]); values [rows, columns] row-major, x [columns]."""

    epilogue: Epilogue = field(default_factory=Epilogue)
    parameters: ClassVar[type[VectorParameters]] = VectorParameters

    @property
    def symbol(self) -> str:
        return f"gemv_{self.epilogue}"


@dataclass(frozen=True)
class Shift:
    """Prepare a convolution's input so that every kernel element reads a contiguous stream of output pixels.

    y[kx, i, c, r, ox] = x[c, r * stride_y + (i * dilation_y) % stride_y - pad_top, ox * stride_x + kx * dilation_x
    - pad_left], 0 outside x; shape [kernel_width, parities, channels, out_rows, out_width], contiguous. The column
    index of kernel element (c, ky, kx), in units of out_width, is ((kx * parities + i) * channels + c) * out_rows + a
    with i = ky % parities and a = (ky * dilation_y) // stride_y.
    """

    parameters: ClassVar[type[ShiftParameters]] = ShiftParameters
    symbol: ClassVar[str] = "shift"


@dataclass(frozen=True)
class Window:
    """y[c, h, w] = x[start + step * (c, h, w)] per axis, 0 outside x: slices, zero padding, copies between pitches.

    Contiguous rows are fastest: copy a vector as one channel of one row, a compact matrix likewise.
    """

    parameters: ClassVar[type[WindowParameters]] = WindowParameters
    symbol: ClassVar[str] = "window"


@dataclass(frozen=True)
class MaxPool:
    """The maximum over windows of x; pixels outside x do not take part."""

    parameters: ClassVar[type[PoolParameters]] = PoolParameters
    symbol: ClassVar[str] = "max_pool"


@dataclass(frozen=True)
class AveragePool:
    """The average over windows of x, pixels outside x being 0."""

    parameters: ClassVar[type[PoolParameters]] = PoolParameters
    symbol: ClassVar[str] = "average_pool"


@dataclass(frozen=True)
class GlobalAverage:
    """The average over all lanes of a channel: `AveragePool` with one window, faster."""

    parameters: ClassVar[type[GlobalAverageParameters]] = GlobalAverageParameters
    symbol: ClassVar[str] = "global_average"


@dataclass(frozen=True)
class LayerNorm:
    """y[c, t] = (x[c, t] - mean_t) / sqrt(variance_t + epsilon) * values[c] + bias[c], statistics over channels.

    Computes all lanes of a panel, also its padding.
    """

    parameters: ClassVar[type[LayerNormParameters]] = LayerNormParameters
    symbol: ClassVar[str] = "layer_norm"


@dataclass(frozen=True)
class VectorNorm:
    """`LayerNorm` of one lane: x, y, values and bias [channels]."""

    parameters: ClassVar[type[VectorNormParameters]] = VectorNormParameters
    symbol: ClassVar[str] = "vector_norm"


@dataclass(frozen=True)
class Elementwise:
    """y = epilogue(x): an activation, or an addition ``x + z`` with one."""

    epilogue: Epilogue
    parameters: ClassVar[type[ElementwiseParameters]] = ElementwiseParameters

    @property
    def symbol(self) -> str:
        return f"elementwise_{self.epilogue}"


@dataclass(frozen=True)
class LoadTokens:
    """Panel from rows: y[f, t] = x[t, f] for the tokens t = begin .. end of x [tokens, features], row-major."""

    parameters: ClassVar[type[TokensParameters]] = TokensParameters
    symbol: ClassVar[str] = "load_tokens"


@dataclass(frozen=True)
class StoreTokens:
    """Rows from a panel: y[t, f] = x[f, t] for the tokens t = begin .. end of y [tokens, features], row-major."""

    parameters: ClassVar[type[TokensParameters]] = TokensParameters
    symbol: ClassVar[str] = "store_tokens"


@dataclass(frozen=True)
class Attention:
    """y[i] = sum_j softmax_j(scale * x[i] . z[j] + bias[j, i]) values[j], per head: rows of tokens, as users have them.

    x and y [queries, heads * head_size], z and values [keys, heads * head_size], head after head in a row; bias
    [keys, queries] is a mask to add, read where ``masked``: -inf leaves a key out, and a query without any key gets 0.
    """

    head_size: int  # a multiple of 8
    masked: bool
    parameters: ClassVar[type[AttentionParameters]] = AttentionParameters

    @property
    def symbol(self) -> str:
        return f"attention_{self.head_size}{'_masked' * self.masked}"


KernelSpec = (
    Spmm
    | Dense
    | Spmv
    | SpmvSell
    | Gemv
    | Shift
    | Window
    | MaxPool
    | AveragePool
    | GlobalAverage
    | LayerNorm
    | VectorNorm
    | Elementwise
    | LoadTokens
    | StoreTokens
    | Attention
)


def in_place(spec: KernelSpec) -> tuple[Literal["x", "z"], ...]:
    """The operands whose memory y may be, where their layouts are the same."""
    match spec:
        case Spmm(sliced=False) | Dense():
            return ("z",)
        case LayerNorm() | VectorNorm():
            return ("x",)
        case Elementwise():
            return ("x", "z")
        case _:
            return ()


def symbol(spec: KernelSpec, isa: Isa) -> str:
    """The C name of a compiled kernel."""
    return f"{spec.symbol}_{isa}"
