"""How far apart two engines may be that compute the same contracts and round sums differently.

Selections are exact, but an element just above the k-th may end up just below it: then another one of its size is sent,
and a network whose quality suffers from its contracts may answer something else altogether.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import fx

from sparsecc.contracts.op import KEEP_TOPS
from sparsecc.program import Program
from sparsecc.reference import Array, largest_error

TOLERANCE = 0.05
"""Greatest difference between engines, as a share of the greatest output, for a network that rounding hardly moves."""
ROUNDING = 1e-6
"""Standard deviation of what rounding does to a value, as a share of it: sums of some hundred float32."""
DRAWS = 8


def tolerance(program: Program, expected: Sequence[Array], errors: Sequence[float]) -> float:
    """TOLERANCE; if an error is greater, at least twice of what rounding does to the outputs in torch itself.

    Draws that change an integer output or make a NaN count for nothing: no engine may do that.
    """
    if max(errors) <= TOLERANCE:
        return TOLERANCE
    draws = [2 * largest_error(_rounded(program, seed), expected) for seed in range(DRAWS)]
    return max([TOLERANCE, *filter(math.isfinite, draws)])


def _rounded(program: Program, seed: int) -> list[Array]:
    with torch.inference_mode():
        results = _Rounded(program, seed).run(*program.example_inputs)
    return [y.numpy() for y in cast("Sequence[torch.Tensor]", results)]


class _Rounded(fx.Interpreter):
    """The Program with values before contracts as another order of sums might have left them."""

    def __init__(self, program: Program, seed: int) -> None:
        super().__init__(program.module)
        self.random = torch.Generator().manual_seed(seed)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in KEEP_TOPS:
            x, *others = args
            noise = torch.randn(x.shape, generator=self.random)
            args = (x * (1 + ROUNDING * noise), *others)
        return super().call_function(target, args, kwargs)
