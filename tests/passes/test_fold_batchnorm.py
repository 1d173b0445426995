"""fold-batchnorm: into the layer before it, where nothing else sees that layer's output."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from programs import Model, before_and_after, called, error, filled, notes, program, run, seeded
from torch import Tensor, nn

FOLD = "canonicalize,fold-masks,fold-batchnorm"
NORM = "aten._native_batch_norm_legit_no_training.default"
IMAGE = seeded(2, 3, 5, 5)


def test_golden(golden: Callable[[str, str], None]) -> None:
    model = filled(nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU()))
    golden("fold_batchnorm", before_and_after(FOLD, model, IMAGE))


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)), IMAGE),
        (nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), nn.BatchNorm2d(2, affine=False, eps=0.1)), IMAGE),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4)), seeded(2, 4, 5, 5)),
        (nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), seeded(2, 6)),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)).double(), IMAGE.double()),
    ],
)
def test_folds(model: nn.Module, x: Tensor) -> None:
    before = program(filled(model), x)
    after, _ = run(FOLD, before)
    assert NORM in called(before)
    assert NORM not in called(after)
    assert error(after, before, seeded(*x.shape, seed=3).to(x.dtype)) < 1e-6


def test_zeros_stay_zeros() -> None:
    after, _ = run(
        f"{FOLD},measure-sparsity", program(filled(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))), IMAGE)
    )
    (layer,) = after.layers.values()
    assert layer.nonzeros == int(torch.count_nonzero(filled(nn.Conv2d(3, 8, 3)).weight))
    assert (layer.weight, layer.mask) == ("0.weight", "plain zeros")


@pytest.mark.parametrize(
    ("forward", "x", "reason"),
    [
        (lambda m, x: m.norm(y := m.conv(x)) + y, IMAGE, "%conv2d is also used without it"),
        (lambda m, x: m.norm(m.conv(x).relu()), IMAGE, "its input is not a convolution or linear layer"),
        (
            lambda m, x: m.norm(m.fc(x)),
            seeded(2, 2, 2),
            "it normalises another axis than the outputs of the linear layer",
        ),
        (
            lambda m, x: m.norm(torch.conv2d(x, m.conv.weight * x.sum())),
            IMAGE,
            "weight, bias or statistics are not constant",
        ),
    ],
)
def test_near_misses_stay_with_their_reason(forward: Callable[..., object], x: Tensor, reason: str) -> None:
    norm = nn.BatchNorm1d(2) if x.dim() == 3 else nn.BatchNorm2d(2)
    before = program(filled(Model(forward, conv=nn.Conv2d(3, 2, 3), fc=nn.Linear(2, 2), norm=norm)), x)
    after, records = run(FOLD, before)
    assert notes(records, "fold-batchnorm", done=False) == [reason]
    assert NORM in called(after)


def test_a_block_that_is_used_twice_is_folded_once() -> None:
    block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    before = program(filled(Model(lambda m, x: m.block(m.block(x)), block=block)), seeded(2, 3, 4, 4))
    after, _ = run("fold-masks,fold-batchnorm", before)
    assert len(after.constants) == 2
    assert error(after, before, seeded(2, 3, 4, 4, seed=5)) < 1e-5


def test_a_shared_weight_is_scaled_for_one_layer_only() -> None:
    model = Model(lambda m, x: m.norm(m.a(x)) + m.b(x), a=nn.Linear(6, 4), b=nn.Linear(6, 4), norm=nn.BatchNorm1d(4))
    model.b.weight = model.a.weight
    before = program(filled(model), seeded(2, 6))
    assert error(run(FOLD, before)[0], before, seeded(2, 6, seed=4)) < 1e-6
