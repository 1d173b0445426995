"""What a format stores, and that it gives back what it took."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecc.formats import BSR, CSR, FORMATS, Dense, Format, Matrix, Packed, SparseFormat, check
from sparsecc.formats.base import row_starts

from .matrices import EMPTY_ROWS, SPARSE, matrices, random_matrix, with_row_counts

ALL: tuple[Format, ...] = (Dense(), *SPARSE)


@given(form=st.sampled_from(ALL), dense=matrices())
def test_unpack_gives_what_pack_took(form: Format, dense: Matrix) -> None:
    packed = form.pack(dense)
    check(packed)
    np.testing.assert_array_equal(form.unpack(packed), dense, strict=True)
    assert packed.format == form.name
    assert packed.stored_bytes == sum(array.nbytes for array in packed.arrays.values()) == form.stored_bytes(dense)


@pytest.mark.parametrize("form", ALL, ids=str)
@pytest.mark.parametrize("counts", EMPTY_ROWS.values(), ids=EMPTY_ROWS.keys())
def test_empty_rows(form: Format, counts: list[int]) -> None:
    dense = with_row_counts(counts)
    np.testing.assert_array_equal(form.unpack(form.pack(dense)), dense, strict=True)


def test_csr_arrays() -> None:
    packed = CSR().pack(np.array([[0, 5, 0], [0, 0, 0], [6, 0, 7]], np.float32))
    assert_arrays(packed, values=[5, 6, 7], columns=[1, 0, 2], row_starts=[0, 1, 1, 3])
    assert [array.dtype for array in packed.arrays.values()] == [np.float32, np.uint16, np.int32]
    assert packed.stored_bytes == 3 * (4 + 2) + 4 * 4


def test_bsr_arrays_have_ragged_edges_filled_with_zeros() -> None:
    dense = np.array([[0, 0, 1], [0, 0, 2], [3, 4, 0]], np.float32)
    packed = BSR(2, 2).pack(dense)
    blocks = [[[1, 0], [2, 0]], [[3, 4], [0, 0]]]
    assert_arrays(packed, values=blocks, columns=[1, 0], row_starts=[0, 1, 2])
    assert packed.stored_bytes == 2 * (4 * 4 + 2) + 3 * 4


def test_bsr_of_single_values_is_csr() -> None:
    dense = random_matrix(9, 33, density=0.3)
    csr, bsr = CSR().pack(dense), BSR(1, 1).pack(dense)
    assert_arrays(csr, bsr.arrays["values"].ravel(), bsr.arrays["columns"], bsr.arrays["row_starts"])


@pytest.mark.parametrize(("cols", "dtype"), [(65_536, np.uint16), (65_537, np.int32), (70_000, np.int32)])
def test_columns_that_do_not_fit_16_bits_are_int32(cols: int, dtype: type[np.generic]) -> None:
    dense = np.zeros((2, cols), np.float32)
    dense[1, [0, cols - 1]] = 1, 2
    packed = CSR().pack(dense)
    assert packed.arrays["columns"].dtype == dtype
    assert packed.stored_bytes == CSR().stored_bytes(dense)
    np.testing.assert_array_equal(CSR().unpack(packed), dense)


def test_bsr_counts_columns_in_blocks() -> None:
    dense = np.ones((1, 70_000), np.float32)
    assert BSR(4, 1).pack(dense).arrays["columns"].dtype == np.int32
    assert BSR(4, 4).pack(dense).arrays["columns"].dtype == np.uint16


@pytest.mark.parametrize("form", SPARSE, ids=str)
def test_sparse_formats_drop_the_sign_of_zero(form: SparseFormat) -> None:
    dense = np.array([[-0.0, 1.0], [0.0, -0.0]], np.float32)
    assert not np.signbit(form.unpack(form.pack(dense))).any()
    assert all(
        a.tobytes() == b.tobytes()
        for a, b in zip(form.pack(dense).arrays.values(), form.pack(np.abs(dense)).arrays.values(), strict=True)
    )


def test_dense_keeps_the_sign_of_zero() -> None:
    dense = np.array([[-0.0, 1.0]], np.float32)
    assert Dense().unpack(Dense().pack(dense)).tobytes() == dense.tobytes()


@pytest.mark.parametrize("form", ALL, ids=str)
def test_the_layout_in_memory_does_not_matter(form: Format) -> None:
    dense = random_matrix(9, 7, density=0.5)
    strided = np.repeat(np.asfortranarray(dense), 2, axis=1)[:, ::2]
    for name, array in form.pack(dense).arrays.items():
        np.testing.assert_array_equal(form.pack(strided).arrays[name], array, strict=True)


@pytest.mark.parametrize("form", ALL, ids=str)
def test_packed_arrays_are_copies(form: Format) -> None:
    dense = np.ones((4, 4), np.float32)
    packed = form.pack(dense)
    dense[:] = 2
    assert (form.unpack(packed) == 1).all()


@pytest.mark.parametrize("form", ALL, ids=str)
@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (np.zeros((2, 3)), "float64[2, 3]"),
        (np.zeros((2, 3), np.float16), "float16[2, 3]"),
        (np.zeros((2, 3), np.int32), "int32[2, 3]"),
        (np.zeros(3, np.float32), "float32[3]"),
        (np.zeros((2, 3, 1, 1), np.float32), "float32[2, 3, 1, 1]"),
    ],
)
def test_only_float32_matrices(form: Format, bad: Matrix, what: str) -> None:
    for use in (form.pack, form.stored_bytes):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole text is compared below
            use(bad)
        assert str(caught.value) == f"only float32 matrices can be packed, not {what}"


def test_more_entries_than_int32_counts_are_refused() -> None:
    assert row_starts(np.array([2**31 - 1, 0])).tolist() == [0, 2**31 - 1, 2**31 - 1]
    with pytest.raises(ValueError, match=r"^2147483648 entries are too many: row_starts are int32 and reach 2"):
        row_starts(np.array([2**31 - 1, 1]))


def test_a_block_has_a_value() -> None:
    with pytest.raises(ValueError, match=r"^a block of 4x0 holds nothing$"):
        BSR(4, 0)


def test_built_in_formats_are_sparse_but_for_dense() -> None:
    assert [form.name for form in FORMATS if not isinstance(form, SparseFormat)] == ["dense"]


def assert_arrays(packed: Packed, values: object, columns: object, row_starts: object) -> None:
    assert list(packed.arrays) == ["values", "columns", "row_starts"]
    np.testing.assert_array_equal(packed.arrays["values"], np.asarray(values))
    np.testing.assert_array_equal(packed.arrays["columns"], np.asarray(columns))
    np.testing.assert_array_equal(packed.arrays["row_starts"], np.asarray(row_starts))
