"""The dense model inside a compiled one: its functions inlined, its weights unpacked, standard operators only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.inliner import inline_selected_functions

from sparsecc.formats import BSR, Array, Packed, SparseFormat, known_formats
from sparsecc.formats.base import VALUES
from sparsecc.formats.portable import DOMAIN

WEIGHTS_LIMIT_BYTES = 1 << 31
"""Of all weights of a model together: the most that protobuf serialises."""


def dense_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """What one would export from the pruned network without sparsecc: ordinary layers with dense initializers.

    The weights are unpacked by sparsecc.formats, not by the functions in the model: the two can be compared.
    Raises: ValueError (arrays that no format packs, or that would unpack to more than a model can hold).
    """
    sparse = [form for form in known_formats() if isinstance(form, SparseFormat)]
    unpack_ops = sorted({form.unpack_op_name for form in sparse})
    model = inline_selected_functions(model, [(DOMAIN, op) for op in unpack_ops], exclude=True)
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    rest, dense, left_bytes = list[onnx.NodeProto](), list[onnx.TensorProto](), WEIGHTS_LIMIT_BYTES
    for node in model.graph.node:
        if node.domain == DOMAIN and node.op_type in unpack_ops and all(name in arrays for name in node.input):
            packed = [numpy_helper.to_array(arrays[name]) for name in node.input]
            attributes = {a.name: int(helper.get_attribute_value(a)) for a in node.attribute}
            shape = (attributes.get("rows", 0), attributes.get("cols", 0))
            left_bytes -= VALUES.itemsize * shape[0] * shape[1]
            if left_bytes < 0:
                raise ValueError("its weights unpack to more than a model can hold")
            dense.append(
                numpy_helper.from_array(_unpack(node.op_type, shape, attributes, packed, sparse), node.output[0])
            )
        else:
            rest.append(node)
    read = {*_names_read(rest), *(output.name for output in model.graph.output)}
    initializers = [tensor for tensor in (*model.graph.initializer, *dense) if tensor.name in read]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(rest)
    model.graph.initializer.extend(initializers)
    return model


def _unpack(
    op: str,
    shape: tuple[int, int],
    attributes: Mapping[str, int],
    arrays: Sequence[Array],
    formats: Sequence[SparseFormat],
) -> Array:
    if "block_rows" in attributes:  # there is a BSR of any block shape; known_formats() lists a few
        formats = [*formats, BSR(attributes["block_rows"], attributes.get("block_cols", 1))]
    for form in formats:
        if form.unpack_op_name == op and form.unpack_attributes(shape) == attributes:
            names = form.pack(np.zeros((0, 0), np.float32)).arrays
            return form.unpack(Packed(form.name, shape, dict(zip(names, arrays, strict=True))))
    raise ValueError(f"no format unpacks what {op} does with {attributes}")


def _names_read(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """Every name that a node or a graph inside it (the branches of an If) reads."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _names_read(graph.node)
                yield from (output.name for output in graph.output)
