"""Program -> model.onnx: plain ONNX around regions, each region one node with a portable body."""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import onnx
import torch
from onnx import helper, numpy_helper
from torch import fx, nn

from sparsecc.capture import dynamic_axes, quiet, widen
from sparsecc.contracts.op import KEEP_TOP_INT8, KEEP_TOP_MOVING, KEEP_TOPS, expand
from sparsecc.contracts.op_int8 import QUANTISE
from sparsecc.contracts.portable import GRID_FUNCTIONS, function_name, grid_functions, keep_top_function
from sparsecc.diagnostics import CompileError
from sparsecc.formats import BSR, CSR
from sparsecc.ops import ATTENTION, UNPACK, attend
from sparsecc.program import Program, arguments
from sparsecc.regions import static_sizes

from .plain_attention import attended

OPSET = 20
"""The oldest opset with Gelu as one operator."""
DOMAIN = "sparsecc"
SDPA = torch.ops.aten.scaled_dot_product_attention.default
LINEAR = torch.ops.aten.linear.default
UNPACK_OPS = {op: name for name, op in UNPACK.items()}


@dataclass(frozen=True)
class Region:
    """A region of the Program and the name of its operator in model.onnx, unique to its content."""

    name: str
    op: str
    module: fx.GraphModule


def regions(program: Program) -> list[Region]:
    """The regions in order of their calls; the operator's name carries a digest of the body, so that a foreign
    kernels.so never claims it."""
    found = list[Region]()
    for node in program.graph.find_nodes(op="call_module"):
        module = cast(fx.GraphModule, program.module.get_submodule(str(node.target)))
        shapes = [(n.name, str(n.meta["val"])) for n in module.graph.nodes if "val" in n.meta]
        digest = hashlib.blake2b(f"{module.graph}{shapes}".encode(), digest_size=4).hexdigest()
        found.append(Region(str(node.target), f"Region{len(found)}_{digest}", module))
    return found


