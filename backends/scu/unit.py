"""What passes ask of the unit: sizes of blocks, tasks of a Program, their schedule. All on the facts of the Program."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence

from torch import fx

from sparsecc.backends.tvm.c_source import TileKernel, c_library_source, tile_kernel, tvm_target
from sparsecc.contracts import keep_elems
from sparsecc.contracts.options import ContractOptions
from sparsecc.contracts.settled import Settlement
from sparsecc.diagnostics import CompileError, PassBug
from sparsecc.pass_manager import Note
from sparsecc.program import Program
from sparsecc.progress import step

from .codecs import FIXED, Codec, Dtype, smallest, worst_case_bytes
from .lower import KernelCode, lower
from .machine import Target, scu_v1
from .schedule import Schedule, schedule_dma
from .task_cycles import task_cycles
from .tasks import TaskGraph
from .tile_code import TileCode
from .unit_program import UnitProgram
from .verify import verify_program


class SCUnit:
    """The Unit of target scu (sparsecc.contracts.units)."""

    def tile_elems(self, program: Program) -> int:
        return target_of(program).selector.tile_elems

    def block_bytes(self, program: Program) -> Callable[[int, int], int]:
        """Header and padding included, of the shortest codec that the target has and the person allows."""
        options = program.fact(ContractOptions) or ContractOptions()
        return functools.partial(_block_bytes, allowed_codecs(target_of(program), options.codecs))

    def lower_transfers(self, program: Program) -> Sequence[Note]:
        target = target_of(program)
        graph, code = lower_with_code(program, target)
        program.facts[TaskGraph], program.facts[TileCode] = graph, code
        counts = Counter(task.op.name for task in graph.tasks)
        did = ", ".join(f"{count} {op}" for op, count in counts.items())
        return [Note("output", f"{len(graph.tasks)} tasks for {target.name}: {did}")]

    def schedule_dma(self, program: Program) -> Sequence[Note]:
        """Raises: CompileError SCC083 without tasks, SCC111 and SCC112 of the scheduler; PassBug if the verifier finds
        anything in what the scheduler made.
        """
        target, graph = target_of(program), program.fact(TaskGraph)
        if graph is None:
            raise CompileError.of("SCC083", "schedule-dma finds no tasks", help="run lower-transfers before it")
        unit_program, schedule = schedule_dma(graph, target, lambda task: task_cycles(task, graph, target))
        if findings := list(verify_program(unit_program, target)):
            raise PassBug("schedule-dma", findings)
        program.facts[UnitProgram], program.facts[Schedule] = unit_program, schedule
        gap = schedule.makespan / max(1, schedule.lower_bound) - 1
        cycles = f"{schedule.makespan} cycles by {schedule.method}"
        return [Note("output", f"{cycles}, {gap:.1%} above the lower bound of {schedule.lower_bound}")]


UNIT = SCUnit()


def target_of(program: Program) -> Target:
    return program.fact(Target) or scu_v1()


def allowed_codecs(target: Target, wanted: Sequence[str]) -> tuple[Codec, ...]:
    """Codecs for payloads of fixed length that the target has; ``wanted`` names some of them, or nothing for all."""
    names = {"raw", *(wanted or target.codecs)}.intersection(target.codecs)
    return tuple(codec for codec in FIXED if codec.name.lower() in names)


def _block_bytes(allowed: Sequence[Codec], elems: int, share_q16: int) -> int:
    k = keep_elems(elems, share_q16)
    return worst_case_bytes(smallest(elems, k, Dtype.FLOAT32, allowed), elems, k, Dtype.FLOAT32)


def lower_with_code(program: Program, target: Target, *, lossless: bool = False) -> tuple[TaskGraph, TileCode]:
    """The tasks of a Program, and the C file of all their kernels."""
    kernels, tvm = dict[str, TileKernel](), tvm_target(target)

    def generate(node: fx.Node) -> KernelCode:
        values = {n: n.meta["val"] for n in (*node.all_input_nodes, node)}
        kernel = tile_kernel(node, values, tvm)
        if kernel.symbol not in kernels:
            kernels[kernel.symbol] = kernel
            step("generating kernels", len(kernels), len(kernels))
        return KernelCode(kernel.symbol, kernel.m, kernel.n, kernel.k, kernel.scratch_bytes)

    options, settlement = program.fact(ContractOptions) or ContractOptions(), program.fact(Settlement)
    maps = settlement.measured if settlement and options.update_maps else None
    graph = lower(program, target, generate, allowed_codecs(target, options.codecs), lossless=lossless, maps=maps)
    return graph, TileCode(c_library_source(kernels.values()), tuple(sorted(kernels)))
