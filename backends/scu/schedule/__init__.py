"""schedule-dma: a TaskGraph gets an order, start times, places in memory and semaphores, and becomes a UnitProgram.

    program, schedule = schedule_dma(graph, target, cycles)
    schedule.makespan / schedule.lower_bound                # how close to the best possible

graph.py says what must be respected, lists.py and windows.py search, bound.py proves how far they can be from the best,
allocate.py finds places, semaphores.py and assemble.py make it a program. verify.py, outside, trusts none of it.
"""

from __future__ import annotations

from collections.abc import Callable

from sparsecc.backends.scu.machine import Target
from sparsecc.backends.scu.tasks import Task, TaskGraph
from sparsecc.backends.scu.unit_program import UnitProgram

from .assemble import assemble
from .graph import ALIGN_BYTES, Problem, Schedule, aligned, problem_of
from .lists import check_fits
from .search import listed, schedule

__all__ = [
    "ALIGN_BYTES",
    "Problem",
    "Schedule",
    "aligned",
    "assemble",
    "check_fits",
    "listed",
    "problem_of",
    "schedule",
    "schedule_dma",
]


def schedule_dma(
    graph: TaskGraph, target: Target, cycles: Callable[[Task], int], seconds: float = 20
) -> tuple[UnitProgram, Schedule]:
    """The program of a task graph, and the schedule that it follows.

    Raises: CompileError SCC111 (memory), SCC112 (semaphores); ValueError for a graph that contradicts itself.
    """
    found = schedule(graph, target, cycles, seconds)
    return assemble(graph, found, target), found
