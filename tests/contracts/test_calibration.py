"""Calibration data from files: what is refused, in whole sentences, and how it is split."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from programs import filled, program, run, seeded

from sparsecc import pipelines
from sparsecc.contracts.calibration import from_arrays, load, split
from sparsecc.diagnostics import CompileError

from .nets import Small, samples, small_program

X = np.zeros((4, 3, 8, 8), np.float32)
HELP_NAMES = "write it with numpy: np.savez('calibration.npz', x=..., labels=...); labels are optional"
HELP_LABELS = "give one integer per sample, its class, or no labels"
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"y": X}, "c.npz holds y, but the model takes x", HELP_NAMES),
    ({}, "c.npz holds nothing, but the model takes x", HELP_NAMES),
    (
        {"x": X.astype(np.float64)},
        "c.npz holds x as float64, but the model takes float32",
        "convert it: x.astype('float32')",
    ),
    (
        {"x": X[:, :, :4]},
        "c.npz holds x of shape [4, 3, 4, 8], but the model takes [samples, 3, 8, 8]",
        "give the samples along axis 0, prepared as for the model itself",
    ),
    (
        {"x": X[:1]},
        "c.npz holds 1 sample, and at least 2 samples are needed: one part is for calibration, the other is held out",
        "give some hundred samples that resemble what the network will see",
    ),
    (
        {"x": X, "labels": np.zeros(3, np.int64)},
        "c.npz holds labels of shape [3] and type int64 for 4 samples",
        HELP_LABELS,
    ),
    (
        {"x": X, "labels": np.zeros(4, np.float32)},
        "c.npz holds labels of shape [4] and type float32 for 4 samples",
        HELP_LABELS,
    ),
]


@pytest.mark.parametrize(("arrays", "message", "way_out"), REFUSED)
def test_refused(arrays: dict[str, Any], message: str, way_out: str) -> None:
    with pytest.raises(CompileError) as caught:
        from_arrays(small_program(), arrays, "c.npz")
    assert str(caught.value) == f"error[SCC058]: {message}\n  help: {way_out}"


def test_a_file_with_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=X, labels=np.arange(4, dtype=np.uint8))
    calibration = load(tmp_path / "c.npz", small_program())
    assert len(calibration) == 4
    assert calibration.labels is not None
    assert calibration.labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("count", "held_out"), [(2, 0.5), (2, 0.01), (24, 0.5), (25, 0.9), (100, 0.2)])
def test_the_parts_are_disjoint_complete_and_repeatable(count: int, held_out: float) -> None:
    calibration = samples(count)
    fitting, checking = split(calibration, held_out, seed=5)
    again, _ = split(calibration, held_out, seed=5)
    assert torch.equal(fitting.inputs[0], again.inputs[0])
    assert len(fitting) >= 1
    assert len(checking) >= 1
    together = torch.cat([fitting.inputs[0], checking.inputs[0]]).flatten(1)
    assert sorted(together.tolist()) == sorted(calibration.inputs[0].flatten(1).tolist())


def test_a_fixed_batch_stays_whole() -> None:
    fixed, _ = run(pipelines.TIDY, program(filled(Small(), density=1), seeded(4, 3, 8, 8)))
    calibration = from_arrays(fixed, {"x": seeded(19, 3, 8, 8).numpy()})
    parts = split(calibration)
    assert [len(part) for part in parts] == [8, 8]
    assert all(len(batch) == 4 for part in parts for batch in part.batches())
    with pytest.raises(CompileError, match=r"holds 7 samples, and at least 8 \(two batches of 4\) are needed"):
        from_arrays(fixed, {"x": seeded(7, 3, 8, 8).numpy()})
