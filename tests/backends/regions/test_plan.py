"""Plans as text that a person has read: what lowering decides for a small region of each kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from region_cases import RegionCase, prune, region_case
from torch import Tensor, fx, nn

from sparsecc.backends.tvm.fuse import fuse
from sparsecc.backends.tvm.kernels.spec import Spmm
from sparsecc.backends.tvm.lower import lower
from sparsecc.backends.tvm.matmul import split_vectors
from sparsecc.backends.tvm.plan import Prepare
from sparsecc.diagnostics import PassBug


class Branches(nn.Module):
    """A shared input, an addition fused into the later branch, a shortcut, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.side, self.head = nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(4, 6, 1, 2), nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(self.side(x) + self.main(x))
        return torch.flatten(F.adaptive_avg_pool2d(F.gelu(y), 1), 1), self.head(torch.flatten(F.max_pool2d(y, 7), 1))


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(24, 40), nn.Linear(40, 24), nn.LayerNorm(24)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.down(F.gelu(self.up(x))) + x)
        return y


def branches() -> RegionCase:
    return region_case(prune(Branches(), 0.3), [torch.randn(2, 4, 14, 14)])


def feed_forward() -> RegionCase:
    storages = {"linear": "bsr4x1", "linear_1": "dense"}
    return region_case(prune(FeedForward(), 0.3), [torch.randn(2, 3, 24)], storages.__getitem__, dynamic_axes=2)


@pytest.mark.parametrize("case", [branches, feed_forward], ids=lambda case: case.__name__)
def test_plan_is_the_golden_text(case: Callable[[], RegionCase], golden: Callable[[str, str], None]) -> None:
    golden(f"plan_{case.__name__}", str(lower(case().region, "Region_0")))


def test_a_sum_takes_the_memory_of_what_is_added() -> None:
    steps = {step.name: step for step in lower(branches().region, "Region_0").variants[0].steps}
    assert steps["conv2d_1"].y == steps["conv2d_1"].z
    assert steps["gelu"].y != steps["gelu"].x  # which a pool reads as well


@pytest.mark.parametrize(("side", "width"), [(14, 7), (8, 4)])
def test_sliced_convolutions_have_wide_tiles(side: int, width: int) -> None:
    """So do pointwise ones of few columns; 8 x 8 pixels are no more than 4 vectors."""
    layers = nn.Conv2d(20, 96, 1), nn.Conv2d(96, 128, 3, padding=1), nn.Conv2d(128, 20, 1)
    plan = lower(region_case(prune(nn.Sequential(*layers), 0.4), [torch.randn(2, 20, side, side)]).region, "Region_0")
    kernels = [s.kernel for s in plan.variants[0].steps if isinstance(s.kernel, Spmm) and not s.joins]
    assert [kernel.vectors for kernel in kernels] == [width, width, 4]
    assert [kernel.sliced for kernel in kernels] == [False, True, False]


@pytest.mark.parametrize(("rows", "side", "units"), [(64, 8, 4), (48, 8, 4), (512, 8, 8), (64, 16, 6), (8, 8, 2)])
def test_sliced_layers_are_not_left_to_one_thread(rows: int, side: int, units: int) -> None:
    """Rows are sorted in chunks of 64, but of smaller ones where that would leave a layer of one tile in one piece."""
    layer = prune(nn.Conv2d(64, rows, 3, padding=1), 0.2)
    plan = lower(region_case(layer, [torch.randn(2, 64, side, side)]).region, "Region_0")
    steps = [s for s in plan.variants[0].steps if isinstance(s.kernel, Spmm) and s.kernel.sliced]
    assert sum(step.units for step in steps) == units


@pytest.mark.parametrize(
    ("vectors", "most", "split"),
    [
        (4, 4, [(4, 1)]),
        (13, 4, [(4, 1), (3, 3)]),
        (5, 4, [(3, 1), (2, 1)]),
        (1, 4, [(1, 1)]),
        (64, 4, [(4, 16)]),
        (13, 7, [(7, 1), (6, 1)]),
        (7, 1, [(1, 7)]),
    ],
)
def test_lanes_are_split_evenly(vectors: int, most: int, split: list[tuple[int, int]]) -> None:
    assert split_vectors(vectors, most) == split
    assert sum(width * tiles for width, tiles in split) == vectors


def test_products_of_one_vector_count_the_bytes_they_read_as_work() -> None:
    """Every weight is read once: from memory, a layer takes as long as its bytes do."""
    region = region_case(prune(nn.Linear(256, 256), 0.1), [torch.randn(2, 256)]).region
    (step,) = (s for s in lower(region, "Region_0").variants[0].steps if s.flops)
    assert step.work == step.flops + step.touched_bytes > 3 * step.flops


@pytest.mark.parametrize(
    ("shape", "lanes"), [((4,), 1), ((5,), 16), ((33,), 48), ((2, 35), 48), ((97,), 64), ((3, 500), 64)]
)
def test_a_known_number_of_tokens_needs_one_panel(shape: tuple[int, ...], lanes: int) -> None:
    case = region_case(prune(nn.Linear(24, 40), 0.3), [torch.randn(*shape, 24)], dynamic_axes=0)
    (variant,) = lower(case.region, "Region_0").variants
    assert (variant.lanes, variant.rows_most) == (lanes, None)


def test_equal_tables_are_prepared_once() -> None:
    prepares = lower(feed_forward().region, "Region_0").prepares
    assert len(prepares) == len(set(prepares)) == 2  # one per weight, for both variants
    assert [type(p) for p in prepares] == [Prepare, Prepare]


def test_what_stands_between_is_not_fused_when_it_is_used_elsewhere() -> None:
    class Used(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.conv(x)
            return F.relu(y), y + x

    layers = fuse(region_case(prune(Used(), 0.5), [torch.randn(2, 2, 8, 8)]).region.graph)
    assert [(layer.name, layer.function, layer.add is not None) for layer in layers] == [
        ("conv2d", "none", False),
        ("relu", "none", False),
        ("add", "none", False),
    ]


def test_what_no_region_may_hold_is_a_bug_of_the_partition() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    y = graph.call_function(torch.ops.aten.sin.default, (x,))
    graph.output((y,))
    for node in (x, y):
        node.meta["val"] = torch.empty(2, 3)
    with pytest.raises(PassBug, match=r"aten\.sin\.default is not an operation of regions"):
        lower(fx.GraphModule(nn.Module(), graph), "Region_0")
