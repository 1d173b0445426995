"""Group layers and what lies between them into regions, the unit handed to a backend."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import networkx as nx
import torch
from torch import fx

from sparsecc.invariants import WEIGHTS_PACKED, WELL_FORMED
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program
from sparsecc.regions import (
    Activation,
    Attention,
    Kind,
    Linear,
    Op,
    Pool2d,
    Refusal,
    describe,
    is_unpack,
    kinds,
    tensor,
)

LARGEST_VECTOR_LAYER_ELEMS = 1 << 17
"""Non-zeros of a linear layer that an image region computes sample by sample. A larger one goes to a token region of
its own, which reads its weights once per panel of samples: 6 bytes per non-zero, so this many just fit a 1 MiB L2
cache."""


@dataclass(frozen=True)
class PartitionRegions:
    """Replace each convex group of region operations around sparse layers by one call of a submodule.

    conv2d, relu, conv2d, add -> region_0(x, packed arrays...)
    """

    name = "partition-regions"
    effects = Effects(requires=frozenset({WELL_FORMED, WEIGHTS_PACKED}))

    def run(self, program: Program) -> Sequence[Note]:
        groups, notes = group(program)
        leave_to_onnxruntime(program, {n.name for g in groups for n in g.nodes})
        outline(program, groups)
        done = [Note(f"region_{i}", f"{g.kind} region of {len(g.nodes)} nodes") for i, g in enumerate(groups)]
        return [*notes, *done]


@dataclass(eq=False)
class Group:
    """Nodes of one region; ``items`` are the sizes that count its items."""

    kind: Kind
    items: tuple[str, ...]
    nodes: list[fx.Node] = field(default_factory=list[fx.Node])


def group(program: Program) -> tuple[list[Group], list[Note]]:
    """Grow regions in graph order: a node joins a region it touches if no path leaves the region and comes back."""
    quotient: nx.DiGraph[Group | fx.Node] = nx.DiGraph()
    home = dict[fx.Node, Group]()
    notes = list[Note]()
    for node in program.graph.nodes:
        inputs = activation_inputs(node)
        op = eligible(program, node)
        if isinstance(op, Refusal):
            if node.name in program.layers:
                notes.append(Note(node.name, op.reason, done=False))
        elif found := joinable(program, node, op, home, quotient):
            home[node] = found
            found.nodes.append(node)
        elif options := sorted(kinds(node, op) & _starting_kinds(node, op)):
            home[node] = Group(options[0], _items(node, options[0]), [node])
        place = part_of(node, home)
        quotient.add_node(place)
        quotient.add_edges_from((part_of(i, home), place) for i in inputs if part_of(i, home) is not place)
    groups = list(dict.fromkeys(home.values()))
    leave_to_convolutions(program, home)
    sparse = {g for g in groups if any(_is_sparse_layer(program, n) for n in g.nodes)}
    return [g for g in groups if g in sparse or (sparse and g.kind == "attention")], notes


def leave_to_convolutions(program: Program, home: dict[fx.Node, Group]) -> None:
    """Take a ReLU or a pool out of its region where it follows a convolution of onnxruntime, which does it along.

    It fuses a ReLU into its convolutions, and pools in their layout of blocked channels: a ResNet-50 with 90 % zeros
    gains 2 to 3 % (Xeon with AVX-512). Nothing inside comes before these nodes, so that regions stay convex.
    """
    outside = {n for n in program.graph.nodes if n.target is torch.ops.aten.conv2d.default and n not in home}
    for node, place in list(home.items()):
        op = describe(node)
        along = isinstance(op, Pool2d) or (isinstance(op, Activation) and op.function == "relu")
        if along and not outside.isdisjoint(activation_inputs(node)):
            outside.add(node)
            place.nodes.remove(node)
            del home[node]


def part_of(node: fx.Node, home: dict[fx.Node, Group]) -> Group | fx.Node:
    """The region of a node, or the node itself where it has none."""
    return home.get(node) or node


def leave_to_onnxruntime(program: Program, inside: Collection[str]) -> None:
    """A dense layer that no sparse one took along into a region is not worth a region of its own."""
    for name, layer in program.layers.items():
        if layer.kernel == "dense" and name not in inside:
            reason = f"{layer.reason}; onnxruntime runs it, for no sparse layer is beside it"
            program.layers[name] = replace(layer, kernel="onnxruntime", reason=reason)


def eligible(program: Program, node: fx.Node) -> Op | Refusal:
    layer = program.layers.get(node.name)
    if layer and layer.kernel == "onnxruntime":
        return Refusal(layer.reason)
    return describe(node) if node.op == "call_function" else Refusal("not an operation")


def joinable(
    program: Program, node: fx.Node, op: Op, home: dict[fx.Node, Group], quotient: nx.DiGraph[Group | fx.Node]
) -> Group | None:
    """A region of an input, or of another reader of an input, that the node may join."""
    inputs = activation_inputs(node)
    readers = (home[u] for i in inputs for u in i.users if u in home and i not in home)
    for candidate in dict.fromkeys([*(home[i] for i in inputs if i in home), *readers]):
        if candidate.kind not in kinds(node, op) or candidate.items != _items(node, candidate.kind):
            continue
        large = isinstance(op, Linear) and _nonzeros(program, node) > LARGEST_VECTOR_LAYER_ELEMS
        if candidate.kind == "image" and large:
            continue
        outside = [part for i in inputs if (part := part_of(i, home)) is not candidate]
        if not any(nx.has_path(quotient, candidate, o) for o in outside):
            return candidate
    return None


def activation_inputs(node: fx.Node) -> list[fx.Node]:
    """The inputs of a node that change from run to run."""
    return [n for n in node.all_input_nodes if n.op != "get_attr" and not is_unpack(_origin(n))]


def _origin(node: fx.Node) -> fx.Node:
    reshaped = node.target is torch.ops.aten.reshape.default and isinstance(node.args[0], fx.Node)
    return cast(fx.Node, node.args[0]) if reshaped else node


def _starting_kinds(node: fx.Node, op: Op) -> frozenset[Kind]:
    """A vector per sample starts a region of tokens; it only continues one of images."""
    if isinstance(op, Attention):
        return frozenset({"attention"})
    return frozenset({"image"}) if tensor(node).dim() == 4 and not isinstance(op, Linear) else frozenset({"token"})


def _items(node: fx.Node, kind: Kind) -> tuple[str, ...]:
    shape = tensor(node).shape
    return tuple(map(str, shape[:-1] if kind == "token" else shape[:1]))


def _nonzeros(program: Program, node: fx.Node) -> int:
    layer = program.layers.get(node.name)
    return layer.nonzeros if layer else 0


def _is_sparse_layer(program: Program, node: fx.Node) -> bool:
    layer = program.layers.get(node.name)
    return layer is not None and layer.is_sparse


# ---- outlining ----------------------------------------------------------------------------------------------------


def outline(program: Program, groups: Sequence[Group]) -> None:
    """Rebuild the graph with one call per group, in an order in which everything is defined before it is used."""
    home = {n: g for g in groups for n in g.nodes}
    names = {id(g): f"region_{i}" for i, g in enumerate(groups)}
    order = {n: i for i, n in enumerate(program.graph.nodes)}
    quotient: nx.DiGraph[Group | fx.Node] = nx.DiGraph()
    for node in program.graph.nodes:
        place = part_of(node, home)
        quotient.add_node(place)
        quotient.add_edges_from((part, place) for i in node.all_input_nodes if (part := part_of(i, home)) is not place)

    def rank(part: Group | fx.Node) -> int:
        return max(order[n] for n in part.nodes) if isinstance(part, Group) else order[part]

    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for part in nx.lexicographical_topological_sort(quotient, key=rank):
        if isinstance(part, fx.Node):
            copies[part] = graph.node_copy(part, copies.__getitem__)
            continue
        name = names[id(part)]
        inner, arguments, outputs = region_graph(part, home)
        program.module.add_submodule(name, fx.GraphModule(torch.nn.Module(), inner))
        call = graph.call_module(name, tuple(copies[a] for a in arguments))
        call.meta["val"] = tuple(n.meta["val"] for n in outputs)
        for i, output in enumerate(outputs):
            copies[output] = graph.call_function(operator.getitem, (call, i))
            copies[output].meta = dict(output.meta)
    program.module = fx.GraphModule(program.module, graph)
    program.tidy()


def region_graph(part: Group, home: dict[fx.Node, Group]) -> tuple[fx.Graph, list[fx.Node], list[fx.Node]]:
    """The body of a region, the outer values it takes (activations, then constants) and those it gives."""
    members = _with_weights(part.nodes)
    inside = set(members)
    outer = dict.fromkeys(i for n in members for i in n.all_input_nodes if i not in inside)
    arguments = sorted(outer, key=lambda n: n.op == "get_attr")
    outputs = [n for n in part.nodes if any(home.get(u) is not part for u in n.users)]
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for argument in arguments:
        copies[argument] = graph.placeholder(argument.name)
        copies[argument].meta = {**argument.meta, "constant": argument.op == "get_attr"}
    for node in members:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[n] for n in outputs))
    return graph, arguments, outputs


def _with_weights(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """The nodes, each layer preceded by the unpacking of its weight."""
    members = dict[fx.Node, None]()
    for node in nodes:
        for i in node.all_input_nodes:
            if i.op != "get_attr" and is_unpack(_origin(i)):
                members.update(dict.fromkeys([_origin(i), i]))
        members[node] = None
    return list(members)
