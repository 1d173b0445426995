"""Whether a compiled model loses to the dense original: what a compile asks at its end, by measuring both in turn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sparsecc import manifest

from .timing import interleaved

LEAST_RATIO = 0.95
"""Kernels go in if dense over compiled is at least this: nearer to 1, noise would decide between compiles."""
SECONDS_TO_MEASURE = (0.5, 2.0)
"""The longer one if the first leaves doubt."""
DOUBT = 0.05
"""Share of the runs that may be on the other side of LEAST_RATIO."""
Times = npt.NDArray[np.float64]
"""Seconds [2, runs]: dense, compiled."""


def in_turn(dense: Callable[[], object], compiled: Callable[[], object]) -> Times:
    """Seconds of both; measured for longer where the runs disagree on what LEAST_RATIO decides."""
    short, long = SECONDS_TO_MEASURE
    times = np.array(interleaved([dense, compiled], seconds=short))
    least, most = np.quantile(times[0] / times[1], (DOUBT, 1 - DOUBT))
    if least < LEAST_RATIO <= most:
        times = np.array(interleaved([dense, compiled], seconds=long))
    return times


def loses(times: Times) -> bool:
    """By the median of the pairs and by the fastest calls.

    Where other processes take CPU, threads wait for each other, and only the fastest calls are right.
    """
    dense, compiled = times
    return bool(max(np.median(dense / compiled), dense.min() / compiled.min()) < LEAST_RATIO)


def speed(threads: int, times: Times) -> manifest.Speed:
    dense, compiled = times
    dense_ms, compiled_ms = (1e3 * float(np.median(seconds)) for seconds in times)
    return manifest.Speed(threads, dense_ms, compiled_ms, float(np.median(dense / compiled)), len(dense))
