"""Kernels of a compute tile written by hand: convolution, linear layer and attention, because their loops matter, and
the way to int8 and back, because their rounding does.

Every one is an S-TIR function with fixed sizes, of float32 but for int8. Its parameters are the tensors in the order of
the op's arguments, then the result. Innermost loops run over neighbouring outputs, never over a sum, so that a C
compiler vectorises them without changing the order of any addition; the order is said with each kernel.

Letters: B batch, C input channels of a group, F filters, H W input, Y X output, M rows, N columns, K inner size,
L queries, S keys, E size of a head.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from sparsecc.contracts.int8 import GREATEST, LEAST

from .kernels.script import UNBOUNDED, Array, Expr, IRBuilder, T, loop, when

LINEAR_COLUMNS = 16  # of the weight packed at once: 4 vectors of SSE, the least that x86-64 has
LINEAR_DEPTH = 64  # with LINEAR_COLUMNS 4 KiB of packed weight: stays in the first-level cache


class Convolution(NamedTuple):
    """Sizes of `conv2d`; pairs are (vertical, horizontal)."""

    batch: int
    channels: int  # of the input, all groups
    height: int
    width: int
    filters: int
    kernel: tuple[int, int]
    output: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


class Attention(NamedTuple):
    """Sizes of `attention`: ``batch`` of all leading axes of the queries, the last of which is ``heads``."""

    batch: int
    heads: int
    key_heads: int
    queries: int
    keys: int
    head_elems: int
    value_elems: int
    scale: float
    causal: bool
    mask_dtype: str  # "" without a mask
    leading: tuple[int, ...]  # the axes that ``batch`` folds
    mask_strides: tuple[int, ...]  # elements, of `leading`, queries and keys; 0 where the mask is broadcast


def function(dtypes: Sequence[str], body: Callable[[Sequence[Array]], None]) -> Any:
    """The PrimFunc of one parameter per dtype that ``body`` writes."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name("kernel")
            pointers = [T.arg(f"p{i}", T.handle(dtype)) for i, dtype in enumerate(dtypes)]
            body(
                [
                    Array(T.decl_buffer((UNBOUNDED,), dtype, data=pointer, align=4))
                    for pointer, dtype in zip(pointers, dtypes, strict=True)
                ]
            )
        return builder.get()


def temporary(elems: int) -> Array:
    return Array(T.alloc_buffer((elems,), "float32"))


def copy(dtype: str, elems: int) -> Any:
    """dst = src."""

    def body(arrays: Sequence[Array]) -> None:
        src, dst = arrays
        with loop(0, elems) as i:
            dst[i] = src[i]

    return function([dtype, dtype], body)


def quantise(elems: int, scale: float, zero_point: int) -> Any:
    """float32 -> int8, as sparsecc.contracts.int8 says."""

    def body(arrays: Sequence[Array]) -> None:
        src, dst = arrays
        hidden = temporary(1)  # of a constant, TVM would multiply by the reciprocal
        hidden[0] = T.float32(scale)
        with loop(0, elems) as i:
            number = T.Select(T.isnan(src[i]), T.float32(0), src[i])
            place = T.nearbyint(number / hidden[0]) + T.float32(zero_point)
            dst[i] = T.Cast("int8", T.max(T.min(place, T.float32(GREATEST)), T.float32(LEAST)))

    return function(["float32", "int8"], body)


def dequantise(elems: int, scale: float, zero_point: int) -> Any:
    """int8 -> float32, as sparsecc.contracts.int8 says."""

    def body(arrays: Sequence[Array]) -> None:
        src, dst = arrays
        with loop(0, elems) as i:
            dst[i] = T.Cast("float32", T.Cast("int32", src[i]) - T.int32(zero_point)) * T.float32(scale)

    return function(["int8", "float32"], body)


