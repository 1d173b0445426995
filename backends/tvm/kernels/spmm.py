"""Matrix times lanes: y[m, t] = epilogue(bias[m] + sum over the columns of row m), for sparse and dense matrices.

Every column entry is one broadcast weight times whole vectors of x; the sums of a register tile of rows x vectors
stay in registers. Where the rows and vectors of a kernel exceed the registers of an instruction set, several smaller
register tiles run one after the other: the layout of x and y is the same for every instruction set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from .frames import Store, store_pixels, store_rows
from .math import apply
from .parameters import MatmulParameters
from .script import Arguments, Expr, RegisterFile, T, divide, function, let, loop, registers, when
from .spec import VECTOR_LANES, Dense, Epilogue, Spmm

BlockRows = Callable[[Arguments, MatmulParameters, Expr, Expr, Expr, Store | None], None]


def spmm(spec: Spmm, file: RegisterFile) -> Any:
    height, width = spec.block_rows, spec.block_cols
    rows, vectors = register_tile(height, spec.vectors, file)
    rows_of_frame = whole_rows(spec, vectors, file)

    def block_row(
        a: Arguments,
        p: MatmulParameters,
        tile: Expr,
        place: Expr,
        piece: Expr,
        starts: bool,
        ends: bool,
        store_frame: Store | None = None,
    ) -> None:
        """Add one slice (``piece``) of a block row; the first slice starts from the bias, the last one ends it all."""
        part = let(piece * p.block_rows + place)
        block = let(a.rows[p.slices * p.block_rows + 1 + part]) if spec.sliced else place
        first = let(a.rows[part])
        last = let(a.rows[part + 1])
        x_tile = let(p.x_base + tile * p.x_tile)
        for i, j in product(range(0, height, rows), range(0, spec.vectors, vectors)):
            sums = Sums(a, p, tile, block * height + i, j, rows, vectors, from_y=not starts)
            with loop(first, last) as q:
                for c in range(width):
                    x = let(x_tile + T.Cast("int32", a.cols[q * width + c]) * p.unit)
                    sums.multiply_add([a.values[(q * height + i + r) * width + c] for r in range(rows)], x)
            if ends:
                sums.store(spec.epilogue, height > 1, store_frame)
            else:
                sums.keep(height > 1)

    def whole(a: Arguments, p: MatmulParameters, tile: Expr, begin: Expr, end: Expr, store_frame: Store | None) -> None:
        with loop(begin, end) as place:
            block_row(a, p, tile, place, 0, starts=True, ends=True, store_frame=store_frame)

    def sliced(
        a: Arguments, p: MatmulParameters, tile: Expr, begin: Expr, end: Expr, store_frame: Store | None
    ) -> None:
        final = let(p.slices - 1)
        with loop(begin, end) as place:
            block_row(a, p, tile, place, 0, starts=True, ends=False)
        with loop(1, final) as piece, loop(begin, end) as place:
            block_row(a, p, tile, place, piece, starts=False, ends=False)
        with loop(begin, end) as place:
            block_row(a, p, tile, place, final, starts=False, ends=True, store_frame=store_frame)

    body = over_chunks(spec, rows_of_frame, sliced if spec.sliced else whole)
    return function(spec.symbol, MatmulParameters, body, spec.index)


def dense(spec: Dense, file: RegisterFile) -> Any:
    rows, vectors = register_tile(spec.block_rows, spec.vectors, file)
    rows_of_frame = whole_rows(spec, vectors, file)

    def block_row(a: Arguments, p: MatmulParameters, tile: Expr, block: Expr, store_frame: Store | None) -> None:
        x_tile = let(p.x_base + tile * p.x_tile)
        for i, j in product(range(0, spec.block_rows, rows), range(0, spec.vectors, vectors)):
            first = let(block * spec.block_rows + i)
            starts = [let(T.min(first + r, p.rows - 1) * p.columns) for r in range(rows)]
            sums = Sums(a, p, tile, first, j, rows, vectors)
            with loop(0, p.columns) as k:
                x = let(x_tile + T.Cast("int32", a.cols[k]) * p.unit)
                sums.multiply_add([a.values[start + k] for start in starts], x)
            sums.store(spec.epilogue, spec.block_rows > 1, store_frame)

    def block_rows(
        a: Arguments, p: MatmulParameters, tile: Expr, begin: Expr, end: Expr, store_frame: Store | None
    ) -> None:
        with loop(begin, end) as block:
            block_row(a, p, tile, block, store_frame)

    return function(spec.symbol, MatmulParameters, over_chunks(spec, rows_of_frame, block_rows), spec.index)


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


def whole_rows(spec: Spmm | Dense, vectors: int, file: RegisterFile) -> bool:
    """Whether register tiles hold whole rows of a frame, and moving them pays: a vector is one register."""
    return bool(spec.frame_width) and vectors == spec.vectors and file.per_vector == 1


def over_chunks(
    spec: Spmm | Dense, rows_of_frame: bool, block_rows: BlockRows
) -> Callable[[Arguments, MatmulParameters], None]:
    """Run ``block_rows(arguments, sizes, tile, begin, end, store_frame)`` for every tile and its part of block rows.

    Chunks of a tile that follow each other are run as one: in slices, 768 x 3072 with 90 % zeros is 6 % faster so than
    chunk by chunk of 16, for x is read from memory once (64 lanes, one thread of an EPYC).
    """

    def body(a: Arguments, p: MatmulParameters) -> None:
        with loop(divide(a.begin, p.chunks), divide(a.end + p.chunks - 1, p.chunks)) as tile:
            first = let(tile * p.chunks)
            begin = let(divide(T.max(a.begin - first, 0) * p.block_rows, p.chunks))
            end = let(divide(T.min(a.end - first, p.chunks) * p.block_rows, p.chunks))
            store_frame: Store | None = None
            if rows_of_frame:
                store_frame = store_rows(p, spec.frame_width or 0)
            elif spec.frame_width is not None:
                store_frame = store_pixels(p, let(p.y_base + tile * p.y_tile), spec.vectors)
            block_rows(a, p, tile, begin, end, store_frame)

    return body


class Sums:
    """The register tile: rows [first, first + rows) times vectors [vector, vector + vectors) of a tile of lanes.

    It starts from the bias, or from what y holds: the sums of an earlier slice, in the middle copy where y is a frame,
    all of whose lanes the last slice writes again.
    """

    def __init__(
        self,
        a: Arguments,
        p: MatmulParameters,
        tile: Expr,
        first: Expr,
        vector: int,
        rows: int,
        vectors: int,
        from_y: bool = False,
    ) -> None:
        self.a, self.rows, self.vectors, self.lane = a, rows, vectors, vector * VECTOR_LANES
        self.first, self.p = let(first), p
        tile_start = let(p.y_base + tile * p.y_tile + self.lane)
        self.y_start, self.z_start = let(tile_start + self.first * p.y_pitch), let(tile_start + self.first * p.z_pitch)
        self.sums = registers(rows * vectors)
        for r in range(rows):
            # A row beyond a ragged end computes something; it is not stored.
            beyond = let(T.max(self.first + r - (p.rows - 1), 0))
            for v in range(vectors):
                if from_y:
                    value = a.y.load(self.kept(r - beyond, v))
                else:
                    value = T.Broadcast(a.bias[self.first + r - beyond], VECTOR_LANES)
                self.sums.store(self.slot(r, v), value)

    def slot(self, row: int, vector: int) -> int:
        return (row * self.vectors + vector) * VECTOR_LANES

    def kept(self, row: Expr, vector: int) -> Expr:
        """Where in y a sum waits for the next slice."""
        return self.y_start + self.p.copy_pitch + row * self.p.y_pitch + vector * VECTOR_LANES

    def keep(self, ragged: bool) -> None:
        for r in range(self.rows):
            with when(self.first + r < self.p.rows if ragged else True):
                for v in range(self.vectors):
                    self.a.y.store(self.kept(r, v), self.sums.load(self.slot(r, v)))

    def multiply_add(self, weights: Sequence[Expr], x: Expr) -> None:
        """Add weights[row] * x[x + lanes] to every sum; x is an offset in elements."""
        for (r, weight), v in product(enumerate(weights), range(self.vectors)):
            term = T.Broadcast(weight, VECTOR_LANES) * self.a.x.load(x + self.lane + v * VECTOR_LANES)
            self.sums.store(self.slot(r, v), self.sums.load(self.slot(r, v)) + term)

    def store(self, epilogue: Epilogue, ragged: bool, store_frame: Store | None) -> None:
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
                if store_frame is not None:
                    store_frame(self.a.y, row, self.lane // VECTOR_LANES, values)
                else:
                    for v, value in enumerate(values):
                        self.a.y.store(row + v * VECTOR_LANES, value)
        if not inline:
            with loop(0, T.min(self.rows, self.p.rows - self.first)) as r, loop(0, self.vectors) as v:
                offset = let(self.y_start + r * self.p.y_pitch + v * VECTOR_LANES)
                self.a.y.store(offset, apply(epilogue.function, self.a.y.load(offset)))
