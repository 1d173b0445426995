"""scu/report.json: what was negotiated and what it brings; read back without trusting it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast, get_origin, get_type_hints

from sparsecc.artifact import Artifact
from sparsecc.diagnostics import CompileError

from .files import REPORT, verify_has_program

SCHEMA = 1
"""Rises when a report written by this sparsecc could be misread by an older one."""
MOST_BYTES = 16 << 20
"""An edge takes under 1 KB: far beyond any real network, and still read in a second."""
BASELINES = ("dense", "zero_compression")
LARGEST = 1 << 63
"""No number of a report is larger, so that quotients of any two are floats."""


@dataclass(frozen=True)
class Figure:
    """One program on one sample. Bytes with headers and padding; ``lower_bound_cycles`` of its schedule."""

    link_bytes: int
    dram_bytes: int
    descriptor_bytes: int
    cycles: int
    lower_bound_cycles: int
    energy_pj: float
    energy_by_component_pj: Mapping[str, float]
    overlap: float
    compute_share: float


@dataclass(frozen=True)
class Figures:
    """The program beside its baselines. One that the machine has no room for is None; ``does_not_fit`` says why."""

    contracts: Figure
    dense: Figure | None
    zero_compression: Figure | None
    does_not_fit: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Scheduled:
    """``lower_bound_cycles``: no schedule of the same tasks is shorter."""

    makespan_cycles: int
    lower_bound_cycles: int
    method: str


@dataclass(frozen=True)
class Report:
    """``settlement`` is the log of the contracts as plain JSON: printable texts, finite numbers, and ``edges``, a list
    of objects, if it is there. None where a pipeline made no contracts."""

    schedule: Scheduled
    figures: Figures
    settlement: Mapping[str, Any] | None

    @property
    def negotiated(self) -> bool:
        """Whether shares were measured and not given."""
        return self.settlement is not None and "settled" in self.settlement

    @property
    def edges(self) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", (self.settlement or {}).get("edges", []))


def read_report(artifact: Artifact) -> Report:
    """Raises: CompileError (SCC117 the artifact has no program; SCC065 the file is missing; SCC118 it is no report)."""
    verify_has_program(artifact)
    path = artifact.file(REPORT)
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise _unreadable(str(path), f"it is larger than {MOST_BYTES} B")
    return from_json(data, str(path))


def from_json(data: bytes, name: str) -> Report:
    """Fields that this version does not know are left out, but for those of the settlement.

    Raises: CompileError SCC118; ``name`` is what it calls the file.
    """
    try:
        tree = _object(json.loads(data.decode()), "the top")
        if tree.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {_shown(tree.get('schema'))}; this sparsecc reads schema {SCHEMA}")
        settlement = tree.get("settlement")
        return Report(
            schedule=_record(Scheduled, tree.get("schedule"), "schedule"),
            figures=_figures(_object(tree.get("figures"), "figures")),
            settlement=None if settlement is None else _settlement(_object(settlement, "settlement")),
        )
    except (ValueError, RecursionError) as error:
        raise _unreadable(name, str(error)) from error


def _unreadable(name: str, why: str) -> CompileError:
    return CompileError.of(
        "SCC118", f"{name} is not a readable report: {why}", help="copy the artifact again, or compile the model again"
    )


# ---- JSON -> records; the errors end a sentence that begins with the file's name -------------------------------------


def _figures(tree: dict[str, Any]) -> Figures:
    """A baseline may be null if there is a reason."""
    at = "figures.does_not_fit"
    given = _object(tree.get("does_not_fit", {}), at)
    reasons = {_text(name, at): _text(why, f"{at}.{name}") for name, why in given.items()}
    missing = {name: why for name, why in reasons.items() if name in BASELINES and tree.get(name) is None}

    def figure(name: str) -> Any:
        return None if name in missing else _record(Figure, tree.get(name), f"figures.{name}")

    return Figures(figure("contracts"), figure("dense"), figure("zero_compression"), missing)


def _settlement(tree: dict[str, Any]) -> Mapping[str, Any]:
    _verify_plain(tree, "settlement")
    for i, edge in enumerate(_list(tree.get("edges", []), "settlement.edges")):
        _object(edge, f"settlement.edges[{i}]")
    return tree


def _verify_plain(value: object, at: str) -> None:
    if isinstance(value, dict):
        for name, item in cast("dict[str, object]", value).items():
            _verify_plain(_text(name, at), at)
            _verify_plain(item, f"{at}.{name}")
    elif isinstance(value, list):
        for i, item in enumerate(cast("list[object]", value)):
            _verify_plain(item, f"{at}[{i}]")
    elif isinstance(value, str):
        _text(value, at)
    elif value is not None:  # JSON has nothing else but numbers, true and false
        _real(value, at)


def _record(kind: type[Any], value: object, at: str) -> Any:
    fields = _object(value, at)
    hints = get_type_hints(kind)
    return kind(**{name: _value(hint, fields.get(name), f"{at}.{name}") for name, hint in hints.items()})


def _value(hint: Any, value: object, at: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _record(cast("type[Any]", hint), value, at)
    if get_origin(hint) is Mapping:
        return {_text(name, at): _amount(n, f"{at}.{name}") for name, n in _object(value, at).items()}
    if hint is str:
        return _text(value, at)
    if hint is int and type(value) is not int:
        raise ValueError(f"{at} is {_shown(value)}, expected an integer")
    return _amount(value, at)


def _object(value: object, at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{at} is {_shown(value)}, expected an object")
    return cast("dict[str, Any]", value)


def _list(value: object, at: str) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"{at} is {_shown(value)}, expected a list")
    return cast("list[object]", value)


def _text(value: object, at: str) -> str:
    if not (isinstance(value, str) and value.isprintable()):  # others would reach a terminal
        raise ValueError(f"{at} is {_shown(value)}, expected printable text")
    return value


def _real(value: object, at: str) -> int | float:
    if not isinstance(value, int | float) or not -LARGEST <= value <= LARGEST:  # NaN fails too
        raise ValueError(f"{at} is {_shown(value)}, expected a number of at most 2^63")
    return value


def _amount(value: object, at: str) -> int | float:
    if isinstance(value, bool) or (number := _real(value, at)) < 0:
        raise ValueError(f"{at} is {_shown(value)}, expected a number from 0")
    return number


def _shown(value: object) -> str:
    """Short, and safe for a terminal."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = ascii(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
