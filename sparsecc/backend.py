"""What a target is to the compiler: its pipeline, and how a Program becomes files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard, runtime_checkable

from sparsecc.contracts.options import ContractOptions
from sparsecc.manifest import Check, Region, Speed
from sparsecc.pass_manager import Record
from sparsecc.program import Program
from sparsecc.reference import Array
from sparsecc.registry import Registry


@dataclass(frozen=True)
class Build:
    """The files of an artifact, the Program with its last facts, and what was checked and measured.

    ``golden`` are the outputs that every engine must give for the example inputs, where they are not the original's;
    ``records`` are of the passes that made the Program, where it is not the one that was given.
    """

    files: Mapping[str, bytes]
    program: Program
    check: Check
    regions: tuple[Region, ...] = ()
    speed: Speed | None = None
    golden: Sequence[Array] | None = None
    records: Sequence[Record] | None = None


@runtime_checkable
class Backend(Protocol):
    """A target. ``pipeline`` is text for sparsecc.pipelines; ``build`` compares its files with the original Program
    (the captured one, before any pass) and its outputs ``golden`` on the example inputs.
    """

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    def pipeline(self, *, tune: bool) -> str: ...
    def build(self, program: Program, original: Program, golden: Sequence[Array], *, tune: bool) -> Build: ...


@runtime_checkable
class MakesContracts(Protocol):
    """A target whose passes settle contracts: ``prepare`` leaves what was asked for among the Program's facts."""

    def prepare(self, program: Program, options: ContractOptions) -> None: ...


@runtime_checkable
class SettlesContracts(Protocol):
    """A pass that settles them: ``verify_options`` tells what is wrong with the options before there is a Program."""

    def verify_options(self, options: ContractOptions) -> None: ...


def _is_backend(part: object) -> TypeGuard[Backend]:
    return isinstance(part, Backend) and not isinstance(part, type)


BACKENDS: Registry[Backend] = Registry(
    "target",
    "sparsecc.backends",
    {"cpu": "sparsecc.backends.onnxruntime.target:CPU", "scu": "sparsecc.backends.scu.target:SCU"},
    _is_backend,
    unknown_code="SCC085",
)
