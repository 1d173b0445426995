"""The compute tiles' C code against torch: every op of the built-in networks, and what its promises say."""

from __future__ import annotations

import operator
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from sparsecc import pipelines
from sparsecc.backends.onnxruntime.library import c_compiler
from sparsecc.backends.scu.machine import scu_v1
from sparsecc.backends.scu.tile_code import build, load
from sparsecc.backends.tvm import c_source
from sparsecc.backends.tvm.c_source import TileKernel, c_library_source, tile_kernel, tvm_target
from sparsecc.backends.tvm.tile_call import tensor_arguments
from sparsecc.capture import capture
from sparsecc.contracts.int8 import dequantise, quantise
from sparsecc.contracts.op_int8 import DEQUANTISE, QUANTISE
from sparsecc.diagnostics import CompileError
from sparsecc.models import data, lenet5, minilm, resnet_cifar
from sparsecc.program import Program

TARGET = tvm_target(scu_v1())
A: Any = torch.ops.aten
GENERATOR = torch.Generator().manual_seed(0)
EXACT_ERROR = 2e-6
"""Greatest error of float32 sums of up to 400 terms as a share of the greatest value expected."""
NETWORK_ERROR = 1e-5
"""The same for the layers of whole networks, whose sums have up to 1536 terms."""


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR)


def index(most: int, *shape: int) -> torch.Tensor:
    return torch.randint(most, shape, generator=GENERATOR)


def node_of(target: Any, *args: Any, **kwargs: Any) -> tuple[fx.Node, dict[fx.Node, torch.Tensor]]:
    """A node that calls ``target``; the same tensor is the same node."""
    graph, values, nodes = fx.Graph(), dict[fx.Node, torch.Tensor](), dict[int, fx.Node]()

    def placed(argument: Any) -> Any:
        if isinstance(argument, torch.Tensor):
            if id(argument) not in nodes:
                nodes[id(argument)] = graph.placeholder(f"x{len(nodes)}")
                values[nodes[id(argument)]] = argument
            return nodes[id(argument)]
        return [placed(a) for a in argument] if isinstance(argument, (list, tuple)) else argument

    node = graph.call_function(target, tuple(map(placed, args)), kwargs)
    values[node] = target(*args, **kwargs)
    return node, values


def compiled(kernels: Sequence[TileKernel], folder: Path) -> dict[str, Callable[..., None]]:
    build(c_library_source(kernels), folder / "tiles.so")
    return load(folder / "tiles.so", {k.symbol for k in kernels})


def run(function: Callable[..., None], node: fx.Node, values: dict[fx.Node, Any]) -> np.ndarray[Any, Any]:
    arrays = [values[n].detach().contiguous().numpy() for n in tensor_arguments(node, values)]
    result: np.ndarray[Any, Any] = np.full_like(values[node].contiguous().numpy(), 77)
    function(*arrays[:1], result, *arrays[1:])
    return result


@pytest.mark.parametrize(("scale", "zero_point"), [(0.0123, -128), (2.0**-126, 0), (1.0, 127), (3.0, 5)])
def test_the_way_through_int8(scale: float, zero_point: int, tmp_path: Path) -> None:
    """Bit for bit, with what lies halfway, beyond the grid, or is no number."""
    exact = float(np.float32(scale))
    steps = np.arange(-1000, 1000, dtype=np.float32) / np.float32(4)
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 3e38, -3e38, 1e-45], np.float32)
    x = torch.from_numpy(np.concatenate([steps * np.float32(exact), np.nextafter(steps, 0) * np.float32(exact), odd]))
    there, values = node_of(QUANTISE, x, exact, zero_point)
    back, arriving = node_of(DEQUANTISE, torch.arange(-128, 128).to(torch.int8), exact, zero_point)
    kernels = [tile_kernel(there, values, TARGET), tile_kernel(back, arriving, TARGET)]
    functions = compiled(kernels, tmp_path)
    np.testing.assert_array_equal(
        run(functions[kernels[0].symbol], there, values), quantise(x.numpy(), exact, zero_point)
    )
    np.testing.assert_array_equal(
        run(functions[kernels[1].symbol], back, arriving),
        dequantise(np.arange(-128, 128, dtype=np.int8), exact, zero_point),
    )
    assert [(k.m, k.n, k.k) for k in kernels] == [(len(x), 1, 0), (256, 1, 0)]


