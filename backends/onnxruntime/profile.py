"""Where the time of a compiled model goes: nodes as onnxruntime's profiler sees them, and kernels one by one."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from sparsecc.artifact import KERNELS, MODEL, Artifact
from sparsecc.diagnostics import CompileError
from sparsecc.progress import step
from sparsecc.reference import Array
from sparsecc.regions import row_axes

from .engines import reason, register_kernels, session_options
from .inputs import verify_inputs
from .native import Measured, NativeRegion

PRODUCT_SIZE = 384
"""Rows and columns of the dense product whose speed is called the peak. Of 192 to 1024 it was the fastest on an AMD
EPYC (115 GFLOP/s), and takes a millisecond; on a busy machine longer ones were interrupted each time, and gave half."""
LEAST_COPY_BYTES = 1 << 18
"""A smaller copy would measure the call; kernels of smaller working sets may beat the bandwidth that is found."""
REPEATS = 30
"""Of each copy: the fastest counts."""


@dataclass(frozen=True)
class NodeTime:
    """A region, or all plain operators of one type, per call: the median over runs, on the session's threads."""

    name: str
    nodes: int
    region: bool
    ms: float
    share: float


@dataclass(frozen=True)
class KernelTime:
    """A step of a region on one thread, the median over runs. ``flops`` leave out zeros and padding.

    ``bound_ms``: the longer of its FLOPs at the peak and its bytes at the bandwidth of copying that many. ``gflops``
    and ``peak_share`` are None where there are no weights to multiply with.
    """

    region: str
    step: str
    kernel: str
    ms: float
    share: float
    flops: int
    touched_bytes: int
    gflops: float | None
    peak_share: float | None
    bound_ms: float


@dataclass(frozen=True)
class Profile:
    """``peak_gflops`` is that of one thread. Shares of kernels are of all kernels."""

    threads: int
    runs: int
    peak_gflops: float
    nodes: tuple[NodeTime, ...]
    kernels: tuple[KernelTime, ...]


def profile(
    artifact: Artifact, threads: int = 1, runs: int = 200, inputs: Mapping[str, Array] | None = None
) -> Profile:
    """Time the parts of a call on the sample inputs, or on given ones.

    Raises: CompileError (inputs: SCC070 to SCC072; engines: SCC073, SCC077; SCC127 no kernels, or ones that cannot be
    timed one by one).
    """
    if KERNELS not in artifact.manifest.files:
        raise CompileError.of(
            "SCC127",
            f"{artifact.path} has no {KERNELS}, so there are no kernels to profile",
            help="sparsecc inspect says why every layer stayed dense; bench without --profile measures the whole",
        )
    if inputs is None:
        inputs, _ = artifact.golden()
    verify_inputs(artifact.manifest.inputs, inputs)
    model = onnx.load_model_from_string(artifact.file(MODEL).read_bytes())
    step("measuring nodes", 0, 1)
    try:
        nodes = _node_times(artifact, model, dict(inputs), threads, runs)
        activations = _activations(artifact, model, dict(inputs))
    except CompileError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no base class of their own
        raise CompileError.of(
            "SCC077",
            f"onnxruntime cannot run {artifact.path / MODEL}: {reason(error)}",
            help="the model and this onnxruntime do not fit together; compile the model again with the versions "
            "installed here",
        ) from error
    step("measuring nodes", 1, 1)
    step("measuring kernels", 0, 1)
    measured, peak_flops = _kernel_times(artifact, model, activations, runs)
    step("measuring kernels", 1, 1)
    return Profile(threads, runs, peak_flops / 1e9, nodes, _bounded(measured, peak_flops))


# ---- nodes -----------------------------------------------------------------------------------------------------------


