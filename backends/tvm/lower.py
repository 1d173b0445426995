"""Lower a region: its graph becomes the static plan that the runtime executes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import fx

from sparsecc.diagnostics import Diagnostic, PassBug, Where
from sparsecc.regions import Kind, kinds, row_axes, static_sizes, tensor

from .attention import AttentionLowering
from .builder import Builder, Tables
from .fuse import Layer, fuse
from .image import ImageLowering, framed_nodes
from .plan import ElementType, Input, InputDim, Output, RegionPlan, Variant
from .tokens import TokenLowering

# (lanes, most tokens). One linear layer 384 -> 1536 at 90 % zeros takes 44, 56, 75 and 96 us on a panel of 16, 32, 48
# and 64 lanes (one thread of a Sapphire Rapids, loads and stores included): the fewest lanes that hold all tokens win,
# and beyond 64 tokens full panels do. Few tokens are plain vectors, one after the other: 768 -> 768 at 90 % zeros takes
# 8, 15, 21, 29 and 47 us for 1 to 5 tokens, a panel of 16 takes 48 to 52 (one thread of a Zen 4; other sizes and 80 and
# 95 % cross between 5 and 8 tokens, blocks of 4x1 at 3, those of 16x1 at 6, dense layers at 6).
PANELS: tuple[tuple[int, int | None], ...] = ((1, 4), (16, 16), (32, 32), (48, 48), (64, 64), (48, 96), (64, None))


def lower(region: fx.GraphModule, op_name: str) -> RegionPlan:
    """The plan of a region whose node in the ONNX graph has the op type ``op_name``.

    ``region`` has placeholders (activations first, then constants, marked by ``meta["constant"]``), nodes that
    `sparsecc.regions.describe` understands, and a tuple as output; all with fake tensors in ``meta["val"]``.

    Raises: PassBug where the region holds what no region may hold.
    """
    placeholders = [node for node in region.graph.nodes if node.op == "placeholder"]
    numbers = {node: number for number, node in enumerate(placeholders)}
    layers = fuse(region.graph)
    results = cast("tuple[fx.Node, ...]", region.graph.output_node().args[0])
    kind, tables = region_kind(layers), Tables()
    framed = framed_nodes(layers) - set(results)

    def variant(lanes: int, rows_most: int | None) -> Variant:
        builder = Builder(tables, numbers)
        numbers_of = {node: [n for n, result in enumerate(results) if result is node] for node in results}
        first_numbers = {node: all_of[0] for node, all_of in numbers_of.items()}
        lowering: ImageLowering | TokenLowering | AttentionLowering
        match kind:
            case "image":
                lowering = ImageLowering(builder, first_numbers, framed)
            case "token":
                lowering = TokenLowering(builder, lanes)
            case "attention":
                lowering = AttentionLowering(builder, first_numbers)
        for layer in layers:
            lowering.lower(layer)
            for number in numbers_of.pop(layer.node, ()):  # at once: its memory is soon free for others
                lowering.write(number, layer.node)
        for node, rest in numbers_of.items():
            for number in rest:
                lowering.write(number, node)
        return builder.finish(lanes, rows_most)

    variants = tuple(variant(*panel) for panel in (_panels(placeholders) if kind == "token" else ((1, None),)))
    return RegionPlan(
        op_name,
        kind,
        tuple(_input(node) for node in placeholders),
        tuple(Output(node.name, _output_shape(node, placeholders)) for node in results),
        tuple(tables.prepares),
        variants,
    )


def _panels(placeholders: Sequence[fx.Node]) -> Sequence[tuple[int, int | None]]:
    """Of PANELS the one for as many tokens as there are, where that is known: each needs tables of its own layout."""
    sizes = next(_sizes(node) for node in placeholders if not node.meta.get("constant"))
    leading = sizes[: row_axes("token", len(sizes))]
    if not static_sizes(leading):
        return PANELS
    lanes = next(lanes for lanes, most in PANELS if most is None or math.prod(map(int, leading)) <= most)
    return ((lanes, None),)


def region_kind(layers: list[Layer]) -> Kind:
    """What an item is. Matrices of any meaning ([rows, features] only) are tokens: panels reuse each weight."""
    possible: frozenset[Kind] = frozenset({"image", "token", "attention"})
    for layer in layers:
        possible &= kinds(layer.node, layer.op)
    if not possible:
        names = ", ".join(f"%{layer.name}" for layer in layers)
        raise PassBug("partition-regions", [Diagnostic("SCC009", f"the layers {names} have no common kind of item")])
    return next(kind for kind in ("token", "image", "attention") if kind in possible)


def _sizes(node: fx.Node) -> Sequence[int | torch.SymInt]:
    return cast("Sequence[int | torch.SymInt]", tensor(node).shape)


def _input(node: fx.Node) -> Input:
    shape = tuple(size if isinstance(size, int) else None for size in _sizes(node))
    return Input(node.name, _ELEMENT_TYPES[tensor(node).dtype], shape, node.meta.get("constant") is True)


def _output_shape(node: fx.Node, placeholders: list[fx.Node]) -> tuple[int | InputDim, ...]:
    return tuple(size if isinstance(size, int) else _same_dim(node, size, placeholders) for size in _sizes(node))


def _same_dim(node: fx.Node, size: torch.SymInt, placeholders: list[fx.Node]) -> InputDim:
    """The first axis of an input whose size is the same expression."""
    for number, placeholder in enumerate(placeholders):
        for axis, candidate in enumerate(_sizes(placeholder)):
            if not isinstance(candidate, int) and str(candidate) == str(size):
                return InputDim(number, axis)
    message = f"the dynamic size {size} of an output is no size of an input of its region"
    raise PassBug("partition-regions", [Diagnostic("SCC009", message, Where(node.name))])


_ELEMENT_TYPES: dict[torch.dtype, ElementType] = {
    torch.float32: "float32",
    torch.uint16: "uint16",
    torch.int32: "int32",
}
