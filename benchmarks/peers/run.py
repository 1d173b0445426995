"""sparsecc beside onnxruntime dense, OpenVINO and DeepSparse, in turn: one JSON, and one table on stdout.

    python benchmarks/peers/run.py -o peers.json
    python benchmarks/peers/run.py -o small.json --networks resnet56 --sparsities 0.9 --threads 1 --runs 20
    python benchmarks/peers/run.py -o goal.json --goal

The last one measures every part of the goals in goals.py, and says which are met: it takes one to two hours.

Every case compiles one network at one sparsity, pattern and size, and starts one process per runtime on the first N
cores: sparsecc and onnxruntime in this environment, each peer in a virtual environment of its own, which is made on the
first run and kept. Each gets one untimed and one timed inference per round, only the latter where it takes long. A peer
that cannot be installed, or cannot run a network, is reported. The JSON is written after every case. Run it on an idle
machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from environments import PEERS, Missing, default_folder, environment
from goals import BLOCKS, PARTS, Part, verdicts
from networks import NETWORKS, Network, build, count_flops, export_dense
from peak import peak_flops
from race import Failed, Race, Times, Worker, race
from table import BESIDE, table, where

import sparsecc
from sparsecc.artifact import KERNELS, MODEL
from sparsecc.machine import cpu_name

OURS, DENSE = "sparsecc", "onnxruntime"
MOST_ERROR = 1e-3
"""Of an output's greatest magnitude, against torch in float32: beyond it a runtime computes something else."""
PEAK_RUNS = 50
CLOSE_PEAKS, STARTS = 0.05, 5
"""Peaks of memory within so much of each other are settled by the least of so many starts of both: those of one
ResNet-50 lie between 324 and 332 MB, as fragments have it."""
PLACE = ("network", "title", "sparsity", "pattern", "batch", "length")


@dataclass(frozen=True)
class Size:
    batch: int
    length: int | None


@dataclass(frozen=True)
class Case:
    """``limit_ms``: all FLOPs but products with zeros, at the measured peak. ``failed``: reasons by runtime.

    ``compile_again_s`` is given where the first compile, too, was timed with empty caches, and the second with its own.
    """

    network: str
    title: str
    sparsity: float
    pattern: str
    batch: int
    length: int | None
    threads: int
    nonzero_flops: int
    rest_flops: int
    limit_ms: float
    compile_s: float
    kernels: bool
    times: Mapping[str, Times]
    failed: Mapping[str, str]
    rounds: int = 0
    compile_again_s: float | None = None
    date: str = ""
    commit: str | None = None


@dataclass(frozen=True)
class Compiled:
    """The files of one network for all runtimes, in one folder."""

    folder: Path
    kernels: bool
    compile_s: float
    nonzero_flops: int
    rest_flops: int
    compile_again_s: float | None

    def job(self, runtime: str, threads: int) -> dict[str, object]:
        ours = runtime == OURS
        job: dict[str, object] = {
            "runtime": runtime,
            "model": str(self.folder / ("m.sparsecc/" + MODEL if ours else "dense.onnx")),
            "inputs": str(self.folder / ("ours.npz" if ours else "inputs.npz")),
            "expected": str(self.folder / "expected.npz"),
            "threads": threads,
        }
        return job | ({"kernels": str(self.folder / "m.sparsecc" / KERNELS)} if ours and self.kernels else {})


def prepare(
    network: Network,
    sparsity: float,
    pattern: str,
    size: Size,
    folder: Path,
    cache: Path | None,
    twice: bool = False,
) -> Compiled:
    """Compile for sparsecc, export for the peers, and keep inputs and torch's outputs.

    ``twice``: with empty caches, and again with what the first time left in them.
    Raises: CompileError.
    """
    model, inputs = build(network, sparsity, pattern), network.inputs(size.batch, size.length)
    seconds = list[float]()
    with empty_caches() if twice else nullcontext(cache) as tuning_cache:
        for name in ["first.sparsecc"] * twice + ["m.sparsecc"]:
            start = time.perf_counter()
            artifact = sparsecc.compile(model, tuple(inputs.values()), tuning_cache=tuning_cache).save(folder / name)
            seconds.append(time.perf_counter() - start)
    with torch.no_grad():
        expected = model(*inputs.values())
    arrays: dict[str, Any] = {name: x.numpy() for name, x in inputs.items()}
    names = [value.name for value in artifact.manifest.inputs]
    np.savez(folder / "inputs.npz", **arrays)
    np.savez(folder / "ours.npz", **dict(zip(names, arrays.values(), strict=True)))
    np.savez(folder / "expected.npz", output=expected.numpy())
    export_dense(model, inputs, folder / "dense.onnx")
    flops = count_flops(model, inputs)
    kernels, again_s = KERNELS in artifact.manifest.files, seconds[1] if twice else None
    return Compiled(folder, kernels, seconds[0], flops.nonzero, flops.rest, again_s)


