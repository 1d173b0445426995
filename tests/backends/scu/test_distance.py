"""How far what contracts mean is from the original model: against numpy, and on compiled models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from programs import Model, seeded
from torch import nn

import sparsecc
from sparsecc.artifact import read_npz
from sparsecc.backends.scu.distance import distance
from sparsecc.contracts.options import ContractOptions
from sparsecc.manifest import Distance


def test_scores_are_compared_row_by_row() -> None:
    original = np.array([[1, 2, 4], [3, 1, 2]], np.float32)
    assert distance(original, original) == Distance(0.0, 2, 2)
    assert distance(np.array([[1, 2, 3], [1, 3, 2]], np.float32), original) == Distance(0.5, 2, 1)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (1, 2, 3)])
def test_what_is_no_scores(shape: tuple[int, ...]) -> None:
    original = np.arange(6, dtype=np.float32).reshape(shape)
    assert distance(original * np.float32(0.5), original) == Distance(0.5, 0, 0)


def test_what_has_no_relative_error() -> None:
    classes = np.array([[1, 2]], np.int64)
    assert distance(classes, classes) == Distance(0.0)
    assert distance(classes + 1, classes) == Distance(None)
    logs = np.array([[0.0, -np.inf]], np.float32)
    assert distance(np.zeros((1, 2), np.float32), logs) == Distance(None, 1, 1)


# ---- compiled --------------------------------------------------------------------------------------------------------


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 200), nn.ReLU(), nn.Linear(200, 72), nn.ReLU(), nn.Linear(72, 3))


def compiled(keep: float) -> sparsecc.Compiled:
    options = ContractOptions(keep=keep)
    return sparsecc.compile(network(), (seeded(4, 8),), target="scu", dynamic={"batch": 0}, contracts=options)


def from_original(result: sparsecc.Compiled) -> Distance:
    assert result.manifest.check.original is not None
    return result.manifest.check.original["output"]


def test_contracts_are_compared_with_the_original() -> None:
    """The original in torch, against what the artifact keeps for the engines."""
    result = compiled(keep=0.1)
    with torch.no_grad():
        original = network()(seeded(4, 8)).double().numpy()
    meant = read_npz(result.files["golden.npz"])["outputs/output"].astype(np.float64)
    error, alike = np.abs(meant - original).max() / np.abs(original).max(), meant.argmax(1) == original.argmax(1)
    assert error > 0.05
    found = from_original(result)
    assert found.max_relative_error == pytest.approx(error, rel=1e-3)
    assert (found.rows, found.same_argmax) == (4, alike.sum())
    assert result.manifest.check.unit is not None
    assert result.manifest.check.unit < 1e-5


def test_to_keep_everything_leaves_rounding() -> None:
    found = from_original(compiled(keep=1.0))
    assert found.max_relative_error == pytest.approx(0, abs=1e-6)
    assert (found.rows, found.same_argmax) == (4, 4)


def test_an_output_of_classes_may_change() -> None:
    """No relative error, and still an artifact."""
    layers = {"first": nn.Linear(8, 200), "second": nn.Linear(200, 1000)}
    model = Model(lambda m, x: m.second(m.first(x).relu()).argmax(1), **layers)
    options = ContractOptions(keep=0.02)
    check = sparsecc.compile(model, (seeded(16, 8),), target="scu", contracts=options).manifest.check
    assert check.original == {"output": Distance(None)}
