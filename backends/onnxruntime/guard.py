"""Whether a compiled model loses to the dense original: what a compile asks at its end, by measuring both in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from sparsecc import manifest

from .timing import interleaved

LEAST_RATIO = 0.98
"""Dense over compiled, below which kernels are too slow on some number of threads."""
LEAST_GAIN = 1.02
"""What they must reach on one of them at least: else they only make the artifact larger."""
SECONDS_TO_MEASURE = (0.5, 2.0)
"""The longer one if the first leaves doubt."""
DOUBT = 0.05
"""Share of the runs that may be on the other side of what decides."""
Times = npt.NDArray[np.float64]
"""Seconds [2, runs]: dense, compiled."""


def in_turn(dense: Callable[[], object], compiled: Callable[[], object]) -> Times:
    """Seconds of both; measured for longer unless nearly all runs are clearly won or clearly lost."""
    short, long = SECONDS_TO_MEASURE
    times = np.array(interleaved([dense, compiled], seconds=short))
    least, most = np.quantile(times[0] / times[1], (DOUBT, 1 - DOUBT))
    if least < LEAST_GAIN and most >= LEAST_RATIO:
        times = np.array(interleaved([dense, compiled], seconds=long))
    return times


def too_slow_on(measured: Mapping[int, Times]) -> int | None:
    """The number of threads on which a compiled model does worst beside the dense one, if kernels should not go in.

    ``measured`` by the number of threads. None where the model is not too slow on any and gains on one.
    """
    ratios = {threads: ratio(times) for threads, times in measured.items()}
    if not ratios or (min(ratios.values()) >= LEAST_RATIO and max(ratios.values()) >= LEAST_GAIN):
        return None
    return min(ratios, key=lambda threads: ratios[threads])


def ratio(times: Times) -> float:
    """Dense over compiled, by the median of the pairs or the fastest calls: what is better for the compiled model.

    Where other processes take CPU, threads wait for each other, and only the fastest calls are right.
    """
    dense, compiled = times
    return float(max(np.median(dense / compiled), dense.min() / compiled.min()))


def speed(threads: int, times: Times) -> manifest.Speed:
    dense, compiled = times
    dense_ms, compiled_ms = (1e3 * float(np.median(seconds)) for seconds in times)
    return manifest.Speed(threads, dense_ms, compiled_ms, float(np.median(dense / compiled)), len(dense))
