"""Write the vectors of a tile into the three copies of a frame. What surrounds the image stays zero.

What a copy moves across an edge of the image would appear at the other edge, a row off: zeros are written instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .parameters import MatmulParameters
from .script import Array, Expr, T, broadcast, let
from .spec import COPIES, VECTOR_LANES

Store = Callable[[Array, Expr, int, Sequence[Expr]], None]
"""(y, offset, first, values): vectors ``first`` and following of the tile, whose place in copy 0 is ``offset``."""


def store_rows(p: MatmulParameters, width: int) -> Store:
    """For vectors that are whole rows of ``width`` pixels: moved in registers, and stored where they were.

    Stores of whole cache lines are why: ResNet-56 with 90 % zeros takes 444 us where `store_pixels` takes 458 (AVX-512,
    one thread of an EPYC). With AVX2 it is the other way around: 537 and 531.
    """

    def store(y: Array, offset: Expr, _: int, values: Sequence[Expr]) -> None:
        for copy, moved in enumerate((moved_right(values, width), values, moved_left(values, width))):
            for v, value in enumerate(moved):
                y.store(offset + copy * p.copy_pitch + v * VECTOR_LANES, value)

    return store


def moved_right(values: Sequence[Expr], width: int) -> list[Expr]:
    """Every lane takes what is left of it in its row, the first of a row 0."""
    zeros, result = broadcast(T.float32(0)), list[Expr]()
    for v, value in enumerate(values):
        columns = [(v * VECTOR_LANES + lane) % width for lane in range(VECTOR_LANES)]
        before = values[v - 1] if columns[0] else zeros  # where a row begins inside a vector, one begins at its start
        lanes = [VECTOR_LANES + lane - 1 if column else 0 for lane, column in enumerate(columns)]
        result.append(T.Shuffle([before, value], lanes))
    return result


def moved_left(values: Sequence[Expr], width: int) -> list[Expr]:
    """Every lane takes what is right of it in its row, the last of a row 0."""
    zeros, result = broadcast(T.float32(0)), list[Expr]()
    for v, value in enumerate(values):
        columns = [(v * VECTOR_LANES + lane) % width for lane in range(VECTOR_LANES)]
        after = values[v + 1] if columns[-1] < width - 1 else zeros
        lanes = [lane + 1 if column < width - 1 else 2 * VECTOR_LANES - 1 for lane, column in enumerate(columns)]
        result.append(T.Shuffle([value, after], lanes))
    return result


def store_pixels(p: MatmulParameters, start: Expr, vectors: int) -> Store:
    """For any tile of ``vectors`` vectors from pixel ``start`` on: stored beside their place, through masks."""
    masks = Array(T.alloc_buffer((COPIES * vectors * VECTOR_LANES,), "int32", scope="local"))
    ones, zeros = (T.Broadcast(T.int32(bits), VECTOR_LANES) for bits in (-1, 0))

    def slot(copy: int, vector: int) -> int:
        return (copy * vectors + vector) * VECTOR_LANES

    for v in range(vectors):
        pixel = let(T.Ramp(start + v * VECTOR_LANES, 1, VECTOR_LANES))
        column = let(pixel - _row(pixel, p.width) * T.Broadcast(p.width, VECTOR_LANES))
        real = pixel < T.Broadcast(p.lanes, VECTOR_LANES)
        stays_right = T.And(real, column < T.Broadcast(p.width - 1, VECTOR_LANES))
        stays_left = T.And(real, column > zeros)
        for copy, shown in enumerate((stays_right, real, stays_left)):
            masks.store(slot(copy, v), T.Select(shown, ones, zeros))

    def store(y: Array, offset: Expr, first: int, values: Sequence[Expr]) -> None:
        for copy in range(COPIES):
            for v, value in enumerate(values):
                bits = T.reinterpret(f"int32x{VECTOR_LANES}", value)
                shown = T.bitwise_and(bits, masks.load(slot(copy, first + v)))
                place = offset + copy * p.copy_pitch + v * VECTOR_LANES + 1 - copy
                y.store(place, T.reinterpret(f"float32x{VECTOR_LANES}", shown))

    return store


def _row(pixel: Expr, width: Expr) -> Expr:
    """pixel / width. Divisions of integers are no vector instructions; this is exact up to 2 ** 22 pixels."""
    reciprocal = T.float32(1) / T.Cast("float32", width)
    middle = T.Cast(f"float32x{VECTOR_LANES}", pixel) + T.Broadcast(T.float32(0.5), VECTOR_LANES)
    return T.Cast(f"int32x{VECTOR_LANES}", middle * T.Broadcast(reciprocal, VECTOR_LANES))
