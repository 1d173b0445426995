"""The comparison as a whole, on a network of two layers, with the two runtimes that are always here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
import run
import torch
from networks import NETWORKS, Flops, Network, build, count_flops, export_dense, noise
from race import Worker, race
from torch import nn

import sparsecc
from sparsecc.machine import user_cache

TINY = Network(
    "tiny",
    lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 32)
    ),
    lambda batch, _: {"x": noise(batch, 3, 8, 8)},
)


@pytest.mark.parametrize("pattern", ["unstructured", "4x1", "16x1"])
def test_the_first_convolution_stays_dense(pattern: str) -> None:
    model = build(TINY, 0.75, pattern)
    first, last = (m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    assert first.count_nonzero() == first.numel()
    assert last.count_nonzero() == last.numel() // 4


def test_flops_count_no_zeros() -> None:
    model = build(TINY, 0.75, "unstructured")
    assert count_flops(model, TINY.inputs(2, None)) == Flops(2 * 2 * 8 * 36 * 32 // 4, 2 * 2 * 36 * 8 * 27)


def test_peers_get_the_same_function(tmp_path: Path) -> None:
    model, inputs = build(TINY, 0.9, "unstructured"), TINY.inputs(2, None)
    with torch.no_grad():
        expected = model(*inputs.values()).numpy()
    export_dense(model, inputs, tmp_path / "dense.onnx")
    session = ort.InferenceSession(str(tmp_path / "dense.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": inputs["x"].numpy()})
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, rtol=1e-4, atol=1e-5)


STARTED = """
import json, pathlib, sys
job = json.loads(sys.argv[1])
starts = pathlib.Path(job["starts"])
starts.write_text(starts.read_text() + "." if starts.exists() else ".")
peaks = job["peaks"]
peak = peaks[len(starts.read_text()) - 1]
print(json.dumps({"version": "1", "error": 0.0, "memory_bytes": peak}), flush=True)
for _ in sys.stdin:
    print(json.dumps({"seconds": 1.0}), flush=True)
