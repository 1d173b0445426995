"""Sensitivity maps: what is measured, what is stored, how the unit refreshes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecc.contracts import Moments, SensitivityMap, measured_map, uniform_map
from sparsecc.diagnostics import CompileError

A = np.array([[1.0, -2.0, 0.0, 4.0], [3.0, 2.0, 0.0, -4.0]], np.float32)
G = np.array([[1.0, 1.0, 5.0, 0.5], [-1.0, 0.0, 5.0, 0.25]], np.float32)


def moments(a: np.ndarray[Any, Any] = A, g: np.ndarray[Any, Any] | None = G) -> Moments:
    """In two batches."""
    both = Moments()
    for half in (slice(0, 1), slice(1, None)):
        both.add(a[half], None if g is None else g[half])
    return both


def test_taylor_is_the_mean_of_a_times_g() -> None:
    """E|ag| = 2, 1, 0, 1.5; |a| = 2, 2, 0, 4; so g = 1, 0.5, E|g| = 5 where nothing was active, 0.375."""
    measured = measured_map(moments())
    assert measured.sensitivity.tolist() == [255, 128, 0, 191]
    assert measured.gradient.tolist() == [51, 26, 255, 19]
    np.testing.assert_allclose(measured.activation * measured.activation_unit, [2, 2, 0, 4], atol=1e-3)


def test_other_forms() -> None:
    assert measured_map(moments(), form="product").sensitivity.tolist() == [255, 128, 0, 191]
    squared = measured_map(moments(), form="product", alpha=2, beta=1)  # 4, 2, 0, 6
    assert squared.sensitivity.tolist() == [170, 85, 0, 255]
    plain = measured_map(moments(g=None), form="activation")
    assert plain.sensitivity.tolist() == [128, 128, 0, 255]
    assert plain.gradient.tolist() == [255] * 4


def test_blocks_are_means_also_the_short_last_one() -> None:
    """E|ag| of blocks of 3: (2 + 1 + 0) / 3 and 1.5 / 1."""
    assert measured_map(moments(), block=3).sensitivity.tolist() == [170, 255]


def test_all_zero_is_a_map_of_zeros() -> None:
    measured = measured_map(moments(A * 0, G))
    assert measured.sensitivity.tolist() == [0] * 4
    assert measured.updated(measured.activation).sensitivity.tolist() == [0] * 4


def test_updates_in_integers() -> None:
    """The conformance vector of SMAP_UPD: a' = 1000 + (3000 - 1000 + 4 >> 3), 500, 65535; s of the products."""
    before = SensitivityMap(
        1,
        np.array([255, 1, 2], np.uint8),
        np.array([255, 128, 1], np.uint8),
        np.array([1000, 500, 65_535], np.uint16),
        0.5,
    )
    after = before.updated(np.array([3000, 496, 65_535], np.uint16))
    assert after.activation.tolist() == [1250, 500, 65_535]
    assert after.sensitivity.tolist() == [255, 51, 52]  # of 318750, 64000, 65535
    assert after.gradient is before.gradient
    assert before.updated(np.array([9, 9, 9], np.uint16), rate_shift=0).activation.tolist() == [9, 9, 9]


@given(st.integers(0, 65_535), st.integers(0, 65_535), st.integers(0, 15))
def test_updates_approach_and_stay_in_range(old: int, new: int, rate_shift: int) -> None:
    one = np.full(1, 255, np.uint8)
    start = SensitivityMap(1, one, one, np.array([old], np.uint16), 1.0)
    moved = int(start.updated(np.array([new], np.uint16), rate_shift).activation[0])
    assert min(old, new) <= moved <= max(old, new)


def test_the_same_average_changes_no_average() -> None:
    measured = measured_map(moments())
    again = measured.updated(measured.in_units(np.array([2.0, 2.0, 0.0, 4.0])))
    np.testing.assert_array_equal(again.activation, measured.activation)
    assert np.abs(again.sensitivity.astype(int) - measured.sensitivity).max() <= 5  # 19 of 255 is coarse


def test_averages_beyond_the_unit_saturate() -> None:
    assert measured_map(moments()).in_units(np.array([1e9, 0.0, 1.0, 16.0])).tolist() == [65_535, 0, 4096, 65_535]


@pytest.mark.parametrize("make", [lambda: measured_map(moments(), block=3), lambda: uniform_map(4, 2)])
def test_save_and_load(make: Callable[[], SensitivityMap], tmp_path: Path) -> None:
    saved = make()
    saved.save(tmp_path / "map.npz")
    loaded = SensitivityMap.load(tmp_path / "map.npz")
    assert (loaded.block, loaded.activation_unit) == (saved.block, saved.activation_unit)
    for name in ("sensitivity", "gradient", "activation"):
        mine, its = getattr(saved, name), getattr(loaded, name)
        assert mine.dtype == its.dtype
        np.testing.assert_array_equal(mine, its)


def maps_of(shape: tuple[int, ...]) -> dict[str, Any]:
    u8 = np.zeros(shape, np.uint8)
    return {"sensitivity": u8, "gradient": u8, "activation": np.zeros(shape, np.uint16)}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"schema": np.array(2)}, "is not a sensitivity map of schema 1"),
    ({"schema": np.array([1])}, "is not a sensitivity map of schema 1"),
    ({"extra": np.array(2)}, "is not a sensitivity map of schema 1"),
    ({"block": np.array(1.5)}, "is not a sensitivity map of schema 1"),
    ({"block": np.array(0)}, "has an empty map, block or unit"),
    ({"activation_unit": np.array(np.nan)}, "has an empty map, block or unit"),
    ({"gradient": np.zeros(3, np.uint8)}, "has maps of different lengths, or not of u8 and u16"),
    ({"gradient": np.zeros(4, np.int8)}, "has maps of different lengths, or not of u8 and u16"),
    (maps_of((2, 2)), "has an empty map, block or unit"),
    (maps_of((0,)), "has an empty map, block or unit"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_files_from_strangers(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    measured_map(moments()).save(path)
    np.savez(path, **{**dict(np.load(path)), **change})
    with pytest.raises(CompileError) as caught:
        SensitivityMap.load(path)
    assert str(caught.value) == (
        f"error[SCC047]: {path} {message}\n  help: measure the map again from calibration data"
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: measured_map(Moments()), "there are no calibration samples"),
        (lambda: measured_map(moments(g=None)), "sensitivity of the form taylor needs gradients"),
        (lambda: measured_map(moments(), form="fisher"), "'fisher' is no form of sensitivity"),
        (lambda: measured_map(moments(A * np.nan)), "an average of activations or gradients is not finite"),
    ],
)
def test_unusable_averages(make: Callable[[], object], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        make()
