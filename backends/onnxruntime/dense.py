"""The dense model inside a compiled one: its functions inlined, its weights unpacked, standard operators only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.inliner import inline_selected_functions

from sparsecc.formats import BSR, Array, Packed, SparseFormat, known_formats
from sparsecc.formats.portable import DOMAIN


def dense_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """What one would export from the pruned network without sparsecc: ordinary layers with dense initializers.

    The weights are unpacked by sparsecc.formats, not by the functions in the model: the two can be compared.
    Raises: ValueError (arrays that no format packs).
    """
    sparse = [form for form in known_formats() if isinstance(form, SparseFormat)]
    unpack_ops = sorted({form.unpack_op_name for form in sparse})
    model = inline_selected_functions(model, [(DOMAIN, op) for op in unpack_ops], exclude=True)
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    rest, dense = list[onnx.NodeProto](), list[onnx.TensorProto]()
    for node in model.graph.node:
        if node.domain == DOMAIN and node.op_type in unpack_ops and all(name in arrays for name in node.input):
            packed = [numpy_helper.to_array(arrays[name]) for name in node.input]
            dense.append(numpy_helper.from_array(_unpack(node, packed, sparse), node.output[0]))
        else:
            rest.append(node)
    read = {*_names_read(rest), *(output.name for output in model.graph.output)}
    initializers = [tensor for tensor in (*model.graph.initializer, *dense) if tensor.name in read]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(rest)
    model.graph.initializer.extend(initializers)
    return model


def _unpack(node: onnx.NodeProto, arrays: Sequence[Array], formats: Sequence[SparseFormat]) -> Array:
    attributes = {attribute.name: int(helper.get_attribute_value(attribute)) for attribute in node.attribute}
    shape = (attributes.get("rows", 0), attributes.get("cols", 0))
    if "block_rows" in attributes:  # there is a BSR of any block shape; known_formats() lists a few
        formats = [*formats, BSR(attributes["block_rows"], attributes.get("block_cols", 1))]
    for form in formats:
        if form.unpack_op_name == node.op_type and form.unpack_attributes(shape) == attributes:
            names = form.pack(np.zeros((0, 0), np.float32)).arrays
            return form.unpack(Packed(form.name, shape, dict(zip(names, arrays, strict=True))))
    raise ValueError(f"no format unpacks what {node.op_type} does with {attributes}")


def _names_read(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """Every name that a node or a graph inside it (the branches of an If) reads."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _names_read(graph.node)
                yield from (output.name for output in graph.output)
