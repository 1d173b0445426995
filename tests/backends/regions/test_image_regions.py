"""Image regions against torch: every operation, odd sizes, both instruction sets, several batches."""

from __future__ import annotations

from collections.abc import Callable

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
    run_onnxruntime,
    runnable_isas,
)
from torch import Tensor, nn

from sparsecc.backends.tvm.kernels.spec import Isa


class Residual(nn.Module):
    """The block of a CIFAR ResNet: two convolutions, and a shortcut without weights (option A)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, stride, 1)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1)
        self.stride, self.grown = stride, channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        before = self.grown // 2
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.grown - before))
        return F.relu(y + shortcut)


class Projection(nn.Module):
    """Two convolutions that read the same input and are added: one is fused into the other."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.side = nn.Conv2d(6, 10, 3, 2, 1), nn.Conv2d(6, 10, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.main(x) + self.side(x))


class ManyOutputs(nn.Module):
    """Values that leave the region and are used in it, one of them as a view of another."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        y = self.conv(x)
        z = F.relu(y)
        flat = torch.flatten(z, 1)
        return z, flat, self.head(flat), y


class Functional(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(4, 6, 3, padding=1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


def conv(
    channels_in: int, channels: int, kernel: int | tuple[int, int], side: int | tuple[int, int], **options: object
) -> RegionCase:
    height, width = (side, side) if isinstance(side, int) else side
    layer = nn.Conv2d(channels_in, channels, kernel, **options)  # type: ignore[arg-type]  # forwarded as they come
    return region_case(prune(layer, 0.4), [torch.randn(3, channels_in, height, width)])


def function(function: Callable[[Tensor], Tensor], side: int = 14) -> RegionCase:
    return region_case(prune(Functional(function), 0.5), [torch.randn(3, 4, side, side)])


def lenet(storage: str) -> RegionCase:
    layers = [
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    layers += [nn.Conv2d(16, 20, 5), nn.ReLU(), nn.Flatten(), nn.Linear(20, 14), nn.GELU(), nn.Linear(14, 10)]
    return region_case(prune(nn.Sequential(*layers), 0.3), [torch.randn(3, 1, 28, 28)], lambda _: storage)


def residual(channels_in: int, channels: int, stride: int, side: int) -> RegionCase:
    return region_case(prune(Residual(channels_in, channels, stride), 0.3), [torch.randn(3, channels_in, side, side)])


CASES: dict[str, Callable[[], RegionCase]] = {
    "1x1": lambda: conv(5, 7, 1, 7),
    "1x1 on whole vectors": lambda: conv(5, 7, 1, 8),
    "1x1 stride 2": lambda: conv(5, 7, 1, 15, stride=2),
    "1x1 with padding": lambda: conv(2, 3, 1, 5, padding=1),
    "3x3": lambda: conv(3, 5, 3, 31, padding=1),
    "3x3 without padding": lambda: conv(3, 5, 3, 14),
    "3x3 stride 2": lambda: conv(4, 6, 3, 28, stride=2, padding=1),
    "3x3 stride 2, odd side": lambda: conv(4, 6, 3, 31, stride=2, padding=1),
    "3x3 stride 3": lambda: conv(2, 3, 3, 14, stride=3),
    "3x3 dilation 2": lambda: conv(3, 4, 3, 14, padding=2, dilation=2),
    "3x3 dilation 2, stride 2": lambda: conv(3, 4, 3, 15, padding=2, dilation=2, stride=2),
    "3x3 dilation 3, stride 2": lambda: conv(3, 4, 3, 15, padding=1, dilation=3, stride=2),
    "5x5": lambda: conv(3, 4, 5, 14, padding=2),
    "5x5 stride 2": lambda: conv(3, 4, 5, 28, stride=2, padding=1),
    "7x7 stride 2": lambda: conv(3, 8, 7, 28, stride=2, padding=3),
    "2x5 on 9x12": lambda: conv(3, 4, (2, 5), (9, 12), stride=(1, 2), padding=(1, 0), dilation=(2, 1)),
    "one row": lambda: conv(3, 4, (1, 3), (1, 40)),
    "one pixel in, padded": lambda: conv(8, 5, 3, 1, padding=1),
    "one pixel out": lambda: conv(8, 5, 3, 3, bias=False),
    "one pixel out, dilated": lambda: conv(4, 5, 2, 5, dilation=2, stride=3),
    "one pixel, 1x1": lambda: conv(8, 5, 1, 1),
    "no bias": lambda: conv(3, 40, 3, 7, padding=1, bias=False),
    "max pool": lambda: function(lambda x: F.max_pool2d(x, 3, 2, 1)),
    "max pool, odd side": lambda: function(lambda x: F.max_pool2d(x, 2), 7),
    "average pool": lambda: function(lambda x: F.avg_pool2d(x, 3, 2, 1)),
    "average pool without padding": lambda: function(lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
    "adaptive average pool": lambda: function(lambda x: F.adaptive_avg_pool2d(x, (7, 2))),
    "global average pool": lambda: function(lambda x: F.adaptive_avg_pool2d(x, 1)),
    "gelu": lambda: function(F.gelu),
    "tanh gelu": lambda: function(lambda x: F.gelu(x, approximate="tanh"), 7),
    "slices and padding": lambda: function(lambda x: F.pad(x[:, 1:5:2, 2:, :-3], (1, 2, 0, 1, 1, 0))),
    "added to itself": lambda: function(lambda x: F.relu(x + x), 7),
    "function before addition": lambda: function(lambda x: F.relu(x) + F.max_pool2d(x, 3, 1, 1), 7),
    "residual": lambda: residual(8, 8, 1, 8),
    "residual on 7x7": lambda: residual(6, 6, 1, 7),
    "residual with option A": lambda: residual(6, 12, 2, 14),
    "projection": lambda: region_case(prune(Projection(), 0.4), [torch.randn(3, 6, 15, 15)]),
    "many outputs": lambda: region_case(prune(ManyOutputs(), 0.4), [torch.randn(3, 3, 8, 8)]),
    "lenet csr": lambda: lenet("csr"),
    "lenet dense": lambda: lenet("dense"),
    "lenet bsr4x1": lambda: lenet("bsr4x1"),
    "lenet bsr16x1": lambda: lenet("bsr16x1"),
    "lenet bsr2x3": lambda: lenet("bsr2x3"),
    "all zero": lambda: region_case(prune(nn.Conv2d(3, 5, 3), 0.0), [torch.randn(3, 3, 8, 8)]),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_cases({name: make() for name, make in CASES.items()}, tmp_path_factory.mktemp("image"))


def images(built: Built, name: str, batch: int) -> list[Array]:
    return [
        random_array(batch, *(s or 0 for s in i.shape[1:]), seed=batch)
        for i in built.plans[name].inputs
        if not i.constant
    ]


@pytest.mark.parametrize("isa", runnable_isas())
@pytest.mark.parametrize("name", CASES)
def test_equals_torch(built: Built, name: str, isa: Isa) -> None:
    for batch in (1, 2, 5):
        built.check(name, isa, images(built, name, batch))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["lenet csr", "residual with option A", "many outputs", "1x1 on whole vectors"])
def test_equals_torch_in_onnxruntime(built: Built, name: str, threads: int) -> None:
    session = built.session(name, threads)
    for batch in (0, 1, 2, 5):
        activations = images(built, name, batch)
        assert_close(run_onnxruntime(session, activations), built.cases[name].expected(*activations))
