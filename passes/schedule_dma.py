"""Give every task its place in a queue, every buffer its address, every dependency its semaphore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsecc.contracts.units import UNITS
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program


@dataclass(frozen=True)
class ScheduleDMA:
    """The tasks that lower-transfers left become a program, a fact of the Program."""

    unit: str = "scu"
    name = "schedule-dma"
    effects = Effects()

    def run(self, program: Program) -> Sequence[Note]:
        return UNITS.load(self.unit).schedule_dma(program)
