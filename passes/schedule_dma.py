"""Give every task its place in a queue, every buffer its address, every dependency its semaphore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsecc.backends.scu.machine import Target, scu_v1
from sparsecc.backends.scu.schedule import Schedule, schedule_dma
from sparsecc.backends.scu.task_cycles import task_cycles
from sparsecc.backends.scu.tasks import TaskGraph
from sparsecc.backends.scu.unit_program import UnitProgram
from sparsecc.backends.scu.verify import verify_program
from sparsecc.diagnostics import CompileError, PassBug
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program


@dataclass(frozen=True)
class ScheduleDMA:
    """TaskGraph -> UnitProgram and its Schedule, facts of the Program."""

    name = "schedule-dma"
    effects = Effects()

    def run(self, program: Program) -> Sequence[Note]:
        target, graph = program.fact(Target) or scu_v1(), program.fact(TaskGraph)
        if graph is None:
            raise CompileError.of("SCC083", "schedule-dma finds no tasks", help="run lower-transfers before it")
        unit_program, schedule = schedule_dma(graph, target, lambda task: task_cycles(task, graph, target))
        if findings := list(verify_program(unit_program, target)):
            raise PassBug(self.name, findings)
        program.facts[UnitProgram], program.facts[Schedule] = unit_program, schedule
        gap = schedule.makespan / max(1, schedule.lower_bound) - 1
        return [
            Note(
                "output",
                f"{schedule.makespan} cycles by {schedule.method}, {gap:.1%} above the lower bound of "
                f"{schedule.lower_bound}",
            )
        ]
