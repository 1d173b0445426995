"""The files that target scu puts into an artifact, and its program, read without running any of it."""

from __future__ import annotations

from sparsecc.artifact import Artifact
from sparsecc.diagnostics import CompileError

from .container import read
from .machine import Target, from_json
from .unit_program import UnitProgram

PROGRAM, TARGET, KERNELS, REPORT = "scu/program.scu", "scu/target.json", "scu/kernels.c", "scu/report.json"


def has_program(artifact: Artifact) -> bool:
    return PROGRAM in artifact.manifest.files


def verify_has_program(artifact: Artifact) -> None:
    """Raises: CompileError SCC117."""
    if not has_program(artifact):
        raise CompileError.of(
            "SCC117",
            f"{artifact.path} was compiled for target '{artifact.manifest.target}', and holds no program for the SCU",
            help="compile the model with --target scu; `sparsecc compile --help` shows its options",
        )


def read_program(artifact: Artifact) -> tuple[UnitProgram, Target]:
    """The program, and the target that it was made for.

    Raises: CompileError (SCC117 there is none; SCC065 a file is missing; SCC089 target.json; SCC090 to SCC104 the
    program is not what it should be).
    """
    verify_has_program(artifact)
    target = from_json(artifact.file(TARGET).read_bytes(), str(artifact.path / TARGET))
    return read(artifact.file(PROGRAM).read_bytes(), target, str(artifact.path / PROGRAM)), target
