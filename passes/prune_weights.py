"""Prune by magnitude, for people who only want to see what sparsity would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import fx

from sparsecc.diagnostics import CompileError
from sparsecc.invariants import LAYERS, SPARSITY_MEASURED, WEIGHTS_CONSTANT, WELL_FORMED
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program, calls


@dataclass(frozen=True)
class PruneWeights:
    """Set the smallest ``sparsity`` share of every layer's weights to zero; nothing is retrained.

    linear(x, w) -> linear(x, w')   with round(sparsity * n) zeros in w'
    """

    sparsity: float = 0.9

    name = "prune-weights"
    effects = Effects(
        requires=frozenset({WELL_FORMED, WEIGHTS_CONSTANT}),
        breaks=frozenset({SPARSITY_MEASURED}),
        keeps_meaning=False,
    )

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise CompileError.of(
                "SCC041",
                f"a sparsity of {self.sparsity} was asked for",
                help="give the share of zeros, from 0 up to below 1: --sparsity 0.9",
            )

    def run(self, program: Program) -> Sequence[Note]:
        notes, done = list[Note](), dict[fx.Node, fx.Node]()
        for node in calls(program, *LAYERS):
            if not program.is_constant(node.args[1]):
                notes.append(Note(node.name, "the weight depends on the input", done=False))
                continue
            before = cast(fx.Node, node.args[1])
            weight = program.constant(before)
            fact = program.layers[node.name]
            name = fact.weight
            program.layers[node.name] = replace(fact, mask="pruned by magnitude")
            if before not in done:  # layers may share a weight
                done[before] = program.add_constant(f"{name}_pruned", pruned(weight, self.sparsity))
            node.update_arg(1, done[before])
            notes.append(
                Note(node.name, f"{name}: {round(self.sparsity * weight.numel())} of {weight.numel()} set to zero")
            )
        program.tidy()
        return notes


def pruned(weight: torch.Tensor, sparsity: float) -> torch.Tensor:
    """A copy without the round(sparsity * n) values of least magnitude; among equals the later ones stay."""
    flat = weight.flatten().clone()
    smallest = flat.abs().argsort(stable=True)[: round(sparsity * flat.numel())]
    flat[smallest] = 0
    return flat.reshape(weight.shape)
