"""Measure how long each way of running a layer takes on this machine; remember it."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import helper, numpy_helper
from torch import fx

import sparsecc
from sparsecc.backends.onnxruntime.library import build_library
from sparsecc.backends.onnxruntime.native import NativeRegion, own_isa
from sparsecc.backends.onnxruntime.timing import interleaved, new_session
from sparsecc.diagnostics import CompileError
from sparsecc.machine import cpu_name, default_tuning_cache, tuning_cache
from sparsecc.passes.choose_formats import Work
from sparsecc.passes.pack_weights import pack
from sparsecc.passes.partition_regions import Group, region_graph
from sparsecc.program import Candidate, Program
from sparsecc.progress import track
from sparsecc.reference import Array, shapes
from sparsecc.regions import Conv2d, Op, Refusal, describe, kinds, row_axes

from .lower import lower
from .plan import RegionPlan

CALL_US = 3.0
"""A custom operator's call in onnxruntime (2-5 us, design page on kernels): a layer outside splits a region in two."""
COPY_BYTES_PER_US = 10e3
"""A copy between the layouts of a region and of onnxruntime: an assumption, not measured."""
SECONDS_PER_LAYER, ROUNDS = 0.08, 3
"""Time to measure all candidates of one kind of layer, and how often, each time after all other layers: the minimum
counts. Neighbours of a virtual machine slow it for a second or two, memory more than arithmetic: with one round, most
of a ResNet-50 with 80 % zeros once stayed dense, where it is 1.7 times as fast sparse."""


@dataclass(frozen=True)
class Task:
    """A layer as measured. Layers that differ only in where their non-zeros are share one: ``key`` tells them apart."""

    key: str
    node: fx.Node
    op: Op
    kernel: str
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]


def measure(program: Program, work: Work) -> dict[fx.Node, list[Candidate]]:
    """Microseconds of every candidate on the example inputs' sizes, from the cache where this machine knows them."""
    sizes = shapes(program)
    tasks = {n: [task(program, n, *item, sizes) for item in kernels.items()] for n, kernels in work.items()}
    path = tuning_cache()
    known = read_cache(path)
    missing = {t.key: t for layer in tasks.values() if any(t.key not in known for t in layer) for t in layer}
    if missing:
        known |= run_tasks(program, list(missing.values()))
        write_cache(path, known)
    return {n: [Candidate(t.kernel, known[t.key], leaving_us(t)) for t in layer] for n, layer in tasks.items()}


def task(program: Program, node: fx.Node, kernel: str, read_elems: int, sizes: Mapping[str, torch.Size]) -> Task:
    op = describe(node)
    assert not isinstance(op, Refusal)  # choose-formats offers no candidates for what a region cannot take
    layer = program.layers[node.name]
    x_shape = tuple(sizes[cast(fx.Node, node.args[0]).name])
    detail = f"{op.kernel} {op.stride} {op.padding} {op.dilation}" if isinstance(op, Conv2d) else "linear"
    density = read_elems / max(layer.elems, 1)
    key = f"{detail} {layer.rows}x{layer.cols} on {x_shape}, {kernel}, {density:.2f} stored, {machine_key()}"
    return Task(key, node, op, kernel, x_shape, tuple(sizes[node.name]))


def machine_key() -> str:
    """With the instruction set, which SPARSECC_ISA may choose."""
    return f"{cpu_name()} ({own_isa()}), sparsecc {sparsecc.__version__}, onnxruntime {ort.__version__}"


# ---- measuring ----------------------------------------------------------------------------------------------------


def run_tasks(program: Program, tasks: Sequence[Task]) -> dict[str, float]:
    """Build every candidate, and run those of the same layer in turn, on one thread: microseconds by key."""
    rng = np.random.default_rng(0)
    groups = dict[tuple[str, tuple[int, ...]], list[Task]]()
    for t in tasks:
        groups.setdefault((t.node.name, t.x_shape), []).append(t)
    regions = {
        t.key: layer_region(program, t, f"Candidate{i}") for i, t in enumerate(tasks) if t.kernel != "onnxruntime"
    }
    times = dict[str, float]()
    with tempfile.TemporaryDirectory(prefix="sparsecc-tune-") as folder, ExitStack() as opened:
        library = Path(folder, "candidates.so")
        build_library([plan for plan, _ in regions.values()], library, isas=(own_isa(),))
        numbers = {key: i for i, key in enumerate(regions)}
        overhead = session_overhead()
        prepared = list[tuple[list[Task], list[Callable[[], object]]]]()
        for group in groups.values():
            x = rng.standard_normal(group[0].x_shape, dtype=np.float32)
            calls = list[Callable[[], object]]()
            for t in group:
                if t.kernel == "onnxruntime":
                    calls.append(_session_call(dense_model(program, t), x))
                    continue
                plan, constants = regions[t.key]
                region = opened.enter_context(NativeRegion(library, numbers[t.key], [None, *constants]))
                rows = math.prod(x.shape[: row_axes(plan.kind, x.ndim)])
                y = np.empty(math.prod(t.y_shape), np.float32)
                calls.append(region.bind([x], [y], rows))
            prepared.append((group, calls))
        for group, calls in track("measuring kernels", prepared * ROUNDS):
            runs = interleaved(calls, seconds=SECONDS_PER_LAYER)
            for t, seconds in zip(group, runs, strict=True):
                around = overhead if t.kernel == "onnxruntime" else 0.0
                times[t.key] = min(times.get(t.key, math.inf), max(1e6 * (min(seconds) - around), 0.1))
    return times