def conv2d(s: Convolution, *, bias: bool) -> Any:
    """x [B, G C, H, W], w [F, C, KH, KW], bias [F] -> [B, F, Y, X].

    Starts from the bias and adds by channel, kernel row, kernel column; what lies in the padding is left out.
    """
    channels = s.channels // s.groups
    (kernel_height, kernel_width), (height, width) = s.kernel, s.output
    regions = _column_regions(s)

    def body(arrays: Sequence[Array]) -> None:
        x, w, *biases, y = arrays
        with loop(0, s.batch) as b, loop(0, s.filters) as f, loop(0, height) as row:
            out = ((b * s.filters + f) * height + row) * width
            with loop(0, width) as column:
                y[out + column] = biases[0][f] if bias else T.float32(0)
            with loop(0, channels) as c, loop(0, kernel_height) as i:
                group = T.truncdiv(f, s.filters // s.groups) if s.groups > 1 else 0
                source = row * s.stride[0] + i * s.dilation[0] - s.padding[0]
                plane = b * s.channels + group * channels + c
                taps = ((f * channels + c) * kernel_height + i) * kernel_width
                with when(T.And(source >= 0, source < s.height)):
                    line = (plane * s.height + source) * s.width - s.padding[1]
                    for begin, end, columns in regions:
                        with loop(begin, end) as column:
                            total = y[out + column]
                            for j in columns:
                                total = total + w[taps + j] * x[line + column * s.stride[1] + j * s.dilation[1]]
                            y[out + column] = total

    return function(["float32"] * (3 + bias), body)


def _column_regions(s: Convolution) -> list[tuple[int, int, list[int]]]:
    """Runs [begin, end) of output columns that use the same columns of the kernel, those outside the padding."""
    used = [
        [j for j in range(s.kernel[1]) if 0 <= x * s.stride[1] + j * s.dilation[1] - s.padding[1] < s.width]
        for x in range(s.output[1])
    ]
    cuts = [0, *(x for x in range(1, len(used)) if used[x] != used[x - 1]), len(used)]
    return [(begin, end, used[begin]) for begin, end in itertools.pairwise(cuts) if used[begin]]


def linear(rows: int, columns: int, depth: int, *, bias: bool) -> Any:
    """x [M, K], w [N, K], bias [N] -> [M, N].

    Starts from the bias and adds in order of K. The weight is packed in blocks, to be read along N.
    """

    def body(arrays: Sequence[Array]) -> None:
        x, w, *biases, y = arrays
        for first, count, width in _blocks(columns, LINEAR_COLUMNS):
            with loop(0, count) as block:
                column = first + block * width
                with loop(0, rows) as i, loop(0, width) as j:
                    y[i * columns + column + j] = biases[0][column + j] if bias else T.float32(0)
                for start, chunks, length in _blocks(depth, LINEAR_DEPTH):
                    with loop(0, chunks) as chunk:
                        add_block(x, w, y, column, width, start + chunk * length, length)

    def add_block(x: Array, w: Array, y: Array, column: Expr, width: int, start: Expr, length: int) -> None:
        packed, sums = temporary(length * width), temporary(width)
        with loop(0, width) as j, loop(0, length) as k:
            packed[k * width + j] = w[(column + j) * depth + start + k]
        with loop(0, rows) as i:
            with loop(0, width) as j:
                sums[j] = y[i * columns + column + j]
            with loop(0, length) as k, loop(0, width) as j:
                sums[j] = sums[j] + x[i * depth + start + k] * packed[k * width + j]
            with loop(0, width) as j:
                y[i * columns + column + j] = sums[j]

    return function(["float32"] * (3 + bias), body)


def _blocks(elems: int, block: int) -> list[tuple[int, int, int]]:
    """(first element, number of blocks, elements of a block): the whole blocks, then what is left."""
    whole, rest = divmod(elems, block)
    return [b for b in ((0, whole, block), (whole * block, int(rest > 0), rest)) if b[1]]


def attention(s: Attention) -> Any:
    """q [B, L, E], k [B', S, E], v [B', S, V], mask -> softmax(q k^T scale + mask) v; a row all masked gives zeros.

    Sums in order of E, of S (the softmax), and of S (the values).
    """
    shared = s.heads // s.key_heads

    def body(arrays: Sequence[Array]) -> None:
        q, k, v, *masks, y = arrays
        scores, largest, total = temporary(s.keys), temporary(1), temporary(1)
        with loop(0, s.batch) as b, loop(0, s.queries) as i:
            row = b * s.queries + i
            keys = T.min(i + 1, s.keys) if s.causal else s.keys
            sample, head = T.truncdiv(b, s.heads), T.truncmod(b, s.heads)
            first_key = (sample * s.key_heads + T.truncdiv(head, shared)) * s.keys
            with loop(0, keys) as j:
                scores[j] = T.float32(0)
            with loop(0, s.head_elems) as e, loop(0, keys) as j:
                scores[j] = scores[j] + q[row * s.head_elems + e] * k[(first_key + j) * s.head_elems + e]
            largest[0] = -T.infinity("float32")
            with loop(0, keys) as j:
                scores[j] = masked(scores[j] * T.float32(s.scale), masks, b, i, j)
                largest[0] = T.max(largest[0], scores[j])
            total[0] = T.float32(0)
            with when(largest[0] > -T.infinity("float32")), loop(0, keys) as j:
                scores[j] = T.exp(scores[j] - largest[0])
                total[0] = total[0] + scores[j]
            with loop(0, s.value_elems) as e:
                y[row * s.value_elems + e] = T.float32(0)
            with when(total[0] > T.float32(0)), loop(0, keys) as j:
                scores[j] = scores[j] / total[0]
                with loop(0, s.value_elems) as e:
                    y[row * s.value_elems + e] = (
                        y[row * s.value_elems + e] + scores[j] * v[(first_key + j) * s.value_elems + e]
                    )

    def masked(score: Expr, masks: Sequence[Array], b: Expr, i: Expr, j: Expr) -> Expr:
        if not masks:
            return score
        *strides, query_stride, key_stride = s.mask_strides
        place = i * query_stride + j * key_stride
        for axis, stride in enumerate(strides):
            inner = math.prod(s.leading[axis + 1 :])
            place = place + T.truncmod(T.truncdiv(b, inner), s.leading[axis]) * stride
        if s.mask_dtype == "bool":
            return T.Select(masks[0][place], score, -T.infinity("float32"))
        return score + masks[0][place]

    dtypes = ["float32"] * 3 + ([s.mask_dtype] if s.mask_dtype else []) + ["float32"]
    return function(dtypes, body)


def mask_strides(mask: Sequence[int], leading: Sequence[int], queries: int, keys: int) -> tuple[int, ...]:
    """The strides in elements of a contiguous mask that is broadcast to [*leading, queries, keys]."""
    return torch.empty(tuple(mask), device="meta").expand(*leading, queries, keys).stride()
