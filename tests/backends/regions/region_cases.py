"""Regions made from torch modules: exported, their weights packed, built, and run in both ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from guard_pages import guarded
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from sparsecc.backends.onnxruntime.library import build_library
from sparsecc.backends.onnxruntime.native import NativeRegion
from sparsecc.backends.tvm.kernels.spec import Isa
from sparsecc.backends.tvm.lower import lower
from sparsecc.backends.tvm.plan import InputDim, RegionPlan
from sparsecc.formats import Format, parse_format
from sparsecc.regions import row_axes

Array = npt.NDArray[Any]
UNPACK = {"csr": torch.ops.sparsecc.unpack_csr.default, "bsr": torch.ops.sparsecc.unpack_bsr.default}
LAYERS = (torch.ops.aten.linear.default, torch.ops.aten.conv2d.default)
TOLERANCE = 1e-5  # of the largest output: sums of float32 in another order, GELU by polynomials


@dataclass(frozen=True)
class RegionCase:
    """A region's graph, and the value of every constant placeholder in their order."""

    module: nn.Module
    region: fx.GraphModule
    constants: tuple[Array, ...]

    def expected(self, *activations: Array) -> list[Array]:
        with torch.no_grad():
            results = cast("Tensor | tuple[Tensor, ...]", self.module(*map(torch.tensor, activations)))
        return [np.asarray(r) for r in ((results,) if isinstance(results, Tensor) else results)]


def prune(module: nn.Module, density: float, seed: int = 0) -> nn.Module:
    """Random weights, and all but a share of them zero."""
    torch.default_generator.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / math.sqrt(max(1, parameter[0].numel())))
            if parameter.dim() > 1:
                parameter.mul_(torch.rand_like(parameter) < density)
    return module.eval()


def region_case(
    module: nn.Module,
    examples: Sequence[Tensor],
    formats: Callable[[str], str] = lambda _: "csr",
    dynamic_axes: int = 1,
) -> RegionCase:
    """Export with the leading axes dynamic; ``formats`` names the format of each layer's weight ("dense" keeps it)."""
    shapes = tuple(dict.fromkeys(range(dynamic_axes), torch.export.Dim.DYNAMIC) for _ in examples)
    program = torch.export.export(module, tuple(examples), dynamic_shapes=shapes)
    signature = program.graph_signature
    sources = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    tensors = {name: program.state_dict[source].detach().numpy() for name, source in sources.items()}
    graph, copies, constants = fx.Graph(), dict[fx.Node, fx.Node](), list[Array]()

    def constant(name: str, value: Array) -> fx.Node:
        node = graph.placeholder(name)
        node.meta = {"val": torch.tensor(value), "constant": True}
        constants.append(value)
        return node

    def packed(weight: fx.Node, storage: Format) -> fx.Node:
        dense = tensors[weight.name]
        arrays = storage.pack(np.ascontiguousarray(dense.reshape(dense.shape[0], -1))).arrays
        nodes = [constant(f"{weight.name}_{name}", array) for name, array in arrays.items()]
        rows, cols = dense.shape[0], math.prod(dense.shape[1:])
        unpacked = graph.call_function(UNPACK[storage.name[:3]], (*nodes, rows, cols))
        unpacked.meta["val"] = torch.empty(rows, cols, device="meta")
        if dense.ndim == 2:
            return unpacked
        shaped = graph.call_function(torch.ops.aten.reshape.default, (unpacked, list(dense.shape)))
        shaped.meta["val"] = torch.empty(dense.shape, device="meta")
        return shaped

    layers = {n.args[1]: n.name for n in program.graph.nodes if n.target in LAYERS}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name not in sources:
            copies[node] = graph.node_copy(node)
    for node in program.graph.nodes:
        if node.name in sources and node.users:
            format_name = formats(layers[node]) if node in layers else "dense"
            plain = format_name == "dense"
            copies[node] = constant(node.name, tensors[node.name]) if plain else packed(node, parse_format(format_name))
    for node in program.graph.nodes:
        if node.op == "call_function":
            whole_batch = node.target is torch.ops.aten.slice.Tensor and node.args[1] == 0  # as x[:, 1:] writes it
            copies[node] = copies[node.all_input_nodes[0]] if whole_batch else graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[n] for n in cast("tuple[fx.Node, ...]", program.graph.output_node().args[0])))
    _placeholders_first(graph)
    return RegionCase(module, fx.GraphModule(nn.Module(), graph), tuple(constants))