@contextmanager
def empty_caches() -> Generator[Path]:
    """Neither compiled kernels nor measured times of anyone: the file for new times."""
    with tempfile.TemporaryDirectory(prefix="sparsecc-peers-") as folder, patch.dict(os.environ, XDG_CACHE_HOME=folder):
        yield Path(folder, "tuning.json")


def cases(
    part: Part,
    options: argparse.Namespace,
    pythons: Mapping[str, str],
    peaks: Mapping[int, float],
    known: Set[tuple[object, ...]],
) -> Iterator[Case]:
    """Measure one case after the other; what fails is told in the case.

    ``known``: places and threads to leave out.
    """
    wanted = (OURS, *([DENSE] if part.dense else []), *part.peers)
    pythons = {name: python for name, python in pythons.items() if name in wanted}
    for key in part.networks:
        network = NETWORKS[key]
        lengths = [None] if network.length is None else part.length or [network.length]
        for what in itertools.product(part.sparsities, part.patterns, part.batch, lengths):
            sparsity, pattern, size = what[0], what[1], Size(what[2], what[3])
            if sparsity == 0 and pattern != part.patterns[0]:
                continue  # nothing is pruned: all patterns are the same
            place = (key, network.title, sparsity, pattern, size.batch, size.length)
            counts = [threads for threads in options.threads if (*place, threads) not in known]
            if not counts:
                continue
            with tempfile.TemporaryDirectory(prefix="sparsecc-peers-") as folder:
                beside, refused, today = dict[str, Compiled](), dict[str, str](), datetime.date.today().isoformat()
                try:
                    compiled = prepare(network, sparsity, pattern, size, Path(folder), options.tuning_cache, part.twice)
                except sparsecc.CompileError as error:
                    for threads in counts:
                        failed = {OURS: str(error)}
                        yield Case(
                            *place, threads, 0, 0, 0.0, 0.0, False, {}, failed, date=today, commit=options.commit
                        )
                    continue
                for other in part.beside if pattern == "unstructured" and sparsity > 0 else ():
                    path = Path(folder, other)
                    path.mkdir()
                    try:
                        beside[BESIDE + other] = prepare(network, sparsity, other, size, path, options.tuning_cache)
                    except sparsecc.CompileError as error:
                        refused[BESIDE + other] = str(error)
                for threads in counts:
                    found = _race(compiled, beside, pythons, threads, options.runs, part.seconds)
                    yield Case(
                        *place,
                        threads,
                        compiled.nonzero_flops,
                        compiled.rest_flops,
                        _limit_ms(compiled.nonzero_flops + compiled.rest_flops, peaks[threads]),
                        compiled.compile_s,
                        compiled.kernels,
                        found.times,
                        {**refused, **found.failed},
                        found.rounds,
                        compiled.compile_again_s,
                        today,
                        options.commit,
                    )


def _limit_ms(flops: int, peak_flops: float) -> float:
    """``peak_flops`` per second."""
    return 1e3 * flops / peak_flops


def _race(
    compiled: Compiled,
    beside: Mapping[str, Compiled],
    pythons: Mapping[str, str],
    threads: int,
    runs: int,
    seconds: float,
) -> Race:
    workers = {runtime: Worker(python, compiled.job(runtime, threads)) for runtime, python in pythons.items()}
    workers |= {name: Worker(pythons[OURS], other.job(OURS, threads)) for name, other in beside.items()}
    try:
        return settle_peaks(race(workers, OURS, runs, MOST_ERROR, seconds), workers)
    except Failed as failure:
        return Race(0, {}, {OURS: str(failure)})


def settle_peaks(found: Race, workers: Mapping[str, Worker]) -> Race:
    """Where the peaks of ours and of dense onnxruntime are close, start both again: the least peak of each counts.

    One that does not start again is told in ``failed``.
    """
    peaks = {name: times.memory_bytes for name, times in found.times.items() if name in (OURS, DENSE)}
    if len(peaks) < 2 or max(peaks.values()) > (1 + CLOSE_PEAKS) * min(peaks.values()):
        return found
    name = OURS
    try:
        for _ in range(STARTS - 1):
            for name, peak in peaks.items():
                with workers[name] as worker:
                    peaks[name] = min(peak, worker.facts["memory_bytes"])
    except Failed as failure:
        return dataclasses.replace(found, failed={**found.failed, name: f"started again: {failure}"})
    times = {name: dataclasses.replace(found.times[name], memory_bytes=peak) for name, peak in peaks.items()}
    return dataclasses.replace(found, times={**found.times, **times})


