"""``--target scu``: model.onnx for any stock onnxruntime, and a program for the Sparse Communication Unit beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparsecc import manifest, reference
from sparsecc.backend import Build
from sparsecc.backends.onnxruntime.emit import emit
from sparsecc.backends.onnxruntime.timing import new_session
from sparsecc.backends.onnxruntime.torch_reference import load_reference, pack_reference
from sparsecc.contracts.options import ContractOptions
from sparsecc.contracts.settled import WITHIN_ARTIFACT, Settled
from sparsecc.contracts.settled import files as contract_files
from sparsecc.diagnostics import CompileError, Diagnostic, PassBug
from sparsecc.pipelines import TIDY
from sparsecc.program import Program
from sparsecc.progress import step
from sparsecc.reference import Array

from .container import write
from .distance import distance
from .figures import figures
from .files import KERNELS, PROGRAM, REPORT, TARGET
from .host import Unit, load_kernels
from .machine import Target, scu_v1, to_json
from .report_file import SCHEMA, Figures
from .rounding import tolerance
from .schedule import Schedule
from .tile_code import TileCode
from .unit import target_for
from .unit_program import UnitProgram

PASSES = f"{TIDY},bind-contracts,lower-transfers,schedule-dma"


@dataclass(frozen=True)
class SCUTarget:
    """A DMA engine between layers that sends only what a contract keeps; simulated."""

    name = "scu"
    summary = "a simulated Sparse Communication Unit: contracts between layers, scu/program.scu + model.onnx"

    def prepare(self, program: Program, options: ContractOptions) -> None:
        """What the passes of this target need to know.

        Raises: CompileError, as target_for.
        """
        program.facts[ContractOptions], program.facts[Target] = options, target_for(options)

    def pipeline(self, *, tune: bool) -> str:  # noqa: ARG002  nothing is measured on this machine
        return PASSES

    def build(self, program: Program, original: Program, golden: Sequence[Array], *, tune: bool) -> Build:  # noqa: ARG002
        """Emit model.onnx, write the program, and run both on the example inputs.

        Engines must agree with what the contracts mean; how far that is from the original is told, not judged.
        Raises: CompileError SCC083 without a program; PassBug if an engine differs from the Program by more than
        rounding explains.
        """
        target, unit_program = program.fact(Target) or scu_v1(), program.fact(UnitProgram)
        if unit_program is None:
            raise CompileError.of(
                "SCC083",
                "target scu finds no program in what the passes made",
                help=f"let the pipeline end with lower-transfers,schedule-dma; the whole is {PASSES}",
            )
        step("writing ONNX", 0, 1)
        model = emit(program)
        step("writing ONNX", 1, 1)
        code: TileCode = program.facts[TileCode]
        unit = Unit(unit_program, target, load_kernels(code))
        expected = reference.run(program)
        feeds = {n: x.numpy() for n, x in zip(program.input_names, program.example_inputs, strict=True)}
        data, packed = model.SerializeToString(deterministic=True), pack_reference(program, model)
        step("comparing engines", 0, 3)
        outputs: dict[str, Sequence[Array]] = {
            "portable": new_session(data, None).run(None, feeds),
            "reference": [y.numpy() for y in load_reference(packed, model)(program.example_inputs)],
        }
        step("comparing engines", 2, 3)
        outputs["unit"] = unit.run(program.output_names, feeds)
        step("comparing engines", 3, 3)
        changes = map(distance, expected, golden)
        by_output = dict(zip(program.output_names, changes, strict=True))
        errors = {engine: reference.largest_error(found, expected) for engine, found in outputs.items()}
        allowed = tolerance(program, expected, tuple(errors.values()))
        _check_agreement(errors, allowed)
        check = manifest.Check(allowed, kernels=None, original=by_output, **errors)
        files = {
            "model.onnx": data,
            "reference.zip": packed,
            PROGRAM: write(unit_program, target),
            TARGET: to_json(target).encode(),
            KERNELS: code.source.encode(),
            REPORT: _report(program, unit, feeds),
            **_contracts(program),
        }
        return Build(files, program, check, golden=expected)


SCU = SCUTarget()


def _check_agreement(errors: Mapping[str, float], allowed: float) -> None:
    """Raises: PassBug."""
    for engine, error in errors.items():
        if not error <= allowed:
            what = f"the outputs of engine {engine} differ from the contracts' meaning in torch by {error:.2g}"
            raise PassBug("scu target", [Diagnostic("SCC009", f"{what}, and rounding explains {allowed:.2g}")])


def _contracts(program: Program) -> dict[str, bytes]:
    """What `--contracts` and load_contracts take up again; nothing where a pipeline of one's own settles none."""
    settled: Settled | None = program.fact(Settled)
    return {f"{WITHIN_ARTIFACT}/{name}": data for name, data in contract_files(settled).items()} if settled else {}


def _report(program: Program, unit: Unit, feeds: Mapping[str, Array]) -> bytes:
    """report.json: what was negotiated, and what the unit does with it compared to sending everything."""
    settled: Settled | None = program.fact(Settled)
    schedule: Schedule = program.facts[Schedule]
    found: Figures = figures(program, unit, feeds)
    tree = {
        "schema": SCHEMA,
        "settlement": settled.to_tree() if settled else None,
        "schedule": {
            "makespan_cycles": schedule.makespan,
            "lower_bound_cycles": schedule.lower_bound,
            "method": schedule.method,
        },
        "figures": found.to_json(),
    }
    return (json.dumps(tree, indent=1, allow_nan=False) + "\n").encode()
