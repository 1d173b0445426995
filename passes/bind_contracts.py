"""Settle what every edge sends, and put it into the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from sparsecc.contracts import WHOLE, Contract, Key, SensitivityMap, uniform_map
from sparsecc.contracts.binding import insert_contracts
from sparsecc.contracts.calibration import Calibration, from_arrays, load
from sparsecc.contracts.fills import verify_fill, verify_update
from sparsecc.contracts.moving import settle_moving, verify_period
from sparsecc.contracts.options import ContractOptions
from sparsecc.contracts.procedure import Budget, Options, negotiate
from sparsecc.contracts.settled import EdgeRecord, Settlement
from sparsecc.contracts.stages import assign_stages, edges
from sparsecc.contracts.units import UNITS, Unit
from sparsecc.diagnostics import CompileError
from sparsecc.invariants import WEIGHTS_CONSTANT, WELL_FORMED
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program
from sparsecc.reference import Array

ACCURACY_BUDGET = 0.01
BUDGETS: tuple[Literal["bytes", "accuracy", "keep"], ...] = ("bytes", "accuracy", "keep")


@dataclass(frozen=True)
class BindContracts:
    """Negotiate contracts on calibration data, and insert ``keep_top`` where they keep less than everything.

    What to do is among the Program's facts (ContractOptions); the outcome becomes one (Settlement).
    """

    unit: str = "scu"
    name = "bind-contracts"
    effects = Effects(requires=frozenset({WELL_FORMED, WEIGHTS_CONSTANT}), keeps_meaning=False)

    def run(self, program: Program) -> Sequence[Note]:
        options, unit = program.fact(ContractOptions) or ContractOptions(), UNITS.load(self.unit)
        budget = budget_of(options)
        verify_period(options.period, calibrated=options.calibration is not None)
        verify_fill(options.fill, calibrated=options.calibration is not None)
        verify_update(options.update_maps, calibrated=options.calibration is not None)
        if options.settled:
            contracts, maps = options.settled
            insert_contracts(program, contracts, maps)
            return [Note(name, f"{c.share_q16 / WHOLE:.1%} as given") for name, c in contracts.items()]
        if options.calibration is None:
            if budget.kind != "keep":
                raise CompileError.of(
                    "SCC116",
                    "contracts are negotiated on calibration data, and there is none",
                    help="add --calibration calib.npz, samples under the names of the inputs; or --keep 0.5 for the "
                    "same share everywhere",
                )
            contracts, maps = uniform_contracts(program, round(budget.value * WHOLE))
            insert_contracts(program, contracts, maps)
            return [Note(name, f"{budget.value:.1%}, asked for without calibration") for name in contracts]
        settlement = settle(program, options, budget, unit)
        if options.period:
            drop = budget.value if budget.kind == "accuracy" else None
            settlement = settle_moving(program, settlement, samples(program, options), options.period, drop)
        program.facts[Settlement] = settlement
        insert_contracts(program, {c.edge: c for c in settlement.contracts}, settlement.maps)
        return [Note(record.edge, _outcome(record)) for record in settlement.log]


def _outcome(r: EdgeRecord) -> str:
    share = f"{r.settled_q16 / WHOLE:.1%} of {r.elems} elements"
    return f"{share}, {r.dense_bytes} B -> {r.settled_bytes} B: {r.binding}"


def budget_of(options: ContractOptions) -> Budget:
    """Raises: CompileError SCC116 for more than one budget, or one out of range."""
    asked = {"bytes": options.bytes, "accuracy": options.accuracy, "keep": options.keep}
    given = [Budget(kind, value) for kind in BUDGETS if (value := asked[kind]) is not None]
    if len(given) > 1:
        names = ", ".join(budget.kind for budget in given)
        raise CompileError.of("SCC116", f"{len(given)} budgets were given: {names}", help="choose one of them")
    budget = given[0] if given else Budget("accuracy", ACCURACY_BUDGET)
    if not (0 <= budget.value < 1 if budget.kind == "accuracy" else 0 < budget.value <= 1):
        raise CompileError.of(
            "SCC116",
            f"a budget of {budget.kind} cannot be {budget.value:g}",
            help="give a share, such as 0.3 for 30 %",
        )
    return budget


def settle(program: Program, options: ContractOptions, budget: Budget, unit: Unit) -> Settlement:
    """Negotiate on the calibration data; the unit says what a payload takes."""
    calibration = samples(program, options)
    measured = Options(
        form=options.form, block=options.map_block, tile_elems=unit.tile_elems(program), fill=options.fill
    )
    return negotiate(program, calibration, budget, unit.block_bytes(program), options=measured)


def samples(program: Program, options: ContractOptions) -> Calibration:
    data = options.calibration
    assert data is not None
    return load(data, program) if isinstance(data, Path) else from_arrays(program, cast("Mapping[str, Array]", data))


def uniform_contracts(program: Program, share_q16: int) -> tuple[dict[str, Contract], dict[str, SensitivityMap]]:
    """The same share on every edge, by magnitude alone."""
    names = [edge.name for edge in edges(assign_stages(program.graph)) if edge.carries_float32]
    contracts = {name: Contract.fixed(name, Key("float32"), share_q16) for name in names}
    return contracts, dict.fromkeys(names, uniform_map())
