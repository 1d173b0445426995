"""Fold batch normalisation into the convolution or linear layer before it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import fx

from sparsecc.invariants import LAYERS, WEIGHTS_CONSTANT, WELL_FORMED
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program, calls

aten = torch.ops.aten


@dataclass(frozen=True)
class FoldBatchNorm:
    """Scale the weight's rows and fold the shift into the bias; zeros stay zeros.

    batch_norm(conv2d(x, w, b)) -> conv2d(x, w * scale, (b - mean) * scale + beta)   with scale = gamma / sqrt(v + eps)
    """

    name = "fold-batchnorm"
    effects = Effects(requires=frozenset({WELL_FORMED, WEIGHTS_CONSTANT}))

    def run(self, program: Program) -> Sequence[Note]:
        notes, folded = list[Note](), dict[tuple[object, ...], tuple[fx.Node, fx.Node]]()
        for norm in calls(program, aten._native_batch_norm_legit_no_training.default):
            layer = cast(fx.Node, norm.args[0])
            if reason := refusal(program, norm, layer):
                notes.append(Note(norm.name, reason, done=False))
                continue
            key = (*(a and cast(fx.Node, a).target for a in (*layer.args[1:3], *norm.args[1:5])), norm.args[6])
            folded[key] = fold(program, norm, layer, folded.get(key))  # layers may share weight and normalisation
            notes.append(Note(norm.name, f"folded into {program.layers[layer.name].weight}"))
        program.tidy()
        return notes


def refusal(program: Program, norm: fx.Node, layer: fx.Node) -> str | None:
    if layer.target not in LAYERS:
        return "its input is not a convolution or linear layer"
    if len(layer.users) > 1:
        return f"%{layer.name} is also used without it"
    if layer.target is aten.linear.default and layer.meta["val"].dim() != 2:
        return "it normalises another axis than the outputs of the linear layer"
    values = [*layer.args[1:3], *norm.args[1:5]]
    if not all(program.is_constant(a) for a in values if a is not None):
        return "weight, bias or statistics are not constant"
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in norm.users):
        return "its saved statistics are used"
    return None


def fold(
    program: Program, norm: fx.Node, layer: fx.Node, constants: tuple[fx.Node, fx.Node] | None = None
) -> tuple[fx.Node, fx.Node]:
    """Put weight and bias with the normalisation in them into the layer: those given, or new ones."""
    weight, bias = constants or folded_constants(program, norm, layer)
    layer.args = (layer.args[0], weight, bias, *layer.args[3:])
    for user in list(norm.users):
        user.replace_all_uses_with(layer)
        program.graph.erase_node(user)
    program.graph.erase_node(norm)
    return weight, bias


def folded_constants(program: Program, norm: fx.Node, layer: fx.Node) -> tuple[fx.Node, fx.Node]:
    def value(node: object, default: float) -> torch.Tensor:
        return program.constant(node).double() if isinstance(node, fx.Node) else torch.tensor(default).double()

    weight = program.constant(cast(fx.Node, layer.args[1]))
    bias = value(layer.args[2] if len(layer.args) > 2 else None, 0.0)
    gamma, beta, mean, variance = map(value, norm.args[1:5], (1.0, 0.0, 0.0, 1.0))
    scale = gamma / torch.sqrt(variance + cast(float, norm.args[6]))
    scaled = weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1))
    shifted = (bias - mean) * scale + beta
    name = program.layers[layer.name].weight
    return (
        program.add_constant(f"{name}_folded", scaled.to(weight.dtype)),
        program.add_constant(f"{name}_bias_folded", shifted.to(weight.dtype)),
    )
