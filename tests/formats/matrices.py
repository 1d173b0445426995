"""What the format tests share: matrices of edge sizes, the formats, and models that unpack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import onnx
import onnxruntime as ort
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from sparsecc.formats import BSR, CSR, Array, Matrix, Packed, SparseFormat

EDGE_SIZES = (0, 1, 7, 8, 9, 31, 32, 33)
EDGE_SHAPES = [(0, 0), (0, 5), (5, 0), (1, 1), (1, 33), (33, 1), (7, 9), (32, 32)]
SPARSE: tuple[SparseFormat, ...] = (CSR(), BSR(1, 1), BSR(4, 1), BSR(16, 1), BSR(4, 4), BSR(3, 5), BSR(40, 40))

EMPTY_ROWS = {
    "at the start": [0, 0, 2, 1],
    "at the end": [1, 2, 0, 0],
    "in the middle": [1, 0, 0, 0, 3],
    "at both ends": [0, 0, 3, 0],
    "all but one": [0, 0, 0, 1, 0, 0, 0],
}
"""Non-zeros per row of a matrix with three columns."""


def random_matrix(rows: int, cols: int, density: float, seed: int = 0) -> Matrix:
    """Zeros of either sign, and values that are not zero."""
    random = np.random.default_rng(seed)
    values: Matrix = random.uniform(0.5, 1, (rows, cols)).astype(np.float32)
    values *= random.choice((-1, 1), (rows, cols))
    values *= random.random((rows, cols)) < density
    return values


def with_row_counts(counts: list[int]) -> Matrix:
    return np.array([[1 + i + j if j < count else 0 for j in range(3)] for i, count in enumerate(counts)], np.float32)


def matrices() -> st.SearchStrategy[Matrix]:
    sizes = st.sampled_from(EDGE_SIZES)
    density = st.sampled_from((0.0, 1.0)) | st.floats(0, 1)
    return st.builds(random_matrix, sizes, sizes, density, st.integers(0, 1000))


def unpack_node(form: SparseFormat, packed: Packed, output: str) -> onnx.NodeProto:
    node = helper.make_node(form.unpack_op_name, list(packed.arrays), [output], domain="sparsecc")
    attributes = form.unpack_attributes(packed.shape)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return node


def checked_model(form: SparseFormat, graph: onnx.GraphProto) -> onnx.ModelProto:
    """A model of ``graph`` with the format's function in it, which onnx.checker accepts."""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("sparsecc", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[form.unpack_function()], ir_version=10)
    onnx.checker.check_model(model)  # pyright: ignore[reportUnknownMemberType]  PathLike of nothing
    return model


def unpack_model(form: SparseFormat, packed: Packed) -> onnx.ModelProto:
    """arrays (graph inputs) -> dense."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in packed.arrays.items()
    ]
    dense = helper.make_tensor_value_info("dense", TensorProto.FLOAT, packed.shape)
    return checked_model(form, helper.make_graph([unpack_node(form, packed, "dense")], "unpack", inputs, [dense]))


def matmul_model(form: SparseFormat, packed: Packed) -> onnx.ModelProto:
    """x [N, rows] -> y = x @ matrix [N, cols]; the arrays are initializers."""
    rows, cols = packed.shape
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", rows])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", cols])
    nodes = [unpack_node(form, packed, "dense"), helper.make_node("MatMul", ["x", "dense"], ["y"])]
    arrays = [numpy_helper.from_array(array, name) for name, array in packed.arrays.items()]
    return checked_model(form, helper.make_graph(nodes, "matmul", [x], [y], arrays))


def run(model: onnx.ModelProto, feeds: Mapping[str, Array], optimized_path: str = "") -> Matrix:
    """The one output in stock onnxruntime, which writes what it made of the model to ``optimized_path``."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # it warns that an optimized model suits this machine only
    options.optimized_model_filepath = optimized_path
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, feeds)
    return cast(Matrix, output)
