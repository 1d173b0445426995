"""What was done to a model: the summary at the end of a compile, and everything that `inspect` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from sparsecc.artifact import MODEL, Artifact
from sparsecc.backends.onnxruntime.profile import Profile
from sparsecc.manifest import Manifest, Source, Speed, Value
from sparsecc.pass_manager import Note, Record
from sparsecc.program import Candidate, Layer

from . import scu
from .profile import expectation_tables
from .text import FACTS, count, data_size, duration, shape_text, table

FLOAT_BYTES = 4
PASS_COLUMNS = ("pass", "changed", ">time", ">difference", "notes")
REGION_COLUMNS = ("region", "kind", ">layers", ">steps", ">memory", "takes", "gives")
LAYER_COLUMNS = ("weight", ">shape", ">zeros", "mask", "format", "kernel", ">stored", ">time")
NO_REGIONS = "no regions: onnxruntime computes every layer by itself; the reasons are below\n"
NAMES_SHOWN = 3
NOTES_SHOWN = 3
"""Different notes shown per pass; a network with many layers has hundreds, and --json has them all."""


def summary_facts(artifact: Artifact) -> dict[str, Any]:
    """The outcome of a compile, as `compile --json` prints it."""
    manifest, report = artifact.manifest, scu.report_of(artifact)
    distances = manifest.check.original
    return {
        "artifact": str(artifact.path),
        **({"scu": scu.summary_facts(report)} if report else _layer_facts(manifest)),
        "model_bytes": manifest.files[MODEL].bytes,
        "max_relative_error": max_error(manifest),
        "tolerance": manifest.check.tolerance,
        **({"original": {name: asdict(d) for name, d in distances.items()}} if distances else {}),
        "pruned": manifest.pruned and asdict(manifest.pruned),
    }


def _layer_facts(manifest: Manifest) -> dict[str, Any]:
    """How the weights of target cpu are stored and computed."""
    layers = manifest.layers.values()
    computed_sparse = sum(layer.is_sparse for layer in layers)
    return {
        "layers": {"sparse": computed_sparse, "dense": len(layers) - computed_sparse},
        "weights_bytes": {
            "dense": sum(FLOAT_BYTES * layer.elems for layer in weights(manifest)),
            "stored": sum({(w.weight, w.format, w.nonzeros): w.stored_bytes for w in layers}.values()),
        },
        "zeros": zeros(manifest),
        "regions": len(manifest.regions),
        "speed": manifest.speed and asdict(manifest.speed),
    }


def summary(artifact: Artifact) -> RenderableType:
    """The outcome of a compile on a few lines, and where to go next."""
    report = scu.report_of(artifact)
    rows = [
        *(_layer_summary(artifact.manifest) if report is None else scu.summary_rows(report)),
        *_file_summary(artifact),
    ]
    run = f"sparsecc run {artifact.path} --inputs x.npz"
    verbs = ("inspect", "bench") if report is None else ("simulate", "inspect --contracts", "verify")
    commands = [run, *(f"sparsecc {verb} {artifact.path}" for verb in verbs)]
    return Group(table(str(artifact.path), FACTS, rows), Text("next: " + "\n      ".join(commands)))


def _layer_summary(manifest: Manifest) -> Iterator[tuple[str, str]]:
    facts = _layer_facts(manifest)
    layers, weights = facts["layers"], facts["weights_bytes"]
    yield "layers", f"{layers['sparse']} sparse, {layers['dense']} dense, {count(facts['regions'], 'region')}"
    yield "weights", f"{data_size(weights['dense'])} -> {data_size(weights['stored'])}, {facts['zeros']:.1%} zeros"
    yield "time per call", _speed_text(manifest.speed)


def _file_summary(artifact: Artifact) -> Iterator[tuple[str, str]]:
    check, error = artifact.manifest.check, max_error(artifact.manifest)
    meaning = "" if check.unit is None else ", from what contracts mean"
    yield "model.onnx", data_size(artifact.manifest.files[MODEL].bytes)
    yield "difference", f"{error:.1e} of the largest output{meaning} (at most {check.tolerance:.0e})"
    yield from scu.original_rows(check.original)


def inspection(artifact: Artifact, measured: Profile | None = None) -> RenderableType:
    """Everything the manifest says, for people, and below it what was measured on the artifact's sample inputs."""
    manifest, report = artifact.manifest, scu.report_of(artifact)
    versions = manifest.versions
    rows = [
        ("compiled for", f"{manifest.target}, on {manifest.cpu}"),
        (
            "with",
            f"sparsecc {versions.sparsecc}, torch {versions.torch}, TVM {versions.tvm}, ORT {versions.onnxruntime}",
        ),
        ("from", _source_text(manifest.source)),
        *(("input", _value_text(value)) for value in manifest.inputs),
        *(("output", _value_text(value)) for value in manifest.outputs),
        *([] if report else [("time per call", _speed_text(manifest.speed))]),
        ("difference", _check_text(manifest)),
        *scu.original_rows(manifest.check.original),
        *((name, data_size(record.bytes)) for name, record in manifest.files.items()),
    ]
    facts = table(str(artifact.path), FACTS, rows)
    passes = table("passes", PASS_COLUMNS, map(_pass_row, manifest.passes))
    if report:
        return Group(*_warning(manifest), facts, scu.highlights(report), passes)
    tables = facts, passes, *_layer_tables(manifest)
    return Group(*_warning(manifest), *tables, *(expectation_tables(measured, manifest.layers) if measured else ()))


