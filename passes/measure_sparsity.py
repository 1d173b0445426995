"""Count what is there; change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import fx

from sparsecc.invariants import LAYERS, SPARSITY_MEASURED, WEIGHTS_CONSTANT, WELL_FORMED
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program, calls


@dataclass(frozen=True)
class MeasureSparsity:
    """Count the non-zeros of every layer whose weight is constant."""

    name = "measure-sparsity"
    effects = Effects(requires=frozenset({WELL_FORMED, WEIGHTS_CONSTANT}), establishes=frozenset({SPARSITY_MEASURED}))

    def run(self, program: Program) -> Sequence[Note]:
        notes = list[Note]()
        for node in calls(program, *LAYERS):
            if not program.is_constant(node.args[1]):
                continue
            weight = program.constant(cast(fx.Node, node.args[1]))
            count = int(torch.count_nonzero(weight))
            layer = replace(program.layers[node.name], nonzeros=count, stored_bytes=weight.nbytes)
            program.layers[node.name] = layer
            zeros = f"{layer.sparsity:.1%} zeros, {count} of {layer.elems} weights are not zero"
            notes.append(Note(node.name, f"{layer.weight}: {zeros}"))
        return notes
