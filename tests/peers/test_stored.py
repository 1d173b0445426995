"""README's comparison is what benchmarks/peers.json holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from goals import headline
from table import geometric_mean, table

ROOT = Path(__file__).parents[2]
README = " ".join((ROOT / "README.md").read_text().split())
REPORT: dict[str, Any] = json.loads((ROOT / "benchmarks/peers.json").read_text())
CASES = [case for case in REPORT["cases"] if headline(case)]


def mean(cases: Sequence[Mapping[str, Any]], runtime: str, threads: int) -> float:
    return geometric_mean([c["times"][runtime]["ratio_median"] for c in cases if c["threads"] == threads])


def test_every_row() -> None:
    rows = [line for line in table({**REPORT, "cases": CASES}).splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 24
    assert [row for row in rows if row not in README and "---" not in row] == []


def test_the_means_and_the_peak() -> None:
    peaks = REPORT["peak_gflops"]
    dense, peer = ([mean(CASES, runtime, threads) for threads in (1, 2)] for runtime in ("onnxruntime", "deepsparse"))
    for text in (
        f"{dense[0]:.1f}x dense onnxruntime on one thread and {dense[1]:.1f}x on two",
        f"{peer[0]:.2f}x DeepSparse on one thread and {peer[1]:.2f}x on two",
        f"the measured peak ({peaks['1']:.0f} GFLOP/s on one thread, {peaks['2']:.0f} on two)",
    ):
        assert text in README


@pytest.mark.parametrize("machine", ["xeon", "zen3", "zen4"])
def test_the_means_of_other_machines(machine: str) -> None:
    report = json.loads((ROOT / f"benchmarks/peers_{machine}.json").read_text())
    cases = [case for case in report["cases"] if headline(case)]
    assert len(cases) == 24
    dense, peer = ([mean(cases, runtime, threads) for threads in (1, 2)] for runtime in ("onnxruntime", "deepsparse"))
    assert f"{dense[0]:.1f}x and {dense[1]:.1f}x as fast as dense onnxruntime" in README
    assert f"{peer[0]:.2f}x and {peer[1]:.2f}x as fast as DeepSparse" in README
    assert f"`benchmarks/peers_{machine}.json`" in README