def _layer_tables(manifest: Manifest) -> Iterator[RenderableType]:
    yield table("regions", REGION_COLUMNS, _region_rows(manifest)) if manifest.regions else Text(NO_REGIONS)
    yield table("layers", LAYER_COLUMNS, _layer_rows(manifest))
    yield table("reasons", ("weight", "reason"), _reason_rows(manifest))


def weights(manifest: Manifest) -> Collection[Layer]:
    """A layer per weight: layers may share one. Told apart by name and non-zeros, which leaves out that a shared weight
    may have a normalisation folded into it for one layer and not for the other."""
    return {(layer.weight, layer.nonzeros): layer for layer in manifest.layers.values()}.values()


def zeros(manifest: Manifest) -> float:
    """The share of zeros among all weights."""
    elems = sum(layer.elems for layer in weights(manifest))
    nonzeros = sum(layer.nonzeros for layer in weights(manifest))
    return 1 - nonzeros / elems if elems else 0.0


def pruning_warning(manifest: Manifest) -> str | None:
    """What to know about a model that was pruned on the way in."""
    if manifest.pruned is None:
        return None
    return (
        f"WARNING: --sparsity {manifest.pruned.sparsity:g} cut weights off by magnitude, and nothing was retrained. "
        "Speed and size are real; the accuracy is not the model's any more. Measure it, or prune while training."
    )


def max_error(manifest: Manifest) -> float:
    check = manifest.check
    return max((e for e in (check.kernels, check.portable, check.reference, check.unit) if e is not None), default=0.0)


# ---- rows ------------------------------------------------------------------------------------------------------------


def _pass_row(record: Record) -> tuple[str, ...]:
    changed = "yes" if record.changed else "no"
    return record.name, changed, duration(record.seconds), f"{record.error:.1e}", "\n".join(_notes(record.notes))


def _notes(notes: tuple[Note, ...]) -> Iterator[str]:
    """What a pass did and refused to do: equal notes once, the most frequent first."""
    texts = Counter(note.text if note.done else f"not done: {note.text}" for note in notes)
    for text, times in texts.most_common(NOTES_SHOWN):
        yield f"{text} ({times} times)" if times > 1 else text
    if len(texts) > NOTES_SHOWN:
        yield f"... and {len(texts) - NOTES_SHOWN} more, in --json"


def _region_rows(manifest: Manifest) -> Iterator[tuple[str, ...]]:
    for r in manifest.regions:
        takes, gives = _names(r.inputs), _names(r.outputs)
        yield r.name, r.kind, str(len(r.layers)), str(r.steps), data_size(r.arena_bytes), takes, gives


def _names(values: tuple[str, ...]) -> str:
    """The first ones: a region takes its activations, then the packed arrays of all its layers."""
    shown = ", ".join(values[:NAMES_SHOWN])
    return shown if len(values) <= NAMES_SHOWN else f"{shown} and {len(values) - NAMES_SHOWN} more"


def _layer_rows(manifest: Manifest) -> Iterator[tuple[str, ...]]:
    for layer in manifest.layers.values():
        shape, stored = f"{layer.rows}x{layer.cols}", data_size(layer.stored_bytes)
        times = {c.kernel: c.microseconds for c in layer.candidates}
        time = duration(times[layer.kernel] * 1e-6) if layer.kernel in times else "-"
        yield layer.weight, shape, f"{layer.sparsity:.1%}", layer.mask, layer.format, layer.kernel, stored, time


def _reason_rows(manifest: Manifest) -> Iterator[tuple[str, str]]:
    for layer in manifest.layers.values():
        times = ", ".join(map(_candidate_text, sorted(layer.candidates, key=lambda c: c.total_us)))
        yield layer.weight, f"{layer.reason}\n  candidates: {times}" if times else layer.reason


def _candidate_text(candidate: Candidate) -> str:
    estimated = f" + {duration(candidate.estimated_us * 1e-6)} estimated" if candidate.estimated_us else ""
    return f"{candidate.kernel} {duration(candidate.microseconds * 1e-6)}{estimated}"


def _source_text(source: Source) -> str:
    named = f"{source.kind} {source.name}" if source.name else source.kind
    return f"{named}, SHA-256 {source.sha256}" if source.sha256 else named


def _speed_text(speed: Speed | None) -> str:
    if speed is None:
        return "not measured (--no-tune)"
    dense, compiled = duration(speed.dense_ms * 1e-3), duration(speed.compiled_ms * 1e-3)
    return f"{dense} dense -> {compiled}, {speed.ratio:.2f}x ({count(speed.threads, 'thread')})"


def _check_text(manifest: Manifest) -> str:
    check = manifest.check
    errors = {"with kernels": check.kernels, "portable": check.portable, "reference": check.reference}
    errors["unit"] = check.unit
    found = ", ".join(f"{name} {error:.1e}" for name, error in errors.items() if error is not None)
    meaning = "" if check.unit is None else ", from what contracts mean"
    return f"{found} of the largest output{meaning} (at most {check.tolerance:.0e})"


def _value_text(value: Value) -> str:
    return f"{value.name}: {shape_text(value.dtype, value.shape)}"


def _warning(manifest: Manifest) -> Iterator[Text]:
    if text := pruning_warning(manifest):
        yield Text(text, style="bold yellow")
