"""Turn every way of writing a mask into plain zeros in the weight."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import fx

from sparsecc.invariants import LAYERS, WEIGHTS_CONSTANT, WELL_FORMED
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Layer, Program, calls

from .fold_constants import constant_cone, evaluate

aten = torch.ops.aten


@dataclass(frozen=True)
class FoldMasks:
    """Replace a weight computed from constants by its value, and say what kind of mask it had.

    conv2d(x, mul(weight, mask)) -> conv2d(x, weight')   with weight' == 0 where the mask is
    """

    name = "fold-masks"
    effects = Effects(requires=frozenset({WELL_FORMED}), establishes=frozenset({WEIGHTS_CONSTANT}))

    def run(self, program: Program) -> Sequence[Note]:
        notes, folded = list[Note](), dict[fx.Node, tuple[str, str]]()
        for layer in calls(program, *LAYERS):
            weight = cast(fx.Node, layer.args[1])
            if layer.name in program.layers and program.is_constant(weight):
                continue  # folded before; its name and mask are known
            cone = constant_cone(program, weight)
            if cone is None:
                notes.append(Note(layer.name, "the weight depends on the input", done=False))
                continue
            value = evaluate(program, weight)
            mask, name = folded.get(weight) or (zeros_from(program, cone, value), weight_name(cone))
            if weight.op != "get_attr":
                constant = program.add_constant(name, value)
                weight.replace_all_uses_with(constant)
                folded[constant] = mask, name  # other layers may share it
                what = "computed at compile time" if mask == "none" else f"{mask} folded into {name}"
                notes.append(Note(layer.name, what))
            elif mask == "plain zeros" and weight not in folded:
                folded[weight] = mask, name
                notes.append(Note(layer.name, "the weight has plain zeros, and no mask to fold"))
            program.layers[layer.name] = Layer(name, len(value), value[0].numel() if len(value) else 0, mask=mask)
        program.tidy()
        return notes


def zeros_from(program: Program, cone: Sequence[fx.Node], weight: torch.Tensor) -> str:
    """Which of the usual ways of masking made the weight that was computed from these nodes, told by its parts."""
    if bool(weight.all()):
        return "none"
    names = [str(node.target) for node in cone if node.op == "get_attr"]
    if any(name.endswith("_orig") for name in names) and any(name.endswith("_mask") for name in names):
        return "torch.nn.utils.prune"
    if any(".parametrizations." in f".{name}" for name in names):
        return "parametrization"
    if any(node.target in _MASKING for node in cone) and any(_is_mask(program, node) for node in cone):
        return "mask in forward"
    return "plain zeros"


def weight_name(cone: Sequence[fx.Node]) -> str:
    """The user's name of the weight: its largest floating parameter, without what masking libraries put around it."""
    constants = [n for n in cone if n.op == "get_attr"]
    floating = [n for n in constants if n.meta["val"].is_floating_point()]
    largest = max(floating or constants, key=lambda n: (n.meta["val"].numel(), "mask" not in str(n.target)))
    name = re.sub(r"_orig$|\.original\d*$", "", str(largest.target))
    return name.replace("parametrizations.", "")


def _is_mask(program: Program, node: fx.Node) -> bool:
    if not program.is_constant(node):
        return False
    value = program.constant(node)
    return value.dtype == torch.bool or bool(((value == 0) | (value == 1)).all())


_MASKING = (
    aten.mul.Tensor,
    aten.where.self,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
    aten.masked_fill.Scalar,
    aten.masked_fill.Tensor,
)
