"""No kernel leaves its memory: regions run with a guard page at either end of every buffer that their kernels see.

Inputs, outputs, weights and prepared tables are guarded at their first or last byte (prepared tables at the end of what
was allocated, up to 128 bytes behind; tests/backends/tvm guards those exactly, kernel by kernel). A buffer of the arena
is guarded where its slack ends, SLACK_ELEMS of arena.py, which kernels of whole vectors may touch. What runs runs in a
process of its own, and is compared with float64 besides.
"""

from __future__ import annotations

import copy
import pickle
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bounds_child import Call
from guard_pages import PAGE, Array, Placement
from region_cases import TOLERANCE, RegionCase, build_cases, prune, random_array, region_case, runnable_isas
from torch import Tensor, nn

from sparsecc.backends.onnxruntime.library import c_compiler
from sparsecc.backends.tvm import builder
from sparsecc.backends.tvm.arena import ALIGNMENT_ELEMS, SLACK_ELEMS, Buffer
from sparsecc.backends.tvm.kernels.spec import Isa

EDGES = (1, 7, 8, 9, 31, 32, 33, 127)
DENSITIES = (0.0, 0.1, 1.0)
FORMATS = ("csr", "dense", "bsr4x1", "bsr16x1", "bsr2x3")
PLACEMENTS: tuple[Placement, ...] = ("begin", "end")
HERE = Path(__file__).parent
PAGE_ELEMS = PAGE // 4
SLOT_PAGES = 64  # holds any buffer below, its slack, and a guard


