"""The comparison with the dense original takes as long as it is in doubt."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecc.backends.onnxruntime import target
from sparsecc.backends.onnxruntime.target import LEAST_RATIO, SECONDS_TO_MEASURE, in_turn

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

    monkeypatch.setattr(target, "interleaved", fake)
    dense_s, compiled_s = in_turn(lambda: None, lambda: None)
    assert tuple(asked) == seconds
    np.testing.assert_array_equal(compiled_s, len(asked))  # of the last measurement
    np.testing.assert_allclose(dense_s / compiled_s, ratios)
