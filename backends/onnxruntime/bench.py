"""Compiled against the dense original in onnxruntime, interleaved in one run so that both see the same machine."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnxruntime as ort

from sparsecc.artifact import KERNELS, MODEL, ORIGINAL, Artifact
from sparsecc.diagnostics import CompileError
from sparsecc.progress import step
from sparsecc.reference import Array

from .engines import onnxruntime_session, reason, register_kernels, session_options
from .inputs import verify_inputs
from .original import load_original
from .timing import interleaved


@dataclass(frozen=True)
class Times:
    min_ms: float
    median_ms: float


@dataclass(frozen=True)
class Bench:
    """Above 1, ``ratio`` says how many times faster compiled is than dense.

    ``dense`` is the original, its masks applied, as torch's ONNX exporter writes it: what compile measures too.
    ``ratio_median`` is the median over pairs of neighbouring calls; ``ratio_min`` compares the fastest call of each.
    ``compiled_bytes`` counts model.onnx and kernels.so, ``dense_bytes`` the original's ONNX file.
    """

    threads: int
    runs: int
    dense: Times
    compiled: Times
    ratio_min: float
    ratio_median: float
    dense_bytes: int
    compiled_bytes: int
    shapes: Mapping[str, tuple[int, ...]]
    onnxruntime: str
    sparsecc: str


def bench(artifact: Artifact, threads: int = 1, runs: int = 200, inputs: Mapping[str, Array] | None = None) -> Bench:
    """Time ``runs`` pairs of calls on the sample inputs, or on given ones.

    Raises: CompileError (inputs: SCC070 to SCC072; engines: SCC073, SCC077; the original is not there: SCC078).
    """
    if inputs is None:
        inputs, _ = artifact.golden()
    verify_inputs(artifact.manifest.inputs, inputs)
    step("restoring the dense original", 0, 1)
    original = _original(artifact)
    step("restoring the dense original", 1, 1)
    options = _options(threads)
    register_kernels(artifact, options)
    compiled = onnxruntime_session(str(artifact.file(MODEL)), options, str(artifact.path / MODEL))
    dense = onnxruntime_session(original, _options(threads), f"the original of {artifact.path}")
    outputs = [value.name for value in artifact.manifest.outputs]
    feeds = dict(inputs)
    calls = (lambda: dense(outputs, feeds)), (lambda: compiled(outputs, feeds))
    step("measuring against the dense original", 0, 1)
    dense_s, compiled_s = interleaved(calls, least_runs=runs, most_runs=runs)
    step("measuring against the dense original", 1, 1)
    return Bench(
        threads=threads,
        runs=runs,
        dense=_times(dense_s),
        compiled=_times(compiled_s),
        ratio_min=min(dense_s) / min(compiled_s),
        ratio_median=statistics.median(d / c for d, c in zip(dense_s, compiled_s, strict=True)),
        dense_bytes=len(original),
        compiled_bytes=sum(f.bytes for n, f in artifact.manifest.files.items() if n in (MODEL, KERNELS)),
        shapes={name: array.shape for name, array in inputs.items()},
        onnxruntime=ort.__version__,
        sparsecc=artifact.manifest.versions.sparsecc,
    )


def _original(artifact: Artifact) -> bytes:
    """The original as an ONNX file.

    Raises: CompileError (SCC078 the artifact has none, or it cannot be restored).
    """
    if ORIGINAL not in artifact.manifest.files:
        raise CompileError.of(
            "SCC078",
            f"{artifact.path} does not hold the dense original ({ORIGINAL}), which bench compares with",
            help="compile the model again with --target cpu, which keeps it",
        )
    path = artifact.file(ORIGINAL)
    try:
        compiled = onnx.load_model_from_string(artifact.file(MODEL).read_bytes())
        data: bytes = load_original(path.read_bytes(), compiled).SerializeToString()
    except (
        Exception
    ) as error:  # what damaged bytes make zipfile, json, protobuf, numpy and onnx raise has no base class
        raise CompileError.of(
            "SCC078",
            f"{path} and {MODEL} do not give the dense original: {reason(error)}",
            help="the artifact is damaged; copy it again as a whole, or compile the model again",
        ) from error
    return data


def _options(threads: int) -> ort.SessionOptions:
    options = session_options(threads)
    # the threads of the session that has just run would go on spinning, on the cores of the one that is timed
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _times(seconds: Sequence[float]) -> Times:
    return Times(1e3 * min(seconds), 1e3 * statistics.median(seconds))
