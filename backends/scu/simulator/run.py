"""Run a program on the simulated unit: its exact effect, and its time, energy and traffic by the machine model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sparsecc.backends.scu.machine import Target
from sparsecc.backends.scu.timing import DMA, span_cycles, stages, units
from sparsecc.backends.scu.unit_program import UnitProgram
from sparsecc.diagnostics import CompileError

from .engine import Engine
from .operations import KernelFunction, Unit
from .report import Outcome, count_events, kernel_of, outcome, unit_cycles, write_registers

MOST_BYTES = 1 << 30
"""What one program may move: more than any network here moves for a sample, and over in minutes."""


def simulate(
    program: UnitProgram,
    target: Target,
    kernels: Mapping[str, KernelFunction],
    load: Mapping[int, bytes],
    read: Sequence[tuple[int, int]],
    timing: bool = True,
) -> Outcome:
    """Run ``program``, which ``check_program`` accepts, until nothing is left to do.

    ``kernels`` are the compute tiles' code by symbol: ``f(src, dst, *operands)`` on uint8 views of the simulated
    memories. ``load`` puts bytes at addresses (not of const) before the start; ``read`` are the (address, bytes) to
    return after the end. A descriptor's effect takes place when it begins, so that what a program without races
    computes does not depend on times; ``timing=False`` leaves out times and energy.

    Raises: CompileError SCC096 to SCC099 for a block that RECV cannot decode, SCC100 for a kernel that is missing or a
    program that moves more than MOST_BYTES, SCC101 for an address, SCC103 for a deadlock or a semaphore that counts too
    far; and what a kernel raises.
    """
    moved_bytes = sum(max(d.dense_bytes, d.run_bytes) for d in program.code)
    if moved_bytes > MOST_BYTES:
        raise CompileError.of(
            "SCC100",
            f"the program moves {moved_bytes} B, and the simulator runs programs of at most {MOST_BYTES} B",
            help="compile for smaller inputs",
        )
    unit = Unit(program, target, kernels, load)
    code = program.code

    def begin(place: int) -> tuple[int, int]:
        d = code[place]
        payload_bytes = unit.run(d)
        if not timing:
            return 0, payload_bytes
        return span_cycles(stages(d, kernel_of(d, program), target, payload_bytes), target), payload_bytes

    taken = [frozenset[str]()] * len(code)
    if timing:
        taken = [frozenset(s.unit for s in stages(d, kernel_of(d, program), target)) - {DMA} for d in code]
    engine = Engine(code, target, begin, lambda place: unit.predicate(code[place]), taken)
    spans = engine.run()
    none = dict.fromkeys(units(target), 0)
    cycles = unit_cycles(spans, program, target) if timing else (none, none)
    write_registers(unit.memories, target, unit.counters, engine.semaphores, cycles)
    outputs = [unit.memories.view(address, size_bytes).tobytes() for address, size_bytes in read]
    counted = count_events(spans, program, target) if timing else Counter[str]()
    return outcome(spans, unit.counters, outputs, cycles, counted, target, unit.averages)
