"""Computing a tensor piece by piece, so that its first part travels while the rest is computed.

A chain is a run of operations within a stage, each read by the next alone, that ends at an edge. Any of them can make
elements [a, b) of its result from a part of its inputs:

element-wise   the same elements of every input
layer norm     whole rows
convolution    whole filters, as many as the array has columns: fewer would leave columns idle, at the same cycles
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import fx

from sparsecc.contracts.op_int8 import QUANTISE

aten = torch.ops.aten
ELEMENTWISE = frozenset(
    {
        aten.relu.default,
        aten.gelu.default,
        aten.silu.default,
        aten.sigmoid.default,
        aten.tanh.default,
        aten.add.Tensor,
        aten.sub.Tensor,
        aten.mul.Tensor,
        QUANTISE,
    }
)


@dataclass(frozen=True)
class Piece:
    """Elements [start, start + elems) of a node's result; ``node`` computes just them from ``inputs``.

    ``inputs`` are (node, first element, elements), in the order of the kernel's tensors.
    """

    node: fx.Node
    start: int
    elems: int
    inputs: tuple[tuple[fx.Node, int, int], ...]


def chain_to(node: fx.Node, stages: Mapping[fx.Node, int], kept: Collection[fx.Node], columns: int) -> list[fx.Node]:
    """The chain that ends at ``node``, first operation first; empty if the node cannot be computed in pieces.

    ``kept`` are nodes whose whole result is needed by others.
    """
    if not granularity(node, columns):
        return []
    sources: list[fx.Node] = [] if node.target is aten.conv2d.default else node.all_input_nodes
    for n in sources:
        if stages.get(n) == stages[node] and len(n.users) == 1 and n not in kept and granularity(n, columns):
            return [*chain_to(n, stages, kept, columns), node]
    return [node]


def granularity(node: fx.Node, columns: int) -> int:
    """Pieces begin at multiples of this many elements; 0 if the node is computed whole."""
    value: torch.Tensor = node.meta["val"]
    if node.target in ELEMENTWISE:
        same = all(n.meta["val"].numel() == value.numel() for n in node.all_input_nodes)
        return int(same and value.dtype in (torch.float32, torch.int8))
    if node.target is aten.layer_norm.default:
        return int(value.shape[-1]) if len(cast("list[int]", node.args[1])) == 1 else 0
    if node.target is aten.conv2d.default and value.dim() == 4:
        one_sample = value.shape[0] == 1 and (len(node.args) < 7 or node.args[6] == 1)
        return columns * value[0, 0].numel() if one_sample and value.shape[1] > columns else 0
    return 0


def chain_granularity(chain: Collection[fx.Node], columns: int) -> int:
    return math.lcm(*(granularity(node, columns) for node in chain))


def piece_of(node: fx.Node, start: int, elems: int) -> Piece:
    """Elements [start, start + elems) of a node that ``granularity`` allows to begin there."""
    graph = fx.Graph()
    inputs = list[tuple[fx.Node, int, int]]()
    copies = dict[fx.Node, fx.Node]()
    for n in node.all_input_nodes:
        begin, shape = _input_part(node, n, start, elems)
        inputs.append((n, begin, math.prod(shape)))
        copies[n] = graph.placeholder(n.name)
        copies[n].meta["val"] = torch.empty(shape, dtype=n.meta["val"].dtype)
    args = fx.map_arg(node.args, copies.__getitem__)
    made = graph.create_node("call_function", node.target, args, node.kwargs, node.name)
    made.meta = {**node.meta, "val": torch.empty(_shape(node, elems), dtype=node.meta["val"].dtype)}
    return Piece(made, start, elems, tuple(inputs))


def _shape(node: fx.Node, elems: int) -> tuple[int, ...]:
    value: torch.Tensor = node.meta["val"]
    if node.target is aten.layer_norm.default:
        return elems // value.shape[-1], value.shape[-1]
    if node.target is aten.conv2d.default:
        return 1, elems // value[0, 0].numel(), *value.shape[2:]
    return (elems,)


def _input_part(node: fx.Node, source: fx.Node, start: int, elems: int) -> tuple[int, tuple[int, ...]]:
    """The first element of an input that a piece reads, and the shape of what it reads."""
    value: torch.Tensor = source.meta["val"]
    if node.target is aten.conv2d.default:
        if source is node.args[0]:
            return 0, tuple(value.shape)
        per_filter = value[0].numel()  # the weight, or the bias
        area = node.meta["val"][0, 0].numel()
        return start // area * per_filter, (elems // area, *value.shape[1:])
    if node.target is aten.layer_norm.default and source is not node.args[0]:
        return 0, tuple(value.shape)
    return start, _shape(node, elems)
