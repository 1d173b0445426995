"""Measure callables in turn, so that a change of the machine's speed hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime as ort


def interleaved(
    calls: Sequence[Callable[[], object]], *, seconds: float = 1.0, least_runs: int = 10, most_runs: int = 1000
) -> list[list[float]]:
    """Seconds of each call per round, A B C A B C …; as many rounds as fit, after one warm-up round."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while len(times[0]) < least_runs or (time.perf_counter() < end and len(times[0]) < most_runs):
        for call, into in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            into.append(time.perf_counter() - start)
    return times


def new_session(model: bytes | str, kernels: Path | None, threads: int = 1) -> ort.InferenceSession:
    """A session on the CPU with a fixed number of threads and, if given, the kernel library."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # the threads of the session that has just run would go on spinning, on the cores of the one that is timed
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if kernels is not None:
        options.register_custom_ops_library(str(kernels.resolve()))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
