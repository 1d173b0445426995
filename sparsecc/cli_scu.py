"""The command line of target scu: parts of `inspect`, `simulate`, and `scu` for single programs.

Commands import what they need when they run, as those of cli.py do.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sparsecc.cli_contracts import unusable
from sparsecc.cli_options import ArtifactPath, Json, Quiet, show
from sparsecc.diagnostics import CompileError

if TYPE_CHECKING:
    from sparsecc.artifact import Artifact
    from sparsecc.backends.scu.machine import Target
    from sparsecc.contracts import SensitivityMap
    from sparsecc.diagnostics import Diagnostic

# ---- inspect ---------------------------------------------------------------------------------------------------------

Part = Literal["contracts", "schedule", "disasm"]
ShowContracts = Annotated[
    bool, typer.Option("--contracts", help="Only what was negotiated on every edge (--target scu).")
]
ShowSchedule = Annotated[bool, typer.Option("--schedule", help="Only how the DMA is scheduled (--target scu).")]
ShowCode = Annotated[
    bool,
    typer.Option(
        "--disasm", help="Only the program as assembly, without the bytes of constants and maps (--target scu)."
    ),
]


def chosen_part(**asked: bool) -> Part | None:
    """Raises: CompileError SCC087 for more than one."""
    parts: tuple[Part, ...] = ("contracts", "schedule", "disasm")
    chosen: list[Part] = [part for part in parts if asked[part]]
    if len(chosen) > 1:
        names = " and ".join(f"--{part}" for part in chosen)
        raise unusable(f"{names} exclude each other", "show one after the other")
    return chosen[0] if chosen else None


def inspect_part(artifact: Artifact, part: Part, *, quiet: bool, as_json: bool) -> None:
    """One part of an artifact with a program, as table or JSON."""
    from sparsecc.backends.scu.asm import disassemble
    from sparsecc.backends.scu.files import PROGRAM, read_program
    from sparsecc.backends.scu.report_file import read_report
    from sparsecc.report import scu_parts

    program, target = read_program(artifact)
    if part == "disasm":
        data = f"# {len(program.constants)} B of .const and {len(program.smap)} B of .smap: see `sparsecc scu disasm`\n"
        text = data + disassemble(replace(program, constants=b"", smap=b""), target)
        if as_json:
            show({"program": str(artifact.path / PROGRAM), "lines": text.splitlines()}, lambda: text, as_json)
        elif not quiet:
            print(text, end="")  # a table would wrap its lines
        return
    report = read_report(artifact)
    if part == "contracts":
        facts = scu_parts.contracts_facts(report, program)
        show(facts, lambda: scu_parts.contracts_tables(facts), as_json, quiet)
    else:
        facts = scu_parts.schedule_facts(report, program, target)
        show(facts, lambda: scu_parts.schedule_tables(facts), as_json, quiet)


# ---- simulate --------------------------------------------------------------------------------------------------------


def simulate(
    artifact: ArtifactPath,
    inputs: Annotated[
        Path | None, typer.Option(metavar="X.npz", help="Arrays under the names of the inputs; else the artifact's.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="TRACE.json", help="Where a trace for Perfetto (ui.perfetto.dev) goes.")
    ] = None,
    maps: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where sensitivity maps go that the program renewed.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run one sample on the simulated unit (--target scu): cycles and their lower bound, bytes, energy, overlap."""
    from sparsecc.arrays import read_arrays
    from sparsecc.artifact import Artifact
    from sparsecc.backends.scu.files import verify_has_program
    from sparsecc.backends.scu.report_file import read_report
    from sparsecc.files import verify_folder, verify_writable, write_file
    from sparsecc.progress import reporting, step
    from sparsecc.report import scu
    from sparsecc.report.progress import shown_on_stderr

    opened = Artifact.open(artifact)
    verify_has_program(opened)
    if trace:
        verify_writable(trace, "--trace")  # before minutes of work
    if maps:
        verify_folder(maps, "--maps")
        _verify_renews_maps(opened)
    report = read_report(opened)
    arrays = read_arrays(inputs, opened.manifest.inputs) if inputs else opened.golden()[0]
    with shown_on_stderr(enabled=not quiet) as shown, reporting(shown):
        from sparsecc.backends.onnxruntime.inputs import verify_inputs
        from sparsecc.backends.scu.host import open_unit, samples
        from sparsecc.backends.scu.simulator import trace_json

        verify_inputs(opened.manifest.inputs, arrays)
        step("compiling the tiles' code", 0, 1)
        unit = open_unit(opened)
        first, *others = samples(unit.ports("inputs"), arrays)
        if inputs and others and not quiet:
            print(f"{inputs} holds {1 + len(others)} samples; the first is simulated", file=sys.stderr)
        step("simulating", 0, 1)
        outcome = unit.simulate(first)
        step("simulating", 1, 1)
        if maps:
            _save_maps(maps, unit.updated_maps(outcome))
        if trace:
            step("writing the trace", 0, 1)
            write_file(trace, trace_json(outcome, unit.program, unit.target).encode(), "--trace")
    facts = scu.simulation_facts(outcome, unit, report, trace)
    show(facts, lambda: scu.simulation(facts), as_json, quiet)