def _node_times(
    artifact: Artifact, model: onnx.ModelProto, feeds: dict[str, Array], threads: int, runs: int
) -> tuple[NodeTime, ...]:
    """onnxruntime's own profile; the first run is left out."""
    options = session_options(threads)
    register_kernels(artifact, options)
    with tempfile.TemporaryDirectory(prefix="sparsecc-profile-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "nodes"))
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for _ in range(runs + 1):
            session.run(None, feeds)
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    ops = {region.op: region.name for region in artifact.manifest.regions}
    times, places = dict[str, list[float]](), dict[str, str]()  # microseconds by node; the row of a node
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            op: str = event["args"]["op_name"]
            times.setdefault(event["name"], []).append(event["dur"])
            places[event["name"]] = ops.get(op, op)
    total, rows = dict[str, float](), dict[str, int]()
    for node, durations in times.items():
        total[places[node]] = total.get(places[node], 0) + statistics.median(durations[1:]) / 1e3
        rows[places[node]] = rows.get(places[node], 0) + 1
    whole = sum(total.values())
    order = sorted(total, key=lambda name: -total[name])
    return tuple(NodeTime(n, rows[n], n in ops.values(), total[n], total[n] / (whole or 1)) for n in order)


def _activations(artifact: Artifact, model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    """Every input and output of a region that is computed, by name: what its kernels are timed on."""
    constants = {tensor.name for tensor in model.graph.initializer}
    wanted = {n for node in _region_nodes(artifact, model) for n in [*node.input, *node.output] if n not in constants}
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    there = {value.name for value in [*model.graph.output, *model.graph.input]}
    float32 = onnx.TensorProto.FLOAT  # what regions compute in
    shown.graph.output.extend(helper.make_tensor_value_info(n, float32, None) for n in sorted(wanted - there))
    options = session_options(1)
    register_kernels(artifact, options)
    session = ort.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return feeds | dict(zip(names, session.run(names, feeds), strict=True))


def _region_nodes(artifact: Artifact, model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes of the regions, in the manifest's order, which is that of kernels.so."""
    nodes = {node.op_type: node for node in model.graph.node}
    return [nodes[region.op] for region in artifact.manifest.regions]


# ---- kernels ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    region: str
    facts: Measured
    seconds: float


def _kernel_times(
    artifact: Artifact, model: onnx.ModelProto, activations: Mapping[str, Array], runs: int
) -> tuple[list[_Step], float]:
    """All regions and the dense product in turn, ``runs`` times after one run that is left out.

    Each step with its median, and the FLOPs per second of the fastest product.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    with ExitStack() as opened:
        calls = list[Callable[[], Sequence[Measured]]]()
        for number, node in enumerate(_region_nodes(artifact, model)):
            region = artifact.manifest.regions[number]
            given = [
                numpy_helper.to_array(constants[n]) if n in constants else np.ascontiguousarray(activations[n])
                for n in node.input
            ]
            free = [array for name, array in zip(node.input, given, strict=True) if name not in constants]
            x = free[0]
            rows = math.prod(x.shape[: row_axes(region.kind, x.ndim)])
            outputs = [np.empty_like(activations[name]) for name in node.output]
            native = opened.enter_context(NativeRegion(artifact.path / KERNELS, number, given))
            calls.append(native.bind(free, outputs, rows).profile)
        product, products_s = dense_product(), list[float]()
        try:
            rounds = list[list[Sequence[Measured]]]()
            for _ in range(runs + 1):
                products_s.append(_seconds(product))
                rounds.append([call() for call in calls])
        except AttributeError as error:
            raise CompileError.of(
                "SCC127",
                f"{artifact.path / KERNELS} was built before kernels could be timed one by one",
                help="compile the model again with this sparsecc",
            ) from error
    steps = [
        _Step(region.name, facts, statistics.median(r[number][i].seconds for r in rounds[1:]))
        for number, region in enumerate(artifact.manifest.regions)
        for i, facts in enumerate(rounds[0][number])
    ]
    return steps, 2 * PRODUCT_SIZE**3 / min(products_s)


def _bounded(steps: Sequence[_Step], peak_flops: float) -> tuple[KernelTime, ...]:
    whole = sum(s.seconds for s in steps)
    speeds = dict[int, float]()
    kernels = list[KernelTime]()
    for s in steps:
        size = max(LEAST_COPY_BYTES, 1 << (s.facts.touched_bytes - 1).bit_length())
        if size not in speeds:
            speeds[size] = bandwidth(size)
        bound_s = max(s.facts.flops / peak_flops, s.facts.touched_bytes / speeds[size])
        flops_per_s = s.facts.flops / max(s.seconds, 1e-9)  # the clock's resolution
        kernels.append(
            KernelTime(
                region=s.region,
                step=s.facts.name.decode(),
                kernel=s.facts.kernel.decode(),
                ms=1e3 * s.seconds,
                share=s.seconds / (whole or 1),
                flops=s.facts.flops,
                touched_bytes=s.facts.touched_bytes,
                gflops=flops_per_s / 1e9 if s.facts.flops else None,
                peak_share=flops_per_s / peak_flops if s.facts.flops else None,
                bound_ms=1e3 * bound_s,
            )
        )
    return tuple(kernels)


# ---- the machine -----------------------------------------------------------------------------------------------------


def dense_product() -> Callable[[], object]:
    """A matrix product in onnxruntime on one thread: 2 * PRODUCT_SIZE**3 FLOPs."""
    w = np.random.default_rng(0).standard_normal((PRODUCT_SIZE, PRODUCT_SIZE), dtype=np.float32)
    value = helper.make_tensor_value_info
    x, y = (value(name, onnx.TensorProto.FLOAT, w.shape) for name in "xy")
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([product], "peak", [x], [y], [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = session_options(1)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": w})


def bandwidth(size_bytes: int) -> float:
    """Bytes read and written per second by a copy that touches this many, on one thread."""
    x = np.ones(size_bytes // 2, np.uint8)
    y = np.zeros_like(x)
    return size_bytes / min(_seconds(lambda: np.copyto(y, x)) for _ in range(REPEATS))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
