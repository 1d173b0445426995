"""Store the chosen weights in their sparse format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import fx

from sparsecc.formats import parse_format
from sparsecc.invariants import FORMATS_CHOSEN, LAYERS, WEIGHTS_CONSTANT, WEIGHTS_PACKED, WELL_FORMED
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program, calls

UNPACK = {"UnpackCSR": torch.ops.sparsecc.unpack_csr.default, "UnpackBSR": torch.ops.sparsecc.unpack_bsr.default}


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
        notes = list[Note]()
        for node in calls(program, *LAYERS):
            layer = program.layers.get(node.name)
            if layer is None or layer.format == "dense":
                continue
            stored_bytes = pack(program, node, layer.format, layer.weight)
            program.layers[node.name] = replace(layer, stored_bytes=stored_bytes)
            notes.append(Note(node.name, f"{layer.weight}: {layer.format}, {4 * layer.elems} B -> {stored_bytes} B"))
        program.tidy()
        return notes


def pack(program: Program, node: fx.Node, format_name: str, name: str) -> int:
    """Pack the weight of a layer; the bytes it takes now."""
    form = parse_format(format_name)
    weight = program.constant(cast(fx.Node, node.args[1]))
    packed = form.pack(weight.reshape(len(weight), -1).numpy())
    arrays = [program.add_constant(f"{name}_{key}", torch.from_numpy(array)) for key, array in packed.arrays.items()]
    dense = program.add_call(node, UNPACK[form.unpack_op_name], *arrays, *packed.shape, like=node)
    if weight.dim() > 2:
        dense = program.add_call(node, torch.ops.aten.reshape.default, dense, list(weight.shape), like=node)
    node.update_arg(1, dense)
    return packed.stored_bytes
