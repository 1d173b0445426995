"""Lay the network out on compute tiles, and its edges on the link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsecc.contracts.units import UNITS
from sparsecc.invariants import WEIGHTS_CONSTANT, WELL_FORMED
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program


@dataclass(frozen=True)
class LowerTransfers:
    """The tasks of the unit, and the code of its compute tiles, become facts of the Program; its graph stays.

    A stage's operations are kernels on one tile; an edge is SENDs of its tiles and RECVs where it is read.
    """

    unit: str = "scu"
    name = "lower-transfers"
    effects = Effects(requires=frozenset({WELL_FORMED, WEIGHTS_CONSTANT}))

    def run(self, program: Program) -> Sequence[Note]:
        return UNITS.load(self.unit).lower_transfers(program)
