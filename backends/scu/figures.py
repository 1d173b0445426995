"""What contracts bring: a program beside dense DMA and lossless zero-compression, scheduled and simulated alike."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from sparsecc.contracts.binding import without_contracts
from sparsecc.program import Program
from sparsecc.progress import track
from sparsecc.reference import Array

from .host import Unit, first_sample, load_kernels
from .report_file import Figure, Figures
from .schedule import Schedule, schedule_dma
from .simulator import Outcome
from .task_cycles import task_cycles
from .unit import lower_with_code


def figures(program: Program, unit: Unit, inputs: Mapping[str, Array]) -> Figures:
    """Simulate the program on the first sample, and the same network sending everything, whole or without zeros."""
    sample = first_sample(unit.ports("inputs"), inputs)
    schedule: Schedule = program.facts[Schedule]
    found = {"contracts": _figure(unit.simulate(sample), schedule)}
    plain = without_contracts(program)
    for name in track("simulating the baselines", ["dense", "zero_compression"]):
        graph, code = lower_with_code(plain, unit.target, lossless=name == "zero_compression")
        cycles = functools.partial(task_cycles, graph=graph, target=unit.target)
        other, its_schedule = schedule_dma(graph, unit.target, cycles)
        outcome = Unit(other, unit.target, load_kernels(code)).simulate(sample)
        found[name] = _figure(outcome, its_schedule)
    return Figures(**found)


def _figure(outcome: Outcome, schedule: Schedule) -> Figure:
    return Figure(
        link_bytes=outcome.link_bytes,
        dram_bytes=outcome.dram_bytes,
        descriptor_bytes=outcome.descriptor_bytes,
        cycles=outcome.cycles,
        lower_bound_cycles=schedule.lower_bound,
        energy_pj=outcome.total_pj,
        energy_by_component_pj=dict(outcome.energy_pj),
        overlap=outcome.overlap,
        compute_share=outcome.compute_share,
    )
