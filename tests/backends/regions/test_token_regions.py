"""Token regions against torch: chains, residual blocks with layer norm, any number of tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

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

FEATURES = 48
TOKENS = (1, 2, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 128, 130)


class Block(nn.Module):
    """The feed-forward half of a transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(FEATURES, 90), nn.Linear(90, FEATURES), nn.LayerNorm(FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.down(F.gelu(self.up(x))) + x)
        return y


class Attention(nn.Module):
    """Three projections of one input leave the region; a second input enters by an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(FEATURES, size, bias=size > 30) for size in (30, 31, 32))
        self.norm = nn.LayerNorm(FEATURES, eps=1e-12)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z = self.norm(x + y)
        return self.q(z), self.k(z), self.v(F.relu(z)), z


def chain(storage: str) -> RegionCase:
    layers = nn.Sequential(nn.Linear(40, 50), nn.ReLU(), nn.Linear(50, 33), nn.GELU("tanh"), nn.Linear(33, 1))
    return region_case(prune(layers, 0.3), [torch.randn(3, 40)], lambda _: storage)


def edges(density: float) -> RegionCase:
    """Layers of every edge size, some too narrow for a window of columns."""
    sizes = (1, 7, 8, 9, 31, 32, 33, 127, 1)
    layers = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))
    return region_case(prune(layers, density), [torch.randn(3, 1)])


def slices(storage: str) -> RegionCase:
    """So many columns that panels of 32 lanes and more take them in slices."""
    return region_case(prune(nn.Linear(600, 23), 0.3), [torch.randn(3, 600)], lambda _: storage)


CASES: dict[str, Callable[[], RegionCase]] = {
    "chain csr": lambda: chain("csr"),
    "chain dense": lambda: chain("dense"),
    "chain bsr4x1": lambda: chain("bsr4x1"),
    "chain bsr16x1": lambda: chain("bsr16x1"),
    "chain bsr2x3": lambda: chain("bsr2x3"),
    "chain bsr3x2": lambda: chain("bsr3x2"),
    "block": lambda: region_case(prune(Block(), 0.3), [torch.randn(2, 3, FEATURES)], dynamic_axes=2),
    "attention": lambda: region_case(
        prune(Attention(), 0.3), [torch.randn(2, 3, FEATURES), torch.randn(2, 3, FEATURES)], dynamic_axes=2
    ),
    "slices csr": lambda: slices("csr"),
    "slices bsr4x1": lambda: slices("bsr4x1"),
    **{f"edges {density}": partial(edges, density) for density in (0.05, 0.5, 1)},
    "all zero": lambda: region_case(prune(nn.Linear(5, 7), 0.0), [torch.randn(3, 5)]),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_cases({name: make() for name, make in CASES.items()}, tmp_path_factory.mktemp("tokens"))


def tokens(built: Built, name: str, count: int) -> list[Array]:
    inputs = [i for i in built.plans[name].inputs if not i.constant]
    leading = [(count,) if len(i.shape) == 2 else (1, count) for i in inputs]
    return [random_array(*s, i.shape[-1] or 0, seed=n) for n, (s, i) in enumerate(zip(leading, inputs, strict=True))]


@pytest.mark.parametrize("isa", runnable_isas())
@pytest.mark.parametrize("name", CASES)
def test_equals_torch(built: Built, name: str, isa: Isa) -> None:
    for count in TOKENS:
        built.check(name, isa, tokens(built, name, count))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["chain csr", "block", "attention"])
def test_equals_torch_in_onnxruntime(built: Built, name: str, threads: int) -> None:
    session = built.session(name, threads)
    for count in (0, 1, 40, 130):
        activations = tokens(built, name, count)
        assert_close(run_onnxruntime(session, activations), built.cases[name].expected(*activations))


def test_batches_of_sequences_are_rows(built: Built) -> None:
    x = random_array(5, 27, FEATURES)
    assert_close(run_onnxruntime(built.session("block"), [x]), built.cases["block"].expected(x))


def test_wide_layers_are_sliced(built: Built) -> None:
    """600 columns of 64 lanes fill five first-level caches: so many slices for every panel, but that of 16 lanes."""
    for name in ("slices csr", "slices bsr4x1"):
        slices = [step.parameters._asdict()["slices"] for v in built.plans[name].variants[1:] for step in v.steps[1:2]]
        assert slices == [1, 5, 5, 5, 5, 5], name


def test_large_steps_are_split_over_threads(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One panel, layers beyond the threshold: the steps themselves run on both threads."""
    module = prune(nn.Sequential(nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 509)), 0.5)
    large = build_cases({"large": region_case(module, [torch.randn(3, 512)])}, tmp_path_factory.mktemp("large"))
    assert max(step.work for variant in large.plans["large"].variants for step in variant.steps) > 1_000_000
    session = large.session("large", threads=2)
    for count in (16, 40, 64):
        x = random_array(count, 512)
        assert_close(run_onnxruntime(session, [x]), large.cases["large"].expected(x))
