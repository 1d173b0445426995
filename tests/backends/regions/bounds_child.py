"""Run regions on guarded memory, in a process that may end by it: ``bounds_child.py FOLDER ISA PLACEMENT [DAMAGED]``.

FOLDER has kernels.so, built with guarded_alloc.c, and calls.pickle: a list of `Call`. Every call is announced on stdout
before it begins. DAMAGED is the kind of array that gets one element too few: inputs, outputs or constants.
"""

from __future__ import annotations

import ctypes
import pickle
import sys
from functools import partial
from pathlib import Path
from threading import Thread
from typing import NamedTuple, cast

import numpy as np
from guard_pages import Array, Placement, guarded

from sparsecc.backends.onnxruntime.native import NativeRegion
from sparsecc.backends.tvm.kernels.spec import Isa


class Call(NamedTuple):
    """A region by number, what it gets, and what it has to give (in float64); ``tolerance`` is absolute."""

    name: str
    region: int
    constants: tuple[Array, ...]
    activations: tuple[Array, ...]
    expected: tuple[Array, ...]
    rows: int
    tolerance: tuple[float, ...]


def run(folder: Path, isa: Isa, placement: Placement, damaged: str = "") -> None:
    library = ctypes.CDLL(str(folder / "kernels.so"))
    ctypes.c_int.in_dll(library, "sparsecc_guard_end").value = placement == "end"
    calls: list[Call] = pickle.loads((folder / "calls.pickle").read_bytes())
    for call in calls:
        constants, inputs, outputs = (
            [guarded(a, placement, int(damaged == kind and a.size > 0)) for a in arrays]
            for kind, arrays in (
                ("constants", call.constants),
                ("inputs", call.activations),
                ("outputs", tuple(np.full(e.shape, np.nan, np.float32) for e in call.expected)),
            )
        )
        for threads, pool in ((1, None), (2, ctypes.addressof(TWO_THREADS))):
            print(f"{call.name}, {call.rows} rows, {isa}, {threads} threads, {placement}", flush=True)
            with NativeRegion(folder / "kernels.so", call.region, [*[None] * len(inputs), *constants], isa) as region:
                bound = region.bind(inputs, outputs, call.rows, pool)
                for _ in range(2):  # the first makes the arenas
                    for output in outputs:
                        output[...] = np.nan
                    bound()
                    library.sparsecc_guard_gaps()
            for output, expected, tolerance in zip(outputs, call.expected, call.tolerance, strict=True):
                np.testing.assert_allclose(output, expected, rtol=0, atol=tolerance)


TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)


def on_two_threads(_: int, work: int, count: int, job: int) -> None:
    """A struct pool of runtime.h: even tasks on one thread, odd ones on the other."""

    def every_second(first: int) -> None:
        for task in range(first, count, 2):
            TASK(work)(job, task)

    threads = [Thread(target=partial(every_second, first)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


RUN = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)(on_two_threads)
TWO_THREADS = ctypes.cast(RUN, ctypes.c_void_p)


if __name__ == "__main__":
    folder, isa, placement, *damaged = sys.argv[1:]
    run(Path(folder), cast("Isa", isa), cast("Placement", placement), *damaged)
