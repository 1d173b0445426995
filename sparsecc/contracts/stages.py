"""Where a network is cut: stages, which run on one compute tile each, and edges, the tensors that travel between them.

A stage is one weighted layer (siblings that read the same tensor, such as query, key and value, count as one) with what
follows it. Before the first layer there may be a prologue: embeddings, masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import fx

from sparsecc.invariants import LAYERS

from .op import KEEP_TOPS

FIXED = (*LAYERS, *KEEP_TOPS)
"""What stays where it is: a stage is named by its layer, and a contract ends the sender's stage."""


@dataclass(frozen=True)
class Edge:
    """A tensor that stages other than its own read; ``readers`` are the nodes there that do."""

    node: fx.Node
    stage: int
    readers: tuple[fx.Node, ...]

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def carries_float32(self) -> bool:
        """Whether a contract may be made for it; the rest travels whole."""
        value: object = self.node.meta["val"]  # a number where sizes are computed
        return isinstance(value, torch.Tensor) and value.dtype == torch.float32 and value.dim() > 0


def assign_stages(graph: fx.Graph) -> dict[fx.Node, int]:
    """The stage of every computing node, numbered from 0 in the order of the graph."""
    stages = _first_assignment(graph)
    for node in reversed(list(stages)):
        _sink(node, stages)
    numbers = {old: new for new, old in enumerate(sorted(set(stages.values())))}
    return {node: numbers[stage] for node, stage in stages.items()}


def edges(stages: Mapping[fx.Node, int]) -> Iterator[Edge]:
    """In the order of the graph."""
    for node, stage in stages.items():
        readers = tuple(user for user in node.users if stages.get(user, stage) != stage)
        if readers:
            yield Edge(node, stage, readers)


def _first_assignment(graph: fx.Graph) -> dict[fx.Node, int]:
    """A layer opens a stage, unless a sibling has; other nodes join the latest stage that they read."""
    stages, siblings = dict[fx.Node, int](), dict[fx.Node, int]()
    latest = 0  # stage 0 is the prologue
    for node in graph.nodes:
        if node.op in ("placeholder", "get_attr", "output"):
            continue
        if node.target in LAYERS:
            x = node.all_input_nodes[0]
            if x not in siblings:
                latest += 1
                siblings[x] = latest
            stages[node] = siblings[x]
        else:
            stages[node] = max((stages[n] for n in node.all_input_nodes if n in stages), default=0)
    return stages


def _sink(node: fx.Node, stages: dict[fx.Node, int]) -> None:
    """Move a node to the one stage that reads it, if all that would then have to travel travels anyway.

    So the slice and padding of a shortcut are computed where they are added, from a tensor that is sent there.
    """
    homes = {stages[user] for user in node.users if user in stages}
    if node.target in FIXED or len(homes) != 1 or any(user not in stages for user in node.users):
        return
    (home,) = homes
    if home == stages[node]:
        return
    moved, frontier, boundary = {node}, [node], set[fx.Node]()
    while frontier:
        for source in frontier.pop().all_input_nodes:
            if source not in stages or source in moved:
                continue  # constants and the inputs of the program are everywhere
            light = source.target not in FIXED and stages[source] == stages[node]
            if light and all(user in moved for user in source.users):
                moved.add(source)
                frontier.append(source)
            else:
                boundary.add(source)
    if all(source.target in KEEP_TOPS or _travels(source, moved, stages) for source in boundary):
        stages.update(dict.fromkeys(moved, home))


def _travels(node: fx.Node, moved: set[fx.Node], stages: Mapping[fx.Node, int]) -> bool:
    return any(user not in moved and stages.get(user, stages[node]) != stages[node] for user in node.users)
