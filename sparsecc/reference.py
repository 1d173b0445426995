"""Run a Program node by node in torch: the oracle every other engine is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import fx

from sparsecc.program import Program

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

TOLERANCE = 1e-4
"""Greatest error of a float32 result, as a share of the greatest magnitude of the expected one."""
HALF_TOLERANCE = 1e-2
"""The same for float16, whose values are 1e-3 apart: engines that round at other places differ by a few of them."""


def run(program: Program, inputs: Sequence[torch.Tensor] | None = None) -> tuple[Array, ...]:
    """The outputs for the given inputs (default: the example inputs)."""
    with torch.inference_mode():
        results = fx.Interpreter(program.module).run(*(inputs or program.example_inputs))
    return tuple(r.detach().numpy() for r in cast("tuple[torch.Tensor, ...]", results))


def relative_error(actual: Array, expected: Array) -> float:
    """max|actual - expected| / max|expected|; infinite where shapes, types or NaNs differ."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return float("inf")
    if not expected.size:
        return 0.0
    if not np.issubdtype(expected.dtype, np.floating):
        return 0.0 if np.array_equal(actual, expected) else float("inf")
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(e)):
        return float("inf")
    finite = np.isfinite(e)
    scale = float(np.abs(e[finite]).max(initial=0.0))
    error = float(np.abs(a[finite] - e[finite]).max(initial=0.0))
    return error / scale if scale else error


def tolerance(program: Program) -> float:
    """What ``largest_error`` of another engine may be: the greater one if any value on the way is of half precision."""
    values = (node.meta.get("val") for node in program.graph.nodes)
    half = any(isinstance(v, torch.Tensor) and v.dtype in (torch.float16, torch.bfloat16) for v in values)
    return HALF_TOLERANCE if half else TOLERANCE


def largest_error(actual: Sequence[Array], expected: Sequence[Array]) -> float:
    """The greatest relative error of any output; infinite if there are not as many."""
    if len(actual) != len(expected):
        return float("inf")
    return max(map(relative_error, actual, expected), default=0.0)


def shapes(program: Program) -> dict[str, torch.Size]:
    """The size of every value when the Program runs on its example inputs, by node name."""
    found = dict[str, torch.Size]()

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor):
                found[n.name] = value.shape
            return value

    with torch.inference_mode():
        Recorder(program.module).run(*program.example_inputs)
    return found
