"""canonicalize: one spelling per operation, and the look-alikes that it must leave alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from programs import Model, before_and_after, called, error, filled, notes, program, run, seeded
from torch import nn
from torch.nn import functional

aten = torch.ops.aten
X = seeded(2, 6)
IMAGE = seeded(2, 3, 5, 5)


def targets(model: nn.Module, *inputs: torch.Tensor, dynamic: bool = False) -> list[str]:
    after, _ = run("canonicalize", program(model, *inputs, dynamic={"batch": 0} if dynamic else None))
    return [target.removeprefix("aten.").partition(".")[0] for target in called(after)]


def find(model: nn.Module, *inputs: torch.Tensor) -> list[str]:
    return notes(run("canonicalize", program(model, *inputs))[1], "canonicalize", done=False)


def test_golden(golden: Callable[[str, str], None]) -> None:
    model = Model(
        lambda m, x: (m.conv(x).clone().view(x.shape[0], -1) @ m.w) + m.b,
        conv=nn.Conv2d(3, 2, 3, padding="same"),
        w=nn.Parameter(torch.ones(50, 4)),
        b=nn.Parameter(torch.ones(4)),
    )
    golden("canonicalize", before_and_after("canonicalize", filled(model), IMAGE))


@pytest.mark.parametrize(
    "copy",
    [
        lambda x: x.clone(),
        lambda x: x.contiguous(),
        lambda x: x[:],
        lambda x: x.expand(-1, 6),
        lambda x: x.float(),
        lambda x: x.detach(),
        lambda x: functional.dropout(x, training=False),
    ],
)
def test_copies_go(copy: Callable[[torch.Tensor], torch.Tensor]) -> None:
    assert targets(Model(lambda _, x: copy(x) + 1), X, dynamic=True) == ["add"]


@pytest.mark.parametrize(
    ("not_a_copy", "kept"),
    [
        (lambda x: x[:2], "slice"),
        (lambda x: x[:, :5], "slice"),
        (lambda x: x.expand(3, -1, 6), "expand"),
        (lambda x: x.double(), "_to_copy"),
        (lambda x: x.view(6, -1), "reshape"),
    ],
)
def test_near_copies_stay(not_a_copy: Callable[[torch.Tensor], torch.Tensor], kept: str) -> None:
    """x[:2] keeps everything of the example inputs, and not of a batch of three."""
    assert kept in targets(Model(lambda _, x: not_a_copy(x) + 1), X, dynamic=True)


def test_a_view_after_a_dropped_copy_still_runs() -> None:
    assert targets(Model(lambda _, x: x.t().contiguous().view(3, 4)), X) == ["t", "reshape"]


def test_a_copy_whose_layout_is_read_stays() -> None:
    model = Model(lambda _, x: x.t().contiguous().as_strided((2, 2), (1, 2)))
    assert find(model, X) == ["remove a copy: as_strided reads the copy's memory layout"]


def test_lopsided_padding_is_refused_with_its_reason() -> None:
    reason = "write the padding as numbers: 'same' padding of an even kernel is lopsided"
    assert find(nn.Conv2d(3, 2, 4, padding="same"), IMAGE) == [reason]


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(
    "product",
    [
        lambda m, x: x @ m.w + m.b,
        lambda m, x: m.b + x @ m.w,
        lambda m, x: x @ (m.w * m.mask) + m.b,
        lambda m, x: x @ m.v.t() + m.b,
        lambda m, x: x @ m.v.permute(1, 0) + m.b,
        lambda m, x: x @ m.square.transpose(0, 0) + m.c,
        lambda m, x: x @ m.square.permute(0, 1) + m.c,
    ],
)
def test_products_with_constants_are_linear_layers(product: Callable[..., object], rank: int) -> None:
    parts = {"w": seeded(6, 4), "v": seeded(4, 6), "square": seeded(6, 6), "b": seeded(4), "c": seeded(6)}
    model = Model(product, mask=torch.ones(6, 4), **parts)
    x = seeded(*(2, 3, 6)[-rank:])
    before = program(model, x)
    after, _ = run("canonicalize,fold-masks", before)
    assert called(after) == ["aten.linear.default"]
    assert error(after, before, seeded(*x.shape, seed=1)) < 1e-6


@pytest.mark.parametrize(
    "near_miss",
    [
        lambda m, x: m.w.t() @ x.t(),
        lambda _, x: x @ x.t(),
        lambda m, x: x @ (m.w * x.sum()),
        lambda m, x: x[0] @ m.w,
        lambda m, _: m.w.t() @ m.w,
        lambda m, x: torch.addmm(m.b, x, m.w, alpha=2),
        lambda m, x: torch.addmm(m.full, x, m.w),
    ],
)
def test_other_products_stay(near_miss: Callable[..., object]) -> None:
    model = Model(near_miss, w=seeded(6, 4), b=seeded(4), full=seeded(2, 4))
    assert "linear" not in targets(model, X)


@pytest.mark.parametrize(
    "near_miss",
    [
        lambda m, x: m.fc(x) + m.b,  # it has a bias already
        lambda m, x: m.no_bias(x) + 1.0,
        lambda m, x: m.no_bias(x) + m.full,
        lambda m, x: torch.add(m.no_bias(x), m.b, alpha=2),
        lambda m, x: (y := m.no_bias(x)) + m.b + y,
    ],
)
def test_other_sums_are_no_bias(near_miss: Callable[..., object]) -> None:
    model = Model(near_miss, fc=nn.Linear(6, 4), no_bias=nn.Linear(6, 4, bias=False), b=seeded(4), full=seeded(2, 4))
    assert "add" in targets(model, X)
