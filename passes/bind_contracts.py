"""Settle what every edge sends, and put it into the graph."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sparsecc.contracts import WHOLE, load_contracts
from sparsecc.contracts.binding import insert_contracts
from sparsecc.contracts.calibration import from_arrays, load
from sparsecc.contracts.early import verify_calibrated, verify_data
from sparsecc.contracts.fills import settle_means
from sparsecc.contracts.given import given, uniform
from sparsecc.contracts.moving import settle_moving
from sparsecc.contracts.options import ContractOptions
from sparsecc.contracts.procedure import Budget, Options, negotiate
from sparsecc.contracts.settled import EdgeRecord, Settled
from sparsecc.contracts.stages import assign_stages, edges
from sparsecc.contracts.units import UNITS, Unit
from sparsecc.diagnostics import CompileError
from sparsecc.invariants import WEIGHTS_CONSTANT, WELL_FORMED
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program
from sparsecc.reference import Array


@dataclass(frozen=True)
class BindContracts:
    """Negotiate contracts on calibration data, and insert ``keep_top`` where they keep less than everything.

    What to do is among the Program's facts (ContractOptions); the outcome becomes one (Settled).
    """

    unit: str = "scu"
    name = "bind-contracts"
    effects = Effects(requires=frozenset({WELL_FORMED, WEIGHTS_CONSTANT}), keeps_meaning=False)

    def verify_options(self, options: ContractOptions) -> None:
        """What is wrong with them for any Program.

        Raises: CompileError, as ``verify_calibrated``, ``Unit.verify_options`` and ``verify_data``.
        """
        verify_calibrated(options)
        UNITS.load(self.unit).verify_options(options)
        verify_data(options)

    def run(self, program: Program) -> Sequence[Note]:
        options, unit = program.fact(ContractOptions) or ContractOptions(), UNITS.load(self.unit)
        settled = settle(program, options, unit)
        program.facts[Settled] = settled
        insert_contracts(program, {c.edge: c for c in settled.contracts}, settled.maps)
        return [Note(record.edge, _outcome(record)) for record in settled.log]


def _outcome(r: EdgeRecord) -> str:
    share = f"{r.settled_q16 / WHOLE:.1%} of {r.elems} elements"
    travels = f" as {r.dtype}" if r.dtype != "float32" else ""
    return f"{share}{travels}, {r.dense_bytes} B -> {r.settled_bytes} B: {r.binding}"


def settle(program: Program, options: ContractOptions, unit: Unit) -> Settled:
    """What every edge sends: as it was given, the same everywhere, or negotiated on calibration data.

    Raises: CompileError (SCC121 given contracts that the unit cannot carry out; as ``verify_calibrated``, ``given``,
    ``uniform``, ``load_contracts``, ``negotiate``, ``settle_means`` and ``settle_moving``).
    """
    if options.settled is not None:
        contracts, maps = load_contracts(options.settled) if isinstance(options.settled, Path) else options.settled
        if found := [finding for contract in contracts for finding in unit.check_contract(program, contract)]:
            raise CompileError(found)
        return given(program, contracts, maps, unit.block_bytes(program), unit.limits(program))
    verify_calibrated(options)
    if options.calibration is not None:
        return _negotiated(program, options.calibration, options.budget, options, unit)
    share_q16 = round(options.budget.value * WHOLE)
    return uniform(program, share_q16, unit.block_bytes(program), unit.limits(program), unit.tile_elems(program))


def _negotiated(
    program: Program, data: Path | Mapping[str, object], budget: Budget, options: ContractOptions, unit: Unit
) -> Settled:
    if isinstance(data, Path):
        calibration = load(data, program)
    else:
        calibration = from_arrays(program, cast("Mapping[str, Array]", data))
    tile_elems = unit.tile_elems(program)
    # maps are renewed from what arrives, as float32
    dtypes = ("float32",) if options.update_maps else unit.payload_dtypes(program)
    dtypes = dtypes[dtypes.index(options.payload_dtype) :]
    measured = Options(
        form=options.form, block=options.map_block, routing=options.routing, dtypes=dtypes, tile_elems=tile_elems
    )
    names = [edge.name for edge in edges(assign_stages(program.graph))]
    limits = dict.fromkeys(names, unit.limits(program))
    costs = unit.block_bytes(program), limits, unit.block_cycles(program)
    makespan = functools.partial(unit.makespan, program)
    settlement = negotiate(program, calibration, budget, *costs, options=measured, makespan=makespan)
    drop = budget.value if budget.kind == "accuracy" else None
    if options.fill == "mean":
        settlement = settle_means(program, settlement, calibration, drop)
    if options.period:
        settlement = settle_moving(program, settlement, calibration, options.period, drop)
    return settlement
