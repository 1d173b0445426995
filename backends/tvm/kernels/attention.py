"""Attention of one head: queries are lanes, so that the softmax over keys takes no step between lanes.

Keys come in blocks: what a block adds is scaled to the greatest score so far, and what was added before it is scaled
along (online softmax, Milakov and Gimelshein 2018), so scores of one block are all that is ever stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .math import exp
from .parameters import AttentionParameters
from .script import Arguments, Array, Expr, RegisterFile, T, broadcast, divide, function, let, loop, registers, when
from .spec import QUERY_LANES, VECTOR_LANES, Attention
from .tokens import BLOCK, transpose

KEYS = 64  # of a block: their scores are 8 KiB
VECTORS = QUERY_LANES // VECTOR_LANES
LEAST = -3.0e38  # below every score that is not masked out


def attention(spec: Attention, file: RegisterFile) -> Any:
    size = spec.head_size
    tile = 8 if file.per_vector == 1 else 2  # rows of a register tile, two vectors wide

    def body(a: Arguments, p: AttentionParameters) -> None:
        scale = let(T.reinterpret("float32", p.scale_bits))
        pitch = let(p.heads * size)
        with loop(a.begin, a.end) as unit:
            head = let(divide(unit, p.blocks))
            first = let((unit - head * p.blocks) * QUERY_LANES)
            lanes = let(T.min(p.queries - first, QUERY_LANES))
            rows = let(first * pitch + head * size)  # of x and y
            queries, scores, sums = (registers(n * VECTORS) for n in (size, KEYS, size))
            greatest, total = registers(VECTORS), registers(VECTORS)
            load_queries(a.x, queries, rows, pitch, lanes, size, scale)
            clear(sums, size * VECTORS, 0.0)
            clear(total, VECTORS, 0.0)
            clear(greatest, VECTORS, LEAST)
            with loop(0, divide(p.keys + KEYS - 1, KEYS)) as block:
                key = let(block * KEYS)
                keys = let(T.min(p.keys - key, KEYS))
                of_head = let(key * pitch + head * size)  # of z and values
                whole = let(divide(keys, tile) * tile)
                with loop(0, divide(keys, tile)) as i:
                    multiply_keys(a.z, queries, scores, of_head, pitch, i * tile, tile, size)
                with loop(whole, keys) as s:
                    multiply_keys(a.z, queries, scores, of_head, pitch, s, 1, size)
                if spec.masked:
                    add_mask(a.bias, scores, key * p.queries + first, p.queries, keys, lanes)
                weigh(scores, greatest, total, sums, keys, size)
                for d in range(0, size, tile):
                    add_values(a.values, scores, sums, of_head, pitch, keys, d, tile)
            store_results(a.y, sums, total, rows, pitch, lanes, size)

    return function(spec.symbol, AttentionParameters, body)


def at(row: Expr, vector: int = 0) -> Expr:
    return row * QUERY_LANES + vector * VECTOR_LANES


def clear(array: Array, vectors: int, value: float) -> None:
    with loop(0, vectors) as v:
        array.store(v * VECTOR_LANES, broadcast(T.float32(value)))


def load_queries(x: Array, queries: Array, rows: Expr, pitch: Expr, lanes: Expr, size: int, scale: Expr) -> None:
    """queries[d][lane], scaled; lanes beyond the last query are 0."""
    whole = let(divide(lanes, BLOCK) * BLOCK)
    with when(lanes < QUERY_LANES):
        clear(queries, size * VECTORS, 0.0)
    with loop(0, divide(lanes, BLOCK)) as i:
        for d in range(0, size, BLOCK):
            taken = [x.load(rows + (i * BLOCK + t) * pitch + d, BLOCK) for t in range(BLOCK)]
            for f, column in enumerate(transpose(taken)):
                queries.store(at(d + f) + i * BLOCK, column * broadcast(scale, BLOCK), BLOCK)
    with loop(whole, lanes) as t, loop(0, size) as d:
        queries[at(d) + t] = x[rows + t * pitch + d] * scale


def multiply_keys(
    z: Array, queries: Array, scores: Array, of_head: Expr, pitch: Expr, key: Expr, keys: int, size: int
) -> None:
    """scores[key ...][lane] = keys times queries."""
    starts = [let(of_head + (key + r) * pitch) for r in range(keys)]
    tile = Tile(keys)
    tile.clear()
    with loop(0, size) as d:
        tile.multiply_add([z[start + d] for start in starts], [queries.load(at(d, v)) for v in range(VECTORS)])
    for r in range(keys):
        tile.store(r, scores, key + r)


def add_mask(mask: Array, scores: Array, start: Expr, pitch: Expr, keys: Expr, lanes: Expr) -> None:
    """The mask has the keys as rows. Lanes beyond the last query are not read, nor is anything behind the mask."""
    with loop(0, keys) as s:
        row = let(start + s * pitch)
        with when(lanes == QUERY_LANES):
            for v in range(VECTORS):
                scores.store(at(s, v), scores.load(at(s, v)) + mask.load(row + v * VECTOR_LANES))
        with when(lanes < QUERY_LANES), loop(0, lanes) as lane:
            scores[at(s) + lane] = scores[at(s) + lane] + mask[row + lane]


def weigh(scores: Array, greatest: Array, total: Array, sums: Array, keys: Expr, size: int) -> None:
    """Scores become exp(score - greatest); what came before is scaled to the new greatest score."""
    for v in range(VECTORS):
        lane = v * VECTOR_LANES
        before = let(greatest.load(lane))
        with loop(0, keys) as s:
            greatest.store(lane, T.max(greatest.load(lane), scores.load(at(s, v))))
        most = let(greatest.load(lane))
        fade = let(exp(before - most))
        total.store(lane, total.load(lane) * fade)
        with loop(0, keys) as s:
            weight = let(exp(scores.load(at(s, v)) - most))
            scores.store(at(s, v), weight)
            total.store(lane, total.load(lane) + weight)
        with loop(0, size) as d:
            sums.store(at(d, v), sums.load(at(d, v)) * fade)


def add_values(
    values: Array, scores: Array, sums: Array, of_head: Expr, pitch: Expr, keys: Expr, feature: int, features: int
) -> None:
    """sums[feature ...][lane] += values of these features times weights."""
    tile = Tile(features)
    for r in range(features):
        tile.load(r, sums, feature + r)
    with loop(0, keys) as s:
        start = let(of_head + s * pitch + feature)
        tile.multiply_add([values[start + r] for r in range(features)], [scores.load(at(s, v)) for v in range(VECTORS)])
    for r in range(features):
        tile.store(r, sums, feature + r)


def store_results(y: Array, sums: Array, total: Array, rows: Expr, pitch: Expr, lanes: Expr, size: int) -> None:
    """y[lane][d] = sums / total; a query whose keys are all masked out gets 0, as torch has it."""
    for v in range(VECTORS):
        weights = let(total.load(v * VECTOR_LANES))
        zero = broadcast(T.float32(0))
        share = let(T.Select(weights > zero, broadcast(T.float32(1)) / weights, zero))
        with loop(0, size) as d:
            sums.store(at(d, v), sums.load(at(d, v)) * share)
    whole = let(divide(lanes, BLOCK) * BLOCK)
    with loop(0, divide(lanes, BLOCK)) as i:
        for d in range(0, size, BLOCK):
            columns = [sums.load(at(d + f) + i * BLOCK, BLOCK) for f in range(BLOCK)]
            for t, row in enumerate(transpose(columns)):
                y.store(rows + (i * BLOCK + t) * pitch + d, row, BLOCK)
    with loop(whole, lanes) as t, loop(0, size) as d:
        y[rows + t * pitch + d] = sums[at(d) + t]


class Tile:
    """Sums of ``rows`` rows of queries, in registers."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.sums = registers(rows * VECTORS)

    def clear(self) -> None:
        for i in range(self.rows * VECTORS):
            self.sums.store(i * VECTOR_LANES, broadcast(T.float32(0)))

    def load(self, row: int, array: Array, number: Expr) -> None:
        for v in range(VECTORS):
            self.sums.store(at(row, v), array.load(at(number, v)))

    def store(self, row: int, array: Array, number: Expr) -> None:
        for v in range(VECTORS):
            array.store(at(number, v), self.sums.load(at(row, v)))

    def multiply_add(self, factors: Sequence[Expr], vectors: Sequence[Expr]) -> None:
        vectors = [let(vector) for vector in vectors]
        for r, factor in enumerate(factors):
            wide = let(broadcast(factor))
            for v, vector in enumerate(vectors):
                self.sums.store(at(r, v), self.sums.load(at(r, v)) + wide * vector)
