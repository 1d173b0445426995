"""Arrays from an untrusted file are refused, and the text says exactly why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sparsecc.diagnostics import CompileError
from sparsecc.formats import BSR, CSR, Dense, Packed, check, parse_format

VALUES = np.array([[0, 5, 6], [0, 0, 0], [7, 0, 8]], np.float32)


def csr(**arrays: npt.NDArray[Any]) -> Packed:
    """values 5 6 7 8, columns 1 2 0 2, row_starts 0 2 2 4, but for the arrays given."""
    return changed(CSR().pack(VALUES), **arrays)


def bsr(**arrays: npt.NDArray[Any]) -> Packed:
    """Four blocks of 2x2, columns 0 1 0 1, row_starts 0 2 4, but for the arrays given."""
    return changed(BSR(2, 2).pack(VALUES), **arrays)


def changed(packed: Packed, **arrays: npt.NDArray[Any]) -> Packed:
    return replace(packed, arrays={**packed.arrays, **arrays})


def i32(*values: int) -> npt.NDArray[np.int32]:
    return np.array(values, np.int32)


def u16(*values: int) -> npt.NDArray[np.uint16]:
    return np.array(values, np.uint16)


def f32(*shape: int) -> npt.NDArray[np.float32]:
    return np.ones(shape, np.float32)


def wide(*columns: int) -> Packed:
    dense = np.zeros((1, 70_000), np.float32)
    dense[0, :2] = 1
    return changed(CSR().pack(dense), columns=i32(*columns))


CORRUPTED: dict[str, tuple[Callable[[], Packed], str]] = {
    "first start": (lambda: csr(row_starts=i32(1, 2, 2, 4)), "csr matrix of 3x3: row_starts[0] = 1, expected 0"),
    "last start": (
        lambda: csr(row_starts=i32(0, 2, 2, 5)),
        "csr matrix of 3x3: row_starts[3] = 5, but 4 entries are stored",
    ),
    "entries after the last row": (
        lambda: csr(row_starts=i32(0, 2, 2, 3)),
        "csr matrix of 3x3: row_starts[3] = 3, but 4 entries are stored",
    ),
    "falling starts": (
        lambda: csr(row_starts=i32(0, 3, 2, 4)),
        "csr matrix of 3x3: row_starts[2] = 2 is below row_starts[1] = 3",
    ),
    "starts that overflow a difference": (
        lambda: csr(row_starts=i32(0, 2**31 - 1, -(2**31), 4)),
        "csr matrix of 3x3: row_starts[2] = -2147483648 is below row_starts[1] = 2147483647",
    ),
    "number of starts": (
        lambda: csr(row_starts=i32(0, 2, 4)),
        "csr matrix of 3x3: row_starts is int32[3], expected int32[4]",
    ),
    "no starts": (lambda: csr(row_starts=i32()), "csr matrix of 3x3: row_starts is int32[0], expected int32[4]"),
    "column too high": (
        lambda: csr(columns=u16(1, 3, 0, 2)),
        "csr matrix of 3x3: columns[1] = 3 is out of bounds, expected 0 to 2",
    ),
    "column below zero": (
        lambda: wide(-1, 1),
        "csr matrix of 1x70000: columns[0] = -1 is out of bounds, expected 0 to 69999",
    ),
    "column twice": (
        lambda: csr(columns=u16(1, 1, 0, 2)),
        "csr matrix of 3x3: columns[1] = 1 is not above columns[0] = 1 in the same row",
    ),
    "columns out of order": (
        lambda: csr(columns=u16(1, 2, 2, 0)),
        "csr matrix of 3x3: columns[3] = 0 is not above columns[2] = 2 in the same row",
    ),
    "number of columns": (
        lambda: csr(columns=u16(1, 2, 0)),
        "csr matrix of 3x3: columns is uint16[3], expected uint16[4]",
    ),
    "type of columns": (
        lambda: csr(columns=i32(1, 2, 0, 2)),
        "csr matrix of 3x3: columns is int32[4], expected uint16[4]",
    ),
    "type of values": (
        lambda: csr(values=np.ones(4)),
        "csr matrix of 3x3: values is float64[4], expected float32[4]",
    ),
    "dimensions of values": (
        lambda: csr(values=f32(2, 2)),
        "csr matrix of 3x3: values is float32[2, 2], expected float32[nnz]",
    ),
    "one array too many": (
        lambda: csr(scales=f32(1)),
        "csr matrix of 3x3: arrays are (values, columns, row_starts, scales), expected (values, columns, row_starts)",
    ),
    "another shape": (
        lambda: replace(csr(), shape=(4, 3)),
        "csr matrix of 4x3: row_starts is int32[4], expected int32[5]",
    ),
    "fewer columns": (
        lambda: replace(csr(), shape=(3, 2)),
        "csr matrix of 3x2: columns[1] = 2 is out of bounds, expected 0 to 1",
    ),
    "no columns": (
        lambda: replace(csr(), shape=(3, 0)),
        "csr matrix of 3x0: columns[0] = 1 is out of bounds, there are none",
    ),
    "negative shape": (lambda: replace(csr(), shape=(3, -3)), "csr matrix of 3x-3: a shape is not negative"),
    "arrays of another format": (
        lambda: replace(csr(), format="bsr2x2"),
        "bsr2x2 matrix of 3x3: values is float32[4], expected float32[blocks, 2, 2]",
    ),
    "another block shape": (
        lambda: replace(bsr(), format="bsr2x1"),
        "bsr2x1 matrix of 3x3: values is float32[4, 2, 2], expected float32[4, 2, 1]",
    ),
    "block column": (
        lambda: bsr(columns=u16(0, 2, 0, 1)),
        "bsr2x2 matrix of 3x3: columns[1] = 2 is out of bounds, expected 0 to 1",
    ),
    "block starts": (
        lambda: bsr(row_starts=i32(0, 2, 3)),
        "bsr2x2 matrix of 3x3: row_starts[2] = 3, but 4 entries are stored",
    ),
    "value beyond the edge": (
        lambda: bsr(values=f32(4, 2, 2)),
        "bsr2x2 matrix of 3x3: values[1, 0, 1] = 1.0 lies outside of the matrix",
    ),
    "dense shape": (
        lambda: changed(Dense().pack(VALUES), values=f32(3, 2)),
        "dense matrix of 3x3: values is float32[3, 2], expected float32[3, 3]",
    ),
}


@pytest.mark.parametrize(("corrupt", "text"), CORRUPTED.values(), ids=CORRUPTED.keys())
def test_corrupted_arrays_are_refused(corrupt: Callable[[], Packed], text: str) -> None:
    packed = corrupt()
    for use in (check, parse_format(packed.format).unpack):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole text is compared below
            use(packed)
        assert str(caught.value) == text


def test_what_is_whole_passes() -> None:
    for packed in (csr(), bsr(), Dense().pack(VALUES)):
        check(packed)


def test_a_format_takes_only_its_own() -> None:
    with pytest.raises(ValueError, match=r"^csr matrix of 3x3: expected format bsr2x2$"):
        BSR(2, 2).check(csr())


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(CompileError, match=r"^error\[SCC030\]: there is no format 'zip'"):
        check(replace(csr(), format="zip"))
