"""The comparison with the dense original: it takes as long as it is in doubt, and what loses gets no kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sparsecc
from sparsecc import pipelines
from sparsecc.artifact import KERNELS
from sparsecc.backends.onnxruntime import guard, target
from sparsecc.backends.onnxruntime.guard import (
    LEAST_GAIN,
    LEAST_RATIO,
    SECONDS_TO_MEASURE,
    Times,
    in_turn,
    ratio,
    speed,
    too_slow_on,
)
from sparsecc.passes.choose_formats import STORED_PACKED

SLOWER, FASTER = LEAST_RATIO * 0.99, LEAST_GAIN * 1.01


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
        ([(LEAST_RATIO + LEAST_GAIN) / 2] * 10, SECONDS_TO_MEASURE),
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
    ("dense", "compiled", "expected"),
    [
        ([1.0, 1.0, 1.0], [0.5, 0.5, 0.5], 2.0),
        ([1.0, 1.0, 1.0], [2.0, 2.0, 2.0], 0.5),
        ([1.0, 1.0, 1.0], [0.5, 2.0, 2.0], 2.0),  # a busy machine: one undisturbed call was fast
        ([1.0, 2.0, 2.0], [1.6, 1.6, 1.6], 1.25),  # and here the dense one was lucky once
    ],
)
def test_the_ratio_is_the_better_of_median_and_fastest(
    dense: list[float], compiled: list[float], expected: float
) -> None:
    assert ratio(np.array([dense, compiled])) == expected


@pytest.mark.parametrize(
    ("ratios", "threads"),
    [
        ({}, None),  # nothing was measured
        ({1: 2.0, 2: 1.5}, None),
        ({1: 2.0, 2: SLOWER}, 2),
        ({1: SLOWER, 2: 2.0}, 1),
        ({1: 1.5, 2: 1.0}, None),  # gains on one thread, and takes nothing on two
        ({1: 1.01, 2: 1.0}, 2),  # gains nothing
        ({1: 0.5, 2: 0.7}, 1),
    ],
)
def test_kernels_must_gain_somewhere_and_lose_nowhere(ratios: dict[int, float], threads: int | None) -> None:
    assert too_slow_on({n: np.array([[r], [1.0]]) for n, r in ratios.items()}) == threads


def test_speed_is_of_medians_and_pairs() -> None:
    found = speed(2, np.array([[1.0, 4.0, 3.0], [1.0, 2.0, 1.0]]))
    assert (found.threads, found.dense_ms, found.compiled_ms, found.ratio, found.runs) == (2, 3000, 1000, 2, 3)


@pytest.mark.parametrize(("sparsity", "stored"), [(0.3, "dense"), (0.98, "csr")])
@pytest.mark.parametrize("is_slow", [False, True])
def test_a_model_that_gains_nothing_gets_no_kernels(
    is_slow: bool, sparsity: float, stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(*_: object) -> Times:
        return np.array([[1e-3], [4e-3 if is_slow else 5e-4]])

    monkeypatch.setattr(target, "in_turn", fake)
    torch.manual_seed(0)
    linear = torch.nn.Linear(256, 256)
    with torch.no_grad():
        linear.weight.mul_(torch.rand(256, 256) < 1 - sparsity)
    model, x = torch.nn.Sequential(linear, torch.nn.ReLU()), torch.randn(64, 256)
    pipeline = pipelines.CPU.replace("choose-formats", "choose-formats{margin=-1e9}")  # sparse, whatever it takes
    compiled = sparsecc.compile(model, (x,), pipeline=pipeline, tuning_cache=tmp_path / "tuning.json")
    (layer,) = compiled.manifest.layers.values()
    assert (KERNELS in compiled.files) == (not is_slow)
    assert bool(compiled.manifest.regions) == (not is_slow)
    assert layer.is_sparse == (not is_slow)
    assert layer.candidates
    assert ("partition-regions" in {record.name for record in compiled.manifest.passes}) == (not is_slow)
    if is_slow:
        assert layer.format == stored
        reason = (
            "dense kept: with kernels the model takes 4.000 ms, the dense original 1.000 ms, on one thread, and they "
            "must gain 2% on some number of threads and lose no more than 2% on any"
        )
        assert layer.reason == reason + (STORED_PACKED if stored == "csr" else "")
