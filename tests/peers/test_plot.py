"""The plot of the comparison; matplotlib is optional."""

from __future__ import annotations

from pathlib import Path

import pytest

plot = pytest.importorskip("plot")


def case(sparsity: float, dense_ms: float) -> dict[str, object]:
    times = {"sparsecc": {"median_ms": 2.0}, "onnxruntime": {"median_ms": dense_ms}}
    where = {"title": "net", "pattern": "unstructured", "batch": 1, "length": None, "threads": 1}
    return {**where, "sparsity": sparsity, "times": times, "limit_ms": 0.5}


def test_speedups_are_over_the_dense_time_of_the_same_case() -> None:
    lines = plot.speedups([case(0.9, 8.0), case(0.8, 4.0)])
    assert lines == {"sparsecc": [(80, 2), (90, 4)], "limit": [(80, 8), (90, 16)]}


def test_the_plot_is_written(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    plot.plot({"cpu": "CPU", "date": "2026-01-01", "cases": [case(0.8, 4.0), case(0.9, 8.0)]}, path)
    assert "<svg" in path.read_text()


def test_a_pattern_that_was_not_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^the report has no case of pattern 16x1$"):
        plot.plot({"cases": [case(0.8, 4.0)]}, tmp_path / "plot.svg", "16x1")
