"""What the comparison is to show: the parts to measure, and what they say of each goal.

python benchmarks/peers/goals.py peers.json
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from table import BESIDE, OURS, geometric_mean, where

DENSE, PEER = "onnxruntime", "deepsparse"
Case = Mapping[str, Any]
Figure = Callable[[Case, Sequence[Case]], float | None]
"""Of a case, among all: above the goal is better. None where the goal says nothing of it."""


@dataclass(frozen=True)
class Part:
    """Every combination of these is a case. ``seconds``: a race ends after so many, or after the rounds asked for.

    ``beside``: patterns that are raced with single zeros, against the same peers.
    ``dense``: onnxruntime takes part; where no goal asks for it, and it would take most of the time, it does not.
    ``twice``: compile with empty caches, then from those. ``length`` None: the network's own.
    """

    networks: Sequence[str]
    sparsities: Sequence[float]
    patterns: Sequence[str] = ("unstructured",)
    beside: Sequence[str] = ()
    batch: Sequence[int] = (1,)
    length: Sequence[int] | None = None
    peers: Sequence[str] = ()
    dense: bool = True
    seconds: float = math.inf
    twice: bool = False


NETWORKS = ("resnet50", "bert4", "minilm", "resnet56")
SPARSE = (0.8, 0.9, 0.95)
BLOCKS = ("4x1", "16x1")
PARTS: tuple[Part, ...] = (
    Part(("resnet50", "resnet56"), (0.9,), beside=BLOCKS, peers=("openvino", PEER), twice=True),
    Part(("resnet50", "resnet56"), (0.8, 0.95), beside=BLOCKS, peers=("openvino", PEER)),
    Part(("bert4", "minilm"), SPARSE, beside=BLOCKS, peers=("openvino", PEER)),
    Part(("linear",), (0.9,), peers=(PEER,)),
    Part(("bert4", "minilm"), (0.9,), length=(16, 384), peers=(PEER,)),
    Part(NETWORKS, (0, 0.3, 0.5)),
    Part(NETWORKS, (0.9,), batch=(8,), peers=(PEER,)),
    Part(NETWORKS, (0.9,), batch=(32,), peers=(PEER,), dense=False),
)


@dataclass(frozen=True)
class Goal:
    """``mean``: the geometric mean of all figures has to reach ``least``, else every one."""

    text: str
    least: float
    figure: Figure
    mean: bool = False


def against(name: str, wanted: Callable[[Case], bool]) -> Figure:
    """How many times faster than a runtime, by the median of rounds."""

    def figure(case: Case, _: Sequence[Case]) -> float | None:
        return case["times"][name]["ratio_median"] if wanted(case) and {OURS, name} <= case["times"].keys() else None

    return figure


def usual_size(case: Case) -> bool:
    return case["batch"] == 1 and case["length"] in (None, 128) and case["network"] != "linear"


def headline(case: Case) -> bool:
    return usual_size(case) and case["sparsity"] in SPARSE and case["pattern"] == "unstructured"


def as_unstructured(case: Case, cases: Sequence[Case]) -> float | None:
    """Speed of the slowest blocks over that of single zeros; 0 where some failed.

    Where blocks are a case of their own, not in turn with single zeros, both are held against dense onnxruntime.
    """
    if case["pattern"] == "unstructured":
        if any(name.startswith(BESIDE) for name in case["failed"]):
            return 0.0
        blocks = [times["ratio_median"] for name, times in case["times"].items() if name.startswith(BESIDE)]
        return 1 / max(blocks) if blocks else None
    same = ("network", "sparsity", "batch", "length", "threads")
    singles = (c for c in cases if c["pattern"] == "unstructured" and all(c[key] == case[key] for key in same))
    single = next(singles, None)
    if single is None or DENSE not in case["times"].keys() & single["times"].keys():
        return None
    ratio: float = case["times"][DENSE]["ratio_median"] / single["times"][DENSE]["ratio_median"]
    return ratio


def memory(case: Case, _: Sequence[Case]) -> float | None:
    """The peak of dense onnxruntime's process over the greatest of ours."""
    peaks = {name: times["memory_bytes"] for name, times in case["times"].items()}
    ours = [peak for name, peak in peaks.items() if name == OURS or name.startswith(BESIDE)]
    return peaks[DENSE] / max(ours) if DENSE in peaks and ours else None


def compiles_in(network: str, seconds: float, key: str = "compile_s") -> Figure:
    """Of the cases that were compiled twice: the first time all caches were empty."""

    def figure(case: Case, _: Sequence[Case]) -> float | None:
        timed = case["network"] == network and usual_size(case) and case.get("compile_again_s") is not None
        return seconds / case[key] if timed else None

    return figure


GOALS: tuple[Goal, ...] = (
    Goal("batch 1, 80 to 95 % zeros: geometric mean 1.3x DeepSparse", 1.3, against(PEER, headline), mean=True),
    Goal("batch 1, 80 to 95 % zeros: no case below DeepSparse", 1.0, against(PEER, headline)),
    Goal(
        "other batches and lengths: no case below DeepSparse",
        1.0,
        against(PEER, lambda c: not usual_size(c) and c["network"] != "linear"),
    ),
    Goal("one token, a linear layer: 3x dense onnxruntime", 3.0, against(DENSE, lambda c: c["network"] == "linear")),
    Goal("up to 50 % zeros: 0.98x dense onnxruntime", 0.98, against(DENSE, lambda c: c["sparsity"] <= 0.5)),
    Goal("blocks: as fast as single zeros", 1.0, as_unstructured),
    Goal("peak memory: that of dense onnxruntime", 1.0, memory),
    Goal("ResNet-50 compiles in 3 minutes", 1.0, compiles_in("resnet50", 180)),
    Goal("ResNet-56 compiles in 1 minute", 1.0, compiles_in("resnet56", 60)),
    Goal("ResNet-50 compiles again in 30 s", 1.0, compiles_in("resnet50", 30, "compile_again_s")),
    Goal("ResNet-56 compiles again in 30 s", 1.0, compiles_in("resnet56", 30, "compile_again_s")),
)


def verdicts(cases: Sequence[Case]) -> Iterator[str]:
    """A line per goal and, for what is missed, one per case below it."""
    for goal in GOALS:
        found = [(figure, case) for case in cases if (figure := goal.figure(case, cases)) is not None]
        if not found:
            yield f"- not measured: {goal.text}"
        elif goal.mean:
            yield from _mean(goal, found)
        else:
            least, at = min(found, key=lambda pair: pair[0])
            short = [(figure, case) for figure, case in found if figure < goal.least]
            what = f"{len(found) - len(short)} of {len(found)} cases, the least {least:.3f} ({where(at)})"
            yield f"- {'missed' if short else 'met'}: {goal.text}: {what}"
            yield from (f"    - {figure:.3f}: {where(case)}" for figure, case in short)


def _mean(goal: Goal, found: Sequence[tuple[float, Case]]) -> Iterator[str]:
    for threads in sorted({case["threads"] for _, case in found}):
        mean = geometric_mean([figure for figure, case in found if case["threads"] == threads])
        yield f"- {'met' if mean >= goal.least else 'missed'}: {goal.text}: {mean:.2f} on {threads} thread(s)"


if __name__ == "__main__":
    print("\n".join(verdicts(json.loads(Path(sys.argv[1]).read_text())["cases"])))
