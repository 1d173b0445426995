"""The cost model: what is known of its shape, not its numbers."""

from __future__ import annotations

import pytest
from programs import filled, program, run, seeded
from torch import Tensor, nn

from sparsecc.backends.tvm.cost_model import CALL_US, LEAST_US, predict
from sparsecc.invariants import LAYERS
from sparsecc.passes.choose_formats import packed_size
from sparsecc.program import DENSE_KERNELS, calls

KERNELS = ("csr", "bsr4x1", "dense", "onnxruntime")


def predicted(layer: nn.Module, x: Tensor, density: float = 0.1) -> dict[str, float]:
    measured, _ = run("fold-masks,measure-sparsity", program(filled(layer, density), x))
    (node,) = calls(measured, *LAYERS)
    elems = measured.layers[node.name].elems
    read = {k: elems if k in DENSE_KERNELS else packed_size(measured, node, k).elems for k in KERNELS}
    (candidates,) = predict(measured, {node: read}).values()
    assert tuple(c.kernel for c in candidates) == KERNELS
    assert [c.estimated_us for c in candidates] == [0, 0, 0, CALL_US]
    return {c.kernel: c.microseconds for c in candidates}


def test_fewer_non_zeros_cost_less() -> None:
    times = [predicted(nn.Linear(256, 256), seeded(64, 256), density) for density in (0.05, 0.2, 0.5, 1)]
    for kernel in ("csr", "bsr4x1"):
        assert [t[kernel] for t in times] == sorted(t[kernel] for t in times)
    assert len({t["dense"] for t in times}) == 1


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(384, 1536), seeded(128, 384)),
        (nn.Conv2d(32, 32, 3, padding=1), seeded(1, 32, 16, 16)),
        (nn.Linear(400, 120), seeded(1, 400)),
    ],
)
def test_at_90_percent_sparse_wins_and_at_0_it_loses(layer: nn.Module, x: Tensor) -> None:
    sparse = predicted(layer, x, 0.1)
    assert sparse["csr"] < 0.9 * sparse["dense"]
    full = predicted(layer, x, 1)
    assert full["csr"] > 0.9 * full["dense"]


def test_blocks_win_where_they_are_full() -> None:
    layer = nn.Linear(256, 256)
    measured = predicted(layer, seeded(64, 256), 1)
    assert measured["bsr4x1"] < measured["csr"]
    scattered = predicted(layer, seeded(64, 256), 0.1)
    assert scattered["bsr4x1"] > scattered["csr"]


def test_work_grows_with_the_columns() -> None:
    few, many = (predicted(nn.Linear(256, 256), seeded(tokens, 256)) for tokens in (32, 128))
    assert many["csr"] == pytest.approx(4 * few["csr"])
    assert many["dense"] == pytest.approx(4 * few["dense"])


def test_an_operator_of_onnxruntime_takes_as_long_as_the_dense_kernel() -> None:
    times = predicted(nn.Linear(64, 64), seeded(16, 64))
    assert times["onnxruntime"] == times["dense"]


@pytest.mark.parametrize("tokens", [1, 64])
def test_even_nothing_takes_time(tokens: int) -> None:
    times = predicted(nn.Linear(64, 64), seeded(tokens, 64), 0)
    assert times["csr"] == times["bsr4x1"] == LEAST_US
