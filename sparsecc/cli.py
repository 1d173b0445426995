"""The command line. Results go to stdout, the rest to stderr; exit status 0 done, 1 not equal or a bug, 2 refused.

Commands import what they need when they run: `sparsecc --help` waits for neither torch nor TVM.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from sparsecc import cli_contracts, cli_scu
from sparsecc.cli_contracts import unusable
from sparsecc.cli_options import ArtifactPath, Json, Quiet, Threads, example_inputs, parse_axes, show
from sparsecc.diagnostics import CompileError
from sparsecc.registry import suggest

app = typer.Typer(
    name="sparsecc",
    help="Compile pruned PyTorch models into smaller, faster ones for stock onnxruntime.",
    epilog="New here? `sparsecc demo` compiles a trained, pruned network and shows what came out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_scu.app)


def main() -> NoReturn:
    """Run the command line; what is wrong with the user's input is told without a traceback."""
    try:
        app()
    except CompileError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        import sparsecc

        print(f"sparsecc {sparsecc.__version__}")
        raise typer.Exit


@app.command()
def compile(  # noqa: A001  the command's name
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Model file: a torch.export archive, or a state dict with --model.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Artifact to write; MODEL.sparsecc if absent.")
    ] = None,
    target: Annotated[str, typer.Option(help="What to compile for; `sparsecc targets` lists them.")] = "cpu",
    dynamic: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Axes of any size: batch, or batch,sequence, or NAME=AXIS.")
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option(help="Prune this share of each layer first, by magnitude, without retraining.")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune/--no-tune", help="Measure candidates; otherwise a cost model decides.")
    ] = True,
    factory: Annotated[
        str | None,
        typer.Option("--model", metavar="MODULE:FUNC", help="Builds the module of a state dict."),
    ] = None,
    inputs: Annotated[Path | None, typer.Option(metavar="X.npz", help="Example inputs, if MODEL has none.")] = None,
    allow_pickle: Annotated[
        bool,
        typer.Option("--allow-pickle", help="Load a pickled module, which runs the code in it. Only if you trust it."),
    ] = False,
    pipeline: Annotated[
        str | None, typer.Option(metavar="PASSES", help="Passes instead of the target's; see `sparsecc passes`.")
    ] = None,
    tuning_cache: Annotated[Path | None, typer.Option(help="File that keeps measured times between compiles.")] = None,
    calibration: cli_contracts.Calibration = None,
    bytes_budget: cli_contracts.BytesBudget = None,
    cycles_budget: cli_contracts.CyclesBudget = None,
    accuracy_budget: cli_contracts.AccuracyBudget = None,
    keep: cli_contracts.Keep = None,
    sensitivity: cli_contracts.Sensitivity = None,
    routing: cli_contracts.Routing = None,
    map_block: cli_contracts.MapBlock = None,
    period: cli_contracts.Period = None,
    fill: cli_contracts.Fill = None,
    update_maps: cli_contracts.UpdateMaps = False,
    payload_dtype: cli_contracts.PayloadDtype = None,
    codecs: cli_contracts.Codecs = None,
    target_file: cli_contracts.TargetFile = None,
    contracts: cli_contracts.Contracts = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compile MODEL into an artifact, and check it before writing anything.

    Every engine must give the original's outputs; with --target scu what the contracts mean, and how far that is from
    the original is told.
    """
    from sparsecc.interrupts import heard_between_steps

    with heard_between_steps() as checked:
        from sparsecc import api, report
        from sparsecc.artifact import verify_replaceable
        from sparsecc.report.progress import shown_on_stderr

        axes = parse_axes(dynamic) if dynamic else None
        wanted = cli_contracts.contract_options(
            target,
            {"bytes": bytes_budget, "cycles": cycles_budget, "accuracy": accuracy_budget, "keep": keep},
            calibration,
            sensitivity,
            routing,
            map_block,
            period,
            fill,
            update_maps,
            payload_dtype,
            codecs,
            target_file,
            contracts,
        )
        examples = example_inputs(inputs) if inputs else None
        place = output or model.parent / f"{model.stem or 'model'}.sparsecc"
        verify_replaceable(place)  # before minutes of work
        with shown_on_stderr(enabled=not quiet) as shown:
            progress = checked(shown)
            compiled = api.compile(
                model,
                examples,
                target=target,
                dynamic=axes,
                sparsity=sparsity,
                tune=tune,
                factory=factory,
                allow_pickle=allow_pickle,
                pipeline=pipeline,
                tuning_cache=tuning_cache,
                contracts=wanted,
                progress=progress,
            )
            progress("writing the artifact", 0, 1)
            artifact = compiled.save(place)
    if warning := report.pruning_warning(artifact.manifest):
        print(warning, file=sys.stderr)  # even with --quiet: the accuracy is not what it was
    show(report.summary_facts(artifact), lambda: report.summary(artifact), as_json, quiet)


@app.command()
def run(
    artifact: ArtifactPath,
    inputs: Annotated[Path, typer.Option(metavar="X.npz", help="Arrays under the names of the inputs.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="Y.npz", help="Where the outputs go.")
    ] = None,
    engine: Annotated[
        str,
        typer.Option(help="onnxruntime, portable (without kernels.so), reference (torch) or scu (the simulated unit)."),
    ] = "onnxruntime",
    threads: Threads = 1,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a compiled model on the arrays of an .npz file."""
    from sparsecc import report
    from sparsecc.arrays import read_arrays, write_arrays
    from sparsecc.artifact import Artifact
    from sparsecc.backends.onnxruntime import session

    if engine not in session.ENGINES:
        raise CompileError.of("SCC087", f"there is no engine '{engine}'", help=suggest(engine, [*session.ENGINES]))
    opened = Artifact.open(artifact)
    outputs = session.run(opened, read_arrays(inputs, opened.manifest.inputs), engine, threads)
    if output:
        write_arrays(output, outputs)
    facts = report.outputs_facts(outputs, output)
    show(facts, lambda: report.outputs_table(outputs, output), as_json, quiet)