def _placeholders_first(graph: fx.Graph) -> None:
    first = next(n for n in graph.nodes if n.op != "placeholder")
    for node in [n for n in graph.nodes if n.op == "placeholder"]:
        first.prepend(node)


# ---- running -------------------------------------------------------------------------------------------------------


def run_native(
    case: RegionCase,
    plan: RegionPlan,
    library: Path,
    activations: Sequence[Array],
    isa: Isa,
    number: int = 0,
    pool: int | None = None,
) -> list[Array]:
    """Through ctypes, into outputs that were NaN before. One element too far, in any tensor, is a segfault."""
    sizes = [tuple(_size(d, activations) for d in output.shape) for output in plan.outputs]
    outputs = [guarded(np.full(size, np.nan, np.float32)) for size in sizes]
    rows = math.prod(activations[0].shape[: row_axes(plan.kind, activations[0].ndim)])
    with NativeRegion(library, number, [*[None] * len(activations), *map(guarded, case.constants)], isa) as region:
        region.bind([guarded(a) for a in activations], outputs, rows, pool)()
    return [output.copy() for output in outputs]


def _size(dim: int | InputDim, activations: Sequence[Array]) -> int:
    return dim if isinstance(dim, int) else activations[dim.input].shape[dim.axis]


def onnx_model(case: RegionCase, plan: RegionPlan) -> onnx.ModelProto:
    """A model of one node: the region."""
    given = [i for i in plan.inputs if not i.constant]
    names = [i.name for i in plan.inputs]
    inputs = [helper.make_tensor_value_info(i.name, TensorProto.FLOAT, None) for i in given]
    outputs = [helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, None) for n in range(len(plan.outputs))]
    node = helper.make_node(plan.op_name, names, [o.name for o in outputs], domain="sparsecc")
    initializers = [numpy_helper.from_array(a, n) for a, n in zip(case.constants, names[len(given) :], strict=True)]
    graph = helper.make_graph([node], "region", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("sparsecc", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def session(model: onnx.ModelProto, library: Path, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library))
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_onnxruntime(session: ort.InferenceSession, activations: Sequence[Array]) -> list[Array]:
    names = [i.name for i in session.get_inputs()]
    return session.run(None, dict(zip(names, activations, strict=True)))


def assert_close(found: Sequence[Array], expected: Sequence[Array]) -> None:
    assert [f.shape for f in found] == [e.shape for e in expected]
    for f, e in zip(found, expected, strict=True):
        assert not np.isnan(f).any(), "left unwritten"
        scale = float(np.abs(e).max()) if e.size else 1.0
        np.testing.assert_allclose(f, e, rtol=0, atol=TOLERANCE * max(scale, 1e-3))


# ---- many regions in one library -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Built:
    """Cases by name, each with its plan, and the library that holds them in this order."""

    cases: dict[str, RegionCase]
    plans: dict[str, RegionPlan]
    library: Path

    def check(self, name: str, isa: Isa, activations: Sequence[Array]) -> None:
        case, plan = self.cases[name], self.plans[name]
        found = run_native(case, plan, self.library, activations, isa, list(self.cases).index(name))
        assert_close(found, case.expected(*activations))

    def session(self, name: str, threads: int = 1) -> Any:
        return session(onnx_model(self.cases[name], self.plans[name]), self.library, threads)


def build_cases(cases: dict[str, RegionCase], folder: Path) -> Built:
    plans = {name: lower(case.region, f"Region_{n}") for n, (name, case) in enumerate(cases.items())}
    build_library(list(plans.values()), folder / "kernels.so")
    return Built(cases, plans, folder / "kernels.so")


def runnable_isas() -> list[Isa]:
    """The instruction sets of this CPU; every machine that runs these tests has AVX2."""
    flags = Path("/proc/cpuinfo").read_text()
    return ["avx2", "avx512"] if "avx512vl" in flags and "avx512bw" in flags else ["avx2"]


def random_array(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
