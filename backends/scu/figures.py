"""What contracts bring: a program beside dense DMA and lossless zero-compression, scheduled and simulated alike."""

from __future__ import annotations

from collections.abc import Mapping

from sparsecc.contracts.binding import without_contracts
from sparsecc.diagnostics import CompileError
from sparsecc.program import Program
from sparsecc.progress import track
from sparsecc.reference import Array

from .host import Unit, load_kernels, samples
from .machine import Target
from .report_file import BASELINES, Figure, Figures
from .schedule import Schedule
from .simulator import Outcome
from .unit import NO_ROOM, lower_with_code, scheduled


def figures(program: Program, unit: Unit, inputs: Mapping[str, Array]) -> Figures:
    """Simulate the program on the first sample, and the same network sending everything, whole or without zeros.

    What sends everything may need more room than the machine has: a reason for contracts, and no error.
    """
    sample = samples(unit.ports("inputs"), inputs)[0]
    schedule: Schedule = program.facts[Schedule]
    ours, plain = _figure(unit.simulate(sample), schedule), without_contracts(program)
    found = {
        name: _baseline(plain, unit.target, sample, lossless=name == "zero_compression")
        for name in track("simulating the baselines", BASELINES)
    }
    dense, zeros = (figure if isinstance(figure, Figure) else None for figure in found.values())
    return Figures(ours, dense, zeros, {name: why for name, why in found.items() if isinstance(why, str)})


def _baseline(program: Program, target: Target, sample: Mapping[str, Array], *, lossless: bool) -> Figure | str:
    """Its figure, or why the machine has no room for it."""
    graph, code = lower_with_code(program, target, lossless=lossless)
    try:
        made, schedule = scheduled(graph, target, coded=lossless)
    except CompileError as error:
        if any(finding.code not in NO_ROOM for finding in error.diagnostics):
            raise
        return "; ".join(finding.message for finding in error.diagnostics)
    return _figure(Unit(made, target, load_kernels(code)).simulate(sample), schedule)


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