class Image(nn.Module):
    """Convolutions with any stride and padding, the layers around them, and values that are read in frames."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        sizes = product((1, 3, 5), (1, 2), (0, 1, 2))
        fits = [(k, s, p) for k, s, p in sizes if min(height, width) + 2 * p >= k and p <= k // 2 + 1]
        self.convs = nn.ModuleList(
            nn.Conv2d(7, channels, *size) for channels, size in zip(cycle(EDGES), fits, strict=False)
        )
        self.first, self.second = nn.Conv2d(7, 9, 3, padding=1), nn.Conv2d(9, 9, 3, padding=1)
        self.linear, self.flat = nn.Linear(9, 33), nn.Linear(9 * height * width, 8)
        for layer, density in zip(self.children(), cycle(DENSITIES), strict=False):
            prune(layer, density)
        for conv, density in zip(self.convs, cycle(DENSITIES), strict=False):
            prune(conv, density)
        prune(self.second, 0.4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = F.relu(self.first(x))
        z = F.relu(self.second(y) + y)
        z = self.second(F.relu(self.second(z))) + z
        pooled = F.max_pool2d(z, 3, 2, 1), F.avg_pool2d(z, 3, 1, 1), F.gelu(z)[:, 1::2, :, ::2]
        vectors = self.linear(torch.flatten(F.adaptive_avg_pool2d(z, 1), 1)), self.flat(torch.flatten(z, 1))
        return (*(conv(x) for conv in self.convs), F.pad(x, (1, 2, 0, 1)), *pooled, *vectors)


class Tokens(nn.Module):
    """Layers of every edge size, layer norm, activations, and a residual addition."""

    def __init__(self, density: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((*EDGES, 33)))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in (33, 1))
        self.last = nn.Linear(33, 1)
        prune(self.layers, density)
        prune(self.last, density)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before = x
        for number, layer in enumerate(self.layers):
            before, x = x, layer(x)
            x = F.gelu(x) if number % 2 else F.relu(x)
        x = self.norms[0](x + self.layers[-1](before))
        return x, self.norms[1](self.last(x))


def image(height: int, width: int) -> RegionCase:
    formats = cycle(FORMATS)
    return region_case(Image(height, width).eval(), [torch.randn(2, 7, height, width)], lambda _: next(formats))


def tokens(density: float, storage: str) -> RegionCase:
    return region_case(Tokens(density).eval(), [torch.randn(2, 1)], lambda _: storage)


def wide(storage: str, *sizes: int) -> RegionCase:
    """So many columns that they are taken in slices, and so much work that threads share it."""
    layers = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))
    return region_case(prune(layers, 0.3), [torch.randn(2, sizes[0])], lambda _: storage)


CASES: dict[str, Callable[[], RegionCase]] = {
    **{f"{h}x{w} pixels": partial(image, h, w) for h, w in zip((1, 9, 8, 7, 8, 4, 3, 2), EDGES, strict=True)},
    "9x1 pixels": partial(image, 9, 1),
    "32x32 pixels": partial(image, 32, 32),
    **{f"tokens {density}": partial(tokens, density, "csr") for density in DENSITIES},
    **{f"tokens {storage}": partial(tokens, 0.1, storage) for storage in FORMATS[1:]},
    "wide csr": partial(wide, "csr", 600, 509, 33),
    "wide bsr4x1": partial(wide, "bsr4x1", 600, 33),
}


def isolated(buffers: Sequence[Buffer], placement: Placement, slack: int = SLACK_ELEMS) -> tuple[list[int], int]:
    """Like `place`, without sharing memory: each buffer in a slot, `slack` elements beside the slot's last page."""
    slot, usable = SLOT_PAGES * PAGE_ELEMS, (SLOT_PAGES - 1) * PAGE_ELEMS
    sizes = [-(-buffer.elems // ALIGNMENT_ELEMS) * ALIGNMENT_ELEMS for buffer in buffers]
    assert max(sizes, default=0) + 2 * SLACK_ELEMS <= usable, "a larger slot is needed"
    begins = [slack if placement == "begin" else usable - slack - size for size in sizes]
    return [number * slot + begin for number, begin in enumerate(begins)], max(1, len(buffers)) * slot


def build(cases: dict[str, RegionCase], placement: Placement, folder: Path, slack: int = SLACK_ELEMS) -> None:
    """kernels.so and calls.pickle, as bounds_child.py wants them."""
    renamed = [f"-D{name}=guarded_{name}" for name in ("malloc", "calloc", "aligned_alloc", "free")]
    with pytest.MonkeyPatch.context() as patch:
        slot = f"-DSLOT_BYTES={SLOT_PAGES * PAGE}"
        patch.setenv("CC", shlex.join([*c_compiler(), *renamed, slot, str(HERE / "guarded_alloc.c")]))
        patch.setattr(builder, "place", partial(isolated, placement=placement, slack=slack))
        built = build_cases(cases, folder)
    calls = list[Call]()
    for number, (name, case) in enumerate(cases.items()):
        (x,) = (i for i in built.plans[name].inputs if not i.constant)
        row = tuple(size or 0 for size in x.shape[1:])
        for rows in (1, 3) if len(row) == 3 else (*EDGES, 130):
            given = random_array(rows, *row, seed=rows)
            expected = in_float64(case, given)
            tolerances = tuple(TOLERANCE * max(float(np.abs(e).max()), 1e-3) for e in expected)
            calls.append(Call(name, number, case.constants, (given,), expected, rows, tolerances))
    (folder / "calls.pickle").write_bytes(pickle.dumps(calls))


def in_float64(case: RegionCase, x: Array) -> tuple[Array, ...]:
    with torch.no_grad():
        results = copy.deepcopy(case.module).double()(torch.tensor(x, dtype=torch.float64))
    return tuple(y.numpy() for y in (results if isinstance(results, tuple) else (results,)))


def run(folder: Path, isa: Isa, placement: Placement, *damaged: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "bounds_child.py"), str(folder), isa, placement, *damaged]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def cases() -> dict[str, RegionCase]:
    return {name: make() for name, make in CASES.items()}


@pytest.fixture(scope="module", params=PLACEMENTS)
def built(
    request: pytest.FixtureRequest, cases: dict[str, RegionCase], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Placement]:
    folder = tmp_path_factory.mktemp("bounds")
    build(cases, request.param, folder)
    return folder, request.param


@pytest.mark.parametrize("isa", runnable_isas())
def test_no_region_leaves_its_memory(built: tuple[Path, Placement], isa: Isa) -> None:
    done = run(built[0], isa, built[1])
    assert done.returncode == 0, f"status {done.returncode} in {done.stdout.splitlines()[-1:]}\n{done.stderr}"


@pytest.mark.parametrize("isa", runnable_isas())
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("damaged", ["inputs", "outputs", "constants", "arena"])
def test_memory_that_is_too_short_is_noticed(tmp_path: Path, damaged: str, placement: Placement, isa: Isa) -> None:
    """By one element, in the arena by one vector: what is guarded is what is used."""
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    case = region_case(prune(layers, 0.5), [torch.randn(2, 3, 4, 4)])
    build({"small": case}, placement, tmp_path, slack=-ALIGNMENT_ELEMS if damaged == "arena" else SLACK_ELEMS)
    done = run(tmp_path, isa, placement, damaged)
    assert done.returncode == -signal.SIGSEGV, done.stderr
    assert done.stdout.startswith("small, 1 rows"), "not even begun"
