"""Read attention over heads, with the reshapes around it, as one operation on rows of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import fx
from torch._ops import OpOverload
from torch.fx.node import Argument

from sparsecc.invariants import WELL_FORMED
from sparsecc.ops import ATTENTION
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program, arguments, calls, same_sizes
from sparsecc.regions import static_sizes
from sparsecc.rewrite import Refused, Rule, apply_rules

aten = torch.ops.aten
SIZE_STEP = 8
"""Kernels take heads of a multiple of this size."""


@dataclass(frozen=True)
class FuseAttention:
    """Where some layer is sparse: attention becomes a step between the layers, without copies of its tensors.

    q, k, v -> reshape, transpose -> scaled_dot_product_attention -> transpose, reshape
    becomes attention(q, k, v, mask)
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
    """What a mask became, by the mask and the number of queries."""

    def fuse(self, program: Program, node: fx.Node) -> fx.Node | Refused | None:
        """At the reshape that puts the heads side by side again."""
        turned = cast(fx.Node, node.args[0])
        attended = turned.args[0] if _turns(turned) else None
        if not isinstance(attended, fx.Node) or attended.target is not aten.scaled_dot_product_attention.default:
            return None
        if len(turned.users) > 1 or len(attended.users) > 1:
            return Refused("its result is used per head, too")
        given = arguments(attended)
        if given["is_causal"] or given["dropout_p"] or given["enable_gqa"]:
            return Refused("it is causal, drops out, or shares keys among heads")
        q, k, v = (_rows_of(cast(fx.Node, given[name])) for name in ("query", "key", "value"))
        if q is None or k is None or v is None:
            return Refused("its queries, keys or values are no rows of heads side by side")
        _, heads, _, size = cast(fx.Node, given["query"]).meta["val"].shape
        queries, keys = q.meta["val"].shape, k.meta["val"].shape
        if not static_sizes([*queries[1:], *keys[1:]]) or size % SIZE_STEP:
            return Refused(f"the length is open, or heads are no multiple of {SIZE_STEP} wide")
        if not (same_sizes(keys, v.meta["val"].shape) and same_sizes(queries, node.meta["val"].shape)):
            return Refused("heads of keys and values differ in size")
        mask = cast("fx.Node | None", given["attn_mask"])
        if mask is not None:
            if not _of_samples(mask, queries):
                return Refused("its mask differs from head to head, or is not of every sample")
            if (mask, queries[1]) not in self.masks:
                self.masks[mask, queries[1]] = _added(program, node, mask, [queries[0], 1, queries[1], keys[1]])
            mask = self.masks[mask, queries[1]]
        scale = cast("float | None", given["scale"]) or float(size) ** -0.5
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


def _of_samples(mask: fx.Node, queries: Sequence[int | torch.SymInt]) -> bool:
    """Whether it is the same for every head; one for all samples needs to know how many there are."""
    shape = _wide(mask)
    return same_sizes(shape[1:2], [1]) and (same_sizes(shape[:1], queries[:1]) or static_sizes(queries[:1]))


def _wide(mask: fx.Node) -> list[int | torch.SymInt]:
    """The shape of a mask with all four axes: samples, heads, queries, keys."""
    shape = mask.meta["val"].shape
    return [*[1] * (4 - len(shape)), *shape]


def _added(program: Program, before: fx.Node, mask: fx.Node, shape: Sequence[int | torch.SymInt]) -> fx.Node:
    """What to add to scores, of this shape with the keys as rows."""

    def add(target: OpOverload, *args: Argument) -> fx.Node:
        return program.add_call(before, target, *args, like=mask)

    value = add(aten.where.Scalar, mask, 0.0, float("-inf")) if mask.meta["val"].dtype == torch.bool else mask
    for _ in range(4 - value.meta["val"].dim()):
        value = add(aten.unsqueeze.default, value, 0)
    sizes = [-1 if same_sizes([now], [wanted]) else wanted for now, wanted in zip(_wide(mask), shape, strict=True)]
    return add(aten.transpose.int, add(aten.expand.default, value, cast("list[int]", sizes)), 2, 3)
