"""One spelling per operation, and no operation that does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import fx
from torch._ops import OpOverload
from torch.fx.node import Argument

from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program, calls, same_sizes, schema
from sparsecc.rewrite import Refused, Rule, apply_rules

from .fold_constants import constant_cone

aten = torch.ops.aten


@dataclass(frozen=True)
class Canonicalize:
    """Drop assertions, copies and dropout; spell padding as numbers, and a product with constants as a linear layer.

    clone(x) -> x    conv2d(x, w, "same") -> conv2d(x, w, padding=[1, 1])    add(matmul(x, w), b) -> linear(x, t(w), b)
    """

    name = "canonicalize"
    effects = Effects()

    def run(self, program: Program) -> Sequence[Note]:
        for node in calls(program, *_CHECKS):
            program.graph.erase_node(node)
        return apply_rules(program, _RULES)


def _same_value(_: Program, node: fx.Node) -> fx.Node | Refused | None:
    """The input of a node that only copies it: same shape and type, not somebody else's memory to write to."""
    if any(user.target is aten.as_strided.default for user in node.users):
        return Refused("as_strided reads the copy's memory layout")
    x = cast(fx.Node, node.args[0])
    before, after = x.meta["val"], node.meta["val"]
    return x if same_sizes(before.shape, after.shape) and before.dtype == after.dtype else None


def _numeric_padding(program: Program, node: fx.Node) -> fx.Node | Refused:
    x, weight, bias, stride, padding, dilation, groups = _filled(node)
    sizes = cast(fx.Node, weight).meta["val"].shape[2:]
    steps = cast("list[int]", dilation)
    totals = [(int(k) - 1) * d if padding == "same" else 0 for k, d in zip(sizes, steps, strict=True)]
    if any(total % 2 for total in totals):
        return Refused("'same' padding of an even kernel is lopsided")
    pads = [total // 2 for total in totals]
    return program.add_call(node, aten.conv2d.default, x, weight, bias, stride, pads, dilation, groups, like=node)


def _filled(node: fx.Node) -> list[Argument]:
    """The positional arguments with the schema's defaults for those left out."""
    arguments = schema(cast(OpOverload, node.target)).arguments
    return [*node.args, *(node.kwargs.get(a.name, a.default_value) for a in arguments[len(node.args) :])]


def _constant_matmul(program: Program, node: fx.Node) -> fx.Node | None:
    x, matrix = cast("tuple[fx.Node, fx.Node]", node.args)
    if not _is_weight(program, x, matrix):
        return None
    return program.add_call(node, aten.linear.default, x, _transposed(program, node, matrix), like=node)


def _addmm(program: Program, node: fx.Node) -> fx.Node | None:
    bias, x, matrix = cast("tuple[fx.Node, fx.Node, fx.Node]", node.args)
    if node.kwargs or not _is_weight(program, x, matrix):
        return None
    if not program.is_constant(bias) or not same_sizes(bias.meta["val"].shape, node.meta["val"].shape[-1:]):
        return None
    return program.add_call(node, aten.linear.default, x, _transposed(program, node, matrix), bias, like=node)


def _is_weight(program: Program, x: fx.Node, matrix: fx.Node) -> bool:
    """Whether ``x @ matrix`` is what a linear layer computes: the matrix is constant, possibly masked; x is not."""
    if x.meta["val"].dim() < 2 or matrix.meta["val"].dim() != 2:
        return False
    return constant_cone(program, x) is None and constant_cone(program, matrix) is not None


def _transposed(program: Program, before: fx.Node, matrix: fx.Node) -> fx.Node:
    if matrix.target is aten.t.default:
        return cast(fx.Node, matrix.args[0])
    return program.add_call(before, aten.t.default, matrix, like=before)


def _bias_of_linear(program: Program, node: fx.Node) -> fx.Node | None:
    if len(node.args) != 2 or node.kwargs:
        return None
    linear, bias = node.args
    if program.is_constant(linear):
        linear, bias = bias, linear
    if not isinstance(linear, fx.Node) or linear.target is not aten.linear.default or len(linear.users) > 1:
        return None
    if len(linear.args) > 2 or not isinstance(bias, fx.Node) or not program.is_constant(bias):
        return None
    if not same_sizes(bias.meta["val"].shape, linear.meta["val"].shape[-1:]):
        return None
    return program.add_call(node, aten.linear.default, *linear.args, bias, like=node)


def _flatten(program: Program, node: fx.Node) -> fx.Node | None:
    """A view that flattens every sample needs no batch size written out."""
    x = cast(fx.Node, node.args[0])
    before, after = x.meta["val"].shape, node.meta["val"].shape
    if len(before) < 3 or len(after) != 2 or not same_sizes(before[:1], after[:1]):
        return None
    return program.add_call(node, aten.flatten.using_ints, x, 1, like=node)


def _reshape(program: Program, node: fx.Node) -> fx.Node:
    """A view demands a memory layout that its input may not have once a copy is gone."""
    return program.add_call(node, aten.reshape.default, *node.args, like=node)


_CHECKS = (
    aten._assert_tensor_metadata.default,
    aten._assert_scalar.default,
    aten._assert_async.msg,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
)
_COPIES = (
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.dropout.default,
    aten.expand.default,
    aten.lift_fresh_copy.default,
    aten.slice.Tensor,
    aten.to.dtype,
    aten.to.dtype_layout,
    aten._to_copy.default,
    aten.view.default,
    aten.reshape.default,
)
_RULES = (
    Rule("remove a copy", _COPIES, _same_value),
    Rule("a view of each sample as one vector is a flatten", (aten.view.default, aten.reshape.default), _flatten),
    Rule("a view is a reshape", (aten.view.default, aten._unsafe_view.default), _reshape),
    Rule("write the padding as numbers", (aten.conv2d.padding,), _numeric_padding),
    Rule("matmul with a constant matrix is a linear layer", (aten.matmul.default, aten.mm.default), _constant_matmul),
    Rule("addmm with a constant matrix is a linear layer", (aten.addmm.default,), _addmm),
    Rule("an added vector is the bias of the linear layer", (aten.add.Tensor,), _bias_of_linear),
)
