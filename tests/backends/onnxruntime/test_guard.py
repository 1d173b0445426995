"""The comparison with the dense original: it takes as long as it is in doubt, and what loses gets no kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sparsecc
from sparsecc.artifact import KERNELS
from sparsecc.backends.onnxruntime import guard, target
from sparsecc.backends.onnxruntime.guard import LEAST_RATIO, SECONDS_TO_MEASURE, Times, in_turn, loses, speed

SLOWER, FASTER = LEAST_RATIO * 0.99, LEAST_RATIO * 1.01


@pytest.mark.parametrize(
    ("ratios", "seconds"),
    [
        ([3.0] * 10, SECONDS_TO_MEASURE[:1]),
        ([0.5] * 10, SECONDS_TO_MEASURE[:1]),
        ([FASTER] * 39 + [SLOWER], SECONDS_TO_MEASURE[:1]),
        ([SLOWER] * 39 + [FASTER], SECONDS_TO_MEASURE[:1]),
        ([FASTER] * 9 + [SLOWER], SECONDS_TO_MEASURE),
        ([SLOWER] * 9 + [FASTER], SECONDS_TO_MEASURE),
        ([0.2, 3.0] * 5, SECONDS_TO_MEASURE),
    ],
)
def test_runs_that_disagree_are_repeated(
    ratios: list[float], seconds: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[float]()

    def fake(_: object, *, seconds: float) -> list[list[float]]:
        asked.append(seconds)
        return [[ratio * len(asked) for ratio in ratios], [float(len(asked))] * len(ratios)]

    monkeypatch.setattr(guard, "interleaved", fake)
    dense_s, compiled_s = in_turn(lambda: None, lambda: None)
    assert tuple(asked) == seconds
    np.testing.assert_array_equal(compiled_s, len(asked))  # of the last measurement
    np.testing.assert_allclose(dense_s / compiled_s, ratios)


@pytest.mark.parametrize(
    ("dense", "compiled", "lost"),
    [
        ([1.0, 1.0, 1.0], [0.5, 0.5, 0.5], False),
        ([1.0, 1.0, 1.0], [2.0, 2.0, 2.0], True),
        ([1.0, 1.0, 1.0], [0.5, 2.0, 2.0], False),  # a busy machine: one undisturbed call was fast
        ([1.0, 2.0, 2.0], [1.5, 1.5, 1.5], False),  # and here the dense one was lucky once
        ([1.0, 1.0, 1.0], [1.04, 1.04, 1.04], False),
        ([1.0, 1.0, 1.0], [1.06, 1.06, 1.06], True),
    ],
)
def test_what_loses_is_slower_by_median_and_minimum(dense: list[float], compiled: list[float], lost: bool) -> None:
    assert loses(np.array([dense, compiled])) == lost


def test_speed_is_of_medians_and_pairs() -> None:
    found = speed(2, np.array([[1.0, 4.0, 3.0], [1.0, 2.0, 1.0]]))
    assert (found.threads, found.dense_ms, found.compiled_ms, found.ratio, found.runs) == (2, 3000, 1000, 2, 3)


@pytest.mark.parametrize("lost", [False, True])
def test_a_model_that_loses_gets_no_kernels(lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(*_: object) -> Times:
        return np.array([[1e-3], [4e-3 if lost else 5e-4]])

    monkeypatch.setattr(target, "in_turn", fake)
    torch.manual_seed(0)
    linear = torch.nn.Linear(256, 256)
    with torch.no_grad():
        linear.weight.mul_(torch.rand(256, 256) < 0.02)
    model = torch.nn.Sequential(linear, torch.nn.ReLU())
    compiled = sparsecc.compile(model, (torch.randn(64, 256),), tuning_cache=tmp_path / "tuning.json")
    (layer,) = compiled.manifest.layers.values()
    assert (KERNELS in compiled.files) == (not lost)
    assert layer.is_sparse == (not lost)
    if lost:
        assert layer.reason == (
            "dense kept: with kernels the model takes 4.000 ms, the dense original 1.000 ms, on one thread; the "
            "weights stay packed in the file"
        )
