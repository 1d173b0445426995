"""What a storage format is: matrices in, packed arrays out, and one meaning told three ways (numpy, torch, ONNX)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import onnx

Matrix: TypeAlias = npt.NDArray[np.float32]  # [rows, cols]
Array: TypeAlias = npt.NDArray[Any]
Layout: TypeAlias = tuple[np.dtype[Any], tuple[int | str, ...]]  # dtype, shape; a letter stands for any length

VALUES = np.dtype(np.float32)
ROW_STARTS = np.dtype(np.int32)
SHORT_COLUMNS = 1 << 16  # this many columns, or blocks of columns, still have 16-bit indices
MAX_ENTRIES = (1 << 31) - 1  # the last row start is the entry count, as int32


@dataclass(frozen=True, eq=False)
class Packed:
    """A matrix in storage: ``arrays`` in the order in which the format's unpack op takes them."""

    format: str
    shape: tuple[int, int]
    arrays: Mapping[str, Array]

    @property
    def stored_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())


@runtime_checkable
class Format(Protocol):
    """A way to store a float32 matrix. ``unpack(pack(dense))`` equals ``dense``, value for value.

    A value is stored if it is ``!= 0``. Sparse formats do not keep the sign of a zero: -0.0 comes back as 0.0.
    ``pack`` and ``stored_bytes`` raise ValueError for anything but a float32 matrix; any such shape is accepted, empty
    ones included. ``check`` raises ValueError for arrays that ``pack`` cannot have made, and ``unpack`` checks first.
    """

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    def pack(self, dense: Matrix) -> Packed: ...
    def unpack(self, packed: Packed) -> Matrix: ...
    def stored_bytes(self, dense: Matrix) -> int: ...
    def check(self, packed: Packed) -> None: ...


@runtime_checkable
class SparseFormat(Format, Protocol):
    """A format whose arrays become a matrix again through an ONNX function of domain ``sparsecc``.

    A node ``sparsecc::<unpack_op_name>`` takes the packed arrays in order, and ``unpack_attributes`` of the matrix's
    shape; ``torch.ops.sparsecc`` holds the same op (sparsecc.ops).
    """

    @property
    def unpack_op_name(self) -> str: ...
    def unpack_attributes(self, shape: tuple[int, int]) -> dict[str, int]: ...
    def unpack_function(self) -> onnx.FunctionProto: ...


def require_matrix(dense: Array) -> tuple[int, int]:
    """The shape of a float32 matrix; ValueError for anything else."""
    if dense.dtype != np.float32 or dense.ndim != 2:
        raise ValueError(f"only float32 matrices can be packed, not {describe(dense.dtype, dense.shape)}")
    rows, cols = dense.shape
    return rows, cols


def column_dtype(columns: int) -> np.dtype[np.uint16] | np.dtype[np.int32]:
    return np.dtype(np.uint16) if columns <= SHORT_COLUMNS else np.dtype(np.int32)


def row_starts(entries_per_row: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Where each row's entries begin, and where the last row's end: int32[rows + 1]."""
    ends = np.cumsum(entries_per_row, dtype=np.int64)
    if ends.size and ends[-1] > MAX_ENTRIES:
        raise ValueError(f"{ends[-1]} entries are too many: row_starts are int32 and reach {MAX_ENTRIES}")
    return np.concatenate(([0], ends)).astype(np.int32)


def row_of_entry(starts: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """The row of every entry: int64[entries]."""
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


def check_arrays(packed: Packed, format_name: str, expected: Mapping[str, Layout]) -> None:
    """Verify format, names, dtypes and shapes; the first array with a letter in its shape says what it stands for."""
    if packed.format != format_name:
        raise ValueError(f"{title(packed)}: expected format {format_name}")
    if min(packed.shape) < 0:
        raise ValueError(f"{title(packed)}: a shape is not negative")
    if list(packed.arrays) != list(expected):
        raise ValueError(f"{title(packed)}: arrays are ({', '.join(packed.arrays)}), expected ({', '.join(expected)})")
    letters: dict[str, int] = {}
    for name, (dtype, dims) in expected.items():
        array = packed.arrays[name]
        if array.ndim == len(dims):
            for dim, elems in zip(dims, array.shape, strict=True):
                if isinstance(dim, str):
                    letters.setdefault(dim, elems)
        wanted = tuple(letters.get(dim, dim) if isinstance(dim, str) else dim for dim in dims)
        if array.dtype != dtype or array.shape != wanted:
            found = describe(array.dtype, array.shape)
            raise ValueError(f"{title(packed)}: {name} is {found}, expected {describe(dtype, wanted)}")


def check_compressed_rows(packed: Packed, rows: int, cols: int) -> None:
    """Verify ``row_starts`` and ``columns`` of a grid of ``rows`` x ``cols`` values (CSR) or blocks (BSR)."""
    for problem in _compressed_row_problems(packed.arrays, rows, cols):
        raise ValueError(f"{title(packed)}: {problem}")


def _compressed_row_problems(arrays: Mapping[str, Array], rows: int, cols: int) -> Iterator[str]:
    """Each test relies on check_arrays and on the tests before it: only the first problem counts."""
    starts, entries = arrays["row_starts"].astype(np.int64), len(arrays["values"])
    columns = arrays["columns"].astype(np.int64)
    if starts[0] != 0:
        yield f"row_starts[0] = {starts[0]}, expected 0"
    for i in np.flatnonzero(np.diff(starts) < 0):
        yield f"row_starts[{i + 1}] = {starts[i + 1]} is below row_starts[{i}] = {starts[i]}"
    if starts[-1] != entries:
        yield f"row_starts[{rows}] = {starts[-1]}, but {entries} entries are stored"
    for i in np.flatnonzero((columns < 0) | (columns >= cols)):
        bounds = f"expected 0 to {cols - 1}" if cols else "there are none"
        yield f"columns[{i}] = {columns[i]} is out of bounds, {bounds}"
    same_row = np.diff(np.repeat(np.arange(rows), np.diff(starts))) == 0
    for i in np.flatnonzero(same_row & (np.diff(columns) <= 0)):
        yield f"columns[{i + 1}] = {columns[i + 1]} is not above columns[{i}] = {columns[i]} in the same row"


def title(packed: Packed) -> str:
    return f"{packed.format} matrix of {packed.shape[0]}x{packed.shape[1]}"


def describe(dtype: np.dtype[Any], dims: tuple[int | str, ...]) -> str:
    return f"{dtype}[{', '.join(map(str, dims))}]"
