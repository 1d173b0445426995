"""float32 on its way through int8: the arithmetic against float64, the grid of an edge, the four engines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsecc.contracts import (
    WHOLE,
    Budget,
    Calibration,
    Contract,
    EdgeLimits,
    Key,
    Options,
    Settlement,
    Wishes,
    make_keys,
    negotiate,
    transmit,
)
from sparsecc.contracts.calibration import split
from sparsecc.contracts.fills import settle_means
from sparsecc.contracts.int8 import LEAST_SCALE, dequantise, grid, is_scale, quantise
from sparsecc.contracts.keys import Array
from sparsecc.contracts.moving import settle_moving
from sparsecc.contracts.op_int8 import DEQUANTISE, QUANTISE
from sparsecc.contracts.ranges import measure_ranges
from sparsecc.contracts.replay import Replay

from .cases import ENGINES, KINDS, activations, assert_same_bits, reference
from .nets import bytes_of, samples, small_program

SCALES = st.floats(2.0**-126, 2.0**100, width=32)
ZERO_POINTS = st.integers(-128, 127)
ALL_INT8 = np.arange(-128, 128).astype(np.int8)
AS_INT8 = Options(dtypes=("int8",))


def nearest(x: Array, scale: float, zero_point: int) -> Array:
    """In float64, where the quotient is exact enough to round it as float32 does, and then to an integer."""
    wide = np.where(np.isnan(x), 0, x).astype(np.float64) / scale
    with np.errstate(over="ignore"):
        quotient = wide.astype(np.float32)
    return np.clip(np.round(quotient.astype(np.float64)) + zero_point, -128, 127).astype(np.int8)


# ---- the way there and back ------------------------------------------------------------------------------------------


@given(scale=SCALES, zero_point=ZERO_POINTS, seed=st.integers(0, 1000))
def test_quantising_is_what_float64_says(scale: float, zero_point: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    steps = random.integers(-300, 300, 200) + random.choice([0.0, 0.5, 0.25, 1e-7], 200)  # many halfway between two
    with np.errstate(over="ignore"):
        near = (steps * scale).astype(np.float32)
    for x in (near, activations("any bits", "float32", 1, 200, seed)[0]):
        expected = nearest(x, scale, zero_point)
        np.testing.assert_array_equal(quantise(x, scale, zero_point), expected)
        np.testing.assert_array_equal(QUANTISE(torch.from_numpy(x), scale, zero_point).numpy(), expected)


@given(scale=SCALES, zero_point=ZERO_POINTS)
def test_dequantising_is_what_float64_says(scale: float, zero_point: int) -> None:
    expected = ((ALL_INT8.astype(np.float64) - zero_point) * scale).astype(np.float32)
    assert_same_bits(dequantise(ALL_INT8, scale, zero_point), expected)
    assert_same_bits(DEQUANTISE(torch.from_numpy(ALL_INT8), scale, zero_point).numpy(), expected)
    np.testing.assert_array_equal(quantise(expected, scale, zero_point), ALL_INT8)


def test_halfway_goes_to_even_and_nan_to_zero() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 1e30, -np.inf, np.nan, -0.0], np.float32)
    assert quantise(x, 1.0, 10).tolist() == [10, 12, 12, 10, 8, 127, -128, 10, 10]
    assert dequantise(np.array([10, 127, -128], np.int8), 0.5, 10).tolist() == [0, 58.5, -69]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("period", [0, 2])
def test_engines_agree(kind: str, period: int) -> None:
    contract = Contract("x", Key("int8", zero_point=-7), 19_661, 9_000, 40_000, 100, period=period, scale=0.03125)
    x = activations(kind, "float32", 3, 1025, 1)
    s = np.random.default_rng(0).integers(0, 256, 1025).astype(np.uint8)
    fill = np.array([77], np.int8)
    contract = contract if period else replace(contract, share_lo_q16=19_661, share_hi_q16=19_661)
    expected = reference(x, s, contract, fill, 1)
    for engine in ENGINES.values():
        assert_same_bits(engine(x, s, contract, fill, 1), expected)


def test_what_is_selected_is_what_int8_ranks() -> None:
    """Two values of one place on the grid are equal, and the first is sent; 0 stays 0."""
    x = np.array([[0.101, 0.0, -0.4, 0.099, -0.004]], np.float32)
    contract = replace(Contract.fixed("x", Key("int8", zero_point=20), 26_215), scale=float(np.float32(0.01)))
    values, sent = transmit(x, np.full(1, 255, np.uint8), contract)
    assert sent.tolist() == [[True, False, True, False, False]]
    np.testing.assert_allclose(values, [[0.1, 0, -0.4, 0, 0]], rtol=1e-6)
    assert not contract.keeps_everything
    assert not replace(contract, share_q16=WHOLE, share_lo_q16=WHOLE, share_hi_q16=WHOLE).keeps_everything


# ---- the grid of an edge ---------------------------------------------------------------------------------------------


@given(ends=st.tuples(st.floats(-(2.0**127), 2.0**127, width=32), st.floats(-(2.0**127), 2.0**127, width=32)))
def test_a_grid_covers_its_range_and_holds_zero(ends: tuple[float, float]) -> None:
    least, greatest = sorted(ends)
    scale, key = grid(least, greatest)
    assert is_scale(scale)
    assert (key.dtype, key.bits, key.shift) == ("int8", 16, 0)
    there = np.array([0.0, least, greatest], np.float32)
    back = dequantise(quantise(there, scale, key.zero_point), scale, key.zero_point).astype(np.float64)
    assert back[0] == 0
    assert np.abs(back - there).max() <= scale * 1.001  # 0 on the grid moves both ends by half a step


@pytest.mark.parametrize(
    ("ends", "scale", "zero_point"),
    [((0, 255), 1, -128), ((3, 255), 1, -128), ((-255, -1), 1, 127), ((-128, 127), 1, 0), ((0, 0), 1, 0)],
)
def test_grids(ends: tuple[float, float], scale: float, zero_point: int) -> None:
    found, key = grid(*ends)
    assert (found, key.zero_point) == (scale, zero_point if any(ends) else -128)


def test_a_range_too_narrow_for_normal_steps() -> None:
    assert grid(0, 100 * LEAST_SCALE)[0] == 1


def test_keys_of_int8_find_room_in_16_bits() -> None:
    _, key = grid(0.0, 1.0)
    keys = make_keys(ALL_INT8, np.full(1, 255, np.uint8), 1, key)
    assert keys.tolist() == [255 * n for n in range(256)]
    assert keys[-1] <= key.maximum


# ---- settled contracts -----------------------------------------------------------------------------------------------

PROGRAM, DATA = small_program(), samples(labels=True)


def settled(kind: Any, value: float, data: Calibration = DATA) -> Settlement:
    return negotiate(PROGRAM, data, Budget(kind, value), bytes_of, options=AS_INT8)


def produced(data: Calibration) -> dict[str, Array]:
    replay = Replay(PROGRAM, {}, {})
    replay.run(*data.inputs)
    return {node.name: value.detach().numpy() for node, value in replay.env.items() if isinstance(value, torch.Tensor)}


def test_ranges_are_those_of_the_fitting_samples() -> None:
    fitting, _ = split(DATA)
    values = produced(fitting)
    names = [contract.edge for contract in settled("keep", 1.0).contracts]
    ranges = measure_ranges(PROGRAM, names, fitting)
    assert ranges == {name: (values[name].min(), values[name].max()) for name in names}
    for contract in settled("keep", 0.5).contracts:
        assert contract.scale == pytest.approx(ranges[contract.edge][1] / 255)  # of a ReLU
        assert contract.key == Key("int8", zero_point=-128)


def test_everything_as_int8_is_dense_but_for_the_grid() -> None:
    settlement = settled("keep", 1.0)
    assert {record.dtype for record in settlement.log} == {"int8"}
    fitting, _ = split(DATA)
    values = produced(fitting)
    for contract in settlement.contracts:
        x, sensitivity = values[contract.edge], settlement.maps[contract.edge].gradient
        arrived, sent = transmit(x, sensitivity, contract)
        assert sent.all()
        assert 0 < np.abs(arrived - x).max() <= 0.5001 * contract.scale
    assert settlement.settled_bytes < 0.4 * settlement.dense_bytes


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_a_budget_is_a_share_of_float32(share: float) -> None:
    settlement = settled("bytes", share)
    assert 0.8 * share < settlement.settled_bytes / settlement.dense_bytes <= share


def test_means_and_periods() -> None:
    settlement = settled("keep", 0.25)
    for contract in settle_means(PROGRAM, settlement, DATA).contracts:
        mean = dequantise(np.array([contract.fill_value]), contract.scale, contract.key.zero_point)[0]
        assert -128 < contract.fill_value < 0 < mean  # of what is dropped of a ReLU
    tiles = negotiate(PROGRAM, DATA, Budget("keep", 0.5), bytes_of, options=replace(AS_INT8, tile_elems=64))
    moving = settle_moving(PROGRAM, tiles, DATA, 1)
    assert {(c.period, c.key.dtype) for c in moving.contracts if c.period} == {(1, "int8")}


# ---- the counter-offer -----------------------------------------------------------------------------------------------


def test_int8_is_offered_where_no_tile_is_small_enough() -> None:
    """What the sender proposes of 64 values does not fit as float32, and as int8 it does."""
    names = [contract.edge for contract in settled("keep", 1.0).contracts]
    limits = {names[0]: EdgeLimits(max_block_bytes=100)}
    options = Options(dtypes=("float32", "int8"), wishes=Wishes(0.95, 0.5))
    settlement = negotiate(PROGRAM, DATA, Budget("agreed"), bytes_of, limits, options=options)
    first, *others = settlement.log
    assert first.proposed_q16 is not None
    assert bytes_of(64, first.proposed_q16) > 100 >= bytes_of(64, first.proposed_q16, "int8")
    assert (first.dtype, first.tile_elems, first.binding) == ("int8", 64, "sensitivity; int8 for the block buffer")
    assert {record.dtype for record in others} == {"float32"}
    assert [contract.key.dtype for contract in settlement.contracts] == [record.dtype for record in settlement.log]
    assert [contract.scale > 0 for contract in settlement.contracts] == [True, False, False]