def emit(program: Program) -> onnx.ModelProto:
    """The whole model; valid for onnx.checker, and deterministic for equal Programs.

    Raises: CompileError SCC021 if torch's exporter cannot express an operation outside the regions in ONNX.
    """
    ops = {r.name: r.op for r in regions(program)}
    model = export(program.module, program.example_inputs, ops, program.input_names, program.output_names)
    rename_dims(model, program.dims)
    rename_initializers(model)
    functions = [CSR().unpack_function(), BSR(4, 1).unpack_function(), *_contract_functions(program)]
    functions += region_functions(program)
    model.functions.extend(functions)
    used = _used_functions(model)
    del model.functions[:]
    model.functions.extend(f for f in functions if f.name in used)
    if used and DOMAIN not in {o.domain for o in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    _strip(model)
    # Largest first: what onnxruntime copies later then fits into what it has freed. Peak of a dense ResNet-50,
    # at five paths, for fragments depend on these: 321 to 324 MB; in order of use 324 to 327, smallest first likewise.
    model.graph.initializer.sort(key=lambda tensor: -tensor.ByteSize())
    onnx.checker.check_model(model)
    return model


class _Emitter(fx.Interpreter):
    """Runs the Program for torch.export; the regions in ``ops`` and unpacking leave one ONNX node each."""

    ops: Mapping[str, str] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.target is not SDPA:
            return super().run_node(n)
        given: dict[str, Any] = {name: self.env[x] if isinstance(x, fx.Node) else x for name, x in arguments(n).items()}
        q, k = given["query"], given["key"]
        special = given["dropout_p"] or given["is_causal"] or given["enable_gqa"]
        # of open sizes, the exporter cannot trace the products that matmul reshapes to
        if special or q.dtype != torch.float32 or not static_sizes([*q.shape, *k.shape]):
            return super().run_node(n)
        y = attended(q, k, given["value"], given["attn_mask"], given["scale"])
        if n.meta["val"].is_contiguous():
            return y
        return y.transpose(1, 2).contiguous().transpose(1, 2)  # heads side by side, as views that follow want it

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ARG002
        """One node; its outputs have the sizes that the region's graph knows, in terms of the inputs' sizes."""
        region = cast(fx.GraphModule, cast(fx.GraphModule, self.module).get_submodule(str(target)))
        if target not in self.ops:
            return _Emitter(region).run(*args)
        graph = region.graph
        given = zip(graph.find_nodes(op="placeholder"), args, strict=True)
        sizes = {str(s): real for n, x in given for s, real in zip(n.meta["val"].shape, x.shape, strict=True)}
        (output,) = graph.find_nodes(op="output")
        values = [n.meta["val"] for n in output.args[0]]
        return torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{self.ops[str(target)]}",
            args,
            dtypes=[v.dtype for v in values],
            shapes=[[s if isinstance(s, int) else sizes[str(s)] for s in v.shape] for v in values],
            version=1,
        )

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is KEEP_TOP_INT8:
            return expand(lambda op, args: self.call_function(op, args, {}), *args)
        if target in GRID_FUNCTIONS:
            x, scale, zero_point = args
            return torch.onnx.ops.symbolic(
                f"{DOMAIN}::{GRID_FUNCTIONS[target]}",
                (x,),
                {"scale": scale, "zero_point": zero_point},
                dtype=torch.int8 if target is QUANTISE else torch.float32,
                shape=x.shape,
                version=1,
            )
        if target in KEEP_TOPS:
            x, sensitivity, fill, *numbers = args
            return torch.onnx.ops.symbolic(
                f"{DOMAIN}::{function_name(_dtype_name(x), moving=target is KEEP_TOP_MOVING)}",
                (x, sensitivity, fill),
                dict(zip(KEEP_TOPS[target], map(int, numbers), strict=True)),
                dtype=x.dtype,
                shape=x.shape,
                version=1,
            )
        if target is ATTENTION:
            return attend(*args)
        if target is LINEAR and args[0].ndim > 2 and static_sizes(args[0].shape):
            # A Gemm, whose Reshapes join those beside it; of a MatMul, onnxruntime makes one with Reshapes of its own.
            x, *rest = args
            return super().call_function(target, (x.flatten(0, -2), *rest), kwargs).unflatten(0, x.shape[:-1])
        if target not in UNPACK_OPS:
            return super().call_function(target, args, kwargs)
        *arrays, rows, cols = args
        attrs = {"rows": rows, "cols": cols}
        if arrays[0].dim() == 3:
            attrs |= {"block_rows": arrays[0].shape[1], "block_cols": arrays[0].shape[2]}
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{UNPACK_OPS[target]}", arrays, attrs, dtype=arrays[0].dtype, shape=(rows, cols), version=1
        )


class _Traceable(nn.Module):
    def __init__(self, module: fx.GraphModule, ops: Mapping[str, str]) -> None:
        super().__init__()
        self.module, self.ops = module, ops

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        emitter = _Emitter(self.module)
        emitter.ops = self.ops
        return cast("tuple[torch.Tensor, ...]", emitter.run(*inputs))


