"""One fx call as one S-TIR function, by way of TVM's torch front end: for every op that has no kernel of its own.

The front end writes Relax, LegalizeOps turns each of its operators into loops, FuseTIR makes them one function, and the
schedule below keeps its temporaries small and its innermost loops off the sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import fx

from sparsecc.capture import quiet

from . import tile_kernels
from .kernels.script import tvm
from .tile_call import dtype_name

relax: Any = tvm.relax
from_exported_program: Any = import_module("tvm.relax.frontend.torch").from_exported_program
ScheduleError: Any = tvm.s_tir.schedule.ScheduleError
REDUCTION = 2  # IterVar.CommReduce


class Lowered(NamedTuple):
    """A PrimFunc whose parameters are the inputs of these numbers, then the result."""

    function: Any
    inputs: tuple[int, ...]
    reduces: bool  # whether any of its loops is a sum, a maximum or the like


def relax_function(module: fx.GraphModule, inputs: Sequence[torch.Tensor]) -> Lowered:
    """The function that computes ``module``. An input whose values do not matter has no parameter.

    Raises: whatever TVM says of an op or a type that it lacks; ValueError where the result is not of the type that
    torch gives it.
    """
    with quiet():
        exported = torch.export.export(module, tuple(inputs))
    try:
        return _imported(exported, decompose=False)
    except Exception:  # what the front end does not know, or only in part, it may know in smaller pieces
        return _imported(exported, decompose=True)


def _imported(exported: torch.export.ExportedProgram, *, decompose: bool) -> Lowered:
    imported = from_exported_program(
        exported, unwrap_unit_return_tuple=True, custom_convert_map=CONVERTERS, run_ep_decomposition=decompose
    )
    (output,) = exported.graph.find_nodes(op="output")
    expected = output.args[0][0].meta["val"]
    parameters = [p.name for p in imported["main"].params]
    bindings = [binding for block in imported["main"].body.blocks for binding in block.bindings]
    if not any(isinstance(binding.value, relax.Call) for binding in bindings):  # a value that stays as it is
        same = bindings[0].value if bindings else imported["main"].body.body
        copy = tile_kernels.copy(dtype_name(expected.dtype), expected.numel())
        return Lowered(copy, (parameters.index(same.name),), reduces=False)
    fused = relax.transform.FuseTIR()(_as_one_call(relax.transform.LegalizeOps()(imported)))
    call = fused["main"].body.blocks[0].bindings[0].value
    function = fused[call.args[0]]
    used = tuple(parameters.index(argument.name) for argument in call.args[1].fields)
    *_, result = function.params
    found = str(result.dtype), tuple(map(int, result.shape))
    if len(function.params) != len(used) + 1 or found != (dtype_name(expected.dtype), tuple(expected.shape)):
        raise ValueError(f"TVM computes {found[0]} {list(found[1])}, torch {expected.dtype} {list(expected.shape)}")
    return Lowered(*_scheduled(function, used))


def _with_step(start: int, end: int, step: int = 1) -> tuple[int, int, int]:
    return start, end, step


def _arange(node: fx.Node, importer: Any) -> Any:
    bounds: Any = (0, *node.args) if len(node.args) == 1 else node.args
    dtype = dtype_name(node.meta["val"].dtype)
    return importer.block_builder.emit_te(tvm.topi.arange, *_with_step(*bounds), dtype)


def _embedding(node: fx.Node, importer: Any) -> Any:
    table, rows = (importer.env[argument] for argument in node.args[:2])
    return importer.block_builder.emit(relax.op.take(table, rows, axis=0, mode="clip"))


CONVERTERS: Mapping[str, Callable[[fx.Node, Any], Any]] = {
    # the front end makes a constant tensor of it, which FuseTIR refuses
    **{f"arange.{overload}": _arange for overload in ("default", "start", "start_step")},
    # the front end reads whatever lies at an index out of range; here it is the nearest row
    "embedding.default": _embedding,
}


def _as_one_call(module: Any) -> Any:
    """main becomes a primitive function, which FuseTIR makes one of TIR, and a new main calls it."""
    main = module["main"]
    builder = relax.BlockBuilder(tvm.IRModule({n: f for n, f in module.functions.items() if n.name_hint != "main"}))
    inner = builder.add_func(main.without_attr("global_symbol").with_attr("Primitive", True), "fused")
    parameters = [relax.Var(p.name, p.ty) for p in main.params]
    with builder.function("main", parameters):
        with builder.dataflow():
            result = builder.emit_output(builder.emit(relax.Call(inner, parameters)))
        builder.emit_func_output(result)
    return builder.get()


def _scheduled(function: Any, used: tuple[int, ...]) -> tuple[Any, tuple[int, ...], bool]:
    """Element-wise parts inlined; every reduction beside the loop that needs it, innermost an axis of its result."""
    schedule = tvm.s_tir.Schedule(tvm.IRModule({"main": function}))
    root = schedule.get_sblock("root")
    for block in schedule.get_child_blocks(root):
        if not _reductions(schedule, block) and schedule.get_consumers(block):
            try:
                schedule.compute_inline(block)
            except ScheduleError:
                continue  # it writes a result, or is read where it cannot be written out: it keeps its loops
    reducing = [block for block in schedule.get_child_blocks(root) if _reductions(schedule, block)]
    for block in reversed(reducing):
        schedule = _placed(schedule, block)
    return schedule.mod["main"], used, bool(reducing)


def _reductions(schedule: Any, block: Any) -> int:
    return sum(int(axis.iter_type) == REDUCTION for axis in schedule.get(block).iter_vars)


def _placed(schedule: Any, block: Any) -> Any:
    """The schedule with one reduction at its consumer's innermost loop but one that repeats no work, and reordered."""
    count, depth = _reductions(schedule, block), 0
    for outer in range(_deepest(schedule, block), 0, -1):
        trial = schedule.copy()
        consumer_loop = trial.get_loops(trial.get_consumers(block)[-1])[outer - 1]
        try:
            trial.compute_at(block, consumer_loop, preserve_unit_loops=True)
        except ScheduleError:
            continue
        if _iterations(trial, block) == _iterations(schedule, block):
            schedule, depth = trial, outer
            break
    loops = schedule.get_loops(block)
    results, sums = loops[depth:-count], loops[-count:]
    if results and int(schedule.get(results[-1]).extent) > 1:
        schedule.reorder(*sums, results[-1])
    schedule.decompose_reduction(block, sums[0])
    return schedule


def _deepest(schedule: Any, block: Any) -> int:
    consumers = schedule.get_consumers(block)
    return len(schedule.get_loops(consumers[-1])) - 1 if consumers else 0


def _iterations(schedule: Any, block: Any) -> int:
    return math.prod(int(schedule.get(loop).extent) for loop in schedule.get_loops(block))
