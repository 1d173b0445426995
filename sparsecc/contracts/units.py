"""What the passes of contracts need of the unit that carries them out; backends are found by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeGuard

from sparsecc.diagnostics import Diagnostic
from sparsecc.pass_manager import Note
from sparsecc.program import Program
from sparsecc.registry import Registry

from .contract import Contract
from .maps import SensitivityMap
from .negotiation import BlockCost, EdgeLimits
from .options import ContractOptions


class Unit(Protocol):
    """Functions over a Program and its facts; notes say what was done."""

    def verify_options(self, options: ContractOptions) -> None:
        """Raises: CompileError for a target file that cannot be used, or a codec or dtype that the target lacks."""
        ...

    def tile_elems(self, program: Program) -> int:
        """Elements of a tile."""
        ...

    def payload_dtypes(self, program: Program) -> tuple[str, ...]:
        """What float32 may travel as, float32 first."""
        ...

    def block_bytes(self, program: Program) -> BlockCost:
        """Bytes of a block."""
        ...

    def block_cycles(self, program: Program) -> BlockCost:
        """Cycles until a receiver has it."""
        ...

    def makespan(self, program: Program, contracts: Mapping[str, Contract], maps: Mapping[str, SensitivityMap]) -> int:
        """Cycles of the Program's schedule under contracts, found in seconds; the longer search of a compile starts
        from it.
        """
        ...

    def limits(self, program: Program) -> EdgeLimits:
        """What any edge may take of the machine."""
        ...

    def check_contract(self, program: Program, contract: Contract) -> Iterable[Diagnostic]:
        """SCC121 for what the unit cannot carry out."""
        ...

    def lower_transfers(self, program: Program) -> Sequence[Note]: ...
    def schedule_dma(self, program: Program) -> Sequence[Note]: ...


def _is_unit(part: object) -> TypeGuard[Unit]:
    return hasattr(part, "lower_transfers") and hasattr(part, "schedule_dma") and not isinstance(part, type)


UNITS: Registry[Unit] = Registry(
    "unit", "sparsecc.units", {"scu": "sparsecc.backends.scu.unit:UNIT"}, _is_unit, unknown_code="SCC085"
)