"""


@pytest.mark.parametrize(
    ("ours", "dense", "settled"),
    [
        ([1010, 1000, 1010, 990, 1010], [1000, 1010, 1000, 1005, 995], (990, 995)),
        ([1060, 1, 1, 1, 1], [1000, 1, 1, 1, 1], (1060, 1000)),  # not close: one start tells
    ],
)
def test_close_peaks_are_settled_by_the_least_of_some_starts(
    tmp_path: Path, ours: list[int], dense: list[int], settled: tuple[int, int]
) -> None:
    script = tmp_path / "started.py"
    script.write_text(STARTED)
    workers = {
        name: Worker(sys.executable, {"peaks": peaks, "starts": str(tmp_path / name)}, script)
        for name, peaks in {"sparsecc": ours, "onnxruntime": dense, "peer": [1]}.items()
    }
    found = run.settle_peaks(race(workers, "sparsecc", 1, 1e-3), workers)
    assert tuple(found.times[name].memory_bytes for name in workers) == (*settled, 1)
    assert not found.failed


def test_a_runtime_that_does_not_start_again_is_told(tmp_path: Path) -> None:
    script = tmp_path / "started.py"
    script.write_text(STARTED)
    workers = {
        name: Worker(sys.executable, {"peaks": peaks, "starts": str(tmp_path / name)}, script)
        for name, peaks in {"sparsecc": [1000] * 5, "onnxruntime": [1000, 999]}.items()
    }
    found = run.settle_peaks(race(workers, "sparsecc", 1, 1e-3), workers)
    assert found.failed == {"onnxruntime": "started again: its process ended with status 1"}
    assert found.times["onnxruntime"].memory_bytes == 1000


def test_caches_are_empty_the_first_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    seen = list[tuple[bool, bool]]()

    def compiled(*_: object, tuning_cache: Path) -> Stored:
        kernels = user_cache() / "kernels"
        seen.append((kernels.exists(), tuning_cache.exists()))
        kernels.mkdir(parents=True, exist_ok=True)
        tuning_cache.touch()
        return Stored()

    monkeypatch.setattr(sparsecc, "compile", compiled)
    found = run.prepare(TINY, 0.5, "unstructured", run.Size(1, None), tmp_path, None, twice=True)
    assert seen == [(False, False), (True, True)]
    assert found.compile_again_s is not None
    assert user_cache() == tmp_path / "own" / "sparsecc"
    assert not user_cache().exists()


class Stored:
    """As much of an artifact as `prepare` looks at."""

    manifest = SimpleNamespace(inputs=[SimpleNamespace(name="x")], files={})

    def save(self, _: Path) -> Stored:
        return self


def test_one_command_gives_json_and_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", TINY)
    monkeypatch.setattr(run, "PEAK_RUNS", 1)
    output = tmp_path / "peers.json"
    asked = "--networks tiny --sparsities 0.9 --beside 4x1 --threads 1 --runs 3 --peers"
    run.main(["-o", str(output), *asked.split(), "--tuning-cache", str(tmp_path / "tuning.json")])
    report = json.loads(output.read_text())
    (case,) = report["cases"]
    assert report["runs"] == 3
    assert case["commit"] == run.commit()
    assert report["peak_gflops"]["1"] > 0
    assert case["failed"] == {}
    assert {*case["times"]} == {"sparsecc", "onnxruntime", "sparsecc 4x1"}
    for times in case["times"].values():
        assert 0 < times["min_ms"] <= times["median_ms"]
        assert times["error"] < 1e-5
        assert times["memory_bytes"] > 0
    assert case["times"]["sparsecc"]["ratio_median"] == 1
    assert case["limit_ms"] == pytest.approx(
        (case["nonzero_flops"] + case["rest_flops"]) / report["peak_gflops"]["1"] / 1e6
    )
    printed = capsys.readouterr().out
    assert "| tiny | 90% | batch 1 | 1 |" in printed
    assert "- zeros in blocks of 4x1: " in printed
    run.main(["-o", str(output), *asked.replace("--sparsities", "--resume --sparsities 0.5").split()])
    again = json.loads(output.read_text())
    assert [c["sparsity"] for c in again["cases"]] == [0.9, 0.5]
    peak, more = report["peak_gflops"]["1"], again["peak_gflops"]["1"]  # the higher one counts, for all cases
    assert more >= peak
    assert again["cases"][0] == case | {"limit_ms": pytest.approx(case["limit_ms"] * peak / more)}


def test_resuming_keeps_what_is_stored_and_measures_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", TINY)
    monkeypatch.setattr(run, "PEAK_RUNS", 1)
    monkeypatch.setattr(run, "pythons_of", lambda *_: ({"sparsecc": sys.executable}, {"openvino": "no pip"}))
    output = tmp_path / "peers.json"
    asked = f"-o {output} --networks tiny --beside --runs 3 --tuning-cache {tmp_path}/tuning.json"
    run.main([*asked.split(), "--sparsities", "0.9", "--threads", "1"])
    report = json.loads(output.read_text())
    output.write_text(json.dumps({**report, "missing": {}}))
    run.main([*asked.split(), "--sparsities", "0.9", "--threads", "1", "2", "--resume"])
    again = json.loads(output.read_text())
    assert [c["threads"] for c in again["cases"]] == [1, 2]
    assert again["cases"][0]["times"] == report["cases"][0]["times"]
    assert again["missing"] == {"openvino": "no pip"}
    output.write_text(json.dumps({**report, "cpu": "another"}))
    with pytest.raises(SystemExit):
        run.main([*asked.split(), "--resume"])
    assert "is of another machine, another" in capsys.readouterr().err


def test_more_threads_than_cores_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run.main(["-o", str(tmp_path / "x.json"), "--threads", "4096"])
    assert "--threads 4096: there are" in capsys.readouterr().err
