"""Read a region's graph as layers: an operation each, with the addition and the function fused behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from sparsecc.diagnostics import Diagnostic, PassBug, Where
from sparsecc.regions import Activation, Add, Conv2d, Linear, Op, Refusal, describe

from .kernels.spec import Function


@dataclass(frozen=True)
class Layer:
    """``node`` = function(op + add). ``name`` is the node that ``op`` describes."""

    name: str
    node: fx.Node
    op: Op
    add: fx.Node | None = None
    function: Function = "none"


def fuse(graph: fx.Graph) -> list[Layer]:
    """The layers of a region in an order in which they can run.

    conv|linear -> add -> function  becomes one layer, where each value between has no other user; so does
    add -> function. The layer stands where its last node stood, so that everything it adds exists by then.
    """
    constants: set[fx.Node] = set()
    ops: dict[fx.Node, Op] = {}
    for node in graph.nodes:
        if node.op == "placeholder" and node.meta.get("constant") is True:
            constants.add(node)
        elif node.op == "call_function":
            if constants.issuperset(node.all_input_nodes):
                constants.add(node)  # unpack and reshape of a weight: read through by `describe`
            else:
                ops[node] = _described(node)
    order = list(ops)
    taken: set[fx.Node] = set()
    return [_layer_ending_at(node, ops, order, taken) for node in reversed(order) if node not in taken][::-1]


def _described(node: fx.Node) -> Op:
    op = describe(node)
    if isinstance(op, Refusal):
        raise PassBug("partition-regions", [Diagnostic("SCC009", op.reason, Where(node.name))])
    return op


def _layer_ending_at(last: fx.Node, ops: dict[fx.Node, Op], order: Sequence[fx.Node], taken: set[fx.Node]) -> Layer:
    node, op = last, ops[last]
    function: Function = "none"
    if isinstance(op, Activation) and len(op.x.users) == 1 and isinstance(ops.get(op.x), Conv2d | Linear | Add):
        node, function = op.x, op.function
        op = ops[node]
        taken.add(node)
    if isinstance(op, Add) and op.x is not op.y:
        sums = [n for n in (op.x, op.y) if len(n.users) == 1 and isinstance(ops.get(n), Conv2d | Linear)]
        if sums:
            summed = max(sums, key=order.index)
            taken.add(summed)
            return Layer(summed.name, last, ops[summed], op.y if summed is op.x else op.x, function)
    return Layer(node.name, last, op, None, function)
