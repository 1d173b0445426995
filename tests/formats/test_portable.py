"""One meaning told three ways: numpy, the torch op, and standard ONNX operators in stock onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sparsecc.ops
from sparsecc.formats import BSR, CSR, Matrix, Packed, SparseFormat

from .matrices import (
    EDGE_SHAPES,
    EMPTY_ROWS,
    SPARSE,
    matmul_model,
    matrices,
    random_matrix,
    run,
    unpack_model,
    with_row_counts,
)

TORCH_OPS = {"UnpackCSR": sparsecc.ops.unpack_csr, "UnpackBSR": sparsecc.ops.unpack_bsr}


def unpack_in_torch(form: SparseFormat, packed: Packed) -> Matrix:
    arrays = [torch.as_tensor(array) for array in packed.arrays.values()]
    dense: Tensor = TORCH_OPS[form.unpack_op_name](*arrays, *packed.shape)
    return np.asarray(dense, np.float32)


def assert_one_meaning(form: SparseFormat, dense: Matrix) -> None:
    packed = form.pack(dense)
    in_onnxruntime = run(unpack_model(form, packed), packed.arrays)
    for unpacked in (form.unpack(packed), unpack_in_torch(form, packed), in_onnxruntime):
        np.testing.assert_array_equal(unpacked, dense, strict=True)
        assert not np.signbit(unpacked[unpacked == 0]).any()


@settings(max_examples=60)
@given(form=st.sampled_from(SPARSE), dense=matrices())
def test_three_meanings_are_one(form: SparseFormat, dense: Matrix) -> None:
    assert_one_meaning(form, dense)


@pytest.mark.parametrize("form", SPARSE, ids=str)
@pytest.mark.parametrize("density", [0, 0.2, 1])
def test_three_meanings_of_edge_shapes(form: SparseFormat, density: float) -> None:
    for rows, cols in EDGE_SHAPES:
        assert_one_meaning(form, random_matrix(rows, cols, density))


@pytest.mark.parametrize("form", SPARSE, ids=str)
@pytest.mark.parametrize("counts", EMPTY_ROWS.values(), ids=EMPTY_ROWS.keys())
def test_three_meanings_of_empty_rows(form: SparseFormat, counts: list[int]) -> None:
    assert_one_meaning(form, with_row_counts(counts))


@pytest.mark.parametrize("form", [CSR(), BSR(4, 1)], ids=str)
def test_three_meanings_of_wide_columns(form: SparseFormat) -> None:
    dense = np.zeros((3, 70_000), np.float32)
    dense[[0, 2, 2], [69_999, 0, 65_536]] = 1, 2, 3
    assert form.pack(dense).arrays["columns"].dtype == np.int32
    assert_one_meaning(form, dense)


@pytest.mark.parametrize("form", SPARSE, ids=str)
@pytest.mark.parametrize("density", [0, 0.2, 1])
def test_onnxruntime_folds_the_unpacking_away(form: SparseFormat, density: float, tmp_path: Path) -> None:
    for rows, cols in EDGE_SHAPES:
        dense, x = random_matrix(rows, cols, density), random_matrix(2, rows, 1)
        optimized = tmp_path / f"{rows}x{cols}.onnx"
        y = run(matmul_model(form, form.pack(dense)), {"x": x}, str(optimized))
        np.testing.assert_allclose(y, x @ dense, rtol=1e-5, atol=1e-6)
        assert [node.op_type for node in onnx.load_model_from_string(optimized.read_bytes()).graph.node] == ["MatMul"]


@pytest.mark.parametrize("form", [CSR(), BSR(4, 1)], ids=str)
def test_unpack_functions_use_standard_operators_only(form: SparseFormat) -> None:
    function = form.unpack_function()
    assert (function.domain, function.name) == ("sparsecc", form.unpack_op_name)
    assert list(function.input) == list(form.pack(np.ones((1, 1), np.float32)).arrays)
    assert list(function.attribute) == list(form.unpack_attributes((1, 1)))
    assert [(opset.domain, opset.version) for opset in function.opset_import] == [("", 20)]
    assert {node.domain for node in function.node} == {""}


@pytest.mark.parametrize("form", [CSR(), BSR(4, 1)], ids=str)
def test_the_axis_of_a_running_sum_is_a_scalar(form: SparseFormat) -> None:
    """The standard asks for a 0-D axis; onnxruntime takes [1] too, other runtimes need not."""
    nodes = {node.output[0]: node for node in form.unpack_function().node}
    (running_sum,) = [node for node in nodes.values() if node.op_type == "CumSum"]
    assert list(nodes[running_sum.input[1]].attribute[0].t.dims) == []


def test_every_block_shape_shares_one_function() -> None:
    assert BSR(4, 1).unpack_function().SerializeToString() == BSR(4, 4).unpack_function().SerializeToString()
    assert BSR(4, 1).unpack_attributes((7, 9)) == {"rows": 7, "cols": 9, "block_rows": 4, "block_cols": 1}
