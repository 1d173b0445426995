"""The least and the greatest value of edges, from calibration data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from sparsecc.program import Program
from sparsecc.progress import track

from .calibration import Calibration

Range = tuple[float, float]


def measure_ranges(program: Program, edges: Iterable[str], samples: Calibration) -> dict[str, Range]:
    """Of what edges carry where everything is sent, by their names."""
    watching = _Watching(program.module, frozenset(edges))
    if watching.edges:
        for batch in track("measure-ranges", samples.batches()):
            with torch.no_grad():
                watching.run(*batch.inputs)
    return watching.ranges


class _Watching(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, edges: frozenset[str]) -> None:
        super().__init__(module)
        self.edges, self.ranges = edges, dict[str, Range]()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.edges:
            ends = float(value.min()), float(value.max())
            least, greatest = self.ranges.get(n.name, ends)
            self.ranges[n.name] = min(least, ends[0]), max(greatest, ends[1])
        return value
