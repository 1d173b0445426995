"""partition-regions: convex groups around sparse layers, in any graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import networkx as nx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import PREDICTED, Model, before_and_after, error, filled, notes, program, run, seeded
from torch import Tensor, fx, nn

from sparsecc import pipelines
from sparsecc.passes.partition_regions import group
from sparsecc.program import Program

BEFORE = PREDICTED.removesuffix(",partition-regions")
IMAGE = seeded(2, 16, 8, 8)
TOKENS = seeded(2, 8, 64)


def regions(model: nn.Module, *inputs: Tensor) -> list[str]:
    """The notes of the regions; checks that they are convex and that the result is the same for other inputs."""
    before = program(model, *inputs)
    for nodes in groups(before):
        assert is_convex(nodes)
    after, records = run(PREDICTED, before)
    assert error(after, before, *(seeded(*x.shape, seed=9) for x in inputs)) < 1e-5
    return notes(records, "partition-regions", done=True)


def groups(before: Program) -> list[list[fx.Node]]:
    packed, _ = pipelines.parse(BEFORE).run(before)
    return [g.nodes for g in group(packed)[0]]


def is_convex(nodes: Sequence[fx.Node]) -> bool:
    """No path leaves the region and comes back: independent of how the pass finds out."""
    graph: nx.DiGraph[fx.Node] = nx.DiGraph((i, n) for n in nodes[0].graph.nodes for i in n.all_input_nodes)
    inside = set(nodes)
    below = {d for n in nodes for d in nx.descendants(graph, n)} - inside
    above = {a for n in nodes for a in nx.ancestors(graph, n)} - inside
    return not below & above


def conv(channels: int = 16) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1)


def test_golden(golden: Callable[[str, str], None]) -> None:
    model = filled(Model(lambda m, x: m.b(m.a(x).relu()) + x, a=conv(), b=conv()))
    golden("partition_regions", before_and_after(PREDICTED, model, IMAGE))


def test_a_residual_block_is_one_region() -> None:
    model = filled(Model(lambda m, x: (m.b(m.a(x).relu()) + x).relu(), a=conv(), b=conv()))
    assert regions(model, IMAGE) == ["image region of 5 nodes"]


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.b((y := m.a(x)).cumsum(1)) + y.relu(),
        lambda m, x: (y := m.a(x)).relu() + m.b(y.cumsum(1)),
    ],
)
def test_a_branch_outside_splits_the_region_where_it_comes_back(forward: Callable[..., object]) -> None:
    """a -> cumsum -> b, and relu(a) added to b: one region of all would be its own input."""
    model = filled(Model(forward, a=conv(), b=conv()))
    assert regions(model, IMAGE) == ["image region of 2 nodes", "image region of 2 nodes"]


def test_a_branch_that_only_leaves_splits_nothing() -> None:
    model = filled(Model(lambda m, x: (m.b((y := m.a(x)).relu()), y.cumsum(1)), a=conv(), b=conv()))
    assert regions(model, IMAGE) == ["image region of 3 nodes"]


def test_two_images_of_their_own_sizes() -> None:
    model = filled(Model(lambda m, x, y: m.a(x).mean((2, 3)) + m.b(y).mean((2, 3)), a=conv(), b=conv()))
    assert len(regions(model, IMAGE, seeded(2, 16, 5, 5))) == 2


def test_two_images_that_meet() -> None:
    model = filled(Model(lambda m, x, y: (m.a(x) + m.b(y)).relu(), a=conv(), b=conv()))
    assert sum(int(text.split()[3]) for text in regions(model, IMAGE, IMAGE + 1)) == 4


def test_images_and_tokens_do_not_mix() -> None:
    model = filled(Model(lambda m, x: m.fc(m.a(x).permute(0, 2, 3, 1)), a=conv(), fc=nn.Linear(16, 16)), 0.1)
    assert regions(model, IMAGE) == ["image region of 1 nodes", "token region of 1 nodes"]


def test_a_transformer_layer() -> None:
    layer = filled(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 0.1)
    assert regions(layer, TOKENS) != []


def test_a_region_without_sparse_layers_is_none() -> None:
    assert regions(filled(nn.Sequential(conv(), nn.ReLU()), 1), IMAGE) == []
    assert regions(filled(nn.ReLU()), IMAGE) == []


def test_a_layer_left_out_says_why() -> None:
    model = filled(nn.Sequential(nn.Conv2d(16, 16, 3, groups=4), conv()))
    _, records = run(PREDICTED, program(model, IMAGE))
    (reason,) = notes(records, "partition-regions", done=False)
    assert reason.startswith("dense kept: grouped convolution (groups=4) stays dense")


def dense_stem(m: Any, x: Tensor) -> Tensor:
    """A grouped convolution stays in onnxruntime."""
    y: Tensor = m.last(F.max_pool2d(m.stem(x).relu(), 3, 2, 1).relu())
    return y


def test_what_onnxruntime_fuses_into_a_convolution_of_its_own_stays_there() -> None:
    stem = nn.Conv2d(16, 16, 3, groups=4)
    assert regions(filled(Model(dense_stem, stem=stem, last=conv())), IMAGE) == ["image region of 1 nodes"]


def test_what_follows_anything_else_does_not() -> None:
    """A ReLU of a sum, and one that a convolution inside comes before."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y: Tensor = m.last((m.stem(x) + x).relu()) + m.last(x).relu()
        return y

    stem = nn.Conv2d(16, 16, 1, groups=4)
    assert regions(filled(Model(forward, stem=stem, last=conv())), IMAGE) == ["image region of 6 nodes"]


