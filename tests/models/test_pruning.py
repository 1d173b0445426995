"""Pruning: exactly the weights that a sort by (magnitude, index) names, for every shape, tie and block."""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from sparsecc.diagnostics import CompileError
from sparsecc.models import pruning

EDGE_SIZES = (1, 2, 7, 8, 9, 31, 33)
SHARES = st.one_of(st.sampled_from((0.0, 0.5, 0.9, 1.0)), st.floats(0, 1))


def linear(rows: int, cols: int, seed: int, levels: int) -> nn.Linear:
    """A layer whose weights take few values, so that ties are the rule."""
    layer = nn.Linear(cols, rows)
    values = np.random.default_rng(seed).integers(-levels, levels + 1, (rows, cols))
    layer.weight.data = torch.as_tensor(values / 4, dtype=torch.float32)
    return layer


def values(tensor: Tensor) -> list[float]:
    return [float(value) for value in tensor.detach().flatten()]


def zeros(weight: Tensor) -> int:
    return int((weight == 0).sum())


def smallest_by_sorting(scores: list[float], share: float) -> set[int]:
    order = sorted(range(len(scores)), key=lambda index: (scores[index], index))
    return set(order[: round(share * len(scores))])


@given(
    rows=st.sampled_from(EDGE_SIZES),
    cols=st.sampled_from(EDGE_SIZES),
    share=SHARES,
    seed=st.integers(0, 9),
    levels=st.sampled_from((0, 1, 40)),
)
def test_zeroed_weights_are_the_smallest_ties_by_index(
    rows: int, cols: int, share: float, seed: int, levels: int
) -> None:
    layer = linear(rows, cols, seed, levels)
    before, bias = values(layer.weight), layer.bias.detach().clone()
    realised = pruning.prune_by_magnitude(layer, share)
    dropped = smallest_by_sorting([abs(value) for value in before], share)
    expected = [0.0 if index in dropped else value for index, value in enumerate(before)]
    assert values(layer.weight) == expected
    assert realised == {"weight": expected.count(0.0) / len(expected)}
    assert torch.equal(layer.bias, bias)


@given(
    rows=st.sampled_from(EDGE_SIZES),
    cols=st.sampled_from(EDGE_SIZES),
    block=st.tuples(st.sampled_from((1, 2, 4, 8, 40)), st.sampled_from((1, 3, 8))),
    share=SHARES,
    levels=st.sampled_from((0, 1, 40)),
)
def test_zeroed_blocks_are_those_of_least_norm(
    rows: int, cols: int, block: tuple[int, int], share: float, levels: int
) -> None:
    layer = linear(rows, cols, 0, levels)
    expected = layer.weight.detach().clone()
    corners = [(top, left) for top in range(0, rows, block[0]) for left in range(0, cols, block[1])]
    tiles = [expected[top : top + block[0], left : left + block[1]] for top, left in corners]
    for index in smallest_by_sorting([float(tile.square().sum()) for tile in tiles], share):
        tiles[index].zero_()
    realised = pruning.prune_blocks(layer, share, *block)
    assert torch.equal(layer.weight, expected)
    assert realised == {"weight": int((expected == 0).sum()) / expected.numel()}


def small_network() -> nn.Sequential:
    torch.default_generator.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8, 5)
    )


def test_every_layer_gets_the_share_and_norms_stay() -> None:
    model = small_network()
    assert pruning.prune_by_magnitude(model, 0.75) == {"0.weight": 162 / 216, "2.weight": 54 / 72, "4.weight": 30 / 40}
    assert values(model.get_parameter("1.weight")) == [1] * 8


def test_the_first_convolution_can_stay_dense() -> None:
    model = small_network()
    assert pruning.prune_by_magnitude(model, 0.75, skip_first_conv=True) == {"2.weight": 54 / 72, "4.weight": 30 / 40}
    assert zeros(model.get_parameter("0.weight")) == 0


