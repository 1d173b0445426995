"""The report of run.py as Markdown: a row per case, and the geometric mean of every runtime's ratios.

python benchmarks/peers/table.py peers.json
python benchmarks/peers/table.py peers.json --headline   # batch 1, 80 to 95 % zeros, not in blocks
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

OURS = "sparsecc"
BESIDE = f"{OURS} "
"""Before a pattern: our runtime with zeros of that pattern, where a case races it with single zeros."""
Case = Mapping[str, Any]


def table(report: Mapping[str, Any]) -> str:
    """Median ms per runtime and, in brackets, its time over sparsecc's: above 1, sparsecc is faster."""
    cases = in_order(report["cases"])
    versions = {name: times["version"].split("-")[0] for case in cases for name, times in case["times"].items()}
    others = [name for name in [*versions, *report["missing"]] if name != OURS and not name.startswith(BESIDE)]
    titles = [f"{name} {versions[name]}, ms" if name in versions else name for name in others]
    head = ["network", "zeros", "size", "threads", "sparsecc, ms", *titles, "limit, ms"]
    lines = [
        f"{report['cpu']}, {report['date']}, {_commits(cases)}{_rounds(cases)} rounds; medians, and in brackets: "
        "times slower than sparsecc, median of rounds / of the fastest calls. Limit: FLOPs without zeros at the "
        "measured peak, "
        + ", ".join(f"{gflops:.0f} GFLOP/s on {n}" for n, gflops in report["peak_gflops"].items())
        + " thread(s), and the share of it that sparsecc reaches.",
        "",
        _row(head),
        _row(["---"] * len(head)),
        *(_row(_cells(case, others, report["missing"])) for case in cases),
        "",
        *_means(cases, others),
        *_blocks(cases),
        *_memory(cases, others),
        *_limit(cases),
        *(f"- {name} is missing: {reason}" for name, reason in report["missing"].items()),
        *_failures(cases),
    ]
    return "\n".join(lines)


def _commits(cases: Sequence[Case]) -> str:
    found = {case["commit"] for case in cases if case.get("commit")}  # old reports do not tell
    return f"commit{'s' * (len(found) > 1)} {', '.join(sorted(found))}, " if found else ""


def _rounds(cases: Sequence[Case]) -> str:
    rounds = [case["rounds"] for case in cases if case["times"] and "rounds" in case] or [0]  # of old reports, none
    least, most = min(rounds), max(rounds)
    return str(most) if least == most else f"{least} to {most}"


def geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def in_order(cases: Sequence[Case]) -> list[Case]:
    """By network, pattern, size, zeros and threads: networks and patterns as they first come."""
    networks, patterns = (list(dict.fromkeys(case[key] for case in cases)) for key in ("network", "pattern"))

    def place(case: Case) -> tuple[float, ...]:
        first = networks.index(case["network"]), patterns.index(case["pattern"]), case["batch"], case["length"] or 0
        return *first, case["sparsity"], case["threads"]

    return sorted(cases, key=place)


def where(case: Case) -> str:
    kind = "" if case["pattern"] == "unstructured" else f" in blocks of {case['pattern']}"
    return f"{case['title']}, {case['sparsity']:.0%} zeros{kind}, {size_of(case)}, {case['threads']} thread(s)"


def size_of(case: Case) -> str:
    return f"batch {case['batch']}" + (f", {case['length']} tokens" if case["length"] else "")


def _cells(case: Case, others: Sequence[str], missing: Mapping[str, str]) -> Iterator[str]:
    times = case["times"]
    kind = "" if case["pattern"] == "unstructured" else f" {case['pattern']}"
    yield from (case["title"], f"{case['sparsity']:.0%}{kind}", size_of(case), str(case["threads"]))
    yield f"{times[OURS]['median_ms']:.2f}" if OURS in times else "failed"
    for name in others:
        if name in times:
            t = times[name]
            yield f"{t['median_ms']:.2f} ({t['ratio_median']:.2f}x / {t['ratio_min']:.2f}x)"
        else:
            yield "missing" if name in missing else "failed" if name in case["failed"] else "not run"
    share = f" ({case['limit_ms'] / times[OURS]['median_ms']:.0%})" if OURS in times else ""
    yield f"{case['limit_ms']:.2f}{share}"


def _means(cases: Sequence[Case], others: Sequence[str]) -> Iterator[str]:
    for name in others:
        for threads in dict.fromkeys(case["threads"] for case in cases):
            ran = [c for c in cases if c["threads"] == threads and name in c["times"]]
            if ran:
                ratios, fastest = ([c["times"][name][key] for c in ran] for key in ("ratio_median", "ratio_min"))
                least = min(ran, key=lambda case: case["times"][name]["ratio_median"])
                yield (
                    f"- against {name} on {threads} thread(s): {geometric_mean(ratios):.2f}x, geometric mean of "
                    f"{len(ratios)}; the least {min(ratios):.2f}x ({where(least)}); by the fastest calls "
                    f"{geometric_mean(fastest):.2f}x, the least {min(fastest):.2f}x"
                )


def _blocks(cases: Sequence[Case]) -> Iterator[str]:
    for name in dict.fromkeys(name for case in cases for name in case["times"] if name.startswith(BESIDE)):
        ran = [case["times"][name] for case in cases if name in case["times"]]
        faster, fastest = (sorted(1 / times[key] for times in ran) for key in ("ratio_median", "ratio_min"))
        yield (
            f"- zeros in blocks of {name.removeprefix(BESIDE)}: {faster[0]:.2f} to {faster[-1]:.2f} times as fast as "
            f"single zeros, by the fastest calls {fastest[0]:.2f} to {fastest[-1]:.2f}"
        )


def _memory(cases: Sequence[Case], others: Sequence[str]) -> Iterator[str]:
    """Of whole processes, from their start on."""
    for name in others:
        both = [case["times"] for case in cases if {OURS, name} <= case["times"].keys()]
        if both:
            shares = [times[OURS]["memory_bytes"] / times[name]["memory_bytes"] for times in both]
            yield f"- peak memory: {min(shares):.2f} to {max(shares):.2f} of that of {name}"


def _limit(cases: Sequence[Case]) -> Iterator[str]:
    shares = [case["limit_ms"] / case["times"][OURS]["median_ms"] for case in cases if OURS in case["times"]]
    if shares:
        yield f"- of the limit: {min(shares):.0%} to {max(shares):.0%}"


def _failures(cases: Sequence[Case]) -> Iterator[str]:
    for case in cases:
        for name, reason in case["failed"].items():
            yield f"- {name} failed on {where(case)}: {reason}"


def _row(cells: Sequence[str] | Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(path: str, *options: str) -> None:
    from goals import headline  # which reads cases as this does

    report = json.loads(Path(path).read_text())
    cases = [case for case in report["cases"] if headline(case) or "--headline" not in options]
    print(table({**report, "cases": cases}))


if __name__ == "__main__":
    main(*sys.argv[1:])
