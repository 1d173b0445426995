"""manifest.json: what a compiled artifact says about itself, written as JSON and read back without trusting it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from sparsecc.diagnostics import CompileError
from sparsecc.pass_manager import Record
from sparsecc.program import Candidate, Layer

SCHEMA = 1
"""Rises when a manifest written by this sparsecc could be misread by an older one."""


@dataclass(frozen=True)
class Versions:
    """What compiled the artifact."""

    sparsecc: str
    torch: str
    onnx: str
    onnxruntime: str
    tvm: str
    python: str


@dataclass(frozen=True)
class Source:
    """Where the model came from ("file", "module", "exported program", ...); digest and name are a file's.

    The name has no folders: an artifact tells nobody how its author's disk is laid out.
    """

    kind: str
    sha256: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Value:
    """An input or output of the model; a name in ``shape`` is an axis of any size."""

    name: str
    dtype: str  # as numpy calls it
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Region:
    """One custom op of kernels.so: its ONNX op type, the nodes of its layers, and what a call takes."""

    name: str
    op: str
    kind: str
    layers: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: int
    arena_bytes: int


@dataclass(frozen=True)
class Distance:
    """How far an output that contracts change is from the original model's, on the example inputs.

    ``max_relative_error`` is None where there is no such number: integers differ, or which values are finite. Of an
    output [rows, classes], ``same_argmax`` of the ``rows`` have their greatest value at the same place; of others both
    are 0.
    """

    max_relative_error: float | None
    rows: int = 0
    same_argmax: int = 0


@dataclass(frozen=True)
class Check:
    """Greatest relative error per engine (None: does not apply), on the example inputs, against the outputs that
    golden.npz keeps: the original model's, or those that contracts mean.

    ``original`` tells by output how far the latter are from the former; None where there are no contracts.
    """

    tolerance: float
    kernels: float | None
    portable: float | None
    reference: float | None
    unit: float | None = None
    original: Mapping[str, Distance] | None = None


@dataclass(frozen=True)
class Speed:
    """Milliseconds of one call, dense and compiled interleaved; ``ratio`` is the median of dense over compiled."""

    threads: int
    dense_ms: float
    compiled_ms: float
    ratio: float
    runs: int


@dataclass(frozen=True)
class Pruned:
    """What ``--sparsity`` did to the model before it was compiled."""

    sparsity: float
    note: str


@dataclass(frozen=True)
class FileRecord:
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """``layers`` is keyed by node name; ``files`` by path within the artifact, and is filled in by artifact.write."""

    versions: Versions
    cpu: str
    target: str
    source: Source
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    passes: tuple[Record, ...]
    layers: Mapping[str, Layer]
    regions: tuple[Region, ...]
    check: Check
    speed: Speed | None = None
    pruned: Pruned | None = None
    files: Mapping[str, FileRecord] = dataclasses.field(default_factory=dict[str, FileRecord])
    schema: int = SCHEMA


ADDED_LATER = {(Source, "name"), (Candidate, "estimated_us"), (Check, "unit"), (Check, "original")}
"""Fields that the first manifests of this schema lack: they have their defaults there."""


def to_json(manifest: Manifest) -> str:
    """The manifest as text, the schema first; what this returns, ``from_json`` reads."""
    fields = dataclasses.asdict(manifest)
    text = json.dumps({"schema": fields.pop("schema"), **fields}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    from_json(text, "manifest")
    return text


def from_json(text: str | bytes, name: str) -> Manifest:
    """Read an untrusted manifest; ``name`` is what errors call it.

    Raises: CompileError (SCC061 not a manifest, naming the field that is wrong; SCC062 a newer schema).
    """
    try:
        tree: object = json.loads(
            text if isinstance(text, str) else text.decode(),
            parse_constant=_refuse_constant,
            object_pairs_hook=_without_repetition,
        )
    except (ValueError, RecursionError) as error:
        raise unreadable(name, f"is not valid JSON: {error}") from error
    if not isinstance(tree, dict):
        raise unreadable(name, f"is {_describe(tree)}, expected an object")
    schema = cast("dict[str, object]", tree).get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise CompileError.of(
            "SCC062",
            f"{name} has schema {schema}; this sparsecc reads up to schema {SCHEMA}",
            help="upgrade sparsecc, or compile the model again with this version",
        )
    try:
        manifest = cast(Manifest, _read(Manifest, cast(object, tree), ""))
        _check_values(manifest)
    except _Mistake as mistake:
        raise unreadable(name, str(mistake)) from None
    return manifest


def unreadable(name: str, message: str) -> CompileError:
    return CompileError.of(
        "SCC061",
        f"{name} {message}",
        help="the file was changed after sparsecc wrote it, or is not sparsecc's; compile the model again",
    )


# ---- JSON -> dataclasses ---------------------------------------------------------------------------------------------


class _Mistake(ValueError):
    """Continues a sentence that begins with the file's name."""