def test_layers_that_share_a_weight() -> None:
    model = filled(Model(lambda m, x: m.a(m.a(x).relu()), a=conv()))
    assert regions(model, IMAGE) == ["image region of 3 nodes"]


def test_a_value_used_inside_and_outside_and_returned_twice() -> None:
    model = filled(Model(lambda m, x: ((y := m.a(x)), m.b(y.relu()), y, y.sum()), a=conv(), b=conv()))
    assert regions(model, IMAGE) == ["image region of 3 nodes"]


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["conv", "dense", "relu", "add", "add", "add", "outside", "outside"]),
        st.sampled_from([0, 0, 1, 2]),
        st.sampled_from([1, 1, 0, 2]),
    ),
    min_size=1,
    max_size=14,
)


class RandomNetwork(nn.Module):
    """Each step reads one or two of the latest values, so that branches meet; what nobody reads is returned."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps = steps
        self.sparse = nn.Conv2d(16, 16, 1)
        self.dense = nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        values, unread = [x], {0}
        for kind, i, j in self.steps:
            i, j = (max(len(values) - 1 - back, 0) for back in (i, j))
            unread -= {i, j} if kind == "add" else {i}
            match kind:
                case "conv":
                    y = self.sparse(values[i])
                case "dense":
                    y = self.dense(values[i])
                case "relu":
                    y = torch.relu(values[i])
                case "add":
                    y = values[i] + values[j]
                case _:
                    y = values[i].cumsum(1) / 2
            unread.add(len(values))
            values.append(y)
        return [values[n] for n in sorted(unread)]


@settings(max_examples=40)
@given(STEPS)
def test_regions_of_random_graphs_are_convex_and_mean_the_same(steps: list[Step]) -> None:
    network = filled(RandomNetwork(steps), 1)
    with torch.no_grad():
        network.sparse.weight[:, 2:] = 0
        for layer in (network.sparse, network.dense):
            layer.weight /= 8  # so that a chain of fourteen keeps its size
    found = regions(network, seeded(1, 16, 8, 8))
    assert bool(found) == any(kind == "conv" for kind, _, _ in steps)


@pytest.mark.parametrize("count", [2, 5])
def test_many_regions(count: int) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        for _ in range(count):
            x = m.a(x).cumsum(1)
        return x

    assert len(regions(filled(Model(forward, a=conv())), IMAGE)) == count
