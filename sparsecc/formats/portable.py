"""Unpacking in standard ONNX operators only, as model-local functions that any onnxruntime runs or folds away.

Both functions take O(entries + rows * cols) memory. Letters in comments: E entries (values of CSR, blocks of BSR).
"""

from __future__ import annotations

import onnx
import onnx.parser

DOMAIN = "sparsecc"
DOMAIN_VERSION = 1
OPSET = 20

# A row's entries begin where row_starts says: put a one there, and the running sum is the row of each entry. Several
# empty rows add up in one place. Empty rows at the end begin at E: the scatter has E + 1 places, and drops the last.
_ROW_OF_ENTRY = """
    zero = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    last = Constant <value = int64[1] {-1}> ()
    starts = Cast <to = 7> (row_starts)
    inner_starts = Slice (starts, one, last)
    inner_count = Shape (inner_starts)
    ones = ConstantOfShape <value = int64[1] {1}> (inner_count)
    entries = Shape (columns)
    places = Add (entries, one)
    no_steps = ConstantOfShape <value = int64[1] {0}> (places)
    all_steps = ScatterElements <axis = 0, reduction = "add"> (no_steps, inner_starts, ones)
    steps = Slice (all_steps, zero, last)
    first_axis = Constant <value = int64 {0}> ()
    entry_row = CumSum (steps, first_axis)
    entry_column = Cast <to = 7> (columns)
"""

_UNPACK_CSR = f"""
<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>
UnpackCSR <rows, cols> (values, columns, row_starts) => (dense)
{{
    {_ROW_OF_ENTRY}
    rows = Constant <value_int: int = @rows> ()
    cols = Constant <value_int: int = @cols> ()
    row_offset = Mul (entry_row, cols)
    entry_offset = Add (row_offset, entry_column)
    rows_1d = Reshape (rows, last)
    cols_1d = Reshape (cols, last)
    count = Mul (rows_1d, cols_1d)
    empty = ConstantOfShape <value = float[1] {{0.0}}> (count)
    flat = ScatterElements <axis = 0> (empty, entry_offset, values)
    shape = Concat <axis = 0> (rows_1d, cols_1d)
    dense = Reshape <allowzero = 1> (flat, shape)
}}
"""

_UNPACK_BSR = f"""
<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>
UnpackBSR <rows, cols, block_rows, block_cols> (values, columns, row_starts) => (dense)
{{
    {_ROW_OF_ENTRY}
    rows = Constant <value_int: int = @rows> ()
    cols = Constant <value_int: int = @cols> ()
    block_rows = Constant <value_int: int = @block_rows> ()
    block_cols = Constant <value_int: int = @block_cols> ()
    # the grid has enough blocks to cover the matrix, the ragged edges included
    rows_1d = Reshape (rows, last)
    cols_1d = Reshape (cols, last)
    height = Reshape (block_rows, last)
    width = Reshape (block_cols, last)
    height_less_one = Sub (height, one)
    width_less_one = Sub (width, one)
    rows_rounded = Add (rows_1d, height_less_one)
    cols_rounded = Add (cols_1d, width_less_one)
    grid_rows = Div (rows_rounded, height)
    grid_cols = Div (cols_rounded, width)
    # blocks to their places in the grid
    block_count = Mul (grid_rows, grid_cols)
    blocks_shape = Concat <axis = 0> (block_count, height, width)
    empty = ConstantOfShape <value = float[1] {{0.0}}> (blocks_shape)
    row_offset = Mul (entry_row, grid_cols)
    entry_offset = Add (row_offset, entry_column)
    entry_index = Unsqueeze (entry_offset, one)
    blocks = ScatterND (empty, entry_index, values)
    # the grid to a matrix, cropped
    grid_shape = Concat <axis = 0> (grid_rows, grid_cols, height, width)
    grid = Reshape <allowzero = 1> (blocks, grid_shape)
    grid_by_rows = Transpose <perm = [0, 2, 1, 3]> (grid)
    padded_rows = Mul (grid_rows, height)
    padded_cols = Mul (grid_cols, width)
    padded_shape = Concat <axis = 0> (padded_rows, padded_cols)
    padded = Reshape <allowzero = 1> (grid_by_rows, padded_shape)
    crop_starts = Concat <axis = 0> (zero, zero)
    crop_ends = Concat <axis = 0> (rows_1d, cols_1d)
    dense = Slice (padded, crop_starts, crop_ends)
}}
"""


def unpack_csr_function() -> onnx.FunctionProto:
    """``UnpackCSR(values, columns, row_starts; rows, cols)`` -> f32[rows, cols]."""
    return onnx.parser.parse_function(_UNPACK_CSR)


def unpack_bsr_function() -> onnx.FunctionProto:
    """``UnpackBSR(values, columns, row_starts; rows, cols, block_rows, block_cols)`` -> f32[rows, cols]."""
    return onnx.parser.parse_function(_UNPACK_BSR)
