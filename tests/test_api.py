"""The public functions end to end: what a saved model is compiled for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sparsecc
from sparsecc.artifact import Artifact
from sparsecc.reference import TOLERANCE, relative_error


def saved(tmp_path: Path, examples: tuple[torch.Tensor, ...] | dict[str, torch.Tensor]) -> tuple[nn.Module, Artifact]:
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    sparsecc.save(module, examples, tmp_path / "model.pt", dynamic={"batch": 0})
    return module, sparsecc.compile(tmp_path / "model.pt", tune=False).save(tmp_path / "m.sparsecc")


@pytest.mark.parametrize("by_name", [False, True], ids=["positional", "by name"])
def test_a_model_saved_with_batch_1_is_compiled_and_checked_on_batch_1(tmp_path: Path, by_name: bool) -> None:
    """torch.export traces a free axis at 2; the sizes that are compared and measured stay the user's."""
    x = torch.randn(1, 8)
    module, artifact = saved(tmp_path, {"input": x} if by_name else (x,))
    inputs, outputs = artifact.golden()
    assert {name: array.shape for name, array in inputs.items()} == {"input_1": (1, 8)}
    np.testing.assert_array_equal(inputs["input_1"], x.numpy())
    assert outputs["output"].shape == (1, 4)
    many = torch.randn(5, 8)
    actual = sparsecc.run(artifact, {"input_1": many.numpy()})["output"]
    assert relative_error(actual, module(many).detach().numpy()) <= TOLERANCE