def pythons_of(peers: Sequence[str], folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The Python of every runtime; and why a peer is missing."""
    found = {name: _python_or_reason(name, folder) for name in peers}
    missing = {name: str(reason) for name, reason in found.items() if isinstance(reason, Missing)}
    pythons = {name: python for name, python in found.items() if isinstance(python, str)}
    return {OURS: sys.executable, DENSE: sys.executable, **pythons}, missing


def _python_or_reason(peer: str, folder: Path) -> str | Missing:
    try:
        return environment(PEERS[peer], folder)
    except Missing as reason:
        return reason


def commit() -> str | None:
    """Of this repository, with a + where files were changed since; None where there is no git."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    options.commit = commit()  # before the output, which may be one of its files, is written
    own = Part(
        options.networks,
        options.sparsities,
        options.patterns,
        options.beside,
        options.batch,
        options.length,
        options.peers,
        seconds=options.seconds,
    )
    parts = PARTS if options.goal else (own,)
    pythons, missing = pythons_of(options.peers, options.venvs)
    for name, reason in missing.items():
        print(f"{name} is missing: {reason}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="sparsecc-peers-") as folder:
        peaks = {threads: peak_flops(threads, PEAK_RUNS, Path(folder)) for threads in options.threads}
    report: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {"sparsecc": sparsecc.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "runs": options.runs,
        "missing": missing,
    }
    if options.resume:
        report = json.loads(options.output.read_text())
        report["missing"] |= missing
        before = {int(threads): 1e9 * gflops for threads, gflops in report["peak_gflops"].items()}
        peaks = {threads: max(of.get(threads, 0.0) for of in (before, peaks)) for threads in {*before, *peaks}}
    report["peak_gflops"] = {str(threads): flops / 1e9 for threads, flops in peaks.items()}
    done: list[dict[str, Any]] = report.pop("cases", [])
    for stored in done:
        stored["limit_ms"] = _limit_ms(stored["nonzero_flops"] + stored["rest_flops"], peaks[stored["threads"]])
    known = {tuple(stored[key] for key in (*PLACE, "threads")) for stored in done}
    options.output.write_text(json.dumps({**report, "cases": done}, indent=1) + "\n")
    for case in itertools.chain.from_iterable(cases(part, options, pythons, peaks, known) for part in parts):
        done.append(dataclasses.asdict(case))
        options.output.write_text(json.dumps({**report, "cases": done}, indent=1) + "\n")
        what = f"{where(done[-1])}, {case.rounds} rounds"
        print(f"{what}: {', '.join(f'{n} {t.median_ms:.2f} ms' for n, t in case.times.items())}", file=sys.stderr)
    print(table({**report, "cases": done}))
    if options.goal:
        print("\nThe goals:\n", *verdicts(done), sep="\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write")
    usual = [name for name in NETWORKS if name != "linear"]
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=usual)
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.8, 0.9, 0.95])
    parser.add_argument("--patterns", nargs="+", default=["unstructured"], help="or any ROWSxCOLUMNS")
    parser.add_argument("--beside", nargs="*", default=list(BLOCKS), help="patterns to race with single zeros")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--length", nargs="+", type=int, help="tokens, of networks that take them (128)")
    parser.add_argument("--runs", type=int, default=200, help="rounds; every runtime is timed once in each")
    parser.add_argument("--seconds", type=float, default=math.inf, help="of a case, after which no round is begun")
    parser.add_argument("--goal", action="store_true", help="measure all that goals.py asks for, and judge it")
    parser.add_argument("--resume", action="store_true", help="go on with what the output holds")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--venvs", type=Path, default=default_folder(), help="where the peers are installed")
    parser.add_argument("--tuning-cache", type=Path, help="file of measured kernels (the user's)")
    options = parser.parse_args(arguments)
    if options.resume and (cpu := json.loads(options.output.read_text())["cpu"]) != cpu_name():
        parser.error(f"--resume: {options.output} is of another machine, {cpu}")
    if max(options.threads) > len(os.sched_getaffinity(0)):
        parser.error(f"--threads {max(options.threads)}: there are {len(os.sched_getaffinity(0))} cores")
    return options


if __name__ == "__main__":
    main()