_JSON_NAMES: dict[object, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    NoneType: "null",
    list: "an array",
    dict: "an object",
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # would reach a terminal through `inspect`


def _read(kind: object, value: object, at: str) -> Any:
    """``value`` as ``kind``: a dataclass, a plain type, a union of those, ``tuple[X, ...]`` or ``Mapping[str, X]``."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    fitting = [option for option in options if _fits(_json_type(option), value)]
    if not fitting:
        wanted = " or ".join(_JSON_NAMES[_json_type(option)] for option in options)
        raise _Mistake(f"has {_describe(value)} at {at or 'the top'}, expected {wanted}")
    option = fitting[0]
    if dataclasses.is_dataclass(option):
        return _read_record(cast("type[object]", option), cast("dict[str, object]", value), at)
    if isinstance(value, list):
        item = get_args(option)[0]
        return tuple(_read(item, v, f"{at}[{i}]") for i, v in enumerate(cast("list[object]", value)))
    if isinstance(value, dict):
        item = get_args(option)[1]
        pairs = cast("dict[str, object]", value).items()
        return {_text(key, at): _read(item, v, f"{at}[{key!r}]") for key, v in pairs}
    if isinstance(value, str):
        return _text(value, at)
    return _real(value, at) if option is float else value


def _read_record(kind: type[object], value: dict[str, object], at: str) -> object:
    hints = get_type_hints(kind)
    prefix = f"{at}." if at else ""
    if missing := [name for name in hints if name not in value and (kind, name) not in ADDED_LATER]:
        raise _Mistake(f"lacks {prefix}{missing[0]}")
    if unknown := [name for name in value if name not in hints]:
        raise _Mistake(f"has an unknown field {unknown[0]!a}" + (f" in {at}" if at else ""))
    return kind(**{name: _read(hint, value[name], prefix + name) for name, hint in hints.items() if name in value})


def _json_type(kind: object) -> type[object]:
    """What json.loads makes of a ``kind``."""
    if dataclasses.is_dataclass(kind) or get_origin(kind) is Mapping:
        return dict
    return list if get_origin(kind) is tuple else cast("type[object]", kind)


def _fits(json_type: type[object], value: object) -> bool:
    return type(value) is json_type or (json_type is float and type(value) is int)


def _text(value: str, at: str) -> str:
    if _CONTROL.search(value):
        raise _Mistake(f"has control characters in {at}: {value!a}")
    return value


def _real(value: object, at: str) -> float:
    try:
        return float(cast(int, value))
    except OverflowError:
        raise _Mistake(f"has a number out of range at {at}") from None


def _describe(value: object) -> str:
    return _JSON_NAMES[type(value)]


def _refuse_constant(text: str) -> object:
    raise ValueError(f"{text} is not a JSON number")


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict[str, object]()
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"the name {name!a} is repeated")
        fields[name] = value
    return fields


def _check_values(manifest: Manifest) -> None:
    """What types cannot say: no size is negative, no name twice."""
    if manifest.schema < 1:
        raise _Mistake(f"has schema {manifest.schema}, expected 1 to {SCHEMA}")
    for role, values in (("inputs", manifest.inputs), ("outputs", manifest.outputs)):
        for i, value in enumerate(values):
            if any(isinstance(size, int) and size < 0 for size in value.shape):
                raise _Mistake(f"has a negative size in {role}[{i}].shape")
            if value.name in (other.name for other in values[:i]):
                raise _Mistake(f"names two {role} '{value.name}'")
    for name, distance in (manifest.check.original or {}).items():
        if not 0 <= distance.same_argmax <= distance.rows or (distance.max_relative_error or 0) < 0:
            raise _Mistake(f"has no valid distance in check.original[{name!r}]")
    for name, file in manifest.files.items():
        if file.bytes < 0 or not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
            raise _Mistake(f"has no valid digest and size in files[{name!r}]")