def export(
    module: fx.GraphModule,
    inputs: Sequence[torch.Tensor],
    ops: Mapping[str, str],
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> onnx.ModelProto:
    """Trace the graph and let torch's exporter write plain ONNX; sizes that are symbols stay dynamic."""
    dynamic = dynamic_axes(module)
    widened = [widen(x, axes) for x, axes in zip(inputs, dynamic, strict=True)]
    try:
        with quiet(), torch.no_grad():
            exported = torch.export.export(
                _Traceable(module, ops), tuple(widened), dynamic_shapes=(tuple(dynamic),), strict=False
            )
            program = torch.onnx.export(
                exported,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(input_names),
                output_names=list(output_names),
                verbose=False,
            )
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__:  # the exporter wraps what matters in general advice
            cause = cause.__cause__
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise CompileError.of(
            "SCC021",
            f"torch's ONNX exporter cannot write this model: {reason}",
            help="torch.onnx.export(model, inputs, dynamo=True) alone shows the whole story",
        ) from error
    assert program is not None
    return program.model_proto


# ---- functions ----------------------------------------------------------------------------------------------------


def _contract_functions(program: Program) -> list[onnx.FunctionProto]:
    """Of all dtypes that travel, perhaps more than are called."""
    calls = [node for node in program.graph.nodes if node.target in KEEP_TOPS]
    dtypes = sorted({_dtype_name(call.args[2].meta["val"]) for call in calls})
    keep_tops = [keep_top_function(dtype, moving=moving) for dtype in dtypes for moving in (False, True)]
    return [*keep_tops, *grid_functions()]


def _dtype_name(x: torch.Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def region_functions(program: Program) -> list[onnx.FunctionProto]:
    """The regions' bodies in standard operators, taking the same packed arrays as the kernels do.

    One export for all of them side by side (each call of the exporter costs a second), cut apart afterwards.
    """
    found = regions(program)
    if not found:
        return []
    graph, inputs = fx.Graph(), _region_inputs(program)
    outputs, groups = list[fx.Node](), list[tuple[list[str], list[str]]]()
    for region in found:
        placeholders = list[fx.Node]()
        for i, n in enumerate(region.module.graph.find_nodes(op="placeholder")):
            placeholders.append(graph.placeholder(f"{region.name}_{n.name if n.meta['constant'] else f'in_{i}'}"))
            placeholders[-1].meta = dict(n.meta)
        call = graph.call_module(region.name, tuple(placeholders))
        (output,) = region.module.graph.find_nodes(op="output")
        results = [graph.call_function(operator.getitem, (call, i)) for i in range(len(output.args[0]))]
        outputs += results
        groups.append(([n.name for n in placeholders], [f"{region.name}_out_{i}" for i in range(len(results))]))
    graph.output(tuple(outputs))
    input_names, output_names = ([name for group in groups for name in group[end]] for end in (0, 1))
    arguments = [x for region in found for x in inputs[region.name]]
    body = export(fx.GraphModule(program.module, graph), arguments, {}, input_names, output_names)
    _strip(body)
    return [_function(r.op, body.graph, *ends) for r, ends in zip(found, groups, strict=True)]


def _function(name: str, graph: onnx.GraphProto, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.FunctionProto:
    """The part of the graph that computes ``outputs``, its initializers as constants."""
    constants = {t.name: helper.make_node("Constant", [], [t.name], value=_unnamed(t)) for t in graph.initializer}
    wanted, nodes = set(outputs), list[onnx.NodeProto]()
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            nodes.append(node)
            wanted.update(node.input)
    nodes += [node for t, node in constants.items() if t in wanted]
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_function(DOMAIN, name, inputs, outputs, nodes[::-1], imports)


def _unnamed(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor))


def _region_inputs(program: Program) -> dict[str, list[torch.Tensor]]:
    """What each region is called with when the Program runs on its example inputs."""
    seen = dict[str, list[torch.Tensor]]()

    class Listener(fx.Interpreter):
        def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            seen[str(target)] = [x.clone() for x in args]
            return super().call_module(target, args, kwargs)

    with torch.no_grad():
        Listener(program.module).run(*program.example_inputs)
    return seen


def _used_functions(model: onnx.ModelProto) -> set[str]:
    bodies = {f.name: f.node for f in model.functions}
    used, stack = set[str](), [n.op_type for n in _all_nodes(model.graph) if n.domain == DOMAIN]
    while stack:
        name = stack.pop()
        if name not in used:
            used.add(name)
            stack.extend(n.op_type for n in bodies[name] if n.domain == DOMAIN)
    return used


def _all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    inner = [a.g for n in graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [*graph.node, *(n for g in inner for n in _all_nodes(g))]


# ---- names --------------------------------------------------------------------------------------------------------


def rename_dims(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Give dynamic axes the names the user knows: the exporter's symbols come in the order of the inputs."""
    dims = [dim for value in model.graph.input for dim in value.type.tensor_type.shape.dim]
    found = dict.fromkeys(dim.dim_param for dim in dims if dim.dim_param)
    symbols = dict(zip(found, names.values(), strict=False))
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, symbols)) + r")\b") if symbols else None
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and pattern:
                dim.dim_param = pattern.sub(lambda m: symbols[m[1]], dim.dim_param)


def rename_initializers(model: onnx.ModelProto) -> None:
    """Call constants as the user's module does: the tracing wrapper put its own name in front."""
    names = {t.name: t.name.removeprefix("module.") for t in model.graph.initializer}
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]
    for node in _all_nodes(model.graph):
        node.input[:] = [names.get(name, name) for name in node.input]


def _strip(model: onnx.ModelProto) -> None:
    """Drop what names this machine or changes from run to run: stack traces, producer metadata."""
    model.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for node in _all_nodes(model.graph):
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]
