"""Matrix times one vector: a fully connected layer of one sample."""

from __future__ import annotations

from typing import Any

from .math import apply
from .script import Arguments, Expr, T, broadcast, divide, function, let, loop, reduce_lanes, registers, when
from .spec import VECTOR_LANES, Epilogue, Gemv, Spmv, VectorParameters
from .spmm import chunk_of

INDEPENDENT_SUMS = 4  # hide the latency of a multiply-add (4 cycles on Zen 4 and Skylake-X)


def spmv(spec: Spmv) -> Any:
    height, width = spec.block_rows, spec.block_cols
    blocks = max(1, INDEPENDENT_SUMS // height)  # blocks added at once, each to sums of its own

    def body(a: Arguments, p: VectorParameters) -> None:
        with loop(a.begin, a.end) as chunk, loop(*chunk_of(p, chunk)) as block:
            sums = registers(blocks * height, lanes=1)
            for i in range(blocks * height):
                sums[i] = T.float32(0)
            first, count = let(a.rows[block]), let(a.rows[block + 1] - a.rows[block])
            with loop(0, divide(count, blocks)) as group:
                for n in range(blocks):
                    add_block(a, p, sums, n * height, first + group * blocks + n)
            if blocks > 1:
                with loop(first + divide(count, blocks) * blocks, first + count) as q:
                    add_block(a, p, sums, 0, q)
            for i in range(height):
                row = let(block * height + i)
                with when(row < p.rows if height > 1 else True):
                    store_row(a, row, sum((sums[n * height + i] for n in range(blocks)), T.float32(0)), spec.epilogue)

    def add_block(a: Arguments, p: VectorParameters, sums: Any, slot: int, q: Expr) -> None:
        for c in range(width):
            x = let(a.x[T.Cast("int32", a.cols[q * width + c]) * p.unit])
            if height > 1 and width == 1:
                weights = a.values.load(q * height, height)
                sums.store(slot, sums.load(slot, height) + weights * broadcast(x, height), height)
            else:
                for i in range(height):
                    sums[slot + i] = sums[slot + i] + a.values[(q * height + i) * width + c] * x

    return function(spec.symbol, VectorParameters, body, spec.index)


def gemv(spec: Gemv) -> Any:
    """Four rows at once share every load of x; columns beyond a multiple of a vector are added one by one."""
    rows = INDEPENDENT_SUMS

    def body(a: Arguments, p: VectorParameters) -> None:
        with loop(a.begin, a.end) as chunk:
            begin, end = map(let, chunk_of(p, chunk))
            with loop(0, divide(end - begin + rows - 1, rows)) as group:
                row_group(a, p, let(begin + group * rows), end)

    def row_group(a: Arguments, p: VectorParameters, first: Expr, end: Expr) -> None:
        starts = [let(T.min(first + r, end - 1) * p.columns) for r in range(rows)]
        sums, tails = registers(rows), registers(rows, lanes=1)
        for r in range(rows):
            sums.store(r * VECTOR_LANES, broadcast(T.float32(0)))
            tails[r] = T.float32(0)
        vectors = let(divide(p.columns, VECTOR_LANES))
        with loop(0, vectors) as k:
            for r, start in enumerate(starts):
                term = a.values.load(start + k * VECTOR_LANES) * a.x.load(k * VECTOR_LANES)
                sums.store(r * VECTOR_LANES, sums.load(r * VECTOR_LANES) + term)
        with loop(vectors * VECTOR_LANES, p.columns) as k:
            for r, start in enumerate(starts):
                tails[r] = tails[r] + a.values[start + k] * a.x[k]
        for r in range(rows):
            with when(first + r < end):
                store_row(a, first + r, tails[r] + reduce_lanes(sums, r * VECTOR_LANES), spec.epilogue)

    return function(spec.symbol, VectorParameters, body)


def store_row(a: Arguments, row: Expr, total: Expr, epilogue: Epilogue) -> None:
    total = total + a.bias[row]
    total = total + a.z[row] if epilogue.add else total
    a.y[row] = apply(epilogue.function, total)
