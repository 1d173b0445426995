"""Store the chosen weights in their sparse format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import fx

from sparsecc.diagnostics import CompileError
from sparsecc.formats import SparseFormat, parse_format
from sparsecc.invariants import FORMATS_CHOSEN, LAYERS, WEIGHTS_CONSTANT, WEIGHTS_PACKED, WELL_FORMED
from sparsecc.ops import UNPACK
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program, calls


@dataclass(frozen=True)
class PackWeights:
    """Replace a dense weight by its packed arrays and the operation that unpacks them.

    conv2d(x, weight) -> conv2d(x, reshape(unpack_csr(values, columns, row_starts, rows, cols), shape))
    """

    name = "pack-weights"
    effects = Effects(
        requires=frozenset({WELL_FORMED, WEIGHTS_CONSTANT, FORMATS_CHOSEN}), establishes=frozenset({WEIGHTS_PACKED})
    )

    def run(self, program: Program) -> Sequence[Note]:
        notes, arrays = list[Note](), dict[tuple[object, str], list[fx.Node]]()
        for node in calls(program, *LAYERS):
            layer = program.layers.get(node.name)
            if layer is None or layer.format == "dense":
                continue
            key = cast(fx.Node, node.args[1]).target, layer.format  # layers may share a weight
            arrays[key] = pack(program, node, layer.format, layer.weight, arrays.get(key))
            stored_bytes = sum(program.constant(array).nbytes for array in arrays[key])
            program.layers[node.name] = replace(layer, stored_bytes=stored_bytes)
            notes.append(Note(node.name, f"{layer.weight}: {layer.format}, {4 * layer.elems} B -> {stored_bytes} B"))
        program.tidy()
        return notes


def packable(format_name: str) -> SparseFormat:
    """The format of that name, if compiled models can unpack it.

    Raises: CompileError SCC030 that says what it lacks.
    """
    form = parse_format(format_name)
    if isinstance(form, SparseFormat) and form.unpack_op_name in UNPACK:
        return form
    if isinstance(form, SparseFormat):
        lacks = f"no torch operation for its '{form.unpack_op_name}' (sparsecc.ops.UNPACK)"
    else:
        lacks = "no function that unpacks it in ONNX (unpack_function)"
    raise CompileError.of(
        "SCC030",
        f"weights cannot be stored as '{format_name}': there is {lacks}",
        help="choose csr or bsr<rows>x<columns>, for instance choose-formats{formats=('csr', 'bsr4x1')}",
    )


def pack(
    program: Program, node: fx.Node, format_name: str, name: str, arrays: list[fx.Node] | None = None
) -> list[fx.Node]:
    """Replace a layer's weight by the arrays it is packed in: those given, or new ones called ``name_...``."""
    form = packable(format_name)
    weight = program.constant(cast(fx.Node, node.args[1]))
    matrix = weight.reshape(len(weight), -1)
    if arrays is None:
        packed = form.pack(matrix.numpy()).arrays.items()
        arrays = [program.add_constant(f"{name}_{key}", torch.as_tensor(array)) for key, array in packed]
    dense = program.add_call(node, UNPACK[form.unpack_op_name], *arrays, *matrix.shape, like=node)
    if weight.dim() > 2:
        dense = program.add_call(node, torch.ops.aten.reshape.default, dense, list(weight.shape), like=node)
    node.update_arg(1, dense)
    return arrays
