"""Compressed sparse rows: the non-zero values row by row, and the column of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from .base import (
    ROW_STARTS,
    VALUES,
    Layout,
    Matrix,
    Packed,
    check_arrays,
    check_compressed_rows,
    column_dtype,
    require_matrix,
    row_of_entry,
    row_starts,
)
from .portable import unpack_csr_function


@dataclass(frozen=True)
class CSR:
    """``values`` f32[nnz], ``columns`` u16[nnz] (i32 beyond 65,536 columns), ``row_starts`` i32[rows + 1].

    Columns increase within a row.
    """

    @property
    def name(self) -> str:
        return "csr"

    @property
    def summary(self) -> str:
        return "compressed sparse rows: each non-zero with its column"

    def pack(self, dense: Matrix) -> Packed:
        rows, cols = require_matrix(dense)
        row, column = np.nonzero(dense)
        arrays = {
            "values": dense[row, column],
            "columns": column.astype(column_dtype(cols)),
            "row_starts": row_starts(np.bincount(row, minlength=rows)),
        }
        return Packed(self.name, (rows, cols), arrays)

    def unpack(self, packed: Packed) -> Matrix:
        self.check(packed)
        dense = np.zeros(packed.shape, np.float32)
        dense[row_of_entry(packed.arrays["row_starts"]), packed.arrays["columns"]] = packed.arrays["values"]
        return dense

    def stored_bytes(self, dense: Matrix) -> int:
        rows, cols = require_matrix(dense)
        entry_bytes = VALUES.itemsize + column_dtype(cols).itemsize
        return int(np.count_nonzero(dense)) * entry_bytes + (rows + 1) * ROW_STARTS.itemsize

    def check(self, packed: Packed) -> None:
        rows, cols = packed.shape
        expected: dict[str, Layout] = {
            "values": (VALUES, ("nnz",)),
            "columns": (column_dtype(cols), ("nnz",)),
            "row_starts": (ROW_STARTS, (rows + 1,)),
        }
        check_arrays(packed, self.name, expected)
        check_compressed_rows(packed, rows, cols)

    @property
    def unpack_op_name(self) -> str:
        return "UnpackCSR"

    def unpack_attributes(self, shape: tuple[int, int]) -> dict[str, int]:
        return {"rows": shape[0], "cols": shape[1]}

    def unpack_function(self) -> onnx.FunctionProto:
        return unpack_csr_function()