@app.command()
def verify(artifact: ArtifactPath, quiet: Quiet = False, as_json: Json = False) -> None:
    """Compare every engine with the outputs that the artifact keeps; exit status 1 if one differs.

    They are the original's; of --target scu what the contracts mean, and how far that is from the original is shown.
    """
    from sparsecc import report
    from sparsecc.artifact import Artifact
    from sparsecc.backends.onnxruntime import session

    opened = Artifact.open(artifact)
    verdicts, check = session.verify(opened), opened.manifest.check
    show(report.verify_facts(verdicts, check), lambda: report.verify_table(verdicts, check), as_json, quiet)
    if not all(verdict.ok for verdict in verdicts):
        raise typer.Exit(1)


app.command()(cli_scu.simulate)


@app.command()
def inspect(
    artifact: ArtifactPath,
    contracts: cli_scu.ShowContracts = False,
    schedule: cli_scu.ShowSchedule = False,
    disasm: cli_scu.ShowCode = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw contracts (target scu) or layers (cpu) as .svg, .png or .pdf."),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also measure every layer and kernel, beside what compile expected.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Show what happened to the model: passes, regions, and format, zeros, bytes, time and reason of every layer."""
    from sparsecc import manifest, report
    from sparsecc.artifact import Artifact
    from sparsecc.backends.onnxruntime.profile import profile as measure_parts
    from sparsecc.progress import reporting
    from sparsecc.report.progress import shown_on_stderr

    part = cli_scu.chosen_part(contracts=contracts, schedule=schedule, disasm=disasm)
    if part and profile:
        raise unusable(f"--profile and --{part} exclude each other", "show one after the other")
    opened = Artifact.open(artifact)
    if plot:
        from sparsecc.report.plot import plot_artifact

        plot_artifact(opened, plot)
    if part:
        cli_scu.inspect_part(opened, part, quiet=quiet, as_json=as_json)
    else:
        facts = json.loads(manifest.to_json(opened.manifest))
        measured = None
        if profile:
            with shown_on_stderr(enabled=not quiet) as shown, reporting(shown):
                measured = measure_parts(opened)
            layers = report.layer_times(measured, opened.manifest.layers)
            facts["profile"] = {**asdict(measured), "layers": [asdict(layer) for layer in layers]}
        show(facts, lambda: report.inspection(opened, measured), as_json, quiet)


@app.command()
def bench(
    artifact: ArtifactPath,
    threads: Threads = 1,
    runs: Annotated[int, typer.Option(min=1, help="Pairs of calls, dense and compiled in turn.")] = 200,
    inputs: Annotated[
        Path | None, typer.Option(metavar="X.npz", help="Inputs instead of the artifact's samples.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the compiled model's time goes instead, kernel by kernel.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure the compiled model against the dense original, in turn, both in onnxruntime."""
    from sparsecc import report
    from sparsecc.arrays import read_arrays
    from sparsecc.artifact import Artifact
    from sparsecc.backends.onnxruntime.bench import bench as measure
    from sparsecc.backends.onnxruntime.profile import profile as measure_parts
    from sparsecc.progress import reporting
    from sparsecc.report.progress import shown_on_stderr

    opened = Artifact.open(artifact)
    feeds = read_arrays(inputs, opened.manifest.inputs) if inputs else None
    with shown_on_stderr(enabled=not quiet) as shown, reporting(shown):
        if profile:
            parts = measure_parts(opened, threads=threads, runs=runs, inputs=feeds)
            show(asdict(parts), lambda: report.profile_tables(parts), as_json, quiet)
            return
        result = measure(opened, threads=threads, runs=runs, inputs=feeds)
    show(asdict(result), lambda: report.bench_table(result), as_json, quiet)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Artifact to write.")] = Path("lenet5.sparsecc"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compile a LeNet-5 trained on MNIST and pruned to 90 %, and classify digits with it."""
    import sparsecc.demo as steps
    from sparsecc.interrupts import heard_between_steps
    from sparsecc.report.progress import shown_on_stderr

    with heard_between_steps() as checked, shown_on_stderr(enabled=not quiet) as shown:
        facts = steps.run(output, checked(shown))
    show(facts, lambda: steps.outcome(facts), as_json, quiet)


@app.command()
def passes(as_json: Json = False) -> None:
    """List the passes: what each does, needs, provides, and its options; and the pipeline of every target."""
    from sparsecc.report import parts

    facts = parts.passes()
    show(facts, lambda: parts.passes_table(facts), as_json)


@app.command()
def targets(as_json: Json = False) -> None:
    """List what can be compiled for."""
    from sparsecc.report import parts

    facts = parts.targets()
    show(facts, lambda: parts.list_table("targets", facts), as_json)


@app.command()
def formats(as_json: Json = False) -> None:
    """List the ways to store a weight."""
    from sparsecc.report import parts

    facts = parts.formats()
    show(facts, lambda: parts.list_table("formats", facts), as_json)


@app.command()
def explain(
    code: Annotated[str | None, typer.Argument(help="A code such as SCC012; without one, all are listed.")] = None,
    as_json: Json = False,
) -> None:
    """Explain the code of an error."""
    from sparsecc import codes

    entries = {code.upper(): codes.lookup(code)} if code else codes.CODES
    if as_json:
        facts = [{"code": name, **asdict(entry)} for name, entry in entries.items()]
        print(json.dumps(facts[0] if code else facts, indent=1))
    elif code:
        print(codes.explain(code))
    else:
        print("\n".join(f"{name}  {entry.title}" for name, entry in entries.items()))
