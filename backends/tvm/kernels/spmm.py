"""Matrix times lanes: y[m, t] = epilogue(bias[m] + sum over the columns of row m), for sparse and dense matrices.

Every column entry is one broadcast weight times whole vectors of x; the sums of a register tile of rows x vectors
stay in registers. Where the rows and vectors of a kernel exceed the registers of an instruction set, several smaller
register tiles run one after the other: the layout of x and y is the same for every instruction set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import Any

from .math import apply
from .script import Arguments, Array, Expr, RegisterFile, T, divide, function, let, loop, registers, when
from .spec import COPIES, VECTOR_LANES, Dense, Epilogue, MatmulParameters, Spmm, VectorParameters

BlockRow = Callable[[Arguments, MatmulParameters, Expr, Expr, "Frame | None"], None]


def spmm(spec: Spmm, file: RegisterFile) -> Any:
    height, width = spec.block_rows, spec.block_cols
    rows, vectors = register_tile(height, spec.vectors, file)
    in_registers = moves_in_registers(spec, vectors, file)

    def block_row(a: Arguments, p: MatmulParameters, tile: Expr, block: Expr, frame: Frame | None) -> None:
        first, last = let(a.rows[block]), let(a.rows[block + 1])
        x_tile = let(p.x_base + tile * p.x_tile)
        for i, j in product(range(0, height, rows), range(0, spec.vectors, vectors)):
            sums = Sums(a, p, tile, block * height + i, j, rows, vectors)
            with loop(first, last) as q:
                for c in range(width):
                    x = let(x_tile + T.Cast("int32", a.cols[q * width + c]) * p.unit)
                    sums.multiply_add([a.values[(q * height + i + r) * width + c] for r in range(rows)], x)
            sums.store(spec.epilogue, height > 1, frame)

    return function(spec.symbol, MatmulParameters, over_block_rows(spec, in_registers, block_row), spec.index)


def dense(spec: Dense, file: RegisterFile) -> Any:
    rows, vectors = register_tile(spec.block_rows, spec.vectors, file)
    in_registers = moves_in_registers(spec, vectors, file)

    def block_row(a: Arguments, p: MatmulParameters, tile: Expr, block: Expr, frame: Frame | None) -> None:
        x_tile = let(p.x_base + tile * p.x_tile)
        for i, j in product(range(0, spec.block_rows, rows), range(0, spec.vectors, vectors)):
            first = let(block * spec.block_rows + i)
            starts = [let(T.min(first + r, p.rows - 1) * p.columns) for r in range(rows)]
            sums = Sums(a, p, tile, first, j, rows, vectors)
            with loop(0, p.columns) as k:
                x = let(x_tile + T.Cast("int32", a.cols[k]) * p.unit)
                sums.multiply_add([a.values[start + k] for start in starts], x)
            sums.store(spec.epilogue, spec.block_rows > 1, frame)

    return function(spec.symbol, MatmulParameters, over_block_rows(spec, in_registers, block_row), spec.index)


def register_tile(rows: int, vectors: int, file: RegisterFile) -> tuple[int, int]:
    """(rows, vectors) of the largest tile that divides the kernel's and fits: its sums, a row of x and one weight.

    Among equals, the one that needs the fewest loads (a row of x and a weight per row), then the fewest registers. On
    AVX2 a dense 6 x 1 tile gives 98 GFLOP/s where 3 x 2, one register too large, gives 75.
    """

    def fits(r: int, v: int) -> bool:
        x = v if r > 1 else 0  # a vector of x that is used once is an operand in memory
        return (r * v + x) * file.per_vector < file.size

    def loads(r: int, v: int) -> int:
        return r + v * file.per_vector

    tiles = [
        (r, v)
        for r, v in product(range(1, rows + 1), range(1, vectors + 1))
        if rows % r == 0 and vectors % v == 0 and fits(r, v)
    ]
    return max(tiles, key=lambda tile: (tile[0] * tile[1], -loads(*tile), -tile[1]))


def chunk_of(p: MatmulParameters | VectorParameters, chunk: Expr) -> tuple[Expr, Expr]:
    """The block rows [begin, end) of a chunk."""
    return divide(chunk * p.block_rows, p.chunks), divide((chunk + 1) * p.block_rows, p.chunks)


def moves_in_registers(spec: Spmm | Dense, vectors: int, file: RegisterFile) -> bool:
    """Whether a register tile holds whole rows of pixels, which can be moved where a vector is one register."""
    return spec.frame == "whole rows" and vectors == spec.vectors and file.per_vector == 1


def over_block_rows(
    spec: Spmm | Dense, in_registers: bool, block_row: BlockRow
) -> Callable[[Arguments, MatmulParameters], None]:
    """Run ``block_row(arguments, sizes, tile, block, frame)`` for the tile and every block row of every unit."""

    def body(a: Arguments, p: MatmulParameters) -> None:
        with loop(a.begin, a.end) as unit:
            tile = let(divide(unit, p.chunks))
            start = let(p.y_base + tile * p.y_tile)
            frame = None if spec.frame is None else Frame(p, start, spec.vectors, in_registers)
            with loop(*chunk_of(p, unit - tile * p.chunks)) as block:
                block_row(a, p, tile, block, frame)

    return body


class Frame:
    """How the sums of a tile that starts at pixel ``start`` become the copies of a frame.

    What a copy moves across an edge of the image would appear at the other edge, a row off: masks make it zero. Rows
    that are moved in registers and stored where they were are faster than rows stored beside it: ResNet-56 with 90 %
    zeros takes 470 instead of 484 us with AVX-512 (one thread of an EPYC), but 563 instead of 554 us with AVX2.
    """

    def __init__(self, p: MatmulParameters, start: Expr, vectors: int, in_registers: bool) -> None:
        self.p, self.vectors, self.in_registers = p, vectors, in_registers
        self.masks = Array(T.alloc_buffer((COPIES * vectors * VECTOR_LANES,), "int32", scope="local"))
        ones, zeros = (T.Broadcast(T.int32(bits), VECTOR_LANES) for bits in (-1, 0))
        for v in range(vectors):
            pixel = let(T.Ramp(start + v * VECTOR_LANES, 1, VECTOR_LANES))
            column = let(pixel - _row(pixel, p.width) * T.Broadcast(p.width, VECTOR_LANES))
            real = pixel < T.Broadcast(p.lanes, VECTOR_LANES)
            in_front, behind = column > zeros, column < T.Broadcast(p.width - 1, VECTOR_LANES)
            for copy, inner in ((0, in_front if in_registers else behind), (2, behind if in_registers else in_front)):
                self.masks.store(self.slot(copy, v), T.Select(T.And(real, inner), ones, zeros))
            self.masks.store(self.slot(1, v), T.Select(real, ones, zeros))

    def slot(self, copy: int, vector: int) -> int:
        return (copy * self.vectors + vector) * VECTOR_LANES

    def store(self, y: Array, row: Expr, first: int, values: Sequence[Expr]) -> None:
        """``values``: of the vectors ``first`` and following of the tile; ``row``: where the first one stands in copy 0."""
        for copy in range(COPIES):
            for v, value in enumerate(_moved(values, 1 - copy) if self.in_registers else values):
                bits = T.reinterpret(f"int32x{VECTOR_LANES}", value)
                shown = T.bitwise_and(bits, self.masks.load(self.slot(copy, first + v)))
                offset = row + copy * self.p.copy_pitch + v * VECTOR_LANES + (0 if self.in_registers else 1 - copy)
                y.store(offset, T.reinterpret(f"float32x{VECTOR_LANES}", shown))


def _moved(values: Sequence[Expr], lanes: int) -> Sequence[Expr]:
    """The vectors as one row, moved by -1, 0 or 1 lanes. What enters at an end is arbitrary."""
    if lanes == 0:
        return values
    pairs = pairwise([values[0], *values] if lanes > 0 else [*values, values[-1]])
    taken = [VECTOR_LANES - 1, *range(VECTOR_LANES, 2 * VECTOR_LANES - 1)] if lanes > 0 else [*range(1, VECTOR_LANES + 1)]
    return [T.Shuffle(list(pair), taken) for pair in pairs]


def _row(pixel: Expr, width: Expr) -> Expr:
    """pixel / width. Divisions of integers are no vector instructions; this is exact up to 4 million pixels."""
    reciprocal = T.float32(1) / T.Cast("float32", width)
    middle = T.Cast(f"float32x{VECTOR_LANES}", pixel) + T.Broadcast(T.float32(0.5), VECTOR_LANES)
    return T.Cast(f"int32x{VECTOR_LANES}", middle * T.Broadcast(reciprocal, VECTOR_LANES))


class Sums:
    """The register tile: rows [first, first + rows) times vectors [vector, vector + vectors) of a tile of lanes."""

    def __init__(
        self, a: Arguments, p: MatmulParameters, tile: Expr, first: Expr, vector: int, rows: int, vectors: int
    ) -> None:
        self.a, self.rows, self.vectors, self.lane = a, rows, vectors, vector * VECTOR_LANES
        self.first, self.p = let(first), p
        tile_start = let(p.y_base + tile * p.y_tile + self.lane)
        self.y_start, self.z_start = let(tile_start + self.first * p.y_pitch), let(tile_start + self.first * p.z_pitch)
        self.sums = registers(rows * vectors)
        for r in range(rows):
            # A row beyond a ragged end computes something; it is not stored.
            bias = T.Broadcast(a.bias[T.min(self.first + r, p.rows - 1)], VECTOR_LANES)
            for v in range(vectors):
                self.sums.store(self.slot(r, v), bias)

    def slot(self, row: int, vector: int) -> int:
        return (row * self.vectors + vector) * VECTOR_LANES

    def multiply_add(self, weights: Sequence[Expr], x: Expr) -> None:
        """Add weights[row] * x[x + lanes] to every sum; x is an offset in elements."""
        for (r, weight), v in product(enumerate(weights), range(self.vectors)):
            term = T.Broadcast(weight, VECTOR_LANES) * self.a.x.load(x + self.lane + v * VECTOR_LANES)
            self.sums.store(self.slot(r, v), self.sums.load(self.slot(r, v)) + term)

    def store(self, epilogue: Epilogue, ragged: bool, frame: Frame | None) -> None:
        # The long functions run in a loop of their own: unrolled over a register tile they fill the instruction cache.
        inline = epilogue.function in ("none", "relu")
        for r in range(self.rows):
            with when(self.first + r < self.p.rows if ragged else True):
                values = list[Expr]()
                for v in range(self.vectors):
                    value = self.sums.load(self.slot(r, v))
                    if epilogue.add:
                        value = value + self.a.z.load(self.z_start + r * self.p.z_pitch + v * VECTOR_LANES)
                    values.append(let(apply(epilogue.function, value) if inline else value))
                row = self.y_start + r * self.p.y_pitch
                if frame is not None:
                    frame.store(self.a.y, row, self.lane // VECTOR_LANES, values)
                    continue
                for v, value in enumerate(values):
                    self.a.y.store(row + v * VECTOR_LANES, value)
        if not inline:
            with loop(0, T.min(self.rows, self.p.rows - self.first)) as r, loop(0, self.vectors) as v:
                offset = let(self.y_start + r * self.p.y_pitch + v * VECTOR_LANES)
                self.a.y.store(offset, apply(epilogue.function, self.a.y.load(offset)))
