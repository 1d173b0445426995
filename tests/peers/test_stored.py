"""README's comparison is what benchmarks/peers.json holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from goals import headline
from table import geometric_mean, table

ROOT = Path(__file__).parents[2]
README = " ".join((ROOT / "README.md").read_text().split())
REPORT: dict[str, Any] = json.loads((ROOT / "benchmarks/peers.json").read_text())
CASES = [case for case in REPORT["cases"] if headline(case)]


def test_every_row() -> None:
    rows = [line for line in table({**REPORT, "cases": CASES}).splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 24
    assert [row for row in rows if row not in README and "---" not in row] == []


def test_the_means_and_the_peak() -> None:
    def mean(runtime: str, threads: int) -> float:
        return geometric_mean([c["times"][runtime]["ratio_median"] for c in CASES if c["threads"] == threads])

    peaks = REPORT["peak_gflops"]
    for text in (
        f"{mean('onnxruntime', 1):.1f}x dense onnxruntime on one thread and {mean('onnxruntime', 2):.1f}x on two",
        f"{mean('deepsparse', 1):.2f}x DeepSparse on one thread and {mean('deepsparse', 2):.2f}x on two",
        f"the measured peak ({peaks['1']:.0f} GFLOP/s on one thread, {peaks['2']:.0f} on two)",
    ):
        assert text in README
