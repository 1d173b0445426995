"""Values that a convolution writes as the next one reads them: every size and reader, against float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from region_cases import (
    Array,
    Built,
    RegionCase,
    assert_close,
    build_cases,
    prune,
    random_array,
    region_case,
    run_native,
    run_onnxruntime,
    runnable_isas,
)
from torch import Tensor, nn

from sparsecc.backends.tvm.kernels.spec import Isa, Spmm
from sparsecc.backends.tvm.lower import lower


class Chain(nn.Module):
    """3x3 convolutions, one behind the other. Several frames of one shape live at once, and take turns in memory."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(c, 6, 3, padding=1) for c in (3, 6, 6))
        self.strided, self.point = nn.Conv2d(6, 6, 3, 2, 1), nn.Conv2d(6, 6, 1)
        self.linear = nn.Linear(6 * height * width, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.relu(self.first(x))
        y = F.relu(self.second(x))
        z = F.relu(self.third(y) + x)
        for _ in range(2):
            z = F.relu(self.second(F.relu(self.third(z))) + self.point(z))
        small = F.relu(self.strided(z) + F.max_pool2d(z, 3, 2, 1))
        last = self.second(z) + z
        return small, self.linear(torch.flatten(last, 1)), F.adaptive_avg_pool2d(last[:, ::2], 1)


class Readers(nn.Module):
    """A frame with readers of every kind: what adds it, and convolutions with any stride, padding and dilation."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)
        sizes = product((1, 2), (0, 1, 2), (1, 2))
        fits = [size for size in sizes if min(height, width) + 2 * size[1] > 2 * size[2]]
        self.others = nn.ModuleList(nn.Conv2d(5, 3, 3, *size) for size in fits)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.first(x)
        return F.relu(self.second(y) + y), y[:, 1:, ::2, 1:], *(other(y) for other in self.others)


class Wide(nn.Module):
    """Convolutions of so many columns that they are read in slices: of frames, of copies, of plain values."""

    def __init__(self, *_: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 80, 3, padding=1), nn.Conv2d(80, 80, 3, padding=1)
        self.widening, self.narrowing = nn.Conv2d(80, 600, 1), nn.Conv2d(600, 80, 1)
        self.strided = nn.Conv2d(80, 5, 3, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.relu(self.second(F.relu(self.first(x))))
        x = F.relu(self.second(x) + F.relu(self.narrowing(F.relu(self.widening(x)))))
        last = F.relu(self.second(x) + x)
        return F.relu(self.strided(last)), self.narrowing(self.widening(last))


def case(kind: Callable[[int, int], nn.Module], height: int, width: int, storage: str = "csr") -> RegionCase:
    channels = 2 if kind is Readers else 3
    return region_case(prune(kind(height, width), 0.4), [torch.randn(3, channels, height, width)], lambda _: storage)


CHAINS = [
    *((side, side) for side in (2, 7, 8, 9, 16, 31, 32, 33)),
    *((1, 16), (16, 1), (2, 64), (1, 48), (2, 24), (4, 12), (6, 8), (8, 6), (8, 12), (16, 3)),
]
READ = [(33, 1), (7, 7), (9, 8), (8, 9), (5, 31), (7, 32), (2, 33), (4, 16), (3, 4)]
WIDE = [(8, 8), (7, 9), (5, 16), (9, 14), (14, 14), (17, 23)]
STORAGES = ["dense", "bsr4x1", "bsr16x1"]
CASES: dict[str, Callable[[], RegionCase]] = {
    **{f"chain of {h}x{w}": partial(case, Chain, h, w) for h, w in CHAINS},
    **{f"chain of 8x8, {storage}": partial(case, Chain, 8, 8, storage) for storage in STORAGES},
    **{f"chain of 7x9, {storage}": partial(case, Chain, 7, 9, storage) for storage in STORAGES},
    **{f"readers of {h}x{w}": partial(case, Readers, h, w) for h, w in READ},
    **{f"wide {h}x{w}": partial(case, Wide, h, w) for h, w in WIDE},
    "wide 8x8, bsr4x1": partial(case, Wide, 8, 8, "bsr4x1"),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_cases({name: make() for name, make in CASES.items()}, tmp_path_factory.mktemp("frames"))


def images(built: Built, name: str, batch: int) -> list[Array]:
    (shape,) = (i.shape for i in built.plans[name].inputs if not i.constant)
    return [random_array(batch, *(size or 0 for size in shape[1:]), seed=batch)]


def in_float64(built: Built, name: str, activations: list[Array]) -> list[Array]:
    module = copy.deepcopy(built.cases[name].module).double()
    with torch.no_grad():
        return [y.numpy() for y in module(*(torch.tensor(a, dtype=torch.float64) for a in activations))]


@pytest.mark.parametrize("isa", runnable_isas())
@pytest.mark.parametrize("name", CASES)
def test_equals_float64(built: Built, name: str, isa: Isa) -> None:
    for batch in (1, 3):
        activations, number = images(built, name, batch), list(CASES).index(name)
        found = run_native(built.cases[name], built.plans[name], built.library, activations, isa, number)
        assert_close(found, in_float64(built, name, activations))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["chain of 32x32", "chain of 33x33", "wide 9x14"])
def test_equals_float64_in_onnxruntime(built: Built, name: str, threads: int) -> None:
    session = built.session(name, threads)
    for batch in (1, 2, 5):
        activations = images(built, name, batch)
        assert_close(run_onnxruntime(session, activations), in_float64(built, name, activations))


def test_the_same_memory_serves_every_call(built: Built) -> None:
    """The zeros around a frame are written once in the life of a session: no call may touch them."""
    session, expected = built.session("chain of 7x7"), list[Array]()
    for seed in (0, 1, 0):
        x = [random_array(1, 3, 7, 7, seed=seed)]
        found = run_onnxruntime(session, x)
        expected = expected or found
        assert_close(found, in_float64(built, "chain of 7x7", x))
    for first, again in zip(expected, found, strict=True):
        np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("width", [8, 14, 16, 24])
def test_a_kernel_knows_the_width_of_rows_that_vectors_hold_whole(width: int) -> None:
    plan = lower(case(Chain, 8, width).region, "Region_0")
    widths = {s.kernel.frame_width for s in plan.variants[0].steps if isinstance(s.kernel, Spmm)} - {None}
    assert widths == ({width} if width in (8, 16) else {0})


def test_convolutions_of_many_channels_are_sliced(built: Built) -> None:
    """Of frames and into frames."""
    for height, width in WIDE:
        (variant,) = built.plans[f"wide {height}x{width}"].variants
        kernels = [s.kernel for s in variant.steps if isinstance(s.kernel, Spmm) and s.kernel.sliced]
        assert len({kernel.frame_width is None for kernel in kernels}) == 2, (height, width)


def test_a_large_value_is_no_frame() -> None:
    """Three copies of it would leave the cache."""
    module = nn.Sequential(nn.Conv2d(1, 64, 1), nn.Conv2d(64, 4, 3, padding=1))
    for side, framed in ((40, True), (56, False)):
        plan = lower(region_case(prune(module, 0.1), [torch.randn(2, 1, side, side)]).region, "Region_0")
        symbols = [step.kernel.symbol for step in plan.variants[0].steps]
        assert any("frame" in symbol for symbol in symbols) == framed
        assert ("shift" in symbols) != framed
