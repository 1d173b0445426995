"""Layers of any shape against float64: both instruction sets, one thread and two. Sizes are mostly those at edges."""

from __future__ import annotations

import copy
import ctypes
from dataclasses import dataclass

import pytest
import torch
from bounds_child import TWO_THREADS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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
    runnable_isas,
)
from torch import nn

EDGES = st.sampled_from((1, 7, 8, 9, 31, 32, 33, 127))
DENSITIES = st.sampled_from((0.0, 0.1, 1.0)) | st.floats(0, 1)
STORAGES = st.sampled_from(("csr", "dense", "bsr4x1", "bsr16x1", "bsr2x3"))
FUNCTIONS = st.sampled_from((nn.Identity(), nn.ReLU(), nn.GELU()))
PRODUCTS_MOST = 5_000_000  # multiplications of the dense layer: an example takes no longer than building it


@dataclass(frozen=True)
class Convolution:
    channels: tuple[int, int]
    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def module(self, bias: bool) -> nn.Module:
        return nn.Conv2d(*self.channels, self.kernel, self.stride, self.padding, self.dilation, bias=bias)

    @property
    def fits(self) -> bool:
        sizes = zip(self.image, self.kernel, self.padding, self.dilation, strict=True)
        inside = all(size + 2 * padding > (kernel - 1) * dilation for size, kernel, padding, dilation in sizes)
        (c, m), (h, w), (a, b) = self.channels, self.image, self.kernel
        return inside and c * m * h * w * a * b <= PRODUCTS_MOST


def pairs(each: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(each, each)


CONVOLUTIONS = st.builds(
    Convolution,
    channels=pairs(EDGES),
    image=pairs(EDGES),
    kernel=st.just((3, 3)) | pairs(st.integers(1, 5)),
    stride=pairs(st.integers(1, 2)),
    padding=pairs(st.integers(0, 2)),
    dilation=st.just((1, 1)) | pairs(st.integers(1, 2)),
).filter(lambda convolution: convolution.fits)


def in_float64(case: RegionCase, x: Array) -> list[Array]:
    with torch.no_grad():
        result: torch.Tensor = copy.deepcopy(case.module).double()(torch.tensor(x, dtype=torch.float64))
    return [result.numpy()]


def assert_equals_float64(built: Built, name: str, x: Array) -> None:
    case, plan, number = built.cases[name], built.plans[name], list(built.cases).index(name)
    expected = in_float64(case, x)
    for isa in runnable_isas():
        for pool in (None, ctypes.addressof(TWO_THREADS)):
            assert_close(run_native(case, plan, built.library, [x], isa, number, pool), expected)


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(
    convolution=CONVOLUTIONS,
    sizes=pairs(EDGES),
    density=DENSITIES,
    storage=STORAGES,
    function=FUNCTIONS,
    bias=st.booleans(),
    samples=st.sampled_from((1, 2, 5)),
    tokens=EDGES | st.integers(1, 140),
)
def test_any_layer_equals_float64(
    tmp_path_factory: pytest.TempPathFactory,
    convolution: Convolution,
    sizes: tuple[int, int],
    density: float,
    storage: str,
    function: nn.Module,
    bias: bool,
    samples: int,
    tokens: int,
) -> None:
    """A convolution and a linear layer at a time: building them takes the longest."""
    image, row = (convolution.channels[0], *convolution.image), (sizes[0],)
    modules = {
        "convolution": (nn.Sequential(convolution.module(bias), function), image, samples),
        "linear": (nn.Sequential(nn.Linear(*sizes, bias=bias), function), row, tokens),
    }
    cases = {
        name: region_case(prune(module, density), [torch.randn(2, *shape)], lambda _: storage)
        for name, (module, shape, _) in modules.items()
    }
    built = build_cases(cases, tmp_path_factory.mktemp("property"))
    for name, (_, shape, rows) in modules.items():
        assert_equals_float64(built, name, random_array(rows, *shape))
