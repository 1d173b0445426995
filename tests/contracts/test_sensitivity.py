"""Maps and degradations measured on a small network, against gradients and runs made by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparsecc.contracts import WHOLE, Contract, Key, op, transmit, uniform_map
from sparsecc.contracts.degradation import measure_degradation
from sparsecc.contracts.measures import divergence
from sparsecc.contracts.replay import outputs
from sparsecc.contracts.sensitivity import measure_sensitivity
from sparsecc.contracts.stages import assign_stages, edges

from .nets import samples, small, small_program

PROGRAM = small_program()
CUT = list(edges(assign_stages(PROGRAM.graph)))


@pytest.mark.parametrize(
    ("order", "block", "entries"), [("rows", None, 8), ("channels-last", None, 8), ("rows", 1, 512)]
)
def test_taylor_maps_are_mean_products(order: str, block: int | None, entries: int) -> None:
    calibration = samples(labels=True)
    maps = measure_sensitivity(
        PROGRAM, CUT, calibration, "cross-entropy", {e.name: order for e in CUT[:2]} | {"mean": "rows"}, block
    )
    assert calibration.labels is not None
    model = small()
    first = model.bn1(model.conv1(calibration.inputs[0])).relu()
    second = (model.bn2(model.conv2(first)) + first).relu()
    logits = model.head(model.conv3(second).relu().mean((2, 3)))
    loss = torch.nn.functional.cross_entropy(logits, calibration.labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, second)
    products = (second * gradient).abs().mean(0).detach()
    expected = (products.mean((1, 2)) if block is None else products.flatten()).double().numpy()
    got = maps["relu_1"].sensitivity
    assert len(got) == entries
    np.testing.assert_allclose(got, expected * 255 / expected.max(), atol=0.51)
    assert maps["relu_1"].block == (64 if order == "rows" and block is None else 1)


def test_maps_of_channels_are_the_same_in_both_orders() -> None:
    rows, last = (
        measure_sensitivity(PROGRAM, CUT[:1], samples(), "cross-entropy", {"relu": order})["relu"]
        for order in ("rows", "channels-last")
    )
    np.testing.assert_array_equal(rows.gradient, last.gradient)
    assert (rows.block, last.block) == (64, 1)


def test_channels_last_moves_channels_to_the_end() -> None:
    x = np.random.default_rng(0).normal(size=(2, 8, 4, 4)).astype(np.float32)
    s = np.arange(1, 9, dtype=np.uint8)
    contract = replace(Contract.fixed("x", Key("float32"), WHOLE // 3, tile_elems=48), order="channels-last")
    values, sent = transmit(x, s, contract)
    moved, moved_sent = transmit(np.moveaxis(x, 1, -1), s, replace(contract, order="rows"))
    np.testing.assert_array_equal(values, np.moveaxis(moved, -1, 1))
    np.testing.assert_array_equal(sent, np.moveaxis(moved_sent, -1, 1))
    in_torch = op.transmit(torch.from_numpy(x), torch.from_numpy(s), contract)
    assert in_torch.is_contiguous()
    np.testing.assert_array_equal(in_torch.numpy(), values)


def test_degradation_is_that_of_a_run_with_one_contract() -> None:
    calibration = samples(20)
    maps = {edge.name: uniform_map() for edge in CUT}
    whole = {edge.name: Contract.fixed(edge.name, Key("float32"), WHOLE) for edge in CUT}
    shares = (WHOLE // 8, WHOLE // 2)
    curves = measure_degradation(PROGRAM, CUT, calibration, whole, maps, "cross-entropy", shares)
    x = calibration.inputs[0]
    (dense,) = outputs(PROGRAM, [x], {}, maps)
    for edge in CUT:
        alone = [
            outputs(PROGRAM, [x], {edge.name: Contract.fixed(edge.name, Key("float32"), s)}, maps)[0] for s in shares
        ]
        expected = [float(divergence("cross-entropy", dense, y).mean()) for y in alone]
        curve = curves[edge.name]
        assert curve.shares == (*shares, WHOLE)
        assert curve.losses[-1] == 0
        if expected[0] >= expected[1]:
            assert curve.losses[:2] == pytest.approx(expected, rel=1e-4, abs=1e-9)
        assert curve.losses[0] > 0
