"""Keys and the total order, as numbers anyone can compare with: the conformance vectors of the specification."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecc.contracts import (
    Contract,
    Key,
    first_k,
    first_k_reference,
    keep_elems,
    make_keys,
    offset_table,
    select,
    spread,
    tiles,
    transmit,
)
from sparsecc.contracts.keys import FLOATS, Keys

from .cases import KINDS, activations, bfloat16

MOST = np.full(1, 255, np.uint8)


def test_int8_keys() -> None:
    x = np.array([[5, 6, 4, 127, -128, 0]], np.int8)
    s = np.array([255, 255, 255, 255, 255, 0], np.uint8)
    assert make_keys(x, s, 1, Key("int8", 8, shift=7, zero_point=5)).tolist() == [[0, 1, 1, 243, 255, 0]]
    assert make_keys(x, s, 1, Key("int8", 16, zero_point=5)).tolist() == [[0, 255, 255, 31110, 33915, 0]]


def test_float16_keys() -> None:
    x = np.array([0.0, -0.0, 2.0**-24, -1.0, 1.5, 65504, np.inf, np.nan], np.float16)
    assert make_keys(x, MOST, 1, Key("float16")).tolist() == [0, 0, 1, 15360, 15872, 31743, 31744, 65535]
    assert make_keys(x, MOST, 1, Key("float16", 8, 5, 12_000)).tolist() == [0, 0, 0, 105, 121, 255, 255, 255]


def test_bfloat16_keys() -> None:
    x = bfloat16(np.array([0, 0x80000000, 0x3F800000, 0xBFC00000, 0x7F800000, 0x7F810000], np.uint32))
    assert make_keys(x, MOST, 1, Key("bfloat16")).tolist() == [0, 0, 16256, 16320, 32640, 65535]


def test_float32_keys_are_of_the_top_16_bits_but_every_nan_counts() -> None:
    """0x7F800001 is NaN, although its top half is infinity's; 1 + 2**-8 is truncated to 1."""
    bits = np.array([0x3F800000, 0x3F808000, 0x3F810000, 0x7F800000, 0x7F800001, 0xFFC00000, 1], np.uint32)
    keys = make_keys(bits.view(np.float32), MOST, 1, Key("float32"))
    assert keys.tolist() == [16256, 16256, 16257, 32640, 65535, 65535, 0]


def test_sensitivity_shifts_by_its_logarithm() -> None:
    """Half the sensitivity is one octave less: 128 steps of bfloat16. Sensitivity 0 is key 0, but for NaN."""
    x = np.array([4.0, 4.0, 4.0, np.nan], np.float32)
    keys = make_keys(x, np.array([255, 128, 0, 0], np.uint8), 1, Key("float32"))
    assert keys.tolist() == [16512, 16512 - 127, 0, 65535]  # 128 / 255 is a little more than half


def test_offsets() -> None:
    assert [int(offset_table("float16")[s]) for s in (0, 1, 2, 64, 127, 128, 254, 255)] == [
        -32768, -8186, -7162, -2042, -1030, -1018, -6, 0,
    ]  # fmt: skip
    assert [int(offset_table("float32")[s]) for s in (0, 1, 128, 255)] == [-32768, -1023, -127, 0]
    for form in FLOATS.values():  # no rounding is close: any libm makes this table
        scaled = [math.log2(s / 255) * (1 << form.mantissa_bits) % 1 for s in range(1, 255)]
        assert min(abs(part - 0.5) for part in scaled) > 1e-6


def test_blocks_and_repetition() -> None:
    assert spread(np.array([1, 2, 3]), 2, 9).tolist() == [1, 1, 2, 2, 3, 3, 1, 1, 2]


