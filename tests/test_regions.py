"""regions.describe: what a region may contain, read from ATen, and the reason for everything else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from programs import Model, filled, program, run, seeded
from torch import Tensor, fx, nn
from torch.nn import functional

from sparsecc.ops import UNPACK
from sparsecc.program import Program
from sparsecc.regions import (
    Activation,
    Add,
    Conv2d,
    LayerNorm,
    Linear,
    Op,
    Pool2d,
    Refusal,
    Reshape,
    Window,
    describe,
    item_shape,
    kinds,
    weight_of,
)

IMAGE = seeded(2, 4, 8, 8)
TOKENS = seeded(2, 3, 6)


def last(forward: Callable[..., object], *inputs: Tensor, **parts: nn.Module | Tensor) -> fx.Node:
    """The node of the last call, after canonicalize."""
    p, _ = run("canonicalize", program(filled(Model(forward, **parts)), *inputs))
    return p.output_nodes[0]


def described(forward: Callable[..., object], *inputs: Tensor, **parts: nn.Module | Tensor) -> Op:
    op = describe(last(forward, *inputs, **parts))
    assert not isinstance(op, Refusal), op.reason
    return op


# ---- what a region takes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "stride", "padding", "dilation"),
    [
        (nn.Conv2d(4, 5, 3), (1, 1), (0, 0), (1, 1)),
        (nn.Conv2d(4, 5, (3, 1), (2, 1), (1, 0)), (2, 1), (1, 0), (1, 1)),
        (nn.Conv2d(4, 5, 3, 2, "valid", 2), (2, 2), (0, 0), (2, 2)),
        (nn.Conv2d(4, 5, (3, 5), 1, "same", bias=False), (1, 1), (1, 2), (1, 1)),
    ],
)
def test_convolutions(
    layer: nn.Conv2d, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> None:
    op = described(lambda m, x: m.a(x), IMAGE, a=layer)
    assert isinstance(op, Conv2d)
    assert (op.kernel, op.stride, op.padding, op.dilation) == (layer.kernel_size, stride, padding, dilation)
    assert (op.weight.format, op.weight.rows, op.weight.cols) == ("dense", 5, 4 * op.kernel[0] * op.kernel[1])
    assert (op.bias is None) == (layer.bias is None)


def test_layers_of_tokens() -> None:
    linear = described(lambda m, x: m.a(x), TOKENS, a=nn.Linear(6, 5, bias=False))
    assert isinstance(linear, Linear)
    assert (linear.weight.rows, linear.weight.cols, linear.bias) == (5, 6, None)
    norm = described(lambda m, x: m.a(x), TOKENS, a=nn.LayerNorm(6, eps=1e-3))
    assert isinstance(norm, LayerNorm)
    assert norm.epsilon == 1e-3


@pytest.mark.parametrize(
    ("forward", "name"),
    [
        (torch.relu, "relu"),
        (functional.gelu, "gelu"),
        (lambda x: functional.gelu(x, approximate="tanh"), "gelu_tanh"),
    ],
)
def test_activations(forward: Callable[[Tensor], Tensor], name: str) -> None:
    op = described(lambda _, x: forward(x), TOKENS)
    assert isinstance(op, Activation)
    assert op.function == name


def test_sums() -> None:
    op = described(lambda _, x, y: x + y, TOKENS, TOKENS + 1)
    assert isinstance(op, Add)
    assert (op.x.name, op.y.name) == ("inputs_0", "inputs_1")


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (lambda x: functional.max_pool2d(x, 2), ("max", (2, 2), (2, 2), (0, 0), False)),
        (lambda x: functional.max_pool2d(x, (3, 2), 1, 1), ("max", (3, 2), (1, 1), (1, 1), False)),
        (lambda x: functional.avg_pool2d(x, 2), ("average", (2, 2), (2, 2), (0, 0), True)),
        (
            lambda x: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            ("average", (3, 3), (2, 2), (1, 1), False),
        ),
        (lambda x: functional.adaptive_avg_pool2d(x, 1), ("average", (8, 8), (8, 8), (0, 0), True)),
        (lambda x: functional.adaptive_avg_pool2d(x, (4, 2)), ("average", (2, 4), (2, 4), (0, 0), True)),
    ],
)
def test_pools(forward: Callable[[Tensor], Tensor], expected: tuple[object, ...]) -> None:
    op = described(lambda _, x: forward(x), IMAGE)
    assert isinstance(op, Pool2d)
    assert (op.function, op.kernel, op.stride, op.padding, op.count_padding) == expected


@pytest.mark.parametrize(
    ("forward", "start", "step", "shape"),
    [
        (lambda x: x[:, 1:3], (1, 0, 0), (1, 1, 1), (2, 8, 8)),
        (lambda x: x[:, :, ::2], (0, 0, 0), (1, 2, 1), (4, 4, 8)),
        (lambda x: x[:, :, :, -3:], (0, 0, 5), (1, 1, 1), (4, 8, 3)),
        (lambda x: x[:, :, -20:-1:3], (0, 0, 0), (1, 3, 1), (4, 3, 8)),
        (lambda x: x[:, 9:], (4, 0, 0), (1, 1, 1), (0, 8, 8)),
        (lambda x: functional.pad(x, (1, 2)), (0, 0, -1), (1, 1, 1), (4, 8, 11)),
        (lambda x: functional.pad(x, (0, 0, 1, 0, 2, 2)), (-2, -1, 0), (1, 1, 1), (8, 9, 8)),
        (lambda x: functional.pad(x, (-1, 0)), (0, 0, 1), (1, 1, 1), (4, 8, 7)),
    ],
)
def test_windows_say_where_each_element_comes_from(
    forward: Callable[[Tensor], Tensor],
    start: tuple[int, int, int],
    step: tuple[int, int, int],
    shape: tuple[int, int, int],
) -> None:
    node = last(lambda _, x: forward(x), IMAGE)
    op = describe(node)
    assert isinstance(op, Window)
    assert (op.start, op.step, item_shape(node, "image")) == (start, step, shape)
    found = torch.zeros(2, *shape)
    for c, h, w in torch.cartesian_prod(*map(torch.arange, shape)).tolist() if 0 not in shape else []:
        at = [s + p * i for s, p, i in zip(start, step, (c, h, w), strict=True)]
        if all(0 <= a < size for a, size in zip(at, IMAGE.shape[1:], strict=True)):
            found[:, c, h, w] = IMAGE[:, at[0], at[1], at[2]]
    assert torch.equal(found, forward(IMAGE))


@pytest.mark.parametrize(
    "forward", [lambda x: x.flatten(1), lambda x: x.reshape(2, -1), lambda x: x.view(x.shape[0], 256)]
)
def test_flattening(forward: Callable[[Tensor], Tensor]) -> None:
    node = last(lambda _, x: forward(x), IMAGE)
    assert isinstance(describe(node), Reshape)
    assert item_shape(node, "image") == (256, 1, 1)


def test_packed_weights_are_read_back() -> None:
    values = {"csr": seeded(5), "bsr4x2": seeded(2, 4, 2)}
    for name, value in values.items():
        p: Program = program(nn.Linear(6, 5), seeded(2, 6))
        (linear,) = (n for n in p.graph.nodes if n.op == "call_function")
        columns, starts = (
            torch.zeros(len(value), dtype=torch.int32),
            torch.tensor([0, *[len(value)] * (5 if name == "csr" else 2)]),
        )
        arrays = [p.add_constant(k, v) for k, v in (("v", value), ("c", columns), ("r", starts.int()))]
        op = UNPACK["UnpackCSR" if name == "csr" else "UnpackBSR"]
        weight = weight_of(p.add_call(linear, op, *arrays, 5, 6, like=linear))
        assert not isinstance(weight, Refusal)
        assert (weight.format, weight.arrays, weight.rows, weight.cols) == (name, tuple(arrays), 5, 6)


@pytest.mark.parametrize(
    ("forward", "x", "expected"),
    [
        (lambda m, x: m.conv(x), IMAGE, {"image"}),
        (lambda _, x: x.relu(), IMAGE, {"image"}),
        (lambda _, x: x.flatten(1), IMAGE, {"image"}),
        (lambda m, x: m.fc(x), TOKENS, {"token"}),
        (lambda m, x: m.fc(x), IMAGE[..., :6], {"token"}),
        (lambda m, x: m.fc(x), TOKENS[0], {"image", "token"}),
        (lambda _, x: x + x, TOKENS[0], {"image", "token"}),
        (lambda m, x: m.norm(x), TOKENS[0], {"token"}),
    ],
)
def test_kinds(forward: Callable[..., object], x: Tensor, expected: set[str]) -> None:
    node = last(forward, x, conv=nn.Conv2d(4, 4, 3), fc=nn.Linear(6, 6), norm=nn.LayerNorm(6))
    op = describe(node)
    assert not isinstance(op, Refusal)
    assert kinds(node, op) == expected


# ---- what it refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forward", "x", "reason"),
    [
        (lambda m, x: m.grouped(x), IMAGE, "grouped convolution (groups=2) stays dense"),
        (
            lambda m, x: m.conv(x),
            IMAGE[0],
            "convolution of an input without batch axis or with a dynamic height or width",
        ),
        (lambda m, x: m.fc(x), TOKENS[0, 0], "linear layer of an input without batch axis"),
        (
            lambda m, x: functional.linear(x, m.fc.weight * x.sum()),
            TOKENS,
            "the weight %mul is computed, not constant",
        ),
        (lambda _, x: functional.layer_norm(x, (3, 6)), TOKENS, "layer norm over more than the last axis"),
        (lambda _, x: functional.layer_norm(x, (6,)), TOKENS, "layer norm without weight or bias"),
        (lambda _, x: x.relu(), TOKENS[0, 0], "a vector has no items"),
        (lambda _, x: functional.gelu(x), TOKENS[0, 0], "a vector has no items"),
        (lambda _, x: x + 1, TOKENS, "addition of a number, or scaled"),
        (lambda _, x: torch.add(x, x, alpha=2), TOKENS, "addition of a number, or scaled"),
        (lambda _, x: x + x[:1], TOKENS, "addition that broadcasts or adds a constant"),
        (lambda m, x: x + m.fc.weight, seeded(6, 6), "addition that broadcasts or adds a constant"),
        (lambda _, x: functional.max_pool2d(x, 2, dilation=2), IMAGE, "max pooling with dilation or ceil_mode"),
        (lambda _, x: functional.max_pool2d(x, 3, ceil_mode=True), IMAGE, "max pooling with dilation or ceil_mode"),
        (
            lambda _, x: functional.avg_pool2d(x, 2, divisor_override=3),
            IMAGE,
            "average pooling with ceil_mode or divisor_override",
        ),
        (lambda _, x: functional.adaptive_avg_pool2d(x, 3), IMAGE, "adaptive pooling whose windows differ in size"),
        (
            lambda _, x: functional.max_pool2d(x, 2),
            IMAGE[0],
            "pooling of an input without batch axis or with a dynamic height or width",
        ),
        (lambda _, x: x[1:], IMAGE, "slice of the batch axis, or not of an image"),
        (lambda _, x: x[:, 1:], TOKENS, "slice of the batch axis, or not of an image"),
        (lambda _, x: functional.pad(x, (1, 1), value=1), IMAGE, "padding with something else than zero"),
        (lambda _, x: functional.pad(x, (1, 1, 1, 1), mode="reflect"), IMAGE, "padding with something else than zero"),
        (lambda _, x: functional.pad(x, (1, 1)), TOKENS, "padding of the batch axis, or not of an image"),
        (lambda _, x: x.flatten(), IMAGE, "a reshape other than flattening an image"),
        (lambda _, x: x.reshape(4, -1), IMAGE, "a reshape other than flattening an image"),
        (lambda _, x: x.sin(), IMAGE, "aten.sin.default is not an operation of regions"),
        (lambda _, x: x.double().relu(), IMAGE, "%relu is torch.float64; regions compute in float32"),
        (lambda _, x: x, IMAGE, "placeholder inputs_0 is not an operation of regions"),
    ],
)
def test_refusals_say_why(forward: Callable[..., object], x: Tensor, reason: str) -> None:
    node = last(forward, x, conv=nn.Conv2d(4, 4, 3), grouped=nn.Conv2d(4, 4, 3, groups=2), fc=nn.Linear(6, 6))
    assert describe(node) == Refusal(reason)


def test_a_dynamic_width_is_refused() -> None:
    p = program(filled(nn.Conv2d(4, 4, 3)), IMAGE, dynamic={"width": 3})
    op = describe(p.output_nodes[0])
    assert op == Refusal("convolution of an input without batch axis or with a dynamic height or width")
