"""A Program with every size fixed: what a schedule needs. One sample where the batch is dynamic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx

from sparsecc.program import Program


@dataclass(frozen=True)
class Static:
    """A graph without sizes as values: get_attr nodes are ``constants``; ``meta["val"]`` are tensors of those sizes.

    Whatever does not depend on the inputs has become a constant.
    """

    graph: fx.Graph
    constants: Mapping[fx.Node, torch.Tensor]
    inputs: tuple[torch.Tensor, ...]


def specialise(program: Program) -> Static:
    """The graph for the sizes of the example inputs, a dynamic first axis being 1. Names of nodes stay."""
    placeholders = program.graph.find_nodes(op="placeholder")
    pairs = zip(placeholders, program.example_inputs, strict=True)
    inputs = tuple(x[:1] if _dynamic_batch(node) else x for node, x in pairs)
    values = _values(program, inputs)
    graph, copies, constants = fx.Graph(), dict[fx.Node, Any](), dict[fx.Node, torch.Tensor]()
    for node in program.graph.nodes:
        value = values.get(node)
        if node.op == "placeholder":
            copies[node] = graph.node_copy(node)
        elif node.op == "output":
            graph.node_copy(node, copies.__getitem__)
            continue
        elif not isinstance(value, torch.Tensor):
            copies[node] = value  # a size
            continue
        elif any(isinstance(c := copies[n], fx.Node) and c not in constants for n in node.all_input_nodes):
            args = fx.map_arg((node.args, node.kwargs), copies.__getitem__)
            args, kwargs = cast("tuple[tuple[Any, ...], dict[str, Any]]", args)
            copies[node] = graph.create_node("call_function", node.target, args, kwargs, node.name)
        else:
            copies[node] = graph.create_node("get_attr", node.name, name=node.name)
            constants[copies[node]] = value.contiguous()
        copies[node].meta = {**node.meta, "val": value}
    used = {node for user in graph.nodes for node in user.all_input_nodes}
    for node in [node for node in constants if node not in used]:
        graph.erase_node(node)
        del constants[node]
    return Static(graph, constants, inputs)


def _dynamic_batch(node: fx.Node) -> bool:
    value: torch.Tensor = node.meta["val"]
    return value.dim() > 0 and isinstance(value.shape[0], torch.SymInt)


def _values(program: Program, inputs: tuple[torch.Tensor, ...]) -> dict[fx.Node, object]:
    found = dict[fx.Node, object]()

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            found[n] = super().run_node(n)
            return found[n]

    with torch.inference_mode():
        Recorder(program.module).run(*inputs)
    return found
