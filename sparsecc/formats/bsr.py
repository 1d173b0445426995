"""Block compressed sparse rows: small dense blocks that hold a non-zero, and the block column of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
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
    title,
)
from .portable import unpack_bsr_function


@dataclass(frozen=True)
class BSR:
    """``values`` f32[blocks, block_rows, block_cols], ``columns`` u16|i32[blocks], ``row_starts`` i32[block rows + 1].

    Columns and rows are counted in blocks. Blocks that reach over the matrix's edge are zero there.
    """

    block_rows: int
    block_cols: int

    def __post_init__(self) -> None:
        if min(self.block_rows, self.block_cols) < 1:
            raise ValueError(f"a block of {self.block_rows}x{self.block_cols} holds nothing")

    @property
    def name(self) -> str:
        return f"bsr{self.block_rows}x{self.block_cols}"

    @property
    def summary(self) -> str:
        return f"block compressed sparse rows: dense blocks of {self.block_rows}x{self.block_cols}"

    def grid_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """How many blocks cover a matrix, down and across."""
        return -(-shape[0] // self.block_rows), -(-shape[1] // self.block_cols)

    def pack(self, dense: Matrix) -> Packed:
        shape = require_matrix(dense)
        grid_rows, grid_cols = self.grid_shape(shape)
        blocks = self._blocks(dense)
        row, column = np.nonzero(blocks.any(axis=(2, 3)))
        arrays = {
            "values": blocks[row, column] + np.float32(0),  # -0.0 + 0.0 is 0.0: equal matrices get equal bytes
            "columns": column.astype(column_dtype(grid_cols)),
            "row_starts": row_starts(np.bincount(row, minlength=grid_rows)),
        }
        return Packed(self.name, shape, arrays)

    def unpack(self, packed: Packed) -> Matrix:
        self.check(packed)
        rows, cols = packed.shape
        grid_rows, grid_cols = self.grid_shape(packed.shape)
        blocks = np.zeros((grid_rows, grid_cols, self.block_rows, self.block_cols), np.float32)
        blocks[row_of_entry(packed.arrays["row_starts"]), packed.arrays["columns"]] = packed.arrays["values"]
        padded = blocks.swapaxes(1, 2).reshape(grid_rows * self.block_rows, grid_cols * self.block_cols)
        return np.ascontiguousarray(padded[:rows, :cols])

    def stored_bytes(self, dense: Matrix) -> int:
        grid_rows, grid_cols = self.grid_shape(require_matrix(dense))
        block_bytes = self.block_rows * self.block_cols * VALUES.itemsize + column_dtype(grid_cols).itemsize
        block_count = int(np.count_nonzero(self._blocks(dense).any(axis=(2, 3))))
        return block_count * block_bytes + (grid_rows + 1) * ROW_STARTS.itemsize

    def check(self, packed: Packed) -> None:
        grid_rows, grid_cols = self.grid_shape(packed.shape)
        expected: dict[str, Layout] = {
            "values": (VALUES, ("blocks", self.block_rows, self.block_cols)),
            "columns": (column_dtype(grid_cols), ("blocks",)),
            "row_starts": (ROW_STARTS, (grid_rows + 1,)),
        }
        check_arrays(packed, self.name, expected)
        check_compressed_rows(packed, grid_rows, grid_cols)
        self._check_edges(packed)

    def _check_edges(self, packed: Packed) -> None:
        """Kernels add whole blocks, unpack crops them: they agree only if nothing is stored outside of the matrix."""
        values, (rows, cols) = packed.arrays["values"], packed.shape
        row = row_of_entry(packed.arrays["row_starts"])[:, None] * self.block_rows + np.arange(self.block_rows)
        column = packed.arrays["columns"].astype(np.int64)[:, None] * self.block_cols + np.arange(self.block_cols)
        outside = (row >= rows)[:, :, None] | (column >= cols)[:, None, :]
        for block, i, j in np.argwhere(outside & (values != 0)):
            value = values[block, i, j]
            raise ValueError(f"{title(packed)}: values[{block}, {i}, {j}] = {value} lies outside of the matrix")

    @property
    def unpack_op_name(self) -> str:
        return "UnpackBSR"

    def unpack_attributes(self, shape: tuple[int, int]) -> dict[str, int]:
        rows, cols = shape
        return {"rows": rows, "cols": cols, "block_rows": self.block_rows, "block_cols": self.block_cols}

    def unpack_function(self) -> onnx.FunctionProto:
        return unpack_bsr_function()

    def _blocks(self, dense: Matrix) -> npt.NDArray[np.float32]:
        """The matrix as [grid rows, grid cols, block_rows, block_cols], zero beyond its edges."""
        rows, cols = dense.shape
        grid_rows, grid_cols = self.grid_shape((rows, cols))
        height, width = self.block_rows, self.block_cols
        padded = np.pad(dense, ((0, grid_rows * height - rows), (0, grid_cols * width - cols)))
        return padded.reshape(grid_rows, height, grid_cols, width).swapaxes(1, 2)
