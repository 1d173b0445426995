"""prune-weights and measure-sparsity: zeros made, and counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from programs import Model, before_and_after, notes, program, run, seeded
from torch import Tensor, nn
from torch.nn import functional

from sparsecc import pipelines
from sparsecc.passes.prune_weights import pruned

X = seeded(2, 6)
COUNTED = "fold-masks,prune-weights{{sparsity={}}},measure-sparsity"


def linear() -> nn.Module:
    layer = nn.Linear(6, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1, 25).reshape(4, 6) / 8)
        layer.bias.zero_()
    return layer


def test_golden(golden: Callable[[str, str], None]) -> None:
    golden("prune_weights", before_and_after("fold-masks,prune-weights{sparsity=0.75}", linear(), X))


def test_golden_of_measuring(golden: Callable[[str, str], None]) -> None:
    golden("measure_sparsity", before_and_after(COUNTED.format(0.75), linear(), X))


@pytest.mark.parametrize(("sparsity", "left"), [(0.0, 24), (0.5, 12), (0.9, 2), (0.99, 0)])
def test_so_many_are_left(sparsity: float, left: int) -> None:
    after, _ = run(COUNTED.format(sparsity), program(linear(), X))
    (layer,) = after.layers.values()
    assert layer.nonzeros == left
    assert layer.sparsity == pytest.approx(1 - left / 24)


@pytest.mark.parametrize(
    ("weights", "sparsity", "expected"),
    [
        ([3.0, -1.0, 2.0, -4.0], 0.5, [3.0, 0.0, 0.0, -4.0]),
        ([1.0, 1.0, 1.0, 1.0], 0.5, [0.0, 0.0, 1.0, 1.0]),
        ([0.0, 0.0, 0.0, 5.0], 0.25, [0.0, 0.0, 0.0, 5.0]),
        ([], 0.5, []),
    ],
)
def test_the_smallest_go(weights: list[float], sparsity: float, expected: list[float]) -> None:
    given = torch.tensor(weights)
    assert pruned(given, sparsity).tolist() == expected
    assert given.tolist() == weights


def test_a_weight_that_depends_on_the_input_stays() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return functional.linear(x, m.w * x.sum())

    after, records = run(COUNTED.format(0.5), program(Model(forward, w=seeded(4, 6)), X))
    assert notes(records, "prune-weights", done=False) == ["the weight depends on the input"]
    assert after.layers == {}


def test_a_shared_weight_is_pruned_once() -> None:
    model = Model(lambda m, x: m.fc(m.fc(x)), fc=nn.Linear(6, 6))
    after, _ = run("fold-masks,prune-weights", program(model, seeded(2, 6)))
    assert [n.name for n in after.constants] == ["fc_bias", "fc_weight_pruned"]


def test_measuring_changes_no_value() -> None:
    before = program(linear(), X)
    after, _ = run("fold-masks,measure-sparsity", before)
    assert str(after.graph) == str(before.graph)


def test_the_name_and_the_origin_of_the_zeros_survive_the_next_pipeline() -> None:
    """As `sparsecc compile --sparsity` does: prune, then everything else from the start."""
    first, _ = run(f"{pipelines.TIDY},prune-weights{{sparsity=0.5}}", program(nn.Sequential(linear()), X))
    second, _ = run(f"{pipelines.TIDY},measure-sparsity", first)
    (layer,) = second.layers.values()
    assert (layer.weight, layer.mask, layer.nonzeros) == ("0.weight", "pruned by magnitude", 12)
