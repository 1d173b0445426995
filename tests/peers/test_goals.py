"""What the comparison says of its goals."""

from __future__ import annotations

from typing import Any

import pytest
from goals import GOALS, PARTS, verdicts


def case(threads: int = 1, **changes: Any) -> dict[str, Any]:
    """ResNet-50 with 90 % zeros, 1.5 times as fast as DeepSparse, 4 times as dense, with half of the memory."""
    ratios = {"sparsecc": 1.0, "onnxruntime": changes.pop("dense", 4.0), "deepsparse": changes.pop("peer", 1.5)}
    memory = {"sparsecc": 100, "onnxruntime": 200, "deepsparse": 200}
    usual: dict[str, Any] = {
        "network": "resnet50",
        "title": "ResNet-50",
        "sparsity": 0.9,
        "pattern": "unstructured",
        "batch": 1,
        "length": None,
        "threads": threads,
        "compile_s": 30.0,
        "compile_again_s": 20.0,
        "times": {n: {"ratio_median": r, "memory_bytes": memory[n]} for n, r in ratios.items() if r is not None},
        "failed": {},
    }
    return usual | changes


def test_a_goal_says_how_many_cases_meet_it_and_which_do_not() -> None:
    found = list(verdicts([case(), case(2, peer=0.9), case(batch=32, peer=0.75, compile_again_s=None)]))
    assert found[:5] == [
        "- met: batch 1, 80 to 95 % zeros: geometric mean 1.3x DeepSparse: 1.50 on 1 thread(s)",
        "- missed: batch 1, 80 to 95 % zeros: geometric mean 1.3x DeepSparse: 0.90 on 2 thread(s)",
        "- missed: batch 1, 80 to 95 % zeros: no case below DeepSparse: 1 of 2 cases, the least 0.900 (ResNet-50, 90% "
        "zeros, batch 1, 2 thread(s))",
        "    - 0.900: ResNet-50, 90% zeros, batch 1, 2 thread(s)",
        "- missed: other batches and lengths: no case below DeepSparse: 0 of 1 cases, the least 0.750 (ResNet-50, 90% "
        "zeros, batch 32, 1 thread(s))",
    ]
    assert "- not measured: one token, a linear layer: 3x dense onnxruntime" in found
    assert "- not measured: ResNet-56 compiles in 1 minute" in found


@pytest.mark.parametrize(
    ("changes", "goal", "met"),
    [
        ({"network": "linear", "dense": 2.9}, "one token", False),
        ({"network": "linear", "dense": 3.0}, "one token", True),
        ({"sparsity": 0.5, "dense": 0.97}, "up to 50 %", False),
        ({"sparsity": 0, "dense": 0.98}, "up to 50 %", True),
        ({"compile_s": 181.0}, "ResNet-50 compiles in 3", False),
        ({"compile_again_s": 31.0}, "ResNet-50 compiles again", False),
        ({"compile_s": 179.0}, "ResNet-50 compiles in 3", True),
        ({"network": "resnet56", "compile_s": 59.0}, "ResNet-56 compiles in 1", True),
        ({"peer": None}, "peak memory", True),
    ],
)
def test_every_goal_can_be_met_and_missed(changes: dict[str, Any], goal: str, met: bool) -> None:
    (line,) = (v for v in verdicts([case(**changes)]) if goal in v and not v.startswith("    "))
    assert line.startswith("- met: " if met else "- missed: ")


def test_only_a_compile_with_empty_caches_says_how_long_one_takes() -> None:
    found = list(verdicts([case(), case(compile_s=999.0, compile_again_s=None)]))
    assert [line for line in found if "compiles in 3 minutes: 1 of 1 cases" in line]


@pytest.mark.parametrize(("slowest", "met"), [(1.02, False), (0.98, True)])
def test_the_slowest_blocks_are_held_against_single_zeros(slowest: float, met: bool) -> None:
    blocks = {"sparsecc 4x1": 0.7, "sparsecc 16x1": slowest}
    times = {name: {"ratio_median": ratio, "memory_bytes": 100} for name, ratio in blocks.items()}
    (line, *_) = (v for v in verdicts([case(times=case()["times"] | times)]) if "blocks: as fast" in v)
    assert line.startswith("- met: " if met else "- missed: ")
    assert f"the least {1 / slowest:.3f} (ResNet-50, 90% zeros, batch 1, 1 thread(s))" in line


def test_blocks_that_failed_are_no_reason_to_call_the_goal_met() -> None:
    times = case()["times"] | {"sparsecc 4x1": {"ratio_median": 0.7, "memory_bytes": 100}}
    (line, *_) = (v for v in verdicts([case(times=times, failed={"sparsecc 16x1": "why"})]) if "blocks: as fast" in v)
    assert line.startswith("- missed: ")


def test_blocks_of_a_case_of_their_own_are_held_against_single_zeros_of_the_same() -> None:
    single, other = case(), case(threads=2, dense=9.0)
    for dense, met in ((3.9, False), (4.1, True)):
        blocks = case(pattern="4x1", dense=dense)
        (line, *_) = (v for v in verdicts([other, single, blocks]) if "blocks: as fast" in v)
        assert line.startswith("- met: " if met else "- missed: ")
        assert f"the least {dense / 4:.3f} (ResNet-50, 90% zeros in blocks of 4x1, batch 1, 1 thread(s))" in line


def test_blocks_take_no_more_memory_than_dense_either() -> None:
    blocks = {"sparsecc 4x1": {"ratio_median": 0.7, "memory_bytes": 250}}
    (line, *_) = (v for v in verdicts([case(times=case()["times"] | blocks)]) if "peak memory" in v)
    assert line.startswith("- missed: ")
    assert "the least 0.800" in line


def test_the_parts_measure_every_goal() -> None:
    """A case of every combination leaves no goal out."""
    cases = [
        case(
            network=network,
            sparsity=sparsity,
            pattern=pattern,
            batch=batch,
            compile_again_s=1.0 if part.twice else None,
            times=case()["times"] | {f"sparsecc {other}": case()["times"]["sparsecc"] for other in part.beside},
        )
        for part in PARTS
        for network in part.networks
        for sparsity in part.sparsities
        for pattern in part.patterns
        for batch in part.batch
    ]
    found = list(verdicts(cases))
    assert len(found) >= len(GOALS)
    assert not [line for line in found if line.startswith("- not measured")]
