"""What a target is to the compiler: its pipeline, and how a Program becomes files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeGuard, runtime_checkable

from sparsecc.program import Program
from sparsecc.registry import Registry


@dataclass(frozen=True)
class RegionRecord:
    """A region as `inspect` shows it. ``kernels``: whether kernels.so computes it, or onnxruntime its portable body."""

    name: str
    op: str
    kind: str
    layers: tuple[str, ...]
    inputs: int
    outputs: int
    steps: int
    arena_bytes: int
    kernels: bool = True


@dataclass(frozen=True)
class Speed:
    """Compiled against the dense original in onnxruntime, interleaved in one run; the ratio is the median of the pairs."""

    threads: int
    runs: int
    dense_ms: float
    compiled_ms: float
    ratio: float


@dataclass(frozen=True)
class Build:
    """The files of an artifact, the Program with its last facts, and what was checked and measured.

    ``errors``: greatest relative error of each engine against the original; ``notes``: what the user should know.
    """

    files: Mapping[str, bytes]
    program: Program
    regions: tuple[RegionRecord, ...] = ()
    errors: Mapping[str, float] = field(default_factory=dict[str, float])
    speed: Speed | None = None
    notes: tuple[str, ...] = ()


@runtime_checkable
class Backend(Protocol):
    """``original`` is the captured Program before any pass: the dense model to be compared with."""

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    def pipeline(self, *, tune: bool, sparsity: float | None) -> str: ...
    def build(self, program: Program, original: Program, *, tune: bool) -> Build: ...


def _is_backend(part: object) -> TypeGuard[Backend]:
    return isinstance(part, Backend) and not isinstance(part, type)


BACKENDS: Registry[Backend] = Registry(
    "target", "sparsecc.backends", {"cpu": "sparsecc.backends.onnxruntime.target:CPU"}, _is_backend, unknown_code="SCC085"
)