def _verify_renews_maps(artifact: Artifact) -> None:
    """Raises: CompileError SCC124."""
    from sparsecc.backends.scu.files import read_program
    from sparsecc.backends.scu.map_updates import renewed

    if not renewed(read_program(artifact)[0]):
        raise CompileError.of(
            "SCC124",
            f"the program of {artifact.path} renews no maps",
            help="compile the model with --update-maps, or leave out --maps",
        )


def _save_maps(folder: Path, maps: Mapping[str, SensitivityMap]) -> None:
    """One .npz for each edge, by its name. Raises: CompileError SCC075."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CompileError.of(
            "SCC075", f"{folder} cannot be written: {error.strerror}", help="choose another folder"
        ) from error
    for edge, measured in maps.items():
        measured.save(folder / f"{edge}.npz")


# ---- scu asm, disasm, verify -----------------------------------------------------------------------------------------

app = typer.Typer(
    name="scu",
    help="Assemble, disassemble and verify single programs of the Sparse Communication Unit.",
    no_args_is_help=True,
)
ProgramPath = Annotated[
    Path, typer.Argument(metavar="PROGRAM.scu", help="Program, its target.json perhaps beside it; or an artifact.")
]
Machine = Annotated[
    Path | None,
    typer.Option(
        "--target-file", metavar="SCU.toml", help="The machine; else the target.json beside the file, else scu-v1."
    ),
]


@app.command()
def asm(
    source: Annotated[Path, typer.Argument(metavar="PROGRAM.s", help="Assembly, as `sparsecc scu disasm` writes it.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="PROGRAM.scu", help="Where the program goes.")],
    target_file: Machine = None,
) -> None:
    """Assemble a program, and check that the machine can run each descriptor."""
    from sparsecc.backends.scu.asm import assemble
    from sparsecc.backends.scu.container import write
    from sparsecc.files import write_file

    target = _machine(source, target_file)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise CompileError.of(
            "SCC094", f"{source} cannot be read: {why}", help="give a file that `sparsecc scu disasm` wrote"
        ) from error
    write_file(output, write(assemble(text, target, str(source)), target), "-o")


@app.command()
def disasm(
    program: ProgramPath,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="PROGRAM.s", help="Where the text goes; else to stdout.")
    ] = None,
    target_file: Machine = None,
) -> None:
    """Write a program as assembly, which `sparsecc scu asm` turns into the same bytes."""
    from sparsecc.backends.scu.asm import disassemble
    from sparsecc.backends.scu.container import read
    from sparsecc.files import write_file

    target = _machine(program, target_file)
    text = disassemble(read(_bytes(program), target, str(program)), target)
    if output:
        write_file(output, text.encode(), "-o")
    else:
        print(text, end="")


@app.command()
def verify(program: ProgramPath, target_file: Machine = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Prove that a program ends, races nowhere and asks nothing impossible; exit status 2 if there are findings.

    A file that is damaged or no program at all is refused: with --json, that is a finding as well.
    """
    target = _machine(program, target_file)
    try:
        findings = _findings(_bytes(program), target, str(program))
    except CompileError as error:
        if not as_json:
            raise
        findings = error.diagnostics
    facts = {
        "program": str(program),
        "target": target.name,
        "ok": not findings,
        "findings": [{name: asdict(f)[name] for name in ("code", "message", "help")} for f in findings],
    }
    lines = [f"{f.code}  {f.message}" for f in findings] or [f"{program}: nothing to find fault with, on {target.name}"]
    if as_json:
        show(facts, lambda: "", as_json)
    elif not quiet:
        print("\n".join(lines))
    if findings:
        raise typer.Exit(2)


def _findings(data: bytes, target: Target, name: str) -> Sequence[Diagnostic]:
    """What the machine cannot do; else what descriptors do to each other.

    Raises: CompileError SCC090 to SCC093 for data that is no program for this machine.
    """
    from sparsecc.backends.scu.container import read
    from sparsecc.backends.scu.verify import verify_program

    try:
        program = read(data, target, name)
    except CompileError as error:
        if any(finding.code < "SCC100" for finding in error.diagnostics):
            raise
        return error.diagnostics
    return list(verify_program(program, target))


def _machine(program: Path, target_file: Path | None) -> Target:
    """The target that a program is for.

    Raises: CompileError SCC089 for a file that describes none.
    """
    from sparsecc.backends.scu.machine import from_json, load_target, scu_v1

    if target_file:
        return load_target(target_file)
    beside = _file(program).parent / "target.json"
    return from_json(beside.read_bytes(), str(beside)) if beside.is_file() else scu_v1()


def _file(program: Path) -> Path:
    from sparsecc.backends.scu.files import PROGRAM

    return program / PROGRAM if program.is_dir() else program


def _bytes(program: Path) -> bytes:
    try:
        return _file(program).read_bytes()
    except OSError as error:
        raise CompileError.of(
            "SCC090",
            f"{_file(program)} cannot be read: {error.strerror}",
            help="give the scu/program.scu of an artifact, or what `sparsecc scu asm` wrote",
        ) from error
