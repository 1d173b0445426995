"""Contracts that travel as int8, in three steps: the sender quantises, int8 travels, and every reader dequantises."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, cast

from torch import fx
from torch._ops import OpOverload

from sparsecc.contracts.binding import EDGE
from sparsecc.contracts.op import KEEP_TOP_INT8, KEEP_TOPS, expand
from sparsecc.contracts.op_int8 import DEQUANTISE
from sparsecc.program import schema


def expand_int8(graph: fx.Graph, stages: Mapping[fx.Node, int]) -> dict[fx.Node, int]:
    """keep_top_int8 -> quantise, keep_top of int8, and a dequantise for each stage that reads it, where it first does.

    ``meta["val"]`` are tensors. Returns the stages of the nodes that there are now, in the order of the graph.
    """
    found = dict(stages)
    for node in graph.find_nodes(op="call_function", target=KEEP_TOP_INT8):
        homes = defaultdict[int, set[fx.Node]](set)
        for user in node.users:
            homes[stages[user]].add(user)
        arrived = _expanded(graph, node, found)
        for stage, readers in homes.items():
            with graph.inserting_before(next(n for n in graph.nodes if n in readers)):
                copy = graph.create_node("call_function", DEQUANTISE, arrived.args, name=arrived.name)
            copy.meta, found[copy] = dict(arrived.meta), stage
            for reader in readers:
                reader.replace_input_with(node, copy)
        graph.erase_node(node)
        graph.erase_node(arrived)
    return {node: found[node] for node in graph.nodes if node in found}


def _expanded(graph: fx.Graph, node: fx.Node, stages: dict[fx.Node, int]) -> fx.Node:
    """The three steps before the node, all in its stage."""

    def call(op: OpOverload, args: tuple[Any, ...]) -> Any:
        kind = "sent" if op in KEEP_TOPS else schema(op).name.removeprefix("sparsecc::")
        made = graph.create_node("call_function", op, args, name=f"{node.meta[EDGE]}_{kind}")
        made.meta = {**node.meta, "val": op(*fx.map_arg(args, lambda n: n.meta["val"]))}
        stages[made] = stages[node]
        return made

    with graph.inserting_before(node):
        arrived = expand(call, *cast("tuple[Any, ...]", node.args))
    return cast(fx.Node, arrived)
