"""The table of sizes that each kernel reads, and what its units are. Shapes and words as in spec.py."""

from __future__ import annotations

import struct
from typing import NamedTuple


def float_bits(value: float) -> int:
    """The bits of a float32 as an int32, the way a table of sizes carries one."""
    return int(struct.unpack("<i", struct.pack("<f", value))[0])


class MatmulParameters(NamedTuple):
    """Sizes of `Spmm` and `Dense`.

    Unit u is (tile = u // chunks, chunk = u % chunks): the lanes of one tile for one chunk of the block rows, that is
    block rows [chunk * block_rows // chunks, (chunk + 1) * block_rows // chunks). Units = tiles * chunks.
    Tile t reads x from x_base + t * x_tile and writes y from y_base + t * y_tile, one row every y_pitch; z likewise,
    one row every z_pitch. The last three are read where y is a frame; y is then the first pixel of copy 0.
    """

    block_rows: int  # ceil(rows / spec.block_rows)
    rows: int  # output channels; the last block row may be ragged
    columns: int  # `Dense`: entries of the column table = columns of the matrix; `Spmm`: not read
    chunks: int  # parts of the block rows, 1 .. block_rows
    unit: int  # elements per step of a column index
    x_base: int
    x_tile: int
    y_base: int
    y_tile: int
    y_pitch: int  # elements between two output channels
    z_pitch: int
    copy_pitch: int = 0  # elements between two copies of a frame
    width: int = 0  # of a row of pixels
    lanes: int = 0  # pixels, at most 4 million; the last tile writes zeros beyond them
    slices: int = 1  # a sliced `Spmm`: at least 2; others: not read


class VectorParameters(NamedTuple):
    """Sizes of `Spmv`, `SpmvSell` and `Gemv`. Unit u is chunk u of the block rows, as in `MatmulParameters`.

    Units = chunks.
    """

    block_rows: int  # ceil(rows / spec.block_rows); `SpmvSell`: groups; `Gemv`: rows
    rows: int
    columns: int  # `Gemv`: length of x; others: not read
    chunks: int
    unit: int  # `Spmv`: elements per step of a column index; others: not read, x is contiguous


class ShiftParameters(NamedTuple):
    """Sizes of `Shift`. Unit u is plane u = (kx * parities + parity) * channels + channel of y.

    Units = kernel_width * parities * channels.
    """

    channels: int
    height: int  # of x, pixels
    width: int
    x_pitch: int  # elements between two channels of x (rows within one are contiguous)
    kernel_width: int
    parities: int  # min(kernel_height, stride_y / gcd(stride_y, dilation_y)); kernel row ky uses number ky % parities
    out_rows: int  # HR, rows of one plane of y: output height + the largest a used
    out_width: int  # OW, also the length of a row of y
    stride_y: int
    stride_x: int
    dilation_y: int
    dilation_x: int
    pad_top: int
    pad_left: int


class WindowParameters(NamedTuple):
    """Sizes of `Window`. Unit u is output channel u; units = out_channels."""

    channels: int  # of x
    height: int
    width: int
    x_pitch: int
    out_channels: int
    out_height: int
    out_width: int
    y_pitch: int
    start_channel: int  # may be negative: zero padding
    start_row: int
    start_column: int
    step_channel: int  # >= 1
    step_row: int
    step_column: int


class PoolParameters(NamedTuple):
    """Sizes of `MaxPool` and `AveragePool`. Unit u is channel u; units = channels."""

    height: int
    width: int
    x_pitch: int
    out_height: int
    out_width: int
    y_pitch: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    pad_top: int
    pad_left: int
    count_padding: int  # 1: an average divides by the whole window, 0: by its part inside x


class GlobalAverageParameters(NamedTuple):
    """Sizes of `GlobalAverage`. Unit u is channel u; units = channels."""

    lanes: int  # elements averaged per channel
    x_pitch: int
    y_pitch: int  # 1 for a vector


class LayerNormParameters(NamedTuple):
    """Sizes of `LayerNorm`. Unit u is vector u of the lanes; units = pitch / 16."""

    channels: int
    pitch: int  # of x and y, a multiple of 16
    epsilon_bits: int  # the float32 epsilon reinterpreted as int32: see `float_bits`


class VectorNormParameters(NamedTuple):
    """Sizes of `VectorNorm`. One unit."""

    channels: int
    epsilon_bits: int  # as in `LayerNormParameters`


class ElementwiseParameters(NamedTuple):
    """Sizes of `Elementwise`. Unit u is elements [u * block, min((u + 1) * block, elements))."""

    elements: int  # channels * pitch: padding lanes are computed along
    block: int  # a multiple of 16; 1024 .. 4096 are good


class TokensParameters(NamedTuple):
    """Sizes of `LoadTokens` and `StoreTokens`. Unit u is lane u = token u of the panel; units = valid lanes."""

    features: int
    pitch: int  # lanes of a panel, NT; a multiple of 16


class AttentionParameters(NamedTuple):
    """Sizes of `Attention`. Unit u is block u % blocks of QUERY_LANES queries of head u // blocks.

    Units = heads * blocks.
    """

    queries: int
    keys: int
    heads: int
    blocks: int  # ceil(queries / QUERY_LANES)
    scale_bits: int  # the float32 factor of scores, as in `LayerNormParameters`


Parameters = (
    MatmulParameters
    | VectorParameters
    | ShiftParameters
    | WindowParameters
    | PoolParameters
    | GlobalAverageParameters
    | LayerNormParameters
    | VectorNormParameters
    | ElementwiseParameters
    | TokensParameters
    | AttentionParameters
)
