"""The target description: machine model, capabilities and register map, from TOML, checked; and its target.json.

A program is compiled for one target and carries its ``digest``, the SHA-256 of the canonical JSON: the same numbers
have the same digest in whatever order, notation or file they were written.

Units: names end in them (_bytes, _cycles, _elems, _pj); a plain count has the name of what it counts.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast, get_args, get_origin, get_type_hints

from sparsecc.diagnostics import CompileError

from .codecs import Codec, Dtype

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ISA = 1
"""Version of descriptors, sections and registers that this sparsecc writes and reads."""
DTYPES = tuple(dtype.name.lower() for dtype in Dtype)
CODECS = tuple(codec.name.lower() for codec in Codec)
KINDS = ("dram", "scratchpad", "link", "smap", "const", "config")
"""What a memory is for, and so which operations may touch it."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")
OFFSET_BITS = 56
"""Of an address; the region is above."""
OFFSET_MASK = (1 << OFFSET_BITS) - 1
LARGEST = 1 << 48
"""No number of a target is larger, so that sums and products of sizes stay far from 64 bits."""


@dataclass(frozen=True)
class Command:
    """The command processor, its semaphores and contract registers."""

    fetch_cycles: int
    issue_cycles: int
    queue_descriptors: int
    semaphores: int
    semaphore_most: int
    contracts: int


@dataclass(frozen=True)
class Dma:
    burst_bytes: int
    setup_cycles: int
    outstanding_bursts: int


@dataclass(frozen=True)
class Link:
    bytes_per_cycle: int
    latency_cycles: int
    pj_per_byte: float


@dataclass(frozen=True)
class Lanes:
    """A unit that takes ``lanes`` elements a cycle: key unit, packer."""

    lanes: int
    latency_cycles: int


@dataclass(frozen=True)
class Selector:
    lanes: int
    tile_elems: int
    tiles_in_flight: int
    digit_bits: int
    latency_cycles: int


