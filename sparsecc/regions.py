"""What a region may contain: ATen nodes read as a small, closed vocabulary of per-item operations.

A region computes the same function for every *item*: one sample of an image network, or one token (row) of a
sequence. Inside it every value of one item is a matrix [channels, pixels]; the batch and the sequence length are
only the number of items, which is why one artifact serves them all. Attention is a region of its own, whose items are
samples: all rows of a sequence.

``describe`` is the single reader of ATen arguments: `partition-regions` asks it whether a node may enter a region,
the backend asks it what to compute. It answers with an operation or with the reason why not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import fx

from sparsecc.ops import ATTENTION, UNPACK
from sparsecc.program import arguments, same_sizes

Kind = Literal["image", "token", "attention"]
Pair = tuple[int, int]
aten = torch.ops.aten


@dataclass(frozen=True)
class Refusal:
    """Why a node stays outside every region."""

    reason: str


@dataclass(frozen=True)
class Weight:
    """A constant [rows, cols] matrix; a convolution's cols run over (input channel, kernel row, kernel column).

    ``arrays`` are the nodes of the packed arrays in the order of the format, or the dense tensor alone.
    """

    format: str
    arrays: tuple[fx.Node, ...]
    rows: int
    cols: int


@dataclass(frozen=True)
class Conv2d:
    x: fx.Node
    weight: Weight
    bias: fx.Node | None
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair


@dataclass(frozen=True)
class Linear:
    x: fx.Node
    weight: Weight
    bias: fx.Node | None


@dataclass(frozen=True)
class LayerNorm:
    x: fx.Node
    weight: fx.Node
    bias: fx.Node
    epsilon: float


@dataclass(frozen=True)
class Activation:
    """``relu``, ``gelu`` (erf) or ``gelu_tanh``."""

    x: fx.Node
    function: Literal["relu", "gelu", "gelu_tanh"]


@dataclass(frozen=True)
class Add:
    x: fx.Node
    y: fx.Node


@dataclass(frozen=True)
class Pool2d:
    """``average`` divides by the window including padding, or excluding it where ``count_padding`` is false."""

    x: fx.Node
    function: Literal["max", "average"]
    kernel: Pair
    stride: Pair
    padding: Pair
    count_padding: bool


@dataclass(frozen=True)
class Window:
    """A strided window over [channels, height, width], zero where it leaves the input.

    Output element (c, h, w) reads input (start + step * index) per axis. Covers slicing and zero padding.
    """

    x: fx.Node
    start: tuple[int, int, int]
    step: tuple[int, int, int]


@dataclass(frozen=True)
class Reshape:
    """The same elements of an item in the same order: flatten, or a change of the leading axes only."""

    x: fx.Node


@dataclass(frozen=True)
class Attention:
    """As torch.ops.sparsecc.attention: rows [tokens, heads * size] per sample, and what is added to scores, or None."""

    q: fx.Node
    k: fx.Node
    v: fx.Node
    mask: fx.Node | None
    heads: int
    scale: float


Op = Conv2d | Linear | LayerNorm | Activation | Add | Pool2d | Window | Reshape | Attention


def describe(node: fx.Node) -> Op | Refusal:
    """Read one ATen node. ``node.meta['val']`` of it and of its inputs must hold shapes and dtypes."""
    reader = _READERS.get(cast(Callable[..., object], node.target)) if node.op == "call_function" else None
    if reader is None:
        return Refusal(f"{target_name(node)} is not an operation of regions")
    tensors = [node, *(n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor))]
    if other := [n for n in tensors if not is_packed_array(n) and tensor(n).dtype != torch.float32]:
        return Refusal(f"%{other[0].name} is {tensor(other[0]).dtype}; regions compute in float32")
    return reader(node, arguments(node))


def kinds(node: fx.Node, op: Op) -> frozenset[Kind]:
    """The kinds of region that may hold the node: what is an item here?"""
    rank = tensor(node).dim()
    match op:
        case Conv2d() | Pool2d() | Window():
            return frozenset({"image"})
        case LayerNorm():
            return frozenset({"token"})
        case Attention():
            return frozenset({"attention"})
        case Reshape():
            return frozenset({"image"}) if tensor(op.x).dim() == 4 else frozenset({"token"})
        case Linear() | Activation() | Add():
            if rank == 4:
                return frozenset({"image"}) if not isinstance(op, Linear) else frozenset({"token"})
            return frozenset({"image", "token"}) if rank == 2 else frozenset({"token"})


def row_axes(kind: str, rank: int) -> int:
    """How many leading axes of a value count its rows: all but the features of a token region, else the samples."""
    return rank - 1 if kind == "token" else 1


def item_shape(node: fx.Node, kind: Kind) -> tuple[int, int, int]:
    """[channels, height, width] of one item; a vector of n values is (n, 1, 1)."""
    shape = tensor(node).shape
    sizes = [int(s) for s in (shape[1:] if kind == "image" else shape[-1:])]
    return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else (math.prod(sizes), 1, 1)


def tensor(node: fx.Node) -> torch.Tensor:
    """The (fake) tensor that carries the node's shape and dtype."""
    return cast(torch.Tensor, node.meta["val"])