def assert_close(actual: np.ndarray[Any, Any], expected: torch.Tensor, share: float) -> None:
    e = expected.detach().numpy()
    if expected.is_floating_point():
        np.testing.assert_allclose(actual, e, rtol=0, atol=share * max(np.abs(e).max(initial=0), 1e-30))
    else:
        np.testing.assert_array_equal(actual, e)


MASK = torch.tensor([[True, False, True, True, False], [False] * 5, [True] * 5]).view(1, 1, 3, 5)
QUERY = normal(2, 4, 3, 7)
SQUARE = normal(1, 2, 5, 8)
CASES: dict[str, tuple[Any, ...]] = {
    "conv": (A.conv2d.default, normal(1, 3, 7, 9), normal(5, 3, 3, 3), normal(5), [1, 1], [1, 1]),
    "conv stride": (A.conv2d.default, normal(2, 3, 8, 11), normal(4, 3, 3, 5), None, [2, 3], [1, 2]),
    "conv dilated": (A.conv2d.default, normal(1, 2, 9, 9), normal(3, 2, 3, 3), normal(3), [1], [2], [2]),
    "conv groups": (A.conv2d.default, normal(1, 6, 5, 5), normal(4, 3, 3, 3), normal(4), [1, 1], [1, 1], [1, 1], 2),
    "conv depthwise": (A.conv2d.default, normal(1, 6, 5, 5), normal(6, 1, 3, 3), None, [1, 1], [1, 1], [1, 1], 6),
    "conv wide padding": (A.conv2d.default, normal(1, 1, 2, 2), normal(1, 1, 1, 1), None, [1, 1], [2, 2]),
    "conv1d": (A.conv1d.default, normal(1, 3, 9), normal(4, 3, 3), normal(4), [1], [1]),
    "linear": (A.linear.default, normal(1, 5, 67), normal(33, 67), normal(33)),
    "linear small": (A.linear.default, normal(1, 3), normal(2, 3)),
    "linear whole blocks": (A.linear.default, normal(2, 128), normal(32, 128), normal(32)),
    "matmul": (A.matmul.default, normal(2, 3, 7), normal(2, 7, 5)),
    "attention mask": (A.scaled_dot_product_attention.default, QUERY, normal(2, 4, 5, 7), normal(2, 4, 5, 6), MASK),
    "attention causal": (A.scaled_dot_product_attention.default, SQUARE, SQUARE, normal(1, 2, 5, 3), None, 0.0, True),
    "attention same": (A.scaled_dot_product_attention.default, SQUARE, SQUARE, SQUARE, normal(2, 1, 5)),
    "relu": (A.relu.default, normal(1, 3, 5, 7)),
    "add": (A.add.Tensor, normal(2, 3), normal(1, 3)),
    "add itself": (lambda: (x := normal(3, 5), (A.add.Tensor, x, x))[1])(),
    "add number": (A.add.Tensor, torch.arange(5), 3),
    "mul": (A.mul.Tensor, normal(1, 4, 6), normal(1, 4, 1)),
    "div": (A.div.Tensor, normal(1, 6), normal(1, 1)),
    "slice": (A.slice.Tensor, normal(1, 3, 7, 5), 2, 0, 2**63 - 1, 2),
    "pad": (A.pad.default, normal(1, 3, 4, 4), [0, 0, 0, 0, 2, 1]),
    "adaptive pool": (A.adaptive_avg_pool2d.default, normal(1, 5, 7, 3), [1, 1]),
    "average pool": (A.avg_pool2d.default, normal(1, 3, 7, 7), [3, 3], [2, 2]),
    "max pool": (A.max_pool2d.default, normal(1, 3, 9, 7), [3, 3], [2, 2], [1, 1]),
    "flatten": (A.flatten.using_ints, normal(1, 3, 2, 2), 1),
    "clone": (A.clone.default, normal(3, 2)),
    "embedding": (A.embedding.default, normal(11, 5), index(11, 1, 7), 0),
    "gather": (A.gather.default, index(99, 1, 9), 1, index(9, 1, 4)),
    "index": (A.index.Tensor, index(2, 1, 8).bool(), [index(1, 1, 1, 1, 1), index(8, 1, 1, 1, 5)]),
    "layer norm": (A.layer_norm.default, normal(1, 3, 37) + 9, [37], normal(37), normal(37), 1e-12, False),
    "softmax": (A.softmax.int, normal(3, 5, 7), -1),
    "softmax inside": (A.softmax.int, normal(3, 5, 7), 1),
    "gelu": (A.gelu.default, normal(3, 37) * 3),
    "arange": (A.arange.default, 7),
    "ge": (A.ge.Scalar, torch.arange(-3, 4), 0),
    "and": (A.__and__.Tensor, torch.tensor(True), index(2, 1, 5, 1).bool()),
    "reshape": (A.reshape.default, normal(1, 4, 6), [1, 4, -1, 3]),
    "unsqueeze": (A.unsqueeze.default, index(5, 3), 1),
    "transpose": (A.transpose.int, normal(1, 4, 3, 5), 1, 2),
    "permute": (A.permute.default, normal(2, 3, 4), [2, 0, 1]),
    "cat": (A.cat.default, [normal(2, 3), normal(2, 2)], 1),
    "expand": (A.expand.default, normal(1, 1), [4, 7]),
    "sum": (A.sum.dim_IntList, normal(1, 5, 6), [1]),
    "mean": (A.mean.dim, normal(3, 5, 6), [1, 2]),
    "clamp": (A.clamp.default, normal(3, 3), 0.1),
    "clamp min": (A.clamp_min.default, normal(3, 3), 0.123456789),
    "norm": (A.linalg_vector_norm.default, normal(2, 9), 2.0, [1], True),
}
WITH_KEYWORDS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    **{name: (case, {}) for name, case in CASES.items()},
    "new ones": ((A.new_ones.default, index(5, 3), []), {"dtype": torch.bool, "pin_memory": False}),
    "to bool": ((A._to_copy.default, index(2, 3, 5)), {"dtype": torch.bool, "device": torch.device("cpu")}),
    "to float": ((A._to_copy.default, index(9, 3, 5)), {"dtype": torch.float32}),
    "attention grouped": (
        (A.scaled_dot_product_attention.default, QUERY, normal(2, 2, 5, 7), normal(2, 2, 5, 7)),
        {"enable_gqa": True, "scale": 0.3},
    ),
}


