"""Workers in turn: ratios, workers that fail, and the environments that peers get."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from environments import PEERS, Missing, environment
from race import LEAST_ROUNDS, Failed, Worker, race
from table import geometric_mean, table

worker_script: Any = import_module("worker")  # of a peer's environment: without types

FAKE = """
import json, sys
job = json.loads(sys.argv[1])
if "reason" in job:
    print(json.dumps({"failed": job["reason"]}))
    sys.exit()
print(json.dumps({"version": "1", "error": job.get("error", 0.0), "memory_bytes": 7}), flush=True)
for seconds in job["seconds"]:
    sys.stdin.readline()
    print(json.dumps({"seconds": seconds}), flush=True)
"""


def fakes(folder: Path, **jobs: dict[str, object]) -> dict[str, Worker]:
    script = folder / "fake.py"
    script.write_text(FAKE)
    return {name: Worker(sys.executable, job, script) for name, job in jobs.items()}


def test_ratios_are_of_the_same_round(tmp_path: Path) -> None:
    workers = fakes(tmp_path, ours={"seconds": [1.0, 2.0, 4.0]}, peer={"seconds": [3.0, 2.0, 8.0]})
    found = race(workers, "ours", 3, 1e-3)
    ours, peer = found.times["ours"], found.times["peer"]
    assert (ours.min_ms, ours.median_ms, ours.ratio_median) == (1000, 2000, 1)
    assert (peer.min_ms, peer.median_ms) == (2000, 3000)
    assert (peer.ratio_median, peer.ratio_min) == (2, 2)  # of 3, 1 and 2; of 2 over 1
    assert not found.failed


def test_a_race_ends_when_its_time_is_over(tmp_path: Path) -> None:
    times: dict[str, object] = {"seconds": [1.0] * 100}
    found = race(fakes(tmp_path, ours=times, peer=times), "ours", 100, 1e-3, seconds_most=0)
    assert found.rounds == LEAST_ROUNDS


def test_a_runtime_that_fails_is_told_and_left_out(tmp_path: Path) -> None:
    workers = fakes(
        tmp_path,
        ours={"seconds": [1.0, 1.0]},
        refuses={"reason": "no such operator\nand more"},
        wrong={"seconds": [0.1, 0.1], "error": 0.5},
        undefined={"seconds": [0.1, 0.1], "error": float("nan")},
        dies={"seconds": [0.1]},
    )
    found = race(workers, "ours", 2, 1e-3)
    assert [*found.times] == ["ours"]
    assert found.failed == {
        "refuses": "no such operator",
        "wrong": "its outputs differ by 0.5 of the greatest magnitude",
        "undefined": "its outputs differ by nan of the greatest magnitude",
        "dies": "its process ended with status 0",
    }
    assert all(w.process.poll() is not None for w in workers.values())


def test_without_the_one_compared_to_there_is_no_race(tmp_path: Path) -> None:
    workers = fakes(tmp_path, ours={"reason": "no kernels"}, peer={"seconds": [1.0]})
    with pytest.raises(Failed, match=r"^ours: no kernels$"):
        race(workers, "ours", 1, 1e-3)


def test_a_worker_is_stopped_between_its_turns(tmp_path: Path) -> None:
    (worker,) = fakes(tmp_path, ours={"seconds": [1.0]}).values()

    def state() -> str:
        return Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    with worker:
        os.waitid(os.P_PID, worker.process.pid, os.WSTOPPED | os.WNOWAIT)
        assert state() == "T"
        assert worker.turn() == 1.0


@pytest.mark.parametrize(("last_s", "runs"), [(worker_script.LONG_S, 1), (0.09, 2)])
def test_long_runs_need_no_untimed_one(last_s: float, runs: int) -> None:
    made = list[None]()
    assert 0 <= worker_script.turn(lambda: made.append(None), last_s) < 1
    assert len(made) == runs


def test_a_peer_that_cannot_be_installed_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Missing, match=r"^'-m venv .*' failed: .*Not a directory"):
        environment(PEERS["openvino"], tmp_path / "file")


def test_a_peer_of_older_pythons_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    text = "deepsparse==1.8.0 needs Python 3.11 or older, and there is none on the PATH"
    with pytest.raises(Missing, match=f"^{text}$"):
        environment(PEERS["deepsparse"], tmp_path)


def test_the_table_names_what_is_missing_and_what_failed() -> None:
    def ran(median_ms: float, ratio: float) -> dict[str, object]:
        times = {"median_ms": median_ms, "ratio_median": ratio, "ratio_min": ratio, "memory_bytes": 100 * ratio}
        return {"version": "1.2-beta", **times}

    case = {
        "network": "net",
        "title": "net",
        "sparsity": 0.9,
        "pattern": "4x1",
        "batch": 1,
        "length": 16,
        "threads": 1,
        "limit_ms": 0.5,
        "rounds": 3,
        "times": {"sparsecc": ran(1, 1), "onnxruntime": ran(4, 4.0)},
        "failed": {},
    }
    broken = {**case, "pattern": "unstructured", "times": {"sparsecc": ran(1, 1)}, "failed": {"onnxruntime": "why"}}
    alone = {**broken, "batch": 8, "failed": {}, "rounds": 12}
    report = {
        "cpu": "CPU",
        "date": "2026-01-01",
        "peak_gflops": {"1": 100.0},
        "missing": {"openvino": "no pip"},
        "cases": [case, broken, alone],
    }
    lines = table(report).splitlines()
    assert (
        lines[2] == "| network | zeros | size | threads | sparsecc, ms | onnxruntime 1.2, ms | openvino | limit, ms |"
    )
    assert lines[4] == "| net | 90% 4x1 | batch 1, 16 tokens | 1 | 1.00 | 4.00 (4.00x / 4.00x) | missing | 0.50 (50%) |"
    assert lines[5] == "| net | 90% | batch 1, 16 tokens | 1 | 1.00 | failed | missing | 0.50 (50%) |"
    assert lines[6] == "| net | 90% | batch 8, 16 tokens | 1 | 1.00 | not run | missing | 0.50 (50%) |"
    assert lines[0].startswith("CPU, 2026-01-01, 3 to 12 rounds; ")
    told = [{**case, "commit": "4f3ad27"}, {**broken, "commit": "0fb1c33"}, alone]
    assert table({**report, "cases": told}).startswith("CPU, 2026-01-01, commits 0fb1c33, 4f3ad27, 3 to 12 rounds; ")
    assert table({**report, "cases": told[:1]}).startswith("CPU, 2026-01-01, commit 4f3ad27, 3 rounds; ")
    assert lines[8:] == [
        "- against onnxruntime on 1 thread(s): 4.00x, geometric mean of 1; the least 4.00x (net, 90% zeros in blocks "
        "of 4x1, batch 1, 16 tokens, 1 thread(s)); by the fastest calls 4.00x, the least 4.00x",
        "- peak memory: 0.25 to 0.25 of that of onnxruntime",
        "- of the limit: 50% to 50%",
        "- openvino is missing: no pip",
        "- onnxruntime failed on net, 90% zeros, batch 1, 16 tokens, 1 thread(s): why",
    ]
    assert geometric_mean([1, 4]) == pytest.approx(2)