@dataclass(frozen=True)
class Tile:
    """Compute tiles: each a systolic array of R x C and one scratchpad memory."""

    count: int
    rows: int
    cols: int
    vector_lanes: int

    def gemm_cycles(self, m: int, n: int, k: int) -> int:
        """Cycles of [m, k] x [k, n], output tile by output tile without overlap between them.

        Source: scu.md; agrees with SCALE-Sim 3.0.0 to one cycle on two GEMMs.
        """
        return -(-k // self.rows) * -(-n // self.cols) * (2 * self.rows + self.cols + m - 2)


@dataclass(frozen=True)
class Memory:
    """Bytes at addresses ``region << 56`` and up."""

    kind: str
    region: int
    bytes: int
    bytes_per_cycle: int
    latency_cycles: int
    read_pj_per_byte: float
    write_pj_per_byte: float

    @property
    def address(self) -> int:
        return self.region << OFFSET_BITS


@dataclass(frozen=True)
class Energy:
    """Per operation, in pJ."""

    i8_add_pj: float
    i8_mul_pj: float
    i32_add_pj: float
    i32_mul_pj: float
    f16_add_pj: float
    f16_mul_pj: float
    f32_add_pj: float
    f32_mul_pj: float


@dataclass(frozen=True)
class Register:
    """``count`` registers of ``bytes`` from ``offset`` of memory config; ``access`` is "r" or "rw"."""

    offset: int
    bytes: int
    count: int
    access: str

    @property
    def span(self) -> range:
        return range(self.offset, self.offset + self.bytes * self.count)


@dataclass(frozen=True)
class Target:
    """``memory`` and ``register`` are keyed by name and sorted by it."""

    name: str
    isa: int
    clock_mhz: int
    dtypes: tuple[str, ...]
    codecs: tuple[str, ...]
    command: Command
    dma: Dma
    link: Link
    key: Lanes
    selector: Selector
    packer: Lanes
    tile: Tile
    memory: Mapping[str, Memory]
    energy: Energy
    register: Mapping[str, Register]

    @functools.cached_property
    def regions(self) -> Mapping[int, str]:
        """Names of memories by region."""
        return {memory.region: name for name, memory in self.memory.items()}

    @functools.cached_property
    def digest(self) -> bytes:
        """32 bytes that stand in the header of every program compiled for this target."""
        return hashlib.sha256(canonical_json(_plain(self))).digest()

    def the(self, kind: str) -> Memory:
        """The memory of a kind of which there is exactly one: smap, const, config."""
        (found,) = (memory for memory in self.memory.values() if memory.kind == kind)
        return found


def canonical_json(tree: object) -> bytes:
    """The one spelling of a JSON value: names sorted, no spaces, ASCII.

    Raises: ValueError for NaN and infinity, TypeError for what JSON lacks.
    """
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


# ---- files -----------------------------------------------------------------------------------------------------------

BUILT_IN = ("scu-v1",)


@functools.cache
def scu_v1() -> Target:
    """The built-in target, from scu.toml."""
    return _checked(_parse_toml(Path(__file__).with_name("scu.toml").read_bytes(), "scu.toml"), "scu.toml")


def load_target(path: Path) -> Target:
    """A user's TOML file: a whole target, or the differences to the one it ``extends``; or a target.json.

    A file that extends has a ``name`` of its own; its tables and numbers replace those of the built-in target.
    Raises: CompileError SCC089, naming every field that is wrong.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unusable(str(path), [f"cannot be read: {error.strerror}"]) from error
    if path.suffix == ".json":
        return from_json(data, str(path))
    tree = _parse_toml(data, str(path))
    if "extends" in tree:
        base = tree.pop("extends")
        if base not in BUILT_IN:
            raise _unusable(str(path), [f"extends {base!a}; built in: {', '.join(BUILT_IN)}"])
        if tree.get("name", base) == base:
            raise _unusable(str(path), [f"needs a name of its own, other than {base!a}"])
        tree = _merge(_plain(scu_v1()), tree)
    return _checked(tree, str(path))


def to_json(target: Target) -> str:
    """target.json: the target as readable JSON; ``from_json`` reads it to an equal target with the same digest."""
    return json.dumps(_plain(target), sort_keys=True, indent=1, allow_nan=False) + "\n"


def from_json(text: str | bytes, name: str = "target.json") -> Target:
    """Read an untrusted target.json; ``name`` is what errors call it.

    Raises: CompileError SCC089.
    """
    try:
        tree: object = json.loads(text if isinstance(text, str) else text.decode(), object_pairs_hook=_no_repetition)
    except (ValueError, RecursionError) as error:
        raise _unusable(name, [f"is not valid JSON: {error}"]) from error
    return _checked(tree, name)


def _parse_toml(data: bytes, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise _unusable(name, ["is no text, so no TOML"]) from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError among them
        raise _unusable(name, [f"is not valid TOML: {error}"]) from error


def _no_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(fields := dict(pairs)) < len(pairs):
        raise ValueError("a name is repeated")
    return fields


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in changes.items():
        old = base.get(name)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[name] = _merge(cast("dict[str, Any]", old), cast("dict[str, Any]", value)) if both else value
    return merged


def _plain(record: Any) -> dict[str, Any]:
    """Dataclasses as dicts, nothing left out."""
    fields = dict[str, Any]()
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Mapping):
            value = {name: _plain(item) for name, item in cast("Mapping[str, Any]", value).items()}
        fields[field.name] = _plain(value) if dataclasses.is_dataclass(value) else value
    return fields


def _unusable(name: str, findings: list[str]) -> CompileError:
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return CompileError.of(
        "SCC089",
        f"target file {name} {findings[0]}{more}",
        help='write `extends = "scu-v1"` and a name, then only the numbers that differ; scu.toml shows them all',
    )


# ---- checks ----------------------------------------------------------------------------------------------------------


def _checked(tree: object, name: str) -> Target:
    findings = list[str]()
    target = _record(Target, tree, "", findings)
    if not findings:
        findings += _contradictions(cast(Target, target))
    if findings:
        raise _unusable(name, findings)
    return cast(Target, target)


def _record(kind: Any, value: object, at: str, findings: list[str]) -> Any:
    """``value`` as dataclass ``kind``; None, and a finding, where it is not one."""
    if not isinstance(value, dict):
        findings.append(f"has no table {at}" if at else "is not a table")
        return None
    table = cast("dict[str, object]", value)
    hints = get_type_hints(kind)
    prefix = f"{at}." if at else ""
    findings += [f"lacks {prefix}{field}" for field in hints if field not in table]
    findings += [f"has an unknown field {prefix}{field}" for field in map(ascii, table) if field[1:-1] not in hints]
    fields = {f: _value(hints[f], table[f], prefix + f, findings) for f in hints if f in table}
    return None if findings else kind(**fields)


def _value(kind: Any, value: object, at: str, findings: list[str]) -> Any:
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, at, findings)
    if get_origin(kind) is Mapping:
        table = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        if not table or not all(map(NAME.fullmatch, table)):
            findings.append(f"needs one or more tables with plain names under {at}")
            return None
        item = get_args(kind)[1]
        return MappingProxyType({n: _record(item, table[n], f"{at}.{n}", findings) for n in sorted(table)})
    if get_origin(kind) is tuple:
        names = tuple(cast("list[object]", value)) if isinstance(value, list | tuple) else (None,)
        allowed = DTYPES if at == "dtypes" else CODECS
        if names != tuple(n for n in allowed if n in names) or not names:
            findings.append(f"has {_shown(value)} at {at}, expected some of {', '.join(allowed)}, in this order")
        return names
    if kind is str:
        if not (isinstance(value, str) and NAME.fullmatch(value)):
            findings.append(f"has {_shown(value)} at {at}, expected a name of letters, digits, '_', '-' and '.'")
        return value
    return _number(kind, value, at, findings)


def _number(kind: type[int] | type[float], value: object, at: str, findings: list[str]) -> int | float:
    """Integers are counts and sizes, from 1; latencies, offsets and energies may be 0."""
    field = at.rpartition(".")[2]
    if kind is int:
        least = 0 if field == "offset" or field.endswith("_cycles") else 1
        if type(value) is int and least <= value <= LARGEST:
            return value
        findings.append(f"has {_shown(value)} at {at}, expected an integer from {least} to 2^48")
    else:
        if type(value) in (int, float) and 0 <= cast(float, value) <= LARGEST:  # NaN fails too
            return float(cast(float, value)) + 0.0  # one zero only: -0.0 would have another digest
        findings.append(f"has {_shown(value)} at {at}, expected a number from 0 to 2^48")
    return 0


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:60] + "..."


def _contradictions(t: Target) -> Iterator[str]:
    """What single fields cannot say."""
    if t.isa != ISA:
        yield f"is of ISA {t.isa}; this sparsecc knows ISA {ISA}"
    for field, value, most in (
        ("command.semaphores", t.command.semaphores, 256),  # widths of the descriptor's fields
        ("command.semaphore_most", t.command.semaphore_most, 255),
        ("command.contracts", t.command.contracts, 65_536),
        ("selector.tile_elems", t.selector.tile_elems, 65_535),
    ):
        if value > most:
            yield f"has {value} at {field}, and the descriptor's field holds at most {most}"
    kinds = [memory.kind for memory in t.memory.values()]
    for kind in ("link", "smap", "const", "config"):
        if kinds.count(kind) != 1:
            yield f"has {kinds.count(kind)} memories of kind {kind}, expected 1"
    if kinds.count("scratchpad") != t.tile.count:
        yield f"has {kinds.count('scratchpad')} memories of kind scratchpad for {t.tile.count} compute tiles"
    for name, memory in t.memory.items():
        if memory.kind not in KINDS:
            yield f"has {memory.kind!a} at memory.{name}.kind, expected one of {', '.join(KINDS)}"
        if memory.region > 255:
            yield f"has {memory.region} at memory.{name}.region, expected 1 to 255"
        if t.regions[memory.region] != name:
            yield f"has the same region for memory.{name} and memory.{t.regions[memory.region]}"
    yield from _register_findings(t)


def _register_findings(t: Target) -> Iterator[str]:
    config_bytes = sum(m.bytes for m in t.memory.values() if m.kind == "config")
    by_offset = sorted(t.register.items(), key=lambda item: item[1].offset)
    end, before = 0, ""
    for name, register in by_offset:
        if register.access not in ("r", "rw"):
            yield f"has {register.access!a} at register.{name}.access, expected 'r' or 'rw'"
        if register.bytes % 4 or register.offset % math.gcd(register.bytes, 8):
            yield f"has register.{name} off its alignment: bytes are a multiple of 4, offsets of 4 or 8 alike"
        if register.offset < end:
            yield f"has register.{name} overlapping register.{before}"
        if register.span.stop > config_bytes:
            yield f"has register.{name} beyond the {config_bytes} B of memory config"
        end, before = register.span.stop, name
