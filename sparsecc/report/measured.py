"""What running, verifying and timing an artifact found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparsecc.backends.onnxruntime.bench import Bench, Times
from sparsecc.backends.onnxruntime.session import Verdict
from sparsecc.manifest import Check, Distance
from sparsecc.reference import Array

from .scu import argmax_text, difference_text
from .text import count, data_size, duration, shape_text, table


def outputs_facts(outputs: Mapping[str, Array], file: Path | None) -> dict[str, Any]:
    """Names, types and shapes of the outputs, and values unless they went to a file; NaN and infinity are null."""

    def facts(array: Array) -> dict[str, Any]:
        found: dict[str, Any] = {"dtype": str(array.dtype), "shape": list(array.shape)}
        return found if file else {**found, "values": _json_values(array)}

    return {"file": str(file) if file else None, "outputs": {name: facts(array) for name, array in outputs.items()}}


def outputs_table(outputs: Mapping[str, Array], file: Path | None) -> RenderableType:
    """A line per output, and where they went."""
    rows = [(name, shape_text(str(a.dtype), a.shape), *_range(a)) for name, a in outputs.items()]
    found = table("outputs", ("output", "shape", ">least", ">greatest"), rows)
    hint = f"written to {file}" if file else "not written: -o Y.npz keeps them, --json prints them"
    return Group(found, Text(hint))


def verify_facts(verdicts: Sequence[Verdict], check: Check) -> list[dict[str, Any]]:
    """An object per engine and output; where contracts change the output, with how far it is from the original's."""

    def facts(v: Verdict) -> dict[str, Any]:
        return {**asdict(v), "original": asdict(distances[v.output])} if v.output in distances else asdict(v)

    distances = check.original or {}
    return [facts(v) for v in verdicts]


def verify_table(verdicts: Sequence[Verdict], check: Check) -> RenderableType:
    """A line per engine and output; where contracts change the outputs, a line per output against the original."""

    def row(v: Verdict) -> tuple[str, ...]:
        if v.max_relative_error is None:
            return v.engine, v.output, "-", f"{v.tolerance:.0e}", f"not compared: {v.note}"
        verdict = "equal" if v.ok else "DIFFERENT"
        return v.engine, v.output, f"{v.max_relative_error:.1e}", f"{v.tolerance:.0e}", verdict

    columns = ("engine", "output", ">difference", ">allowed", "verdict")
    if check.unit is None:
        return table("against the original's outputs", columns, map(row, verdicts))
    agreement = table("against what the contracts mean", columns, map(row, verdicts))
    return Group(agreement, _distances(check.original)) if check.original else agreement


def _distances(distances: Mapping[str, Distance]) -> Table:
    rows = ((name, difference_text(d), argmax_text(d)) for name, d in distances.items())
    columns = ("output", ">difference", ">rows of the same argmax")
    return table("what contracts mean, against the original", columns, rows)


def bench_table(bench: Bench) -> RenderableType:
    """The dense original and the compiled model, side by side."""

    def row(name: str, times: Times, model_bytes: int) -> tuple[str, ...]:
        median, least = duration(times.median_ms * 1e-3), duration(times.min_ms * 1e-3)
        return name, median, least, data_size(model_bytes)

    rows = [
        row("dense original", bench.dense, bench.dense_bytes),
        row("compiled", bench.compiled, bench.compiled_bytes),
        ("ratio", f"{bench.ratio_median:.2f}x", f"{bench.ratio_min:.2f}x", f"{_share(bench):.2f} of dense"),
    ]
    shapes = ", ".join(f"{name}{list(shape)}" for name, shape in bench.shapes.items())
    how = f"{count(bench.runs, 'pair')} of calls in turn, {count(bench.threads, 'thread')}, {shapes}"
    found = table("time of one call in onnxruntime", ("", ">median", ">least", ">file size"), rows)
    return Group(found, Text(f"{how}, onnxruntime {bench.onnxruntime}"))


def _share(bench: Bench) -> float:
    return bench.compiled_bytes / bench.dense_bytes


def _range(array: Array) -> tuple[str, str]:
    if not array.size or not np.issubdtype(array.dtype, np.number):
        return "-", "-"
    return f"{array.min():.4g}", f"{array.max():.4g}"


def _json_values(array: Array) -> Any:
    if np.issubdtype(array.dtype, np.floating):
        values = array.astype(object)
        values[~np.isfinite(array)] = None
        return cast(Any, values).tolist()
    return array.tolist()
