"""fuse-attention: attention over heads between sparse layers, whatever is around it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from programs import PREDICTED, Model, before_and_after, called, error, filled, notes, program, run, seeded
from torch import Tensor, nn
from torch.nn import functional

HEADS, SIZE = 16, 8
TOKENS = seeded(3, 5, HEADS * SIZE)
FUSE = PREDICTED.removesuffix(",partition-regions")
FUSED = "sparsecc.attention"
PLAIN = "aten.scaled_dot_product_attention.default"


def heads(x: Tensor, size: int = SIZE) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], -1, size).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def layers(attend: Callable[..., Tensor], features: int = HEADS * SIZE) -> nn.Module:
    """Attention between sparse projections and a sparse output layer."""
    parts = {name: nn.Linear(features, features) for name in ("q", "k", "v", "o")}
    return filled(Model(lambda m, x, *more: m.o(attend(m.q(x), m.k(x), m.v(x), *more)), **parts), 0.05)


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return joined(functional.scaled_dot_product_attention(heads(q), heads(k), heads(v), mask))


def test_golden(golden: Callable[[str, str], None]) -> None:
    golden("fuse_attention", before_and_after(FUSE, layers(plain), TOKENS, seeded(3, 1, 1, 5) > 0))


@pytest.mark.parametrize(
    "mask",
    [
        None,
        seeded(3, 1, 5, 5),
        seeded(5, 5),
        seeded(3, 1, 1, 5) > 0,
        seeded(1, 5) > -1,
        torch.zeros(3, 1, 5, 5, dtype=torch.bool),
    ],
    ids=["none", "added", "one for all", "keys", "keys of all", "nothing left"],
)
def test_fuses(mask: Tensor | None) -> None:
    inputs = (TOKENS,) if mask is None else (TOKENS, mask)
    before = program(layers(plain), *inputs, dynamic={})
    after, records = run(PREDICTED, before)
    assert PLAIN in called(before)
    assert PLAIN not in called(after)
    assert notes(records, "fuse-attention", done=True) == ["attention over heads"]
    assert "attention region of 1 nodes" in notes(records, "partition-regions", done=True)
    assert error(after, before, seeded(*TOKENS.shape, seed=3), *inputs[1:]) < 1e-6


def test_layers_share_the_turned_mask() -> None:
    attend = layers(lambda q, k, v, mask: plain(plain(q, k, v, mask), k, v, mask))
    after, _ = run(FUSE, program(attend, TOKENS, seeded(3, 1, 5, 5) > 0))
    assert [name for name in called(after) if "where" in name] == ["aten.where.Scalar"]
    assert sum(FUSED in name for name in called(after)) == 2


def test_an_open_batch_stays_open() -> None:
    before = program(layers(plain), TOKENS, seeded(3, 1, 5, 5), dynamic={"batch": 0})
    after, records = run(PREDICTED, before)
    assert notes(records, "fuse-attention", done=True)
    assert error(after, before, seeded(7, 5, HEADS * SIZE), seeded(7, 1, 5, 5)) < 1e-6


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return joined(functional.scaled_dot_product_attention(heads(q), heads(k), heads(v), is_causal=True))


def seen_per_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    y = functional.scaled_dot_product_attention(heads(q), heads(k), heads(v))
    return joined(y) + y.mean()


def scaled_per_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return joined(functional.scaled_dot_product_attention(heads(q) * 2, heads(k), heads(v)))


def of_width_4(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return joined(functional.scaled_dot_product_attention(heads(q, 4), heads(k, 4), heads(v, 4)))


@pytest.mark.parametrize(
    ("attend", "inputs", "reason"),
    [
        (causal, (), "it is causal, drops out, or shares keys among heads"),
        (seen_per_head, (), "its result is used per head, too"),
        (scaled_per_head, (), "its queries, keys or values are no rows of heads side by side"),
        (of_width_4, (), "the length is open, or heads are no multiple of 8 wide"),
        (plain, (seeded(3, HEADS, 5, 5),), "its mask differs from head to head, or is not of every sample"),
    ],
)
def test_near_misses(attend: Callable[..., Tensor], inputs: tuple[Tensor, ...], reason: str) -> None:
    before = program(layers(attend), TOKENS, *inputs)
    after, records = run(PREDICTED, before)
    assert notes(records, "fuse-attention", done=False) == [f"attention over heads: {reason}"]
    assert PLAIN in called(after)
    assert error(after, before, seeded(*TOKENS.shape, seed=3), *inputs) < 1e-6


def test_an_open_length_is_refused() -> None:
    _, records = run(PREDICTED, program(layers(plain), TOKENS, dynamic={"length": 1}))
    reason = "attention over heads: the length is open, or heads are no multiple of 8 wide"
    assert notes(records, "fuse-attention", done=False) == [reason]


def test_a_mask_for_all_samples_of_an_open_batch_is_refused() -> None:
    model = layers(lambda q, k, v: plain(q, k, v, torch.ones(5, 5, dtype=torch.bool).tril()))
    _, records = run(PREDICTED, program(model, TOKENS, dynamic={"batch": 0}))
    reason = "attention over heads: its mask differs from head to head, or is not of every sample"
    assert notes(records, "fuse-attention", done=False) == [reason]


def test_a_dense_model_is_left_alone() -> None:
    parts = {name: nn.Linear(HEADS * SIZE, HEADS * SIZE) for name in ("q", "k", "v")}
    model = filled(Model(lambda m, x: plain(m.q(x), m.k(x), m.v(x)), **parts), density=1)
    after, _ = run(PREDICTED, program(model, TOKENS))
    assert PLAIN in called(after)