def test_global_scope_ranks_all_layers_together() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 3)
    first.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    second.weight.data = torch.tensor([[0.5, 2.0], [0.25, 9.0], [9.0, 9.0]])
    model = nn.Sequential(first, second)
    assert pruning.prune_by_magnitude(model, 0.4, scope="global") == {"0.weight": 0.5, "1.weight": 2 / 6}
    assert values(first.weight) == [0, 0, 3, 4]  # the 2 of the earlier layer goes before the equal one
    assert values(second.weight) == [0, 2, 0, 9, 9, 9]


def test_blocks_of_a_convolution_run_over_the_unrolled_kernel() -> None:
    layer = nn.Conv2d(2, 2, 2)
    layer.weight.data = torch.arange(16, dtype=torch.float32).view(2, 2, 2, 2) + 1
    assert pruning.prune_blocks(layer, 0.25, 2, 4) == {"weight": 0.0}  # round(0.25 * 2) blocks: half goes to even
    assert pruning.prune_blocks(layer, 0.5, 2, 4) == {"weight": 0.5}
    assert values(layer.weight) == [0, 0, 0, 0, 5, 6, 7, 8, 0, 0, 0, 0, 13, 14, 15, 16]


def test_channels_last_weights_are_pruned_in_place() -> None:
    layer = nn.Conv2d(4, 8, 3)
    plain = nn.Conv2d(4, 8, 3)
    plain.load_state_dict(layer.state_dict())
    layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    for model in (layer, plain):
        pruning.prune_by_magnitude(model, 0.5)
    assert zeros(plain.weight) == 144
    assert torch.equal(layer.weight, plain.weight)


def test_a_shared_weight_is_pruned_once() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    assert pruning.prune_by_magnitude(nn.Sequential(first, second), 0.5) == {"0.weight": 0.5}


def test_earlier_zeros_count_towards_the_share() -> None:
    layer = nn.Linear(10, 1)
    layer.weight.data = torch.tensor([[0.0, 0, 0, 0, 1, 2, 3, 4, 5, 6]])
    assert pruning.prune_by_magnitude(layer, 0.2) == {"weight": 0.4}
    assert pruning.prune_by_magnitude(layer, 0.5) == {"weight": 0.5}


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_nothing_to_prune_is_fine(scope: Literal["layer", "global"]) -> None:
    model = nn.Sequential(nn.ReLU(), nn.LayerNorm(4))
    assert pruning.prune_by_magnitude(model, 0.5, scope=scope) == {}
    assert pruning.prune_blocks(model, 0.5, 4) == {}


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, 90, math.nan])
def test_a_sparsity_outside_0_to_1_is_refused_before_anything_changes(sparsity: float) -> None:
    layer = nn.Linear(4, 4)
    with pytest.raises(CompileError) as by_magnitude:
        pruning.prune_by_magnitude(layer, sparsity)
    with pytest.raises(CompileError) as by_blocks:
        pruning.prune_blocks(layer, sparsity, 2)
    assert str(by_magnitude.value) == str(by_blocks.value)
    assert str(by_magnitude.value) == (
        f"error[SCC041]: a sparsity of {sparsity} is no share of the weights\n  help: give 0.9 to prune 90 %"
    )
    assert zeros(layer.weight) == 0


def test_an_empty_block_is_refused() -> None:
    with pytest.raises(CompileError) as caught:
        pruning.prune_blocks(nn.Linear(4, 4), 0.5, 0, 2)
    assert str(caught.value) == (
        "error[SCC041]: a pruning block of 0 x 2 holds no weights\n  help: give at least one row and one column"
    )


def test_computed_weights_are_refused() -> None:
    masked, normed = small_network(), small_network()
    cast(Any, prune).l1_unstructured(masked[4], "weight", 0.5)
    normed[4] = parametrizations.weight_norm(normed[4])
    for model in (masked, normed):
        with pytest.raises(CompileError) as caught:
            pruning.prune_by_magnitude(model, 0.5)
        assert str(caught.value) == (
            "error[SCC042]: 4.weight is computed by a mask or parametrization, so pruning it in place would be lost\n"
            "  help: make it permanent first, with torch.nn.utils.prune.remove or remove_parametrizations"
        )
        assert zeros(model.get_parameter("0.weight")) == 0