def as_double(argument: Any) -> Any:
    if isinstance(argument, torch.Tensor):
        return argument.double() if argument.is_floating_point() else argument
    return [as_double(a) for a in argument] if isinstance(argument, list) else argument


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[..., None]]:
    nodes = [node_of(*case, **kwargs) for case, kwargs in WITH_KEYWORDS.values()]
    kernels = [tile_kernel(node, values, TARGET) for node, values in nodes]
    return compiled(kernels, tmp_path_factory.mktemp("tiles"))


@pytest.mark.parametrize("name", WITH_KEYWORDS)
def test_every_op_computes_what_torch_computes_in_float64(name: str, library: dict[str, Callable[..., None]]) -> None:
    (target, *args), kwargs = WITH_KEYWORDS[name]
    node, values = node_of(target, *args, **kwargs)
    actual = run(library[tile_kernel(node, values, TARGET).symbol], node, values)
    expected = target(*map(as_double, args), **kwargs)
    assert actual.dtype == values[node].numpy().dtype
    assert_close(actual, expected, EXACT_ERROR)


def kernel(target: Any, *args: Any) -> TileKernel:
    return tile_kernel(*node_of(target, *args), TARGET)


def test_equal_ops_on_equal_shapes_share_a_symbol() -> None:
    assert kernel(A.relu.default, normal(3, 5)) == kernel(A.relu.default, normal(3, 5))
    assert kernel(A.relu.default, normal(3, 5)).symbol != kernel(A.relu.default, normal(3, 6)).symbol
    assert kernel(A.add.Tensor, torch.arange(5), 1).symbol != kernel(A.add.Tensor, torch.arange(5), 2).symbol
    symbols = {kernel(*case).symbol for case in CASES.values()}
    assert all(s.isidentifier() and len(s) <= 31 for s in symbols)
    assert kernel(*CASES["attention mask"]).symbol.startswith("scaled_dot_product_att_")


