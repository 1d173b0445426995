"""Compute at compile time what does not depend on the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import fx
from torch._ops import OpOverload

from sparsecc.invariants import WELL_FORMED
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program

LARGEST_GROWTH = 4
"""A folded value may be this many times larger than what it was computed from: an expanded mask bloats the file."""


@dataclass(frozen=True)
class FoldConstants:
    """Replace each greatest subgraph of constants by its value.

    transpose(weight) -> weight'
    """

    name = "fold-constants"
    effects = Effects(requires=frozenset({WELL_FORMED}))

    def run(self, program: Program) -> Sequence[Note]:
        notes = list[Note]()
        constant = set(program.constants)
        for node in program.graph.nodes:
            if _foldable(node) and node.all_input_nodes and constant.issuperset(node.all_input_nodes):
                constant.add(node)
        for node in list(program.graph.nodes):
            if node.op == "get_attr" or node not in constant or constant.issuperset(node.users):
                continue
            value = evaluate(program, node)
            read = sum(program.constant(n).nbytes for n in constant_cone(program, node) or () if n.op == "get_attr")
            if value.nbytes > LARGEST_GROWTH * read:
                reason = f"kept: its value takes {value.nbytes} B, its inputs {read} B"
                notes.append(Note(node.name, reason, done=False))
                continue
            node.replace_all_uses_with(program.add_constant(f"{node.name}_folded", value))
            notes.append(Note(node.name, "computed at compile time"))
        program.tidy()
        return notes


def constant_cone(program: Program, node: fx.Node) -> Sequence[fx.Node] | None:
    """Every node a value is computed from, itself included; None if an input of the model is among them."""
    cone, stack = {node: None}, [node]
    while stack:
        current = stack.pop()
        if not program.is_constant(current) and not (_foldable(current) and current.all_input_nodes):
            return None
        new = [n for n in current.all_input_nodes if n not in cone]
        cone.update(dict.fromkeys(new))
        stack.extend(new)
    return [n for n in program.graph.nodes if n in cone]


def evaluate(program: Program, node: fx.Node) -> torch.Tensor:
    """The value of a node that depends on constants only."""
    values = dict[fx.Node, torch.Tensor]()
    for n in constant_cone(program, node) or ():
        if n.op == "get_attr":
            values[n] = program.constant(n)
        else:
            args, kwargs = fx.map_arg((n.args, n.kwargs), lambda m: values[m])
            values[n] = cast(OpOverload, n.target)(*args, **kwargs)
    return values[node].detach().contiguous().clone()


def _foldable(node: fx.Node) -> bool:
    if node.op != "call_function" or not isinstance(node.meta.get("val"), torch.Tensor):
        return False
    target = node.target
    return isinstance(target, OpOverload) and torch.Tag.nondeterministic_seeded not in target.tags
