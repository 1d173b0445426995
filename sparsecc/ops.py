"""Our torch ops: importing this module registers ``torch.ops.sparsecc.unpack_csr``, ``unpack_bsr`` and ``attention``.

They have dense reference semantics, so a Program with packed weights still runs in torch, under torch.export and in the
fx interpreter. Arrays are those of sparsecc.formats, as tensors; ``columns`` is uint16 or int32. Arrays from outside
must pass ``sparsecc.formats.check`` first: here indices are trusted.

Letters: E stored entries (values of CSR, blocks of BSR).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn import functional


@torch.library.custom_op("sparsecc::unpack_csr", mutates_args=())
def unpack_csr(values: Tensor, columns: Tensor, row_starts: Tensor, rows: int, cols: int) -> Tensor:
    """Dense [rows, cols] from values [E], columns [E] and row_starts [rows + 1]."""
    dense = values.new_zeros(rows, cols)
    dense[_row_of_entry(row_starts), columns.long()] = values
    return dense


@torch.library.custom_op("sparsecc::unpack_bsr", mutates_args=())
def unpack_bsr(values: Tensor, columns: Tensor, row_starts: Tensor, rows: int, cols: int) -> Tensor:
    """Dense [rows, cols] from values [E, height, width], columns [E] and row_starts [ceil(rows / height) + 1]."""
    _, height, width = values.shape
    grid_rows, grid_cols = -(-rows // height), -(-cols // width)
    blocks = values.new_zeros(grid_rows, grid_cols, height, width)
    blocks[_row_of_entry(row_starts), columns.long()] = values
    padded = blocks.transpose(1, 2).reshape(grid_rows * height, grid_cols * width)
    return padded[:rows, :cols].clone(memory_format=torch.contiguous_format)


def _dense_like(values: Tensor, _columns: Tensor, _row_starts: Tensor, rows: int, cols: int) -> Tensor:
    return values.new_empty(rows, cols)


for _op in (unpack_csr, unpack_bsr):
    _op.register_fake(_dense_like)  # pyright: ignore[reportUnknownMemberType]  torch says Callable, of what it does not


UNPACK: dict[str, OpOverload] = {
    "UnpackCSR": torch.ops.sparsecc.unpack_csr.default,
    "UnpackBSR": torch.ops.sparsecc.unpack_bsr.default,
}
"""The torch op of each ONNX operator that unpacks, by SparseFormat.unpack_op_name."""


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int, scale: float) -> Tensor:
    """``attention`` in ATen operators."""

    def split(x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)

    wide = None if mask is None else mask.transpose(-1, -2)
    y = functional.scaled_dot_product_attention(split(q), split(k), split(v), wide, scale=scale)
    return y.transpose(1, 2).reshape(q.shape)


@torch.library.custom_op("sparsecc::attention", mutates_args=())
def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int, scale: float) -> Tensor:
    """Softmax attention of every head: [samples, queries, heads * size], like q.

    k and v [samples, keys, heads * size]; mask, which is added, [samples, 1, keys, queries], or None.
    """
    return attend(q, k, v, mask, heads, scale).clone(memory_format=torch.contiguous_format)


@attention.register_fake  # pyright: ignore[reportUnknownMemberType, reportUntypedFunctionDecorator]  Callable of what?
def _like_q(q: Tensor, *_: object) -> Tensor:
    return q.new_empty(q.shape)


ATTENTION: OpOverload = torch.ops.sparsecc.attention.default


def _row_of_entry(row_starts: Tensor) -> Tensor:
    """The row of each entry: int64 [E]."""
    rows = torch.arange(len(row_starts) - 1, device=row_starts.device)
    return torch.repeat_interleave(rows, row_starts.diff().long())
