"""Matrix times lanes: y[m, t] = epilogue(bias[m] + sum over the columns of row m), for sparse and dense matrices.

Every column entry is one broadcast weight times whole vectors of x; the sums of a register tile of rows x vectors
stay in registers. Where the rows and vectors of a kernel exceed the registers of an instruction set, several smaller
register tiles run one after the other: the layout of x and y is the same for every instruction set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from .math import apply
from .script import Arguments, Array, Expr, RegisterFile, T, divide, function, let, loop, registers, when
from .spec import COPIES, VECTOR_LANES, Dense, Epilogue, MatmulParameters, Spmm, VectorParameters

BlockRow = Callable[[Arguments, MatmulParameters, Expr, Expr, "Masks | None"], None]


def spmm(spec: Spmm, file: RegisterFile) -> Any:
    height, width = spec.block_rows, spec.block_cols
    rows, vectors = register_tile(height, spec.vectors, file)

    def block_row(a: Arguments, p: MatmulParameters, tile: Expr, block: Expr, masks: Masks | None) -> None:
        first, last = let(a.rows[block]), let(a.rows[block + 1])
        x_tile = let(p.x_base + tile * p.x_tile)
        for i, j in product(range(0, height, rows), range(0, spec.vectors, vectors)):
            sums = Sums(a, p, tile, block * height + i, j, rows, vectors)
            with loop(first, last) as q:
                for c in range(width):
                    x = let(x_tile + T.Cast("int32", a.cols[q * width + c]) * p.unit)
                    sums.multiply_add([a.values[(q * height + i + r) * width + c] for r in range(rows)], x)
            sums.store(spec.epilogue, height > 1, masks)

    return function(spec.symbol, MatmulParameters, over_block_rows(spec, block_row), spec.index)


def dense(spec: Dense, file: RegisterFile) -> Any:
    rows, vectors = register_tile(spec.block_rows, spec.vectors, file)

    def block_row(a: Arguments, p: MatmulParameters, tile: Expr, block: Expr, masks: Masks | None) -> None:
        x_tile = let(p.x_base + tile * p.x_tile)
        for i, j in product(range(0, spec.block_rows, rows), range(0, spec.vectors, vectors)):
            first = let(block * spec.block_rows + i)
            starts = [let(T.min(first + r, p.rows - 1) * p.columns) for r in range(rows)]
            sums = Sums(a, p, tile, first, j, rows, vectors)
            with loop(0, p.columns) as k:
                x = let(x_tile + T.Cast("int32", a.cols[k]) * p.unit)
                sums.multiply_add([a.values[start + k] for start in starts], x)
            sums.store(spec.epilogue, spec.block_rows > 1, masks)

    return function(spec.symbol, MatmulParameters, over_block_rows(spec, block_row), spec.index)


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


def over_block_rows(spec: Spmm | Dense, block_row: BlockRow) -> Callable[[Arguments, MatmulParameters], None]:
    """Run ``block_row(arguments, sizes, tile, block, masks)`` for the tile and every block row of every unit."""

    def body(a: Arguments, p: MatmulParameters) -> None:
        with loop(a.begin, a.end) as unit:
            tile = let(divide(unit, p.chunks))
            masks = Masks(p, p.y_base + tile * p.y_tile, spec.vectors) if spec.framed else None
            with loop(*chunk_of(p, unit - tile * p.chunks)) as block:
                block_row(a, p, tile, block, masks)

    return body


class Masks:
    """Which lanes of a tile that starts at pixel ``start`` each copy of a frame shows: all bits of an element, or none."""

    def __init__(self, p: MatmulParameters, start: Expr, vectors: int) -> None:
        self.masks = Array(T.alloc_buffer((COPIES * vectors * VECTOR_LANES,), "int32", scope="local"))
        self.vectors = vectors
        ones, zeros = (T.Broadcast(T.int32(bits), VECTOR_LANES) for bits in (-1, 0))
        for v in range(vectors):
            pixel = let(T.Ramp(start + v * VECTOR_LANES, 1, VECTOR_LANES))
            column = let(pixel - _row(pixel, p.width) * T.Broadcast(p.width, VECTOR_LANES))
            real = pixel < T.Broadcast(p.lanes, VECTOR_LANES)
            # What a copy moves across an edge of the image would appear at the other edge, a row off.
            right = T.And(real, column < T.Broadcast(p.width - 1, VECTOR_LANES))
            left = T.And(real, column > zeros)
            for copy, shown in enumerate((right, real, left)):
                self.masks.store(self.slot(copy, v), T.Select(shown, ones, zeros))

    def slot(self, copy: int, vector: int) -> int:
        return (copy * self.vectors + vector) * VECTOR_LANES

    def apply(self, value: Expr, copy: int, vector: int) -> Expr:
        bits = T.reinterpret(f"int32x{VECTOR_LANES}", value)
        return T.reinterpret(f"float32x{VECTOR_LANES}", T.bitwise_and(bits, self.masks.load(self.slot(copy, vector))))


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

    def store(self, epilogue: Epilogue, ragged: bool, masks: Masks | None) -> None:
        # The long functions run in a loop of their own: unrolled over a register tile they fill the instruction cache.
        inline = epilogue.function in ("none", "relu")
        for r in range(self.rows):
            with when(self.first + r < self.p.rows if ragged else True):
                for v in range(self.vectors):
                    value = self.sums.load(self.slot(r, v))
                    if epilogue.add:
                        value = value + self.a.z.load(self.z_start + r * self.p.z_pitch + v * VECTOR_LANES)
                    value = let(apply(epilogue.function, value) if inline else value)
                    self.write(value, self.y_start + r * self.p.y_pitch, v, masks)
        if not inline:
            with loop(0, T.min(self.rows, self.p.rows - self.first)) as r, loop(0, self.vectors) as v:
                offset = let(self.y_start + r * self.p.y_pitch + v * VECTOR_LANES)
                self.a.y.store(offset, apply(epilogue.function, self.a.y.load(offset)))

    def write(self, value: Expr, row: Expr, v: int, masks: Masks | None) -> None:
        if masks is None:
            self.a.y.store(row + v * VECTOR_LANES, value)
            return
        for copy in range(COPIES):
            shown = masks.apply(value, copy, self.lane // VECTOR_LANES + v)
            self.a.y.store(row + copy * self.p.copy_pitch + v * VECTOR_LANES + 1 - copy, shown)
