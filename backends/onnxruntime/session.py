"""Run a compiled artifact, in one of several ways that share nothing but the file: `run` and `verify`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sparsecc.artifact import MODEL, Artifact
from sparsecc.backends.scu.files import has_program, verify_has_program
from sparsecc.diagnostics import CompileError
from sparsecc.manifest import Value
from sparsecc.reference import Array, relative_error

from .bench import Bench, bench
from .engines import Compute, onnxruntime_session, register_kernels, session_options, torch_engine
from .inputs import verify_inputs

__all__ = ["ENGINES", "Bench", "Engine", "Session", "Verdict", "bench", "open_session", "run", "verify"]

Engine = Literal["onnxruntime", "portable", "reference", "scu"]
ENGINES: tuple[Engine, ...] = ("onnxruntime", "portable", "reference", "scu")
"""With kernels.so; without it; the compiled graph in torch, without onnxruntime; the simulated unit."""


@dataclass(frozen=True)
class Session:
    """A loaded model. ``run`` may be called any number of times, and takes what the manifest says."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    compute: Compute

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name, in the manifest's order.

        Raises: CompileError (SCC070 names; SCC071 shapes; SCC072 dtypes; SCC074, SCC077 the engine fails).
        """
        verify_inputs(self.inputs, inputs)
        names = [value.name for value in self.outputs]
        return dict(zip(names, self.compute(names, inputs), strict=True))


def run(
    artifact: Artifact, inputs: Mapping[str, Array], engine: Engine = "onnxruntime", threads: int = 1
) -> dict[str, Array]:
    """One call on a session of its own; see open_session and Session.run for what it raises."""
    verify_inputs(artifact.manifest.inputs, inputs)  # before seconds of loading
    return open_session(artifact, engine, threads).run(inputs)


def open_session(artifact: Artifact, engine: Engine = "onnxruntime", threads: int = 1) -> Session:
    """Load the model into an engine.

    An artifact in which nothing is sparse has no kernels: "onnxruntime" and "portable" are then the same.
    Raises: CompileError (SCC073 kernels.so is missing or not for this machine; SCC074 there is no reference
    graph, or it is damaged; SCC077 onnxruntime refuses the model; SCC117 there is no program for the unit, and what
    else host.open_unit raises).
    """
    if engine == "scu":
        verify_has_program(artifact)
        from sparsecc.backends.scu.host import open_unit

        compute: Compute = open_unit(artifact).run
    elif engine == "reference":
        compute = torch_engine(artifact, threads)
    else:
        options = session_options(threads)
        if engine == "onnxruntime":
            register_kernels(artifact, options)
        compute = onnxruntime_session(str(artifact.file(MODEL)), options, str(artifact.path / MODEL))
    return Session(artifact.manifest.inputs, artifact.manifest.outputs, compute)


# ---- verify ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """One output of one engine against the one that the artifact keeps.

    ``ok`` is false where they differ; an engine that cannot run the model has no error, and a note that says why.
    """

    engine: Engine
    output: str
    max_relative_error: float | None
    tolerance: float
    ok: bool
    note: str = ""


def engines_of(artifact: Artifact) -> tuple[Engine, ...]:
    """The engines that an artifact is made for."""
    return tuple(engine for engine in ENGINES if engine != "scu" or has_program(artifact))


def verify(artifact: Artifact, engines: Sequence[Engine] | None = None, threads: int = 1) -> list[Verdict]:
    """Compare engines (by default those it is made for) on the sample inputs with the outputs that the artifact keeps.

    Only the reference may be missing, which is a note; see open_session for what the others raise.
    """
    inputs, expected = artifact.golden()
    return [
        v for engine in engines or engines_of(artifact) for v in _verdicts(artifact, engine, threads, inputs, expected)
    ]


def _verdicts(
    artifact: Artifact, engine: Engine, threads: int, inputs: Mapping[str, Array], expected: Mapping[str, Array]
) -> Iterator[Verdict]:
    tolerance = artifact.manifest.check.tolerance
    try:
        actual = run(artifact, inputs, engine, threads)
    except CompileError as refusal:
        (diagnostic,) = refusal.diagnostics[:1]
        if diagnostic.code not in ("SCC073", "SCC074"):
            raise
        for name in expected:  # kernels that are missing are a failure; an artifact may have no reference
            yield Verdict(engine, name, None, tolerance, diagnostic.code == "SCC074", diagnostic.message)
        return
    for name, array in expected.items():
        error = relative_error(np.asarray(actual[name]), array)
        yield Verdict(engine, name, error, tolerance, error <= tolerance)