def static_sizes(sizes: Sequence[int | torch.SymInt]) -> bool:
    return all(isinstance(s, int) for s in sizes)


def target_name(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_function" else f"{node.op} {node.target}"


def is_packed_array(node: fx.Node) -> bool:
    """Whether the node's only uses are as an array of a packed weight."""
    return bool(node.users) and all(is_unpack(user) for user in node.users)


def is_unpack(node: fx.Node) -> bool:
    return node.target in UNPACK.values()


def weight_of(node: fx.Node) -> Weight | Refusal:
    """Follow `reshape(unpack(arrays))`, or take the tensor itself as a dense matrix."""
    sizes = tensor(node).shape
    if not static_sizes(sizes) or len(sizes) < 2:
        return Refusal(f"the weight %{node.name} has no static shape")
    rows, cols = int(sizes[0]), math.prod(int(s) for s in sizes[1:])
    if node.target is aten.reshape.default:
        node = cast(fx.Node, node.args[0])
    if is_unpack(node):
        values, columns, row_starts = cast("tuple[fx.Node, fx.Node, fx.Node]", node.args[:3])
        block = tensor(values).shape[1:]
        name = f"bsr{block[0]}x{block[1]}" if len(block) else "csr"
        return Weight(name, (values, columns, row_starts), rows, cols)
    if node.op not in ("get_attr", "placeholder"):
        return Refusal(f"the weight %{node.name} is computed, not constant")
    return Weight("dense", (node,), rows, cols)


# ---- readers: one per ATen overload, arguments already bound to their schema names --------------------------------

Arguments = Mapping[str, object]


def _pair(value: object, default: Pair | None = None) -> Pair:
    if isinstance(value, int):
        return (value, value)
    sizes = cast("list[int]", value)
    if not sizes and default is not None:
        return default
    return (sizes[0], sizes[-1])


def _conv2d(_: fx.Node, a: Arguments) -> Op | Refusal:
    x = cast(fx.Node, a["input"])
    if a["groups"] != 1:
        return Refusal(f"grouped convolution (groups={a['groups']}) stays dense")
    if tensor(x).dim() != 4 or not static_sizes(tensor(x).shape[1:]):
        return Refusal("convolution of an input without batch axis or with a dynamic height or width")
    weight = weight_of(cast(fx.Node, a["weight"]))
    if isinstance(weight, Refusal):
        return weight
    kernel = tensor(cast(fx.Node, a["weight"])).shape[2:]
    return Conv2d(
        x,
        weight,
        cast("fx.Node | None", a["bias"]),
        kernel=(int(kernel[0]), int(kernel[1])),
        stride=_pair(a["stride"]),
        padding=_pair(a["padding"]),
        dilation=_pair(a["dilation"]),
    )


def _linear(node: fx.Node, a: Arguments) -> Op | Refusal:
    weight = weight_of(cast(fx.Node, a["weight"]))
    if isinstance(weight, Refusal):
        return weight
    if tensor(node).dim() < 2:
        return Refusal("linear layer of an input without batch axis")
    return Linear(cast(fx.Node, a["input"]), weight, cast("fx.Node | None", a["bias"]))


def _layer_norm(node: fx.Node, a: Arguments) -> Op | Refusal:
    weight, bias = a["weight"], a["bias"]
    if len(cast("list[int]", a["normalized_shape"])) != 1 or tensor(node).dim() < 2:
        return Refusal("layer norm over more than the last axis")
    if not isinstance(weight, fx.Node) or not isinstance(bias, fx.Node):
        return Refusal("layer norm without weight or bias")
    return LayerNorm(cast(fx.Node, a["input"]), weight, bias, cast(float, a["eps"]))


def _relu(node: fx.Node, a: Arguments) -> Op | Refusal:
    return Activation(cast(fx.Node, a["self"]), "relu") if tensor(node).dim() >= 2 else Refusal("a vector has no items")


def _gelu(node: fx.Node, a: Arguments) -> Op | Refusal:
    if tensor(node).dim() < 2:
        return Refusal("a vector has no items")
    return Activation(cast(fx.Node, a["self"]), "gelu_tanh" if a["approximate"] == "tanh" else "gelu")


def _add(node: fx.Node, a: Arguments) -> Op | Refusal:
    x, y = a["self"], a["other"]
    if not isinstance(x, fx.Node) or not isinstance(y, fx.Node) or a["alpha"] != 1:
        return Refusal("addition of a number, or scaled")
    if (
        any(n.op == "get_attr" for n in (x, y))
        or not same_sizes(tensor(x).shape, tensor(y).shape)
        or tensor(node).dim() < 2
    ):
        return Refusal("addition that broadcasts or adds a constant")
    return Add(x, y)


def _attention(_: fx.Node, a: Arguments) -> Op | Refusal:
    q, k, v = (cast(fx.Node, a[name]) for name in "qkv")
    mask, heads = cast("fx.Node | None", a["mask"]), cast(int, a["heads"])
    return Attention(q, k, v, mask, heads, cast(float, a["scale"]))


def _max_pool(_: fx.Node, a: Arguments) -> Op | Refusal:
    kernel = _pair(a["kernel_size"])
    if _pair(a["dilation"]) != (1, 1) or a["ceil_mode"]:
        return Refusal("max pooling with dilation or ceil_mode")
    return _pool(cast(fx.Node, a["self"]), "max", kernel, _pair(a["stride"], kernel), _pair(a["padding"]), False)


def _avg_pool(_: fx.Node, a: Arguments) -> Op | Refusal:
    kernel = _pair(a["kernel_size"])
    if a["ceil_mode"] or a["divisor_override"] is not None:
        return Refusal("average pooling with ceil_mode or divisor_override")
    count_padding = bool(a["count_include_pad"])
    x, stride = cast(fx.Node, a["self"]), _pair(a["stride"], kernel)
    return _pool(x, "average", kernel, stride, _pair(a["padding"]), count_padding)


def _adaptive_avg_pool(_: fx.Node, a: Arguments) -> Op | Refusal:
    x, out = cast(fx.Node, a["self"]), _pair(a["output_size"])
    sizes = tensor(x).shape[2:]
    if tensor(x).dim() != 4 or not static_sizes(sizes) or any(int(s) % o for s, o in zip(sizes, out, strict=True)):
        return Refusal("adaptive pooling whose windows differ in size")
    kernel = (int(sizes[0]) // out[0], int(sizes[1]) // out[1])
    return _pool(x, "average", kernel, kernel, (0, 0), True)


def _pool(
    x: fx.Node, function: Literal["max", "average"], kernel: Pair, stride: Pair, padding: Pair, count_padding: bool
) -> Op | Refusal:
    if tensor(x).dim() != 4 or not static_sizes(tensor(x).shape[1:]):
        return Refusal("pooling of an input without batch axis or with a dynamic height or width")
    return Pool2d(x, function, kernel, stride, padding, count_padding)


def _slice(_: fx.Node, a: Arguments) -> Op | Refusal:
    x, axis = cast(fx.Node, a["self"]), cast(int, a["dim"])
    shape = tensor(x).shape
    axis %= len(shape)
    if len(shape) != 4 or axis == 0 or not static_sizes(shape[1:]) or not isinstance(a["start"] or 0, int):
        return Refusal("slice of the batch axis, or not of an image")
    begin, size = cast("int | None", a["start"]) or 0, int(shape[axis])
    start, step = [0, 0, 0], [1, 1, 1]
    start[axis - 1] = max(begin + size, 0) if begin < 0 else min(begin, size)
    step[axis - 1] = cast(int, a["step"])
    return Window(x, (start[0], start[1], start[2]), (step[0], step[1], step[2]))


def _pad(_: fx.Node, a: Arguments) -> Op | Refusal:
    x, pads = cast(fx.Node, a["self"]), cast("list[int]", a["pad"])
    if a.get("mode", "constant") != "constant" or a["value"] not in (None, 0, 0.0):
        return Refusal("padding with something else than zero")
    if tensor(x).dim() != 4 or not static_sizes(tensor(x).shape[1:]) or len(pads) > 6:
        return Refusal("padding of the batch axis, or not of an image")
    before = [*pads[::2], 0, 0, 0][:3]
    return Window(x, (-before[2], -before[1], -before[0]), (1, 1, 1))


def _reshape(node: fx.Node, a: Arguments) -> Op | Refusal:
    x = cast(fx.Node, a["self"])
    before, after = tensor(x).shape, tensor(node).shape
    whole = len(before) == 4 and len(after) == 2 and same_sizes(before[:1], after[:1])
    if whole and static_sizes([*before[1:], after[1]]):
        return Reshape(x)
    return Refusal("a reshape other than flattening an image")


_READERS: dict[Callable[..., object], Callable[[fx.Node, Arguments], Op | Refusal]] = {
    aten.conv2d.default: _conv2d,
    aten.linear.default: _linear,
    aten.layer_norm.default: _layer_norm,
    aten.relu.default: _relu,
    aten.gelu.default: _gelu,
    aten.add.Tensor: _add,
    aten.max_pool2d.default: _max_pool,
    aten.avg_pool2d.default: _avg_pool,
    aten.adaptive_avg_pool2d.default: _adaptive_avg_pool,
    aten.slice.Tensor: _slice,
    aten.pad.default: _pad,
    aten.constant_pad_nd.default: _pad,
    aten.flatten.using_ints: _reshape,
    aten.view.default: _reshape,
    aten.reshape.default: _reshape,
    ATTENTION: _attention,
}
