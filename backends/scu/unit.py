"""What passes ask of the unit: sizes of blocks, tasks of a Program, their schedule. All on the facts of the Program."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from torch import fx

from sparsecc.backends.tvm.c_source import TileKernel, c_library_source, tile_kernel, tvm_target
from sparsecc.contracts import Contract, EdgeLimits
from sparsecc.contracts.binding import insert_contracts
from sparsecc.contracts.maps import SensitivityMap
from sparsecc.contracts.negotiation import BlockCost
from sparsecc.contracts.options import ContractOptions
from sparsecc.contracts.settled import Settled, Settlement
from sparsecc.diagnostics import CompileError, Diagnostic, PassBug
from sparsecc.pass_manager import Note
from sparsecc.program import Program
from sparsecc.progress import reporting, step

from .block_costs import block_bytes, block_cycles
from .codecs import FIXED, Codec
from .coded_constants import code_constants
from .descriptor import Op
from .lower import KernelCode, lower
from .machine import Target, load_target, scu_v1
from .schedule import Schedule, schedule, schedule_dma
from .schedule.graph import lines_bytes
from .task_cycles import task_cycles
from .tasks import TaskGraph
from .tile_code import TileCode
from .unit_program import UnitProgram
from .verify import verify_program

NO_ROOM = ("SCC111", "SCC112")
"""Codes of what the scheduler raises for a machine with too few bytes or semaphores."""


def target_for(options: ContractOptions) -> Target:
    """The machine that contracts are made for.

    Raises: CompileError (SCC089 a target file that cannot be used; SCC120 a codec or dtype that the target lacks).
    """
    target = load_target(options.target_file) if options.target_file else scu_v1()
    if unknown := [codec for codec in ("raw", *options.codecs) if codec not in target.codecs]:
        raise CompileError.of(
            "SCC120",
            f"{target.name} has no codec '{unknown[0]}', only {', '.join(target.codecs) or 'none'}",
            help="allow other codecs, or add it to `codecs` in the target file; raw is always needed",
        )
    if options.payload_dtype not in payload_dtypes(target):
        raise CompileError.of(
            "SCC120",
            f"{target.name} cannot send {options.payload_dtype}: its `dtypes` or its register key_base are missing",
            help="leave out --payload-dtype, or give the target file both",
        )
    return target


def payload_dtypes(target: Target) -> tuple[str, ...]:
    """What float32 may travel as: of int8 the zero point is in a register, and every edge has its own."""
    ranked = "int8" in target.dtypes and "key_base" in target.register
    return ("float32", "int8") if ranked else ("float32",)


class SCUnit:
    """The Unit of target scu (sparsecc.contracts.units)."""

    def verify_options(self, options: ContractOptions) -> None:
        target_for(options)

    def tile_elems(self, program: Program) -> int:
        return target_of(program).selector.tile_elems

    def payload_dtypes(self, program: Program) -> tuple[str, ...]:
        return payload_dtypes(target_of(program))

    def block_bytes(self, program: Program) -> BlockCost:
        return functools.partial(block_bytes, codecs_of(program))

    def block_cycles(self, program: Program) -> BlockCost:
        return functools.cache(functools.partial(block_cycles, target_of(program), codecs_of(program)))

    def makespan(self, program: Program, contracts: Mapping[str, Contract], maps: Mapping[str, SensitivityMap]) -> int:
        """Without windows, and without constants as blocks: either makes it shorter, as long as buffers find places."""
        target, bound = target_of(program), program.clone()
        insert_contracts(bound, contracts, maps)
        with reporting(None):
            graph, _ = lower_with_code(bound, target)
        return schedule(graph, target, functools.partial(task_cycles, graph=graph, target=target), seconds=0).makespan

    def limits(self, program: Program) -> EdgeLimits:
        """Blocks pass through the link's buffer one after the other: a share decides whether one fits, or spills."""
        return EdgeLimits(max_block_bytes=lines_bytes(target_of(program).the("link")))

    def check_contract(self, program: Program, contract: Contract) -> Iterator[Diagnostic]:
        target, key = target_of(program), contract.key
        most = target.selector.tile_elems
        mistakes = {
            f"has tiles of {contract.tile_elems} elements, and {target.name} takes {most}": contract.tile_elems > most,
            f"travels as {key.dtype}, which {target.name} cannot rank (it needs the dtype and register key_base)": (
                key.dtype not in payload_dtypes(target)
            ),
            f"has keys of base {key.base} and shift {key.shift}, and only 0 can be compiled": key.base or key.shift,
        }
        for mistake in (text for text, made in mistakes.items() if made):
            yield Diagnostic(
                "SCC121",
                f"the contract on {contract.edge} {mistake}",
                help="give contracts that were settled for this target",
            )

    def lower_transfers(self, program: Program) -> Sequence[Note]:
        target = target_of(program)
        graph, code = lower_with_code(program, target)
        program.facts[TaskGraph], program.facts[TileCode] = graph, code
        counts = Counter(task.op.name for task in graph.tasks)
        did = ", ".join(f"{count} {op}" for op, count in counts.items())
        return [Note("output", f"{len(graph.tasks)} tasks for {target.name}: {did}"), *_spills(graph, target)]

    def schedule_dma(self, program: Program) -> Sequence[Note]:
        """Raises: CompileError SCC083 without tasks, SCC111 and SCC112 of the scheduler; PassBug if the verifier finds
        anything in what the scheduler made.
        """
        target, graph = target_of(program), program.fact(TaskGraph)
        if graph is None:
            raise CompileError.of("SCC083", "schedule-dma finds no tasks", help="run lower-transfers before it")
        unit_program, schedule = scheduled(graph, target, coded=True)
        if findings := list(verify_program(unit_program, target)):
            raise PassBug("schedule-dma", findings)
        program.facts[UnitProgram], program.facts[Schedule] = unit_program, schedule
        gap = schedule.makespan / max(1, schedule.lower_bound) - 1
        cycles = f"{schedule.makespan} cycles by {schedule.method}"
        return [Note("output", f"{cycles}, {gap:.1%} above the lower bound of {schedule.lower_bound}")]