@pytest.mark.parametrize(
    ("name", "mnk"),
    [
        ("conv", (7 * 9, 5, 3 * 9)),
        ("conv groups", (25, 4, 3 * 9)),
        ("conv1d", (9, 4, 9)),
        ("linear", (5, 33, 67)),
        ("matmul", (6, 5, 7)),
        ("attention mask", (2 * 4 * 3, 5, 7 + 6)),
        ("relu", (105, 1, 0)),
        ("sum", (30, 1, 0)),
        ("embedding", (35, 1, 0)),
        ("arange", (7, 1, 0)),
    ],
)
def test_the_size_of_the_work(name: str, mnk: tuple[int, int, int]) -> None:
    k = kernel(*CASES[name])
    assert (k.m, k.n, k.k) == mnk


def test_scratch_is_what_the_source_declares() -> None:
    assert kernel(*CASES["conv"]).scratch_bytes == 0
    assert kernel(*CASES["linear whole blocks"]).scratch_bytes == 4 * (64 * 16 + 16)
    assert kernel(*CASES["attention mask"]).scratch_bytes == 4 * (5 + 2)


def test_one_result_of_several() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    split = graph.call_function(A.split.Tensor, (x, 3, 1))
    value = normal(4, 7)
    parts = torch.split(value, 3, 1)
    for i in (0, 2):
        node = graph.call_function(operator.getitem, (split, i))
        values: dict[fx.Node, Any] = {x: value, split: parts, node: parts[i]}
        assert tile_kernel(node, values, TARGET).m == parts[i].numel()


def test_the_source_has_no_warnings_that_matter_and_is_the_same_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["conv", "linear", "attention mask", "max pool", "gelu", "norm", "clamp"]
    first = c_library_source([kernel(*CASES[name]) for name in names])
    monkeypatch.setattr(c_source, "_kernels", {})
    assert c_library_source([kernel(*CASES[name]) for name in reversed(names)]) == first
    (tmp_path / "tiles.c").write_text(first)
    flags = ("-c", "-std=c11", "-Wall", "-Werror", "-o", "tiles.o")
    done = subprocess.run((*c_compiler(), *flags, "tiles.c"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_constants_keep_their_value() -> None:
    assert f"{0.123456789:.16e}f" in kernel(*CASES["clamp min"]).source  # TVM alone writes 1.234568e-01


def test_an_op_that_tvm_lacks_is_named_with_its_place() -> None:
    with pytest.raises(CompileError) as caught:
        kernel(A.fft_rfft.default, normal(4))
    assert str(caught.value) == (
        "error[SCC110]: TVM writes no C code for aten.fft_rfft.default of float32 [4]: "
        "Unsupported function types ['_fft_r2c.default']\n"
        "  --> <unknown line>, node %fft_rfft_default\n"
        "  help: write it with other operations in the model, or compile for --target cpu"
    )


def test_only_kernels_are_loaded(tmp_path: Path) -> None:
    build(c_library_source([kernel(*CASES["relu"])]), tmp_path / "tiles.so")
    for symbol in ("system", "relu_00000000"):
        with pytest.raises(KeyError):
            load(tmp_path / "tiles.so", [symbol])


def test_code_that_does_not_compile(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"error\[SCC050\]: the C compiler .* failed on the tiles' code: "):
        build("not C", tmp_path / "tiles.so")


def assert_network(program: Program, folder: Path) -> None:
    """Node by node: every kernel gets what torch computed before it."""
    tidy, _ = pipelines.parse(pipelines.TIDY).run(program)
    values = dict[fx.Node, Any]()

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            values[n] = super().run_node(n)
            return values[n]

    with torch.inference_mode():
        Recorder(tidy.module).run(*tidy.example_inputs)
    calls = [n for n in tidy.graph.nodes if n.op == "call_function"]
    kernels = [tile_kernel(n, values, TARGET) for n in calls]
    functions = compiled(kernels, folder)
    for node, k in zip(calls, kernels, strict=True):
        assert_close(run(functions[k.symbol], node, values), values[node], NETWORK_ERROR)


def test_lenet5(tmp_path: Path) -> None:
    assert_network(capture(lenet5.load_pruned(), lenet5.example_inputs()), tmp_path)


@pytest.mark.skipif(not data.available("resnet_cifar10"), reason="the weights are not here")
def test_resnet20(tmp_path: Path) -> None:
    assert_network(capture(resnet_cifar.load_pretrained(20), resnet_cifar.example_inputs()), tmp_path)


@pytest.mark.skipif(not minilm.available(), reason="the weights are not here")
def test_minilm(tmp_path: Path) -> None:
    assert_network(capture(minilm.load(), minilm.example_inputs(1, 32)), tmp_path)
