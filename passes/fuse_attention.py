"""Read attention over heads, with the reshapes around it, as one operation on rows of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import fx

from sparsecc.invariants import WELL_FORMED
from sparsecc.ops import ATTENTION
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program, calls, same_sizes
from sparsecc.regions import static_sizes
from sparsecc.rewrite import Refused, Rule, apply_rules

aten = torch.ops.aten
SIZE_STEP = 8
"""Kernels take heads of a multiple of this size."""


@dataclass(frozen=True)
class FuseAttention:
    """Where some layer is sparse: attention becomes a step between the layers, without copies of its tensors.

    q, k, v -> reshape, transpose -> scaled_dot_product_attention -> transpose, reshape  becomes  attention(q, k, v, mask)
    """

    name = "fuse-attention"
    effects = Effects(requires=frozenset({WELL_FORMED}))

    def run(self, program: Program) -> Sequence[Note]:
        if not any(layer.is_sparse for layer in program.layers.values()):
            return []
        notes = apply_rules(program, [Rule("attention over heads", (aten.reshape.default,), _Fusion().fuse)])
        for node in calls(program, aten.scaled_dot_product_attention.default):
            if not node.users:  # fx keeps it, for it could drop out
                program.graph.erase_node(node)
        program.tidy()
        return notes


@dataclass(frozen=True)
class _Fusion:
    masks: dict[tuple[fx.Node, int], fx.Node] = field(default_factory=dict[tuple[fx.Node, int], fx.Node])

    def fuse(self, program: Program, node: fx.Node) -> fx.Node | Refused | None:
        """At the reshape that puts the heads side by side again."""
        turned = cast(fx.Node, node.args[0])
        attended = turned.args[0] if _turns(turned) else None
        if not isinstance(attended, fx.Node) or attended.target is not aten.scaled_dot_product_attention.default:
            return None
        if len(turned.users) > 1 or len(attended.users) > 1:
            return Refused("its result is used per head, too")
        sources = [_rows_of(cast(fx.Node, x)) for x in attended.args[:3]]
        q, k, v = sources
        if q is None or k is None or v is None:
            return Refused("its queries, keys or values are no rows of heads side by side")
        _, heads, queries, size = cast(fx.Node, attended.args[0]).meta["val"].shape
        mask, dropout, causal = [*attended.args[3:], *(None, 0.0, False)[len(attended.args) - 3 :]]
        if causal or dropout or attended.kwargs.get("enable_gqa"):
            return Refused("it is causal, drops out, or shares keys among heads")
        if not static_sizes([*q.meta["val"].shape[1:], *k.meta["val"].shape[1:]]) or size % SIZE_STEP:
            return Refused(f"the length is open, or heads are no multiple of {SIZE_STEP} wide")
        shapes = [x.meta["val"].shape for x in (q, k, v, node)]
        if not (same_sizes(shapes[1], shapes[2]) and same_sizes(shapes[0], shapes[3])):
            return Refused("heads of keys and values differ in size")
        if isinstance(mask, fx.Node):
            key = mask, int(queries)
            self.masks[key] = turned_mask = self.masks.get(key) or _mask(program, node, mask, shapes[0], shapes[1])
            if turned_mask is None:
                return Refused("its mask differs from head to head, or is not of every sample")
            mask = turned_mask
        scale = cast("float | None", attended.kwargs.get("scale")) or float(size) ** -0.5
        return program.add_call(node, ATTENTION, q, k, v, mask, heads, scale, like=attended)


def _turns(node: fx.Node) -> bool:
    return node.target is aten.transpose.int and {cast(int, a) % 4 for a in node.args[1:]} == {1, 2}


def _rows_of(x: fx.Node) -> fx.Node | None:
    """What was cut into heads: transpose(reshape(rows))."""
    cut = x.args[0] if _turns(x) else None
    if not isinstance(cut, fx.Node) or cut.target is not aten.reshape.default:
        return None
    rows = cast(fx.Node, cut.args[0])
    before, after = rows.meta["val"].shape, cut.meta["val"].shape
    return rows if len(before) == 3 and same_sizes(before[:2], after[:2]) else None


def _mask(
    program: Program, before: fx.Node, mask: fx.Node, queries: Sequence[int], keys: Sequence[int]
) -> fx.Node | None:
    """What to add to scores, one row per key: [samples, 1, keys, queries]; None for masks that are not the same for
    every head of a sample."""
    shape = [*[1] * (4 - mask.meta["val"].dim()), *mask.meta["val"].shape]
    if not same_sizes(shape[1:2], [1]) or not (same_sizes(shape[:1], queries[:1]) or static_sizes(queries[:1])):
        return None

    def add(target: object, *args: object) -> fx.Node:
        return program.add_call(before, target, *args, like=mask)

    added = add(aten.where.Scalar, mask, 0.0, float("-inf")) if mask.meta["val"].dtype == torch.bool else mask
    if mask.meta["val"].dim() < 4:
        added = add(aten.reshape.default, added, shape)
    samples = -1 if same_sizes(shape[:1], queries[:1]) else queries[0]
    wide = add(aten.expand.default, added, [samples, 1, queries[1], keys[1]])
    return add(aten.transpose.int, wide, 2, 3)
