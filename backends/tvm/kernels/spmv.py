"""Matrix times one vector: a fully connected layer of one sample."""

from __future__ import annotations

from typing import Any

from .math import apply
from .parameters import VectorParameters
from .script import (
    Arguments,
    Expr,
    RegisterFile,
    T,
    broadcast,
    divide,
    function,
    let,
    loop,
    permute,
    prefetch,
    reduce_lanes,
    registers,
    when,
)
from .spec import VECTOR_LANES, WINDOW_ELEMS, Epilogue, Gemv, Spmv, SpmvSell

INDEPENDENT_SUMS = 4  # hide the latency of a multiply-add (4 cycles on Zen 4 and Skylake-X)


def spmv(spec: Spmv) -> Any:
    height, width = spec.block_rows, spec.block_cols
    vector = height > 1 and width == 1  # a block is one multiply-add, else one per element
    blocks = INDEPENDENT_SUMS if vector else max(1, INDEPENDENT_SUMS // height)  # at once, each to sums of its own

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
            if vector:
                weights = a.values.load(q * height, height)
                sums.store(slot, sums.load(slot, height) + weights * broadcast(x, height), height)
            else:
                for i in range(height):
                    sums[slot + i] = sums[slot + i] + a.values[(q * height + i) * width + c] * x

    return function(spec.symbol, VectorParameters, body, spec.index)


# Beyond the second-level cache values must be asked for early. Between products that evict them, one thread of a
# Zen 4, 90 % zeros: 3072 columns to 768 rows took 38 us with and 45 us without, 768 columns to 3072 rows 31 and 32; 64
# steps ahead were as good, 16 were not. Windows of 64 columns store 1.3 instead of 1.6 values per non-zero, but take
# longer where all is in that cache (768 x 768 at 80 %: 15 us instead of 11), and are no faster beyond.
STEPS_AHEAD = 32


def spmv_sell(spec: SpmvSell, file: RegisterFile) -> Any:
    """A step permutes its window of x, which is in registers, to the order of its values: no gathers, no reductions."""
    lanes = VECTOR_LANES // file.per_vector
    halves, in_flight = range(0, VECTOR_LANES, lanes), 2  # steps with sums of their own

    def body(a: Arguments, p: VectorParameters) -> None:
        windows = let(p.block_rows + 1)
        with loop(a.begin, a.end) as chunk, loop(*chunk_of(p, chunk)) as group:
            sums, total = registers(in_flight), registers(1)
            for n in range(in_flight):
                sums.store(n * VECTOR_LANES, broadcast(T.float32(0)))
            first, last = let(a.rows[group]), let(a.rows[group + 1])
            pairs = let(divide(last - first, in_flight))
            with loop(0, pairs) as pair:
                for n in range(in_flight):
                    step = let(first + pair * in_flight + n)
                    prefetch(a.values, (step + STEPS_AHEAD) * VECTOR_LANES)
                    add_step(a, sums, n, step, windows)
                prefetch(a.cols, (first + pair * in_flight + 2 * STEPS_AHEAD) * VECTOR_LANES)
            with loop(first + pairs * in_flight, last) as step:
                add_step(a, sums, 0, step, windows)
            row = let(group * VECTOR_LANES)
            with when(row + VECTOR_LANES <= p.rows):
                value = sums.load(0) + sums.load(VECTOR_LANES) + a.bias.load(row)
                value = value + a.z.load(row) if spec.epilogue.add else value
                a.y.store(row, apply(spec.epilogue.function, value))
            with when(row + VECTOR_LANES > p.rows):
                total.store(0, sums.load(0) + sums.load(VECTOR_LANES))
                with loop(0, p.rows - row) as lane:
                    store_row(a, row + lane, total[lane], spec.epilogue)

    def add_step(a: Arguments, sums: Any, slot: int, step: Expr, windows: Expr) -> None:
        window = let(a.rows[windows + step])
        for half in halves:
            at, place = let(step * VECTOR_LANES + half), slot * VECTOR_LANES + half
            indices = let(T.Cast(f"int32x{lanes}", a.cols.load(at, lanes)))
            x = permute([a.x.load(window + i, lanes) for i in range(0, WINDOW_ELEMS, lanes)], indices, lanes)
            sums.store(place, sums.load(place, lanes) + a.values.load(at, lanes) * x, lanes)

    return function(spec.symbol, VectorParameters, body, "uint8")


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


def chunk_of(p: VectorParameters, chunk: Expr) -> tuple[Expr, Expr]:
    """The block rows [begin, end) of a chunk."""
    return divide(chunk * p.block_rows, p.chunks), divide((chunk + 1) * p.block_rows, p.chunks)
