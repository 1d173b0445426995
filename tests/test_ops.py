"""The torch ops: at home in export, the fx interpreter and fake tensors."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode

from sparsecc.formats import BSR, CSR, SparseFormat

importlib.import_module("sparsecc.ops")  # registers them
OPS: dict[str, OpOverload[..., Any]] = {
    "UnpackCSR": torch.ops.sparsecc.unpack_csr.default,
    "UnpackBSR": torch.ops.sparsecc.unpack_bsr.default,
}
FORMATS: Sequence[SparseFormat] = (CSR(), BSR(4, 1), BSR(4, 4))
SHAPE = (7, 9)


def arrays_of(form: SparseFormat) -> tuple[Tensor, list[Tensor]]:
    """A matrix, and the tensors that it is packed into."""
    dense = torch.randn(SHAPE) * (torch.rand(SHAPE) < 0.4)
    return dense, [torch.as_tensor(array) for array in form.pack(dense.numpy()).arrays.values()]


class Linear(nn.Module):
    def __init__(self, form: SparseFormat) -> None:
        super().__init__()
        _, (values, columns, row_starts) = arrays_of(form)
        self.op = OPS[form.unpack_op_name]
        self.register_buffer("values", values)
        self.register_buffer("columns", columns)
        self.register_buffer("row_starts", row_starts)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.op(self.values, self.columns, self.row_starts, *SHAPE))


@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("columns_dtype", [torch.uint16, torch.int32])
def test_unpack(form: SparseFormat, columns_dtype: torch.dtype) -> None:
    dense, (values, columns, row_starts) = arrays_of(form)
    unpacked = OPS[form.unpack_op_name](values, columns.to(columns_dtype), row_starts, *SHAPE)
    assert unpacked.is_contiguous()
    torch.testing.assert_close(unpacked, dense, rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_torch_accepts_the_registration(form: SparseFormat) -> None:
    _, arrays = arrays_of(form)
    torch.library.opcheck(OPS[form.unpack_op_name], (*arrays, *SHAPE))  # pyright: ignore[reportUnknownMemberType]  untyped in part


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_fake_kernels_know_the_shape(form: SparseFormat) -> None:
    _, arrays = arrays_of(form)
    with FakeTensorMode() as mode:
        unpacked = OPS[form.unpack_op_name](*map(mode.from_tensor, arrays), *SHAPE)
    assert (tuple(unpacked.shape), unpacked.dtype) == (SHAPE, torch.float32)


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_export_keeps_the_op_and_fx_runs_it(form: SparseFormat) -> None:
    linear, x = Linear(form), torch.randn(5, SHAPE[1])
    batch = torch.export.Dim("batch")
    exported = torch.export.export(linear, (torch.randn(3, SHAPE[1]),), dynamic_shapes=({0: batch},))
    names = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert names == [str(OPS[form.unpack_op_name]), "aten.linear.default"]
    torch.testing.assert_close(torch.fx.Interpreter(exported.module()).run(x), linear(x), rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_arguments_have_names(form: SparseFormat) -> None:
    dense, (values, columns, row_starts) = arrays_of(form)
    named = {"values": values, "columns": columns, "row_starts": row_starts, "rows": SHAPE[0], "cols": SHAPE[1]}
    torch.testing.assert_close(OPS[form.unpack_op_name](**named), dense, rtol=0, atol=0)
