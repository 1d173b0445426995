"""Speed-up over dense onnxruntime against sparsity, with break-even and the machine's limit, from run.py's JSON.

python benchmarks/peers/plot.py peers.json -o peers.svg
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

DENSE, LIMIT = "onnxruntime", "limit"
Point = tuple[float, float]  # zeros in per cent, times faster than dense


def speedups(cases: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """Of every runtime and of the limit, by sparsity: medians over the dense median of the same case."""
    lines = dict[str, list[Point]]()
    for case in sorted(cases, key=lambda case: float(case["sparsity"])):
        times = {name: t["median_ms"] for name, t in case["times"].items()} | {LIMIT: case["limit_ms"]}
        if DENSE in times:
            dense = times.pop(DENSE)
            for name, ms in times.items():
                lines.setdefault(name, []).append((100 * case["sparsity"], dense / ms))
    return lines


def plot(report: Mapping[str, Any], path: Path, pattern: str = "unstructured") -> None:
    """A panel per network and number of threads, of the first batch and length measured; the suffix sets the format.

    Raises: ValueError where the report has no case of the pattern.
    """
    cases = [case for case in report["cases"] if case["pattern"] == pattern]
    sparsities = {title: {c["sparsity"] for c in cases if c["title"] == title} for title in {c["title"] for c in cases}}
    if most := max(map(len, sparsities.values()), default=0):
        cases = [case for case in cases if most == 1 or len(sparsities[case["title"]]) > 1]  # a point is no line
    if not cases:
        raise ValueError(f"the report has no case of pattern {pattern}")
    titles, threads = (list(dict.fromkeys(case[key] for case in cases)) for key in ("title", "threads"))
    size = 3.2 * len(titles), 2.8 * len(threads) + 0.8
    figure, axes = plt.subplots(len(threads), len(titles), figsize=size, squeeze=False, layout="constrained")
    for row, number in zip(axes, threads, strict=True):
        for panel, title in zip(row, titles, strict=True):
            own = [case for case in cases if (case["title"], case["threads"]) == (title, number)]
            first = [c for c in own if (c["batch"], c["length"]) == (own[0]["batch"], own[0]["length"])]
            for name, points in speedups(first).items():
                style = {"linestyle": ":", "color": "black"} if name == LIMIT else {"marker": "o"}
                panel.plot(*zip(*points, strict=True), label=name, **style)
            panel.axhline(1, color="grey", linewidth=0.8, linestyle="--", label="break-even")
            panel.set(title=f"{title}, {number} thread{'s' * (number > 1)}", xlabel="zeros, %", yscale="log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_minor_locator(NullLocator())
            panel.yaxis.set_major_formatter("{x:g}x")
            panel.grid(alpha=0.3)
        row[0].set_ylabel("times faster than dense")
    handles = {label: handle for panel in axes.flat for handle, label in zip(*panel.get_legend_handles_labels())}  # noqa: B905  matplotlib's pair
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    figure.suptitle(f"against dense onnxruntime; {report['cpu']}, {report['date']}", fontsize="medium")
    figure.savefig(path)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="JSON of run.py")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".svg, .png or .pdf")
    parser.add_argument("--pattern", default="unstructured")
    options = parser.parse_args(arguments)
    plot(json.loads(options.report.read_text()), options.output, options.pattern)


if __name__ == "__main__":
    main()
