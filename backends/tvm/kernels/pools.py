"""Pooling: the maximum or the average over windows of every channel."""

from __future__ import annotations

from typing import Any

from .parameters import GlobalAverageParameters, PoolParameters
from .planes import Value, strided, write_strided
from .script import Arguments, Expr, T, broadcast, divide, function, let, loop, reduce_lanes, registers
from .spec import VECTOR_LANES, AveragePool, GlobalAverage, MaxPool


def pool(spec: MaxPool | AveragePool) -> Any:
    average = isinstance(spec, AveragePool)
    start = T.float32(0) if average else T.min_value("float32")

    def body(a: Arguments, p: PoolParameters) -> None:
        # Columns whose windows lie inside a row of x are computed in vectors, those at the edges one by one.
        left = let(T.min(divide(p.pad_left + p.stride_x - 1, p.stride_x), p.out_width))
        last = p.width - p.kernel_width + p.pad_left
        right = let(T.min(T.max(divide(last + p.stride_x, p.stride_x), left), p.out_width))
        with loop(a.begin, a.end) as channel, loop(0, p.out_height) as r:
            top = let(r * p.stride_y - p.pad_top)
            rows = (let(T.max(-top, 0)), let(T.min(p.kernel_height, p.height - top)))
            x_start = let(channel * p.x_pitch + top * p.width - p.pad_left)
            y_start = let(channel * p.y_pitch + r * p.out_width)

            def windows(step: int | Expr) -> Value:
                def value(i: Expr, lanes: int) -> Expr:
                    return reduced(a, p, x_start, rows, (0, p.kernel_width), i, step, lanes)

                return value

            write_strided(a.y, y_start, left, right, p.stride_x, windows)
            for begin, end in ((0, left), (right, p.out_width)):
                with loop(begin, end) as c:
                    column = let(c * p.stride_x - p.pad_left)
                    columns = (let(T.max(-column, 0)), let(T.min(p.kernel_width, p.width - column)))
                    a.y[y_start + c] = reduced(a, p, x_start, rows, columns, c, p.stride_x, 1)

    def reduced(
        a: Arguments,
        p: PoolParameters,
        x_start: Expr,
        rows: tuple[Expr, Expr],
        columns: tuple[Expr, Expr],
        i: Expr,
        step: int | Expr,
        lanes: int,
    ) -> Expr:
        """Output columns i .. i + lanes from the kernel rows and columns [begin, end) that lie inside x."""
        total = registers(1, lanes)
        total.store(0, broadcast(start, lanes), lanes)
        with loop(*rows) as ky, loop(*columns) as kx:
            x = strided(a.x, x_start + ky * p.width + kx, step)(i, lanes)
            so_far = total.load(0, lanes)
            total.store(0, so_far + x if average else T.max(so_far, x), lanes)
        if not average:
            return total.load(0, lanes)
        whole = p.kernel_height * p.kernel_width
        inside = (rows[1] - rows[0]) * (columns[1] - columns[0])
        return total.load(0, lanes) / T.Cast("float32", T.Select(p.count_padding != 0, whole, inside))

    return function(spec.symbol, PoolParameters, body)


def global_average(spec: GlobalAverage) -> Any:
    def body(a: Arguments, p: GlobalAverageParameters) -> None:
        vectors = let(divide(p.lanes, VECTOR_LANES))
        with loop(a.begin, a.end) as channel:
            start = let(channel * p.x_pitch)
            total, tail = registers(1), registers(1, lanes=1)
            total.store(0, broadcast(T.float32(0)))
            tail[0] = T.float32(0)
            with loop(0, vectors) as v:
                total.store(0, total.load(0) + a.x.load(start + v * VECTOR_LANES))
            with loop(vectors * VECTOR_LANES, p.lanes) as t:
                tail[0] = tail[0] + a.x[start + t]
            a.y[channel * p.y_pitch] = (reduce_lanes(total, 0) + tail[0]) / T.Cast("float32", p.lanes)

    return function(spec.symbol, GlobalAverageParameters, body)
