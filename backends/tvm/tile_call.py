"""One operation of a Program with everything fixed: the ATen op, its tensors' shapes and types, its other arguments."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx
from torch._ops import OpOverload

from sparsecc.program import schema

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
PRODUCTS = ("mm", "bmm", "matmul", "addmm", "baddbmm", "mv", "dot")


@dataclass(frozen=True)
class Operand:
    """A tensor among a call's arguments: row-major, without gaps."""

    number: int  # in order of first appearance
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def elems(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{dtype_name(self.dtype)} {list(self.shape)}"


@dataclass(frozen=True)
class Call:
    """``args`` and ``kwargs`` hold an Operand for every tensor; ``item`` says which of several results is meant."""

    target: OpOverload
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    operands: tuple[Operand, ...]
    item: int | None = None

    @property
    def op(self) -> str:
        """Its name without namespace and overload, as conv2d."""
        return schema(self.target).name.split("::")[-1].strip("_")

    @property
    def arguments(self) -> dict[str, Any]:
        """Every argument by the name it has in the schema, defaults included."""
        declared = schema(self.target).arguments
        given = dict(zip((a.name for a in declared), self.args, strict=False)) | dict(self.kwargs)
        return {a.name: given.get(a.name, a.default_value) for a in declared}

    def module(self) -> tuple[fx.GraphModule, tuple[torch.Tensor, ...]]:
        """A module that computes just this, and inputs of the right shapes and types."""
        graph = fx.Graph()
        inputs = [graph.placeholder(f"in{operand.number}") for operand in self.operands]

        def rebuilt(argument: Any) -> Any:
            if isinstance(argument, Operand):
                return inputs[argument.number]
            if isinstance(argument, (list, tuple)):
                return [rebuilt(item) for item in cast("list[Any]", argument)]
            return argument

        kwargs = {name: rebuilt(value) for name, value in self.kwargs.items()}
        result = graph.call_function(self.target, tuple(map(rebuilt, self.args)), kwargs)
        if self.item is not None:
            result = graph.call_function(operator.getitem, (result, self.item))
        graph.output((result,))
        return fx.GraphModule({}, graph), tuple(torch.empty(o.shape, dtype=o.dtype) for o in self.operands)


def call_of(node: fx.Node, values: Mapping[fx.Node, Any]) -> Call:
    """What a call_function node computes; of a getitem node the call that it takes a result from.

    ``values``: the tensor of every argument node, of which shape and type are read, or its number where it is an int.
    """
    source, item = _source(node)
    operands = {n: _operand(i, values[n]) for i, n in enumerate(tensor_arguments(node, values))}

    def fixed(argument: fx.Node) -> Any:
        return operands.get(argument, values[argument])

    args, kwargs = fx.map_arg((source.args, source.kwargs), fixed)
    return Call(cast(OpOverload, source.target), args, kwargs, tuple(operands.values()), item)


def tensor_arguments(node: fx.Node, values: Mapping[fx.Node, Any]) -> list[fx.Node]:
    """The nodes behind a kernel's tensor parameters but dst, in order of first appearance, each once."""
    source, _ = _source(node)
    found = dict[fx.Node, None]()
    fx.map_arg((source.args, source.kwargs), lambda n: found.setdefault(n))
    return [n for n in found if isinstance(values[n], torch.Tensor)]


def _source(node: fx.Node) -> tuple[fx.Node, int | None]:
    if node.target is operator.getitem:
        return cast("tuple[fx.Node, int]", node.args)
    return node, None


def _operand(number: int, tensor: torch.Tensor) -> Operand:
    return Operand(number, tuple(map(int, tensor.shape)), tensor.dtype)


def gemm(call: Call, result: Sequence[int], *, reduces: bool) -> tuple[int, int, int]:
    """(m, n, k): the product [m, k] x [k, n] that a systolic array runs for the call, or k = 0 and m x n elements.

    Convolutions: output pixels, filters, weights of a filter. Products of matrices: all rows of all matrices are m.
    Attention: m n k is its number of multiplications, of queries with keys and of shares with values; so m queries of
    all heads, n keys, k = elements of a key + elements of a value. Others: the elements written, or those read of
    src where there are more of them and the op reduces.
    """
    elems, a = math.prod(result), call.arguments
    if call.op in CONVOLUTIONS:
        filters, *of_filter = a["weight"].shape
        return elems // filters, filters, math.prod(of_filter)
    if call.op == "linear":
        columns, depth = a["weight"].shape
        return elems // columns, columns, depth
    if call.op in PRODUCTS:
        left, right = [argument for argument in call.args if isinstance(argument, Operand)][-2:]
        columns = right.shape[-1] if len(right.shape) > 1 else 1
        return elems // columns, columns, left.shape[-1]
    if call.op == "scaled_dot_product_attention":
        queries, keys, values = (a[name].shape for name in ("query", "key", "value"))
        return math.prod(queries[:-1]), keys[-2], queries[-1] + values[-1]
    return max(elems, call.operands[0].elems if reduces else 0), 1, 0


def dtype_name(dtype: torch.dtype) -> str:
    """As TVM and numpy say it."""
    return str(dtype).removeprefix("torch.")