@given(st.sampled_from(sorted(FLOATS)), st.sampled_from(KINDS), st.integers(0, 100))
def test_float_keys_are_monotone_in_the_magnitude(dtype: str, kind: str, seed: int) -> None:
    x = activations(kind, dtype, 1, 50, seed)[0]
    x = x[~np.isnan(x.astype(np.float32))]
    order = np.argsort(np.abs(x.astype(np.float32)), kind="stable")
    for key in (Key(dtype), Key.window(dtype, 8.0)):
        assert (np.diff(make_keys(x[order], MOST, 1, key)) >= 0).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_window_ends_at_the_largest(dtype: str) -> None:
    key = Key.window(dtype, 8.0, octaves=8)
    keys = make_keys(np.array([8.0, 4.0, 8 / 2**7, 8 / 2**9], dtype), MOST, 1, key)
    assert keys.tolist() == [255, 223, 31, 0]


def test_keys_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match="keys of float16 cannot be made from float32"):
        make_keys(np.zeros(1, np.float32), MOST, 1, Key("float16"))


def test_k() -> None:
    """floor(n * q / 65536), at least one unless nothing is asked or there."""
    assert [keep_elems(n, q) for n, q in ((1024, 16_384), (1024, 63), (7, 65_535), (7, 65_536), (7, 0), (0, 9))] == [
        256, 1, 6, 7, 0, 0,
    ]  # fmt: skip


def test_tiles_cover_the_traversal() -> None:
    assert list(tiles(2500, 1024)) == [slice(0, 1024), slice(1024, 2048), slice(2048, 2500)]


def test_ties_go_to_the_earlier_element() -> None:
    keys = np.array([3, 9, 3, 9, 3, 1], np.int32)
    for selector in (first_k, first_k_reference):
        assert selector(keys, 4).tolist() == [True, True, True, True, False, False]
        assert selector(keys, 1).tolist() == [False, True, False, False, False, False]


@st.composite
def keys_and_k(draw: st.DrawFn) -> tuple[Keys, int]:
    n = draw(st.sampled_from((0, 1, 7, 1023, 1024, 1025, 65_535)))
    levels = draw(st.sampled_from((1, 2, 256, 65_536)))
    keys = np.random.default_rng(draw(st.integers(0, 99))).integers(65_536 - levels, 65_536, n).astype(np.int32)
    return keys, draw(st.integers(0, n))


@given(keys_and_k())
def test_fast_selection_is_the_specified_one(case: tuple[Keys, int]) -> None:
    keys, k = case
    mask = first_k(keys, k)
    assert mask.sum() == k
    np.testing.assert_array_equal(mask, first_k_reference(keys, k))


@given(st.sampled_from((1, 7, 1023, 1024, 1025, 3000)), st.sampled_from((1, 64, 1024)), st.integers(0, 65_536))
def test_each_tile_keeps_its_own_k(elems: int, tile_elems: int, share: int) -> None:
    keys = np.random.default_rng(0).integers(0, 256, (2, elems)).astype(np.int32)
    mask = select(keys, share, tile_elems)
    for part in tiles(elems, tile_elems):
        np.testing.assert_array_equal(mask[:, part], first_k_reference(keys[:, part], mask[0, part].sum()))
        assert (mask[:, part].sum(1) == keep_elems(part.stop - part.start, share)).all()


def test_conformance_vector() -> None:
    """One tile of int8 and a ragged one: what arrives, byte for byte."""
    x = np.array([[3, -3, 9, 0, -9, 5, 3, 3, 8, 1, 1]], np.int8)
    s = np.array([255, 64, 128], np.uint8)  # of 4 elements each: 0-3, 4-7, 8-10
    contract = Contract.fixed("edge", Key("int8", 8, 3, zero_point=1), 32_768, tile_elems=8, map_block=4)
    keys = make_keys(x, s, 4, contract.key)
    assert keys.tolist() == [[63, 127, 255, 31, 80, 32, 16, 16, 112, 0, 0]]
    values, sent = transmit(x, s, contract)
    assert np.packbits(sent, bitorder="little").tobytes().hex() == "1701"
    assert values.tobytes().hex() == "03fd0901f7010101080101"
