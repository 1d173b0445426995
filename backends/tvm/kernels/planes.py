"""Copies of planes: the prepared input of a convolution, windows, zero padding. Nothing beside them is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .parameters import ShiftParameters, WindowParameters
from .script import Arguments, Array, Expr, T, broadcast, divide, function, let, loop, when
from .spec import VECTOR_LANES, Shift, Window

Value = Callable[[Expr, int], Expr]  # (index, lanes) -> those elements, a number where lanes == 1
SHORTER_LANES = (VECTOR_LANES // 2, VECTOR_LANES // 4)


class Plane(NamedTuple):
    array: Array
    start: Expr  # offset of the first element
    height: Expr
    width: Expr  # also the distance of two rows


class Axis(NamedTuple):
    """Output index i reads input index start + i * step."""

    start: Expr
    step: Expr


class Part(NamedTuple):
    """The output rows [top, bottom) and columns [left, right) that lie in x."""

    top: Expr
    bottom: Expr
    left: Expr
    right: Expr


def shift(spec: Shift) -> Any:
    def body(a: Arguments, p: ShiftParameters) -> None:
        # Units in a loop over kernel elements, whose planes are copied alike, and one over their channels.
        elements = let(divide(a.begin, p.channels)), let(divide(a.end + p.channels - 1, p.channels))
        with loop(*elements) as element:
            column = let(divide(element, p.parities))
            row = let((element - column * p.parities) * p.dilation_y)
            parity = row - divide(row, p.stride_y) * p.stride_y
            rows = Axis(let(parity - p.pad_top), p.stride_y)
            columns = Axis(let(column * p.dilation_x - p.pad_left), p.stride_x)
            part = Part(*inside(rows, p.height, p.out_rows), *inside(columns, p.width, p.out_width))
            first = let(element * p.channels)
            with loop(T.max(first, a.begin), T.min(first + p.channels, a.end)) as unit:
                x = Plane(a.x, let((unit - first) * p.x_pitch), p.height, p.width)
                y = Plane(a.y, let(unit * p.out_rows * p.out_width), p.out_rows, p.out_width)
                copy_plane(x, y, rows, columns, part)

    return function(spec.symbol, ShiftParameters, body)


def window(spec: Window) -> Any:
    def body(a: Arguments, p: WindowParameters) -> None:
        rows, columns = Axis(p.start_row, p.step_row), Axis(p.start_column, p.step_column)
        part = Part(*inside(rows, p.height, p.out_height), *inside(columns, p.width, p.out_width))
        with loop(a.begin, a.end) as unit:
            channel = let(p.start_channel + unit * p.step_channel)
            real = let(T.And(channel >= 0, channel < p.channels))
            x = Plane(a.x, let(channel * p.x_pitch), p.height, p.width)
            y = Plane(a.y, let(unit * p.y_pitch), p.out_height, p.out_width)
            with when(real):
                copy_plane(x, y, rows, columns, part)
            with when(T.Not(real)):
                write_zeros(y.array, y.start, p.out_height * p.out_width)

    return function(spec.symbol, WindowParameters, body)


def copy_plane(x: Plane, y: Plane, rows: Axis, columns: Axis, part: Part) -> None:
    """y[r, c] = x[rows(r), columns(c)], 0 outside x."""
    contiguous = let(T.And(T.And(rows.step == 1, columns.step == 1), x.width == y.width))
    write_zeros(y.array, y.start, part.top * y.width)
    write_zeros(y.array, y.start + part.bottom * y.width, (y.height - part.bottom) * y.width)
    with when(contiguous):
        # All rows are one run that starts `columns.start` off; what it carries over from row to row is zeroed after.
        before, after = let(T.max(-columns.start, 0)), let(T.max(columns.start, 0))
        start = let(y.start + part.top * y.width + before)
        source = let(x.start + (rows.start + part.top) * x.width + columns.start + before)
        count = let((part.bottom - part.top) * y.width - before - after)
        write_run(y.array, start, count, strided(x.array, source, 1))
        with loop(part.top, part.bottom) as r:
            write_edges(y, let(y.start + r * y.width), part)
    for step in (1, 2, 3):
        same_step = columns.step == step if step < 3 else columns.step >= step
        with when(T.And(T.Not(contiguous), same_step)), loop(part.top, part.bottom) as r:
            row = let(y.start + r * y.width)
            source = let(x.start + (rows.start + r * rows.step) * x.width + columns.start)
            write_edges(y, row, part)
            if step < 3:
                value = strided(x.array, source + part.left * step, step)
                write_run(y.array, row + part.left, part.right - part.left, value)
            else:
                with loop(part.left, part.right) as c:
                    y.array[row + c] = x.array[source + c * columns.step]


def write_edges(y: Plane, row: Expr, part: Part) -> None:
    """Zeros beside the part of a row that lies in x. They are few: as many as a convolution pads."""
    for edge in ((0, part.left), (part.right, y.width)):
        with loop(*edge) as c:
            y.array[row + c] = T.float32(0)


def inside(axis: Axis, size: Expr, out_size: Expr) -> tuple[Expr, Expr]:
    """The output indices [begin, end) that read an input index in [0, size)."""
    begin = let(T.min(T.max(divide(axis.step - 1 - axis.start, axis.step), 0), out_size))
    end = let(T.min(T.max(divide(size - 1 - axis.start + axis.step, axis.step), begin), out_size))
    return begin, end


def write_strided(
    y: Array, start: Expr, begin: Expr, end: Expr, step: Expr, value: Callable[[int | Expr], Value]
) -> None:
    """y[start + i] = value(step)(i) for i in [begin, end), in vectors for the steps 1 and 2."""

    def shifted(step: int | Expr) -> Value:
        return lambda i, lanes: value(step)(begin + i, lanes)

    for constant in (1, 2):
        with when(step == constant):
            write_run(y, start + begin, end - begin, shifted(constant))
    with when(step > 2), loop(begin, end) as i:
        y[start + i] = value(step)(i, 1)


def write_zeros(y: Array, start: Expr, count: Expr) -> None:
    write_run(y, start, count, lambda _, lanes: broadcast(T.float32(0), lanes))


def write_run(y: Array, start: Expr, count: Expr, value: Value) -> None:
    """y[start + i] = value(i) for i in [0, count); the last vector overlaps the one before it."""
    start, count = let(start), let(count)
    with when(count >= VECTOR_LANES):
        with loop(0, divide(count - 1, VECTOR_LANES)) as v:
            i = let(v * VECTOR_LANES)
            y.store(start + i, value(i, VECTOR_LANES))
        i = let(count - VECTOR_LANES)
        y.store(start + i, value(i, VECTOR_LANES))
    for lanes in SHORTER_LANES:
        with when(T.And(count >= lanes, count < 2 * lanes)):
            for i in (0, let(count - lanes)):
                y.store(start + i, value(i, lanes), lanes)
    with when(count < SHORTER_LANES[-1]), loop(0, count) as i:
        y[start + i] = value(i, 1)


def strided(x: Array, start: Expr, step: int | Expr) -> Value:
    """Elements start + i * step. Vectors for the steps 1 and 2 only."""

    def value(i: Expr, lanes: int) -> Expr:
        if lanes == 1:
            return x[start + i * step]
        if isinstance(step, int) and step == 1:
            return x.load(start + i, lanes)
        # The second half is loaded one element early, so that nothing behind the last element is read.
        halves = [x.load(start + i * 2, lanes), x.load(start + i * 2 + lanes - 1, lanes)]
        return T.Shuffle(halves, [*range(0, lanes, 2), *range(lanes + 1, 2 * lanes, 2)])

    return value
