"""fold-masks: every way people write a mask is found and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from programs import Model, before_and_after, error, filled, notes, program, run, seeded, some
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

X = seeded(2, 6)
MASK = some(4, 6)


class FakeSparsity(nn.Module):
    """As torchao.sparsity's: a parametrization that multiplies by a mask buffer."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", MASK.float())

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def linear() -> nn.Linear:
    layer = nn.Linear(6, 4)
    with torch.no_grad():
        layer.weight.copy_(seeded(4, 6))
    return layer


# torch annotates neither
custom_from_mask: Callable[[nn.Linear, str, Tensor], nn.Linear] = prune.custom_from_mask
random_unstructured: Callable[[nn.Module, str, float], nn.Module] = prune.random_unstructured


def pruned() -> nn.Module:
    return nn.Sequential(custom_from_mask(linear(), "weight", MASK))


def parametrized(times: int = 1) -> nn.Module:
    layer = linear()
    for _ in range(times):
        parametrize.register_parametrization(layer, "weight", FakeSparsity())
    return nn.Sequential(layer)


def zeroed() -> nn.Sequential:
    layer = linear()
    with torch.no_grad():
        layer.weight.mul_(MASK)
    return nn.Sequential(layer)


def in_forward(masked: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype = torch.float32) -> nn.Module:
    def forward(layer: Any, x: Tensor) -> Tensor:
        return functional.linear(x, masked(layer.weight, layer.kept), layer.bias)

    plain = linear()
    return nn.Sequential(Model(forward, weight=plain.weight, bias=plain.bias, kept=MASK.to(dtype)))


WAYS: dict[str, tuple[nn.Module, str]] = {
    "plain zeros": (zeroed(), "plain zeros"),
    "prune": (pruned(), "torch.nn.utils.prune"),
    "parametrize": (parametrized(), "parametrization"),
    "two parametrizations": (parametrized(2), "parametrization"),
    "weight * mask": (in_forward(lambda w, m: w * m), "mask in forward"),
    "mask * weight": (in_forward(lambda w, m: m * w), "mask in forward"),
    "int mask": (in_forward(lambda w, m: w * m, torch.int64), "mask in forward"),
    "bool mask": (in_forward(lambda w, m: w * m, torch.bool), "mask in forward"),
    "where(mask, w, 0)": (in_forward(lambda w, m: torch.where(m, w, 0), torch.bool), "mask in forward"),
    "where(mask, 0, w)": (in_forward(lambda w, m: torch.where(~m, 0, w), torch.bool), "mask in forward"),
    "where(mask, w, zeros)": (
        in_forward(lambda w, m: torch.where(m, w, torch.zeros_like(w)), torch.bool),
        "mask in forward",
    ),
    "masked_fill": (in_forward(lambda w, m: w.masked_fill(~m, 0), torch.bool), "mask in forward"),
    "masked_fill(mask == 0)": (in_forward(lambda w, m: w.masked_fill(m == 0, 0)), "mask in forward"),
    "x @ (w * mask).T": (in_forward(lambda w, m: w * m), "mask in forward"),
    "no mask": (nn.Sequential(linear()), "none"),
    "weight norm, no zeros": (nn.Sequential(parametrizations.weight_norm(linear())), "none"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_mask_is_found_and_named(way: str) -> None:
    model, mask = WAYS[way]
    before = program(model, X)
    after, _ = run("canonicalize,fold-masks", before)
    ((name, layer),) = after.layers.items()
    assert (layer.weight, layer.rows, layer.cols, layer.mask) == ("0.weight", 4, 6, mask)
    (node,) = (n for n in after.graph.nodes if n.name == name)
    assert after.is_constant(node.args[1])
    if mask != "none":
        torch.testing.assert_close(after.constant(node.args[1]), (seeded(4, 6) * MASK), rtol=0, atol=0)
    assert error(after, before, seeded(2, 6, seed=1)) == 0


def test_golden(golden: Callable[[str, str], None]) -> None:
    golden("fold_masks", before_and_after("fold-masks", pruned(), X))


def test_a_weight_that_depends_on_the_input_stays() -> None:
    model = Model(lambda m, x: functional.linear(x, m.w * x.sum()), w=seeded(4, 6))
    after, records = run("fold-masks", program(model, X))
    assert after.layers == {}
    assert notes(records, "fold-masks", done=False) == ["the weight depends on the input"]
    assert not records[0].changed


def test_layers_that_share_a_masked_weight_share_the_folded_one() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        weight = m.w * m.mask
        return functional.linear(functional.linear(x, weight), weight)

    after, _ = run("fold-masks", program(Model(forward, w=seeded(6, 6), mask=some(6, 6)), X))
    assert len(after.constants) == 1
    assert [(fact.weight, fact.mask) for fact in after.layers.values()] == [("w", "mask in forward")] * 2


def test_one_parameter_in_two_layers() -> None:
    model = Model(lambda m, x: m.b(m.a(x)), a=nn.Linear(6, 6), b=nn.Linear(6, 6))
    model.b.weight = model.a.weight
    after, records = run("fold-masks", program(filled(model), X))
    assert [fact.mask for fact in after.layers.values()] == ["plain zeros"] * 2
    assert len({fact.weight for fact in after.layers.values()}) == 1
    assert notes(records, "fold-masks", done=True) == ["the weight has plain zeros, and no mask to fold"]


def test_a_masked_weight_used_elsewhere_too() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        weight: Tensor = m.w * m.mask
        return functional.linear(x, weight) + weight.sum()

    before = program(Model(forward, w=seeded(4, 6), mask=MASK), X)
    after, _ = run("fold-masks", before)
    assert error(after, before) == 0


@pytest.mark.parametrize("zeros", [False, True])
def test_bias_masks_are_no_masks_of_the_weight(zeros: bool) -> None:
    layer = zeroed()[0] if zeros else linear()
    random_unstructured(layer, "bias", 0.5)
    after, _ = run("fold-masks", program(nn.Sequential(layer), X))
    assert [fact.mask for fact in after.layers.values()] == ["plain zeros" if zeros else "none"]
