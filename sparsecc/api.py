"""The public functions: compile a model, save one for later."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from sparsecc import artifact, pipelines, reference
from sparsecc.artifact import Artifact
from sparsecc.backend import BACKENDS, MakesContracts, SettlesContracts
from sparsecc.capture import Inputs, capture, export, quiet
from sparsecc.contracts.options import ContractOptions
from sparsecc.diagnostics import CompileError
from sparsecc.machine import cache_at, cpu_name
from sparsecc.manifest import Manifest, Pruned, Source, Value, Versions
from sparsecc.pass_manager import Pipeline, Record
from sparsecc.program import Program
from sparsecc.progress import Progress, reporting, step

Model = nn.Module | ExportedProgram | str | Path


@dataclass(frozen=True)
class Compiled:
    """A compiled model in memory: the files of an artifact and its manifest."""

    files: Mapping[str, bytes]
    manifest: Manifest

    def save(self, path: str | Path) -> Artifact:
        """Write the artifact directory, whole or not at all.

        Raises: CompileError SCC063 if something else is there or it cannot be written.
        """
        return artifact.write(path, self.files, self.manifest)


def compile(  # noqa: A001  a method of the package, as in re.compile
    model: Model,
    example_inputs: Inputs | None = None,
    *,
    target: str = "cpu",
    dynamic: Mapping[str, int] | None = None,
    sparsity: float | None = None,
    tune: bool = True,
    factory: str | None = None,
    allow_pickle: bool = False,
    pipeline: str | None = None,
    tuning_cache: Path | None = None,
    contracts: ContractOptions | None = None,
    progress: Progress | None = None,
) -> Compiled:
    """Compile a model, and compare every form of the result with it before returning.

    ``model`` is a module, an exported program, or a file of either (see sparsecc.loading); ``factory`` is the
    "package.module:function" that builds the module of a state dict. ``dynamic`` names axes of any size: {"batch": 0}.
    ``sparsity`` first sets that share of every layer's weights to zero, by magnitude and without retraining.
    Without ``tune`` nothing is measured: a cost model decides. ``pipeline`` replaces the target's passes.
    ``contracts`` are for targets that move data between layers by contract, as "scu" does.
    Raises: CompileError for whatever is wrong with the model, the file or the options.
    """
    backend = BACKENDS.load(target)
    if contracts and not isinstance(backend, MakesContracts):
        raise CompileError.of(
            "SCC115",
            f"target '{target}' makes no contracts, and options of contracts were given",
            help='add --target scu (target="scu"), or leave the options of contracts out',
        )
    prune = None if sparsity is None else pipelines.parse(f"{pipelines.TIDY},prune-weights{{sparsity={sparsity}}}")
    passes = pipelines.parse(backend.pipeline(tune=tune) if pipeline is None else pipeline)
    for settling in (part for part in passes.passes if isinstance(part, SettlesContracts)):
        settling.verify_options(contracts or ContractOptions())
    with reporting(progress), cache_at(tuning_cache):
        step("capturing", 0, 1)
        source, loaded = _source(model, factory, allow_pickle)
        original = capture(loaded, example_inputs, dynamic=dynamic)
        step("capturing", 1, 1)
        if isinstance(backend, MakesContracts):
            backend.prepare(original, contracts or ContractOptions())
        records: tuple[Record, ...] = ()
        if prune:
            original, records = run_passes(prune, original)
        program, more = run_passes(passes, original)
        golden = reference.run(original)
        build = backend.build(program, original, golden, tune=tune)
    expected = golden if build.golden is None else build.golden
    names = dict(zip(original.output_names, expected, strict=True))
    inputs = {n: x.numpy() for n, x in zip(original.input_names, original.example_inputs, strict=True)}
    manifest = Manifest(
        versions=_versions(),
        cpu=cpu_name(),
        target=target,
        source=source,
        inputs=tuple(_values(original, "placeholder")),
        outputs=tuple(_values(original, "output")),
        passes=(*records, *(more if build.records is None else build.records)),
        layers=build.program.layers,
        regions=build.regions,
        check=build.check,
        speed=build.speed,
        pruned=None
        if sparsity is None
        else Pruned(sparsity, "pruned by magnitude on the way in; nothing was retrained"),
    )
    return Compiled({**build.files, artifact.GOLDEN: artifact.golden_npz(inputs, names)}, manifest)


def save(
    module: nn.Module, example_inputs: Inputs, path: str | Path, *, dynamic: Mapping[str, int] | None = None
) -> None:
    """Write a torch.export archive with its example inputs, which `sparsecc compile` reads without further options.

    Raises: CompileError SCC011 if torch.export cannot trace the module.
    """
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(export(module, example_inputs, dynamic=dynamic), buffer)
    Path(path).write_bytes(buffer.getvalue())


def run_passes(pipeline: Pipeline, program: Program) -> tuple[Program, tuple[Record, ...]]:
    """Run a pipeline, telling the progress listener about each pass."""
    order = {p.name: i for i, p in enumerate(pipeline.passes)}
    return pipeline.run(program, before=lambda name, _: step(f"pass {name}", order[name], len(order)))


def _source(model: Model, factory: str | None, allow_pickle: bool) -> tuple[Source, nn.Module | ExportedProgram]:
    if isinstance(model, ExportedProgram):
        return Source("exported program"), model
    if isinstance(model, nn.Module):
        return Source("module"), model
    from sparsecc.loading import load_model

    loaded = load_model(model, factory=factory, allow_pickle=allow_pickle)
    path = Path(model)
    return Source("file", hashlib.sha256(path.read_bytes()).hexdigest(), path.name), loaded


def _values(program: Program, end: str) -> list[Value]:
    nodes = program.output_nodes if end == "output" else program.graph.find_nodes(op="placeholder")
    names = program.output_names if end == "output" else program.input_names
    values = list[Value]()
    for node, name in zip(nodes, names, strict=True):
        tensor: torch.Tensor = node.meta["val"]
        shape = tuple(program.dims.get(str(s), str(s)) if isinstance(s, torch.SymInt) else int(s) for s in tensor.shape)
        values.append(Value(name, str(tensor.dtype).removeprefix("torch."), shape))
    return values


def _versions() -> Versions:
    of = importlib.metadata.version
    return Versions(
        sparsecc=of("sparsecc"),
        torch=of("torch"),
        onnx=of("onnx"),
        onnxruntime=of("onnxruntime"),
        tvm=of("apache-tvm"),
        python=platform.python_version(),
    )