UNIT = SCUnit()


def target_of(program: Program) -> Target:
    return program.fact(Target) or scu_v1()


def codecs_of(program: Program) -> tuple[Codec, ...]:
    """Codecs for payloads of fixed length that the target has and the person allows; RAW always."""
    wanted = (program.fact(ContractOptions) or ContractOptions()).codecs
    names = {"raw", *(wanted or target_of(program).codecs)}
    return tuple(codec for codec in FIXED if codec.name.lower() in names)


def _spills(graph: TaskGraph, target: Target) -> Iterator[Note]:
    """A note per edge whose blocks go through DRAM."""
    link = target.the("link")
    sends = [(task.edge, graph.buffers[task.dst.buffer]) for task in graph.tasks if task.op == Op.SEND and task.dst]
    for edge in dict.fromkeys(edge for edge, blocks in sends if target.memory[blocks.memory] != link):
        yield Note(edge, f"its blocks go through DRAM: the link's buffer holds {link.bytes} B, too few for one")


def scheduled(graph: TaskGraph, target: Target, *, coded: bool) -> tuple[UnitProgram, Schedule]:
    """The program of a task graph; ``coded``: constants that pay for it travel as blocks.

    Raises: CompileError SCC111 and SCC112 of the scheduler.
    """
    if coded:
        blocks = code_constants(graph, target)
        try:
            return schedule_dma(blocks, target, functools.partial(task_cycles, graph=blocks, target=target))
        except CompileError as error:
            if any(finding.code not in NO_ROOM for finding in error.diagnostics):
                raise  # else it may have room without blocks
    return schedule_dma(graph, target, functools.partial(task_cycles, graph=graph, target=target))


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

    options, settled = program.fact(ContractOptions) or ContractOptions(), program.fact(Settled)
    maps = settled.measured if options.update_maps and isinstance(settled, Settlement) else None
    graph = lower(program, target, generate, codecs_of(program), lossless=lossless, maps=maps)
    return graph, TileCode(c_library_source(kernels.values()), tuple(sorted(kernels)))
