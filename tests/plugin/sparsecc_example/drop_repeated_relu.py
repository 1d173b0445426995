"""A ReLU of a ReLU does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import fx

from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program
from sparsecc.rewrite import Rule, apply_rules

RELU = torch.ops.aten.relu.default


@dataclass(frozen=True)
class DropRepeatedReLU:
    """Drop an activation whose input has been through it.

    relu(relu(x)) -> relu(x)
    """

    name = "drop-repeated-relu"
    effects = Effects()

    def run(self, program: Program) -> Sequence[Note]:
        return apply_rules(program, [Rule("relu twice", (RELU,), inner_relu)])


def inner_relu(_: Program, node: fx.Node) -> fx.Node | None:
    x = cast(fx.Node, node.args[0])
    return x if x.target is RELU else None
