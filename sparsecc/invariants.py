"""Named facts about a Program, each with the one function that checks it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import fx
from torch._ops import OpOverload

from sparsecc.diagnostics import Diagnostic
from sparsecc.program import Program, schema, where
from sparsecc.regions import is_unpack

aten = torch.ops.aten
LAYERS = (aten.conv2d.default, aten.linear.default)
"""The operations whose weight the compiler may store and compute sparsely."""


@dataclass(frozen=True)
class Invariant:
    name: str
    check: Callable[[Program], Iterable[Diagnostic]]

    def __repr__(self) -> str:
        return self.name


def _ill_formed(program: Program) -> Iterable[Diagnostic]:
    try:
        program.graph.lint()
    except RuntimeError as error:
        yield Diagnostic("SCC001", f"the graph is broken: {error}")
    for node in program.graph.nodes:
        has_value = node.op != "get_attr" or program.is_constant(node)
        if node.users and has_value and "val" not in node.meta:
            yield Diagnostic("SCC002", "a value without shape and type", where(node))
        target = cast(object, node.target)
        if isinstance(target, OpOverload) and schema(cast(OpOverload, target)).is_mutable:
            yield Diagnostic("SCC003", f"{target} writes to its input", where(node))


def _computed_weights(program: Program) -> Iterable[Diagnostic]:
    for node in program.graph.nodes:
        if node.target not in LAYERS:
            continue
        weight = node.args[1]
        if isinstance(weight, fx.Node) and weight.op != "get_attr" and not _dynamic(weight):
            what = f"the weight of this layer is computed from constants by {weight.target}"
            yield Diagnostic("SCC004", what, where(node))


def _dynamic(node: fx.Node) -> bool:
    """Whether a value depends on an input of the model (a constant's cone ends in get_attr nodes only)."""
    seen, stack = {node}, [node]
    while stack:
        current = stack.pop()
        if current.op == "placeholder" or is_unpack(current):
            return True
        new = [n for n in current.all_input_nodes if n not in seen]
        seen.update(new)
        stack.extend(new)
    return False


def _unmeasured(program: Program) -> Iterable[Diagnostic]:
    for node in program.graph.nodes:
        if node.target in LAYERS and program.is_constant(node.args[1]) and node.name not in program.layers:
            yield Diagnostic("SCC005", "a layer whose non-zeros were not counted", where(node))


def _undecided(program: Program) -> Iterable[Diagnostic]:
    for name, layer in program.layers.items():
        if not layer.reason:
            yield Diagnostic("SCC006", f"no decision and no reason for layer %{name} ({layer.weight})")


def _unpacked(program: Program) -> Iterable[Diagnostic]:
    for node in program.graph.nodes:
        layer = program.layers.get(node.name)
        if layer and layer.format != "dense" and program.is_constant(node.args[1]):
            yield Diagnostic("SCC007", f"the weight was to be stored as {layer.format} and is dense", where(node))


WELL_FORMED = Invariant("well-formed", _ill_formed)
WEIGHTS_CONSTANT = Invariant("weights-constant", _computed_weights)
SPARSITY_MEASURED = Invariant("sparsity-measured", _unmeasured)
FORMATS_CHOSEN = Invariant("formats-chosen", _undecided)
WEIGHTS_PACKED = Invariant("weights-packed", _unpacked)
