"""Attention against numpy in float64: edge sizes, masks, queries without any key, great scores, parts of the units."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_calls import ATTENTION, Array, Placement, assert_untouched, call, guarded, split_points, uniform

from sparsecc.backends.tvm.kernels.parameters import AttentionParameters, float_bits
from sparsecc.backends.tvm.kernels.spec import QUERY_LANES, Attention, Isa

EDGES = [1, 7, 8, 9, 31, 32, 33, 127]


def expected(q: Array, k: Array, v: Array, mask: Array | None, heads: int, scale: float) -> Array:
    """Rows of heads side by side; the mask has keys as rows."""
    q, k, v = (x.astype(np.float64).reshape(len(x), heads, -1) for x in (q, k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) * scale
    if mask is not None:
        scores = scores + mask.astype(np.float64).T
    greatest = scores.max(2, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(greatest), greatest, 0))
    total = weights.sum(2, keepdims=True)
    shares = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    result: Array = np.einsum("hqk,khd->qhd", shares, v)
    return result.reshape(len(q), -1)


def check(
    spec: Attention,
    isa: Isa,
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    placement: Placement = "end",
    splits: list[int] | None = None,
) -> None:
    heads, scale = q.shape[1] // spec.head_size, 0.3
    blocks = -(-len(q) // QUERY_LANES)
    p = AttentionParameters(len(q), len(k), heads, blocks, float_bits(scale))
    y = guarded(np.full(q.shape, np.nan, np.float32), placement)
    x, z, values = (guarded(a, placement) for a in (q, k, v))
    bias = None if mask is None else guarded(mask, placement)
    call(spec, isa, p, heads * blocks, x=x, y=y, z=z, values=values, bias=bias, splits=splits)
    np.testing.assert_allclose(y, expected(q, k, v, mask, heads, scale), rtol=0, atol=2e-6 * np.abs(v).max())
    assert_untouched(y, placement)


@pytest.mark.parametrize("placement", ["begin", "end"])
@pytest.mark.parametrize("spec", ATTENTION, ids=lambda spec: spec.symbol)
def test_edge_sizes(spec: Attention, isa: Isa, placement: Placement) -> None:
    for queries, keys in [*zip(EDGES, EDGES, strict=True), *zip(EDGES, reversed(EDGES), strict=True), (64, 192)]:
        q, k, v = (uniform(n, 3 * spec.head_size, seed=n) * 2 for n in (queries, keys, keys))
        mask = uniform(keys, queries, seed=5) if spec.masked else None
        check(spec, isa, q, k, v, mask, placement, split_points(3 * -(-queries // QUERY_LANES)))


def test_masked_out_keys_weigh_nothing(isa: Isa) -> None:
    q, k, v = (uniform(n, 32, seed=n) for n in (40, 130, 131))
    v = v[:130]
    mask = np.where(uniform(130, 40, seed=1) < 0, np.float32(-np.inf), np.float32(0))
    mask[:, 3] = -np.inf  # a query without any key
    mask[:70, 5] = -np.inf  # whose first block of keys is masked out
    mask[64:, 7] = -np.inf
    check(Attention(32, True), isa, q, k, v, mask)


def test_great_scores_neither_overflow_nor_vanish(isa: Isa) -> None:
    q, k, v = (uniform(70, 8, seed=seed) * scale for seed, scale in ((0, 300), (1, 300), (2, 1)))
    check(Attention(8, False), isa, q, k, v, None)
    falling = np.linspace(5e3, -5e3, 70, dtype=np.float32)[:, None] * np.ones((1, 70), np.float32)
    check(Attention(8, True), isa, q, k, v, np.ascontiguousarray(falling))
