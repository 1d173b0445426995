"""Sensitivity maps of a Program's edges, from calibration data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx

from sparsecc.program import Program
from sparsecc.progress import track

from .calibration import Calibration
from .maps import Moments, SensitivityMap, measured_map
from .measures import Loss, main_output, objective
from .stages import Edge


def measure_sensitivity(
    program: Program,
    edges: Sequence[Edge],
    calibration: Calibration,
    loss: Loss,
    orders: Mapping[str, str],
    block: int | None = None,
    form: str = "taylor",
    seed: int = 0,
) -> dict[str, SensitivityMap]:
    """The map of every edge, by its name; ``orders`` are those of the contracts that will use them.

    ``block`` neurons in traversal order share an entry; None: those of a channel of [n, C, H, W]. Tokens of
    [n, tokens, features], and positions along any axis of symbolic size, always share the entries of their features.

    Raises: CompileError SCC047.
    """
    random = torch.Generator().manual_seed(seed)
    moments = {edge.name: Moments() for edge in edges}
    layouts = {edge.name: _layout(edge.node, orders[edge.name], block) for edge in edges}
    for batch in track("measure-sensitivity", calibration.batches()):
        recorder = _Recorder(program.module, moments)
        with torch.enable_grad():
            output = main_output(recorder.run(*batch.inputs))
            total = objective(loss, output, batch.labels, random)
            values = list(recorder.values.values())
            gradients = cast("tuple[Tensor | None, ...]", torch.autograd.grad(total, values, allow_unused=True))
        for (name, sums), value, gradient in zip(moments.items(), values, gradients, strict=True):
            flat, flat_gradient = (
                _rows(x.detach(), orders[name], layouts[name][0])
                for x in (value, torch.zeros_like(value) if gradient is None else gradient)
            )
            sums.add(flat.numpy(), flat_gradient.numpy())
    return {name: measured_map(sums, layouts[name][1], form) for name, sums in moments.items()}


def traversal_order(node: fx.Node) -> str:
    """The order that suits an edge: of [n, C, H, W] "channels-last", so that channels compete within a tile."""
    return "channels-last" if node.meta["val"].dim() == 4 else "rows"


def _layout(node: fx.Node, order: str, block: int | None) -> tuple[int, int]:
    """The axis, in traversal order, from which on every element has its own average; and the neurons of a block."""
    shape = tuple(node.meta["val"].shape)
    if order == "channels-last":
        shape = (shape[0], *shape[2:], shape[1])
    symbolic = [axis + 1 for axis, size in enumerate(shape) if axis and isinstance(size, torch.SymInt)]
    whole_channels = len(shape) == 3 or (order == "channels-last" and block is None)
    axis = min(max([len(shape) - 1 if whole_channels else 1, *symbolic]), len(shape) - 1)
    if block is None:
        block = math.prod(shape[2:]) if len(shape) == 4 and axis == 1 else 1
    return axis, block


def _rows(value: Tensor, order: str, axis: int) -> Tensor:
    ordered = value.movedim(1, -1) if order == "channels-last" else value
    return ordered.reshape(-1, ordered.shape[axis:].numel())


class _Recorder(fx.Interpreter):
    """Keeps the values of edges so that gradients with respect to them can be asked for."""

    def __init__(self, module: fx.GraphModule, edges: dict[str, Moments]) -> None:
        super().__init__(module)
        self.values = dict.fromkeys(edges, torch.empty(0))

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.values:
            value = value if value.requires_grad else value.detach().requires_grad_()  # for frozen weights
            self.values[n.name] = value
        return value