def leaving_us(t: Task) -> float:
    """What leaving a region for onnxruntime's operator costs besides the operator: an estimate."""
    moved_bytes = 4 * (math.prod(t.x_shape) + math.prod(t.y_shape))
    return CALL_US + moved_bytes / COPY_BYTES_PER_US if t.kernel == "onnxruntime" else 0.0


def session_overhead() -> float:
    """Seconds that a session's call takes beyond its nodes: one node twice, less two nodes."""
    x = np.zeros((1, 1), np.float32)
    one = _model(helper.make_node("Neg", ["x"], ["y"]), [], 2)
    two = _model([helper.make_node("Sin", ["x"], ["z"]), helper.make_node("Neg", ["z"], ["y"])], [], 2)
    runs = interleaved([_session_call(one, x), _session_call(two, x)], seconds=SECONDS_PER_LAYER)
    return max(2 * min(runs[0]) - min(runs[1]), 0.0)


def _session_call(model: onnx.ModelProto, x: Array) -> Callable[[], object]:
    session, feeds = new_session(model.SerializeToString(), None), {"x": x}
    return lambda: session.run(None, feeds)


def layer_region(program: Program, t: Task, op_name: str) -> tuple[RegionPlan, list[Array]]:
    """The plan of the layer alone in a region, with its weight in the candidate's format, and its constants."""
    program = program.clone()
    node = next(n for n in program.graph.nodes if n.name == t.node.name)
    if t.kernel != "dense":
        pack(program, node, t.kernel, program.layers[node.name].weight)
    graph, arguments, _ = region_graph(Group(sorted(kinds(node, t.op))[0], (), [node]), {})
    constants = [program.constant(a).numpy() for a in arguments[1:]]
    return lower(fx.GraphModule(torch.nn.Module(), graph), op_name), constants


def dense_model(program: Program, t: Task) -> onnx.ModelProto:
    """A model of the plain operator, as torch's exporter writes it; of a MatMul, onnxruntime makes a Gemm itself."""
    weight_node, bias_node = (t.node.args[1], t.node.args[2] if len(t.node.args) > 2 else None)
    weight = program.constant(cast(fx.Node, weight_node)).numpy()
    bias = program.constant(bias_node).numpy() if isinstance(bias_node, fx.Node) else np.zeros(len(weight), np.float32)
    if isinstance(t.op, Conv2d):
        call = helper.make_node(
            "Conv",
            ["x", "w", "b"],
            ["y"],
            strides=t.op.stride,
            pads=[*t.op.padding, *t.op.padding],
            dilations=t.op.dilation,
        )
        calls = [call]
    elif len(t.x_shape) == 2:
        calls = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)]
    else:
        weight = np.ascontiguousarray(weight.T)
        calls = [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])]
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    return _model(calls, constants, len(t.x_shape))


def _model(
    calls: onnx.NodeProto | list[onnx.NodeProto], constants: list[onnx.TensorProto], rank: int
) -> onnx.ModelProto:
    nodes = calls if isinstance(calls, list) else [calls]
    value = helper.make_tensor_value_info
    x, y = (value(name, onnx.TensorProto.FLOAT, [None] * rank) for name in "xy")
    graph = helper.make_graph(nodes, "layer", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


# ---- cache --------------------------------------------------------------------------------------------------------


TITLE = "sparsecc tuning cache "
FORMAT = TITLE + "3: measured microseconds by kernel, layer and machine"


def read_cache(path: Path) -> dict[str, float]:
    """The times that the file knows; none if there is no file.

    Raises: CompileError (SCC087 the file is something else: it would be overwritten).
    """
    if not path.exists():
        return {}
    try:
        tree: object = json.loads(path.read_bytes())
    except (OSError, ValueError):
        tree = None
    entries = cast("dict[str, object]", tree) if isinstance(tree, dict) else {}
    if (found := entries.pop("format", None)) != FORMAT:
        if path == default_tuning_cache() or str(found).startswith(TITLE):  # ours, of another version
            return {}
        raise CompileError.of(
            "SCC087", f"{path} exists and is not a tuning cache", help="name another file with --tuning-cache"
        )
    return {k: float(v) for k, v in entries.items() if isinstance(v, int | float)}


def write_cache(path: Path, known: Mapping[str, float]) -> None:
    """Replace the file in one step; without a writable cache folder every compile measures again.

    Raises: CompileError (SCC087 a file that the user named cannot be written).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps({"format": FORMAT, **{k: round(v, 3) for k, v in sorted(known.items())}}, indent=1))
        new.replace(path)
    except OSError as error:
        if path != default_tuning_cache():
            raise CompileError.of(
                "SCC087", f"{path} cannot be written: {error.strerror}", help="name another file with --tuning-cache"
            ) from error
