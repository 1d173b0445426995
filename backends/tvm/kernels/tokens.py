"""Token panels: the change between a user's rows [token][feature] and a panel [feature][token], and layer norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .parameters import LayerNormParameters, TokensParameters, VectorNormParameters
from .script import (
    Arguments,
    Array,
    Expr,
    RegisterFile,
    T,
    broadcast,
    divide,
    function,
    let,
    loop,
    reduce_lanes,
    registers,
)
from .spec import VECTOR_LANES, LayerNorm, LoadTokens, StoreTokens, VectorNorm

BLOCK = 8  # transposed in registers: 8 x 8 fits the 16 registers of AVX2, 16 x 16 the 32 of AVX-512
INDEPENDENT_SUMS = 4  # hide the latency of an addition (4 cycles on Zen 4 and Skylake-X)


def load_tokens(spec: LoadTokens, file: RegisterFile) -> Any:
    def body(a: Arguments, p: TokensParameters) -> None:
        def square(token: Expr, feature: Expr, size: int) -> None:
            rows = [a.x.load((token + t) * p.features + feature, size) for t in range(size)]
            for f, column in enumerate(transpose(rows)):
                a.y.store((feature + f) * p.pitch + token, column, size)

        def one(token: Expr, feature: Expr) -> None:
            a.y[feature * p.pitch + token] = a.x[token * p.features + feature]

        in_squares(a, p, file, square, one)

    return function(spec.symbol, TokensParameters, body)


def store_tokens(spec: StoreTokens, file: RegisterFile) -> Any:
    def body(a: Arguments, p: TokensParameters) -> None:
        def square(token: Expr, feature: Expr, size: int) -> None:
            columns = [a.x.load((feature + f) * p.pitch + token, size) for f in range(size)]
            for t, row in enumerate(transpose(columns)):
                a.y.store((token + t) * p.features + feature, row, size)

        def one(token: Expr, feature: Expr) -> None:
            a.y[token * p.features + feature] = a.x[feature * p.pitch + token]

        in_squares(a, p, file, square, one)

    return function(spec.symbol, TokensParameters, body)


def in_squares(
    a: Arguments,
    p: TokensParameters,
    file: RegisterFile,
    square: Callable[[Expr, Expr, int], None],
    one: Callable[[Expr, Expr], None],
) -> None:
    """Every token of the units with every feature: squares as large as the registers hold, then smaller ones."""
    begin = a.begin
    for size in (VECTOR_LANES, BLOCK) if file.per_vector == 1 else (BLOCK,):
        squares, features = let(divide(a.end - begin, size)), let(divide(p.features, size) * size)
        end = let(begin + squares * size)
        with loop(0, squares) as i, loop(0, divide(features, size)) as j:
            square(let(begin + i * size), let(j * size), size)
        with loop(begin, end) as token, loop(features, p.features) as feature:
            one(token, feature)
        begin = end
    with loop(begin, a.end) as token, loop(0, p.features) as feature:
        one(token, feature)


def transpose(rows: list[Expr]) -> list[Expr]:
    """Vectors of the columns, by exchanging the off-diagonal halves of every 2 x 2, 4 x 4 ... square in turn."""
    size = len(rows)
    half = 1
    while half < size:
        rows = [let(row) for row in rows]
        low = [i if i & half == 0 else size + i - half for i in range(size)]
        high = [i + half if i & half == 0 else size + i for i in range(size)]
        rows = [T.Shuffle([rows[i & ~half], rows[i | half]], high if i & half else low) for i in range(size)]
        half *= 2
    return rows


def layer_norm(spec: LayerNorm) -> Any:
    """Mean, then squared distances from it: a single pass for both loses digits where the mean is large."""

    def body(a: Arguments, p: LayerNormParameters) -> None:
        epsilon = let(T.reinterpret("float32", p.epsilon_bits))
        with loop(a.begin, a.end) as unit:
            lane = let(unit * VECTOR_LANES)
            count = let(broadcast(T.Cast("float32", p.channels)))
            mean = let(sum_over_channels(a.x, p, lane, None) / count)
            variance = let(sum_over_channels(a.x, p, lane, mean) / count)
            scale = let(T.float32(1) / T.sqrt(variance + epsilon))
            with loop(0, p.channels) as c:
                i = let(c * p.pitch + lane)
                a.y.store(i, (a.x.load(i) - mean) * scale * a.values[c] + a.bias[c])

    return function(spec.symbol, LayerNormParameters, body)


def sum_over_channels(x: Array, p: LayerNormParameters, lane: Expr, mean: Expr | None) -> Expr:
    """The sum of x, or of (x - mean)^2, for one vector of lanes."""
    sums = registers(INDEPENDENT_SUMS)

    def add(slot: int, channel: Expr) -> None:
        value = x.load(channel * p.pitch + lane)
        if mean is not None:
            value = let(value - mean)
            value = value * value
        sums.store(slot * VECTOR_LANES, sums.load(slot * VECTOR_LANES) + value)

    for slot in range(INDEPENDENT_SUMS):
        sums.store(slot * VECTOR_LANES, broadcast(T.float32(0)))
    groups = let(divide(p.channels, INDEPENDENT_SUMS))
    with loop(0, groups) as group:
        for slot in range(INDEPENDENT_SUMS):
            add(slot, group * INDEPENDENT_SUMS + slot)
    with loop(groups * INDEPENDENT_SUMS, p.channels) as channel:
        add(0, channel)
    first, second, third, fourth = (sums.load(slot * VECTOR_LANES) for slot in range(INDEPENDENT_SUMS))
    return (first + second) + (third + fourth)


def vector_norm(spec: VectorNorm) -> Any:
    """The mean first, for the same reason; channels beyond a multiple of a vector are taken one by one."""

    def body(a: Arguments, p: VectorNormParameters) -> None:
        epsilon = let(T.reinterpret("float32", p.epsilon_bits))
        vectors = let(divide(p.channels, VECTOR_LANES))
        with loop(a.begin, a.end):
            mean = let(average(a.x, p, vectors, None))
            variance = let(average(a.x, p, vectors, mean))
            scale = let(T.float32(1) / T.sqrt(variance + epsilon))
            with loop(0, vectors) as v:
                i = let(v * VECTOR_LANES)
                a.y.store(i, (a.x.load(i) - broadcast(mean)) * broadcast(scale) * a.values.load(i) + a.bias.load(i))
            with loop(vectors * VECTOR_LANES, p.channels) as c:
                a.y[c] = (a.x[c] - mean) * scale * a.values[c] + a.bias[c]

    return function(spec.symbol, VectorNormParameters, body)


def average(x: Array, p: VectorNormParameters, vectors: Expr, mean: Expr | None) -> Expr:
    """The mean of x, or of (x - mean)^2."""

    def term(i: Expr, lanes: int) -> Expr:
        value = x.load(i, lanes)
        if mean is None:
            return value
        value = let(value - broadcast(mean, lanes))
        return value * value

    total, tail = registers(1), registers(1, lanes=1)
    total.store(0, broadcast(T.float32(0)))
    tail[0] = T.float32(0)
    with loop(0, vectors) as v:
        total.store(0, total.load(0) + term(v * VECTOR_LANES, VECTOR_LANES))
    with loop(vectors * VECTOR_LANES, p.channels) as c:
        tail[0] = tail[0] + term(c, 1)
    return (reduce_lanes(total, 0) + tail[0]) / T.Cast("float32", p.channels)
