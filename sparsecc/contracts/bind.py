"""Put contracts into a graph of ATen ops: after it, every reader of an edge sees what was transmitted."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from .contract import Contract
from .maps import SensitivityMap
from .op import attributes, op_of

aten = torch.ops.aten


def bind(module: fx.GraphModule, node: fx.Node, contract: Contract, measured: SensitivityMap) -> fx.Node:
    """Insert the contract after a node; returns what its readers read now. The caller recompiles the module.

    rows            y  ->  keep_top(y)
    channels-last   y  ->  permute  ->  keep_top  ->  permute  ->  clone (contiguous)
    """
    readers = list(node.users)
    fill = _buffer(module, node, "fill", torch.full((1,), contract.dropped, dtype=_value(node).dtype))
    sensitivity = _buffer(module, node, "sensitivity", torch.from_numpy(measured.gradient.copy()))
    keep_top, arguments = op_of(contract), (sensitivity, fill, *attributes(contract).values())
    rank, axis = _value(node).dim(), contract.axis
    if contract.order == "rows":
        arrived = _call(module, fill, keep_top, (node, *arguments), _value(node))
    else:
        there = [a for a in range(rank) if a != axis] + [axis]
        back = [there.index(a) for a in range(rank)]
        moved = _value(node).permute(there)
        ordered = _call(module, fill, aten.permute.default, (node, there), moved)
        kept = _call(module, ordered, keep_top, (ordered, *arguments), moved.contiguous())
        strided = _call(module, kept, aten.permute.default, (kept, back), moved.contiguous().permute(back))
        contiguous = {"memory_format": torch.contiguous_format}
        arrived = _call(module, strided, aten.clone.default, (strided,), _value(node), contiguous)
    for reader in readers:
        reader.replace_input_with(node, arrived)
    return arrived


def _value(node: fx.Node) -> Tensor:
    return cast(Tensor, node.meta["val"])


def _buffer(module: fx.GraphModule, node: fx.Node, kind: str, value: Tensor) -> fx.Node:
    """A constant of the edge, placed right after its producer."""
    name = f"{node.name}_{kind}"
    module.register_buffer(name, value)
    with module.graph.inserting_after(node):
        constant = module.graph.get_attr(name)
    constant.meta["val"] = cast(Any, _value(node)).fake_mode.from_tensor(value, static_shapes=True)
    return constant


def _call(
    module: fx.GraphModule,
    after: fx.Node,
    target: OpOverload,
    args: tuple[Any, ...],
    value: Tensor,
    kwargs: dict[str, Any] | None = None,
) -> fx.Node:
    with module.graph.inserting_after(after):
        node = module.graph.call_function(target, args, kwargs)
    source: fx.Node = args[0]
    node.meta = {k: v for k, v in source.meta.items() if k in ("stack_trace", "nn_module_stack")}
    node.meta["val"] = value
    return node
