"""program.scu: the bytes of a UnitProgram, and back without trusting them. Little-endian.

offset  0  magic     4 B   "SCUP"
        4  major     u16   1: another one means something else, and is refused
        6  minor     u16   0: a greater one may add sections after those known here, which are skipped
        8  target    32 B  digest of the Target
       40  sections  u32   entries of the table
       44  crc32     u32   of this header with 0 here, and of the table
       48  bytes     u64   of the whole file
       56  reserved  8 B   0
       64  table           per section: name 8 B, offset u64, bytes u64, crc32 u32, reserved u32 = 0
           sections        in the order of SECTIONS, each once, each at the first multiple of 64 that is free
      end  sha256    32 B  of everything before, at a multiple of 64

META  canonical JSON object: what the compiler wants to remember
CFG   per register word: offset u32, value u32
CODE  descriptors, 64 B each
CONST bytes that region const shows
SMAP  the first bytes of the sensitivity map
CNTR  per contract: k, k_lo, k_hi, period, margin_lo, margin_hi u16, reserved u32 = 0
KTAB  per kernel 128 B: symbol 32 B (zero-padded), m, n, k u32, dtype u8, operands u8, reserved u16 = 0,
      input_bytes u64, output_bytes u64, 4 x {address u64, bytes u64}
DBG   canonical JSON {"labels": {name: place}, "notes": {place: text}}

Padding is zero, so a program has exactly one file of this version: what ``read`` accepts, ``write`` reproduces.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import astuple
from itertools import islice
from typing import Any, cast

from sparsecc.diagnostics import CompileError

from .check import check_program
from .descriptor import DESCRIPTOR_BYTES, pack, unpack
from .machine import Target, canonical_json
from .unit_program import MAX_OPERANDS, Contract, Kernel, Operand, UnitProgram

MAGIC = b"SCUP"
MAJOR, MINOR = 1, 0
SECTIONS = ("META", "CFG", "CODE", "CONST", "SMAP", "CNTR", "KTAB", "DBG")
ALIGN_BYTES = 64
DIGEST_BYTES = 32
MOST_SECTIONS = 64
MOST_FINDINGS = 20
CRC_AT = 44
HEADER = struct.Struct("<4sHH32sIIQ8x")
ENTRY = struct.Struct("<8sQQI4x")
CFG = struct.Struct("<II")
CNTR = struct.Struct("<6H4x")
KTAB = struct.Struct("<32s3I2B2x2Q8Q")
HELP = "copy the file again from where it was made, or compile the model again"


def write(program: UnitProgram, target: Target) -> bytes:
    """The one file of a program.

    Raises: CompileError with every finding of check_program (SCC100-104), SCC090 for a ``meta`` that is not plain JSON.
    """
    _verify(program, target, "the program")
    bodies = _bodies(program)
    sizes = HEADER.size + ENTRY.size * len(bodies)
    table, data = b"", b""
    for name, body in zip(SECTIONS, bodies, strict=True):
        start = _aligned(sizes + len(data))
        data = data.ljust(start - sizes, b"\0") + body
        table += ENTRY.pack(name.encode(), start, len(body), zlib.crc32(body))
    end = _aligned(sizes + len(data))
    fields = (target.digest, len(bodies))
    unsigned = HEADER.pack(MAGIC, MAJOR, MINOR, *fields, 0, end + DIGEST_BYTES)
    header = HEADER.pack(MAGIC, MAJOR, MINOR, *fields, zlib.crc32(unsigned + table), end + DIGEST_BYTES)
    content = (header + table + data).ljust(end, b"\0")
    return content + hashlib.sha256(content).digest()


def read(data: bytes, target: Target, name: str = "program.scu") -> UnitProgram:
    """The program of an untrusted file; ``name`` is what errors call it.

    Raises: CompileError SCC090 (not a program, truncated, malformed), SCC091 (unknown major version), SCC092 (compiled
    for another target), SCC093 (checksum or digest), SCC100-104 (asks for what the target does not have).
    """
    sections = {section: data[start:end] for section, start, end in _layout(data, target, name)}
    try:
        program = _parse(sections)
    except (ValueError, struct.error, RecursionError) as error:
        raise _malformed(name, str(error)) from error
    _verify(program, target, name)
    return program


def _verify(program: UnitProgram, target: Target, name: str) -> None:
    if findings := list(islice(check_program(program, target), MOST_FINDINGS)):
        first = findings[0]
        head = type(first)(first.code, f"{name}: {first.message}", help=f"`{target.name}` cannot run it; {HELP}")
        raise CompileError([head, *findings[1:]])


def _malformed(name: str, what: str) -> CompileError:
    return CompileError.of("SCC090", f"{name} is not a readable program: {what}", help=HELP)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGN_BYTES) * ALIGN_BYTES


# ---- the frame -------------------------------------------------------------------------------------------------------


def _layout(data: bytes, target: Target, name: str) -> Iterator[tuple[str, int, int]]:
    """Name, start and end of every known section, once the frame around them holds."""
    if len(data) < HEADER.size or data[:4] != MAGIC:
        raise _malformed(
            name, f"its {len(data)} bytes do not begin with a header of {HEADER.size} B and {MAGIC.decode()!r}"
        )
    _, major, minor, digest, count, crc, file_bytes = HEADER.unpack_from(data)
    if major != MAJOR:
        raise CompileError.of(
            "SCC091",
            f"{name} has format version {major}.{minor}; this sparsecc reads version {MAJOR}",
            help="use the sparsecc that wrote it, or compile the model again with this one",
        )
    if len(data) != file_bytes:
        raise _malformed(name, f"it has {len(data)} B, and its header says {file_bytes}")
    start = HEADER.size + ENTRY.size * count
    if not len(SECTIONS) <= count <= (len(SECTIONS) if minor <= MINOR else MOST_SECTIONS) or start > len(data):
        raise _malformed(name, f"it has a table of {count} sections, expected {len(SECTIONS)}")
    end = len(data) - DIGEST_BYTES
    if crc != zlib.crc32(data[:CRC_AT] + bytes(4) + data[CRC_AT + 4 : start]):
        raise _damaged(name, "the CRC32 of its header does not match")
    if data[HEADER.size - 8 : HEADER.size] != bytes(8):
        raise _malformed(name, "reserved bytes of its header are not zero")
    entries = [ENTRY.unpack_from(data, HEADER.size + ENTRY.size * i) for i in range(count)]
    spans = list(_spans(data, entries, start, end, name))
    if hashlib.sha256(memoryview(data)[:end]).digest() != data[end:]:
        raise _damaged(name, "its SHA-256 does not match")
    if digest != target.digest:
        raise CompileError.of(
            "SCC092",
            f"{name} was compiled for a target with digest {digest.hex()[:16]}, and {target.name} has "
            f"{target.digest.hex()[:16]}",
            help="use the target.json that lies beside it, or compile the model again for this target",
        )
    yield from spans


def _spans(
    data: bytes, entries: list[tuple[Any, ...]], free: int, end: int, name: str
) -> Iterator[tuple[str, int, int]]:
    for i, (raw, offset, size, crc) in enumerate(entries):
        known = SECTIONS[i] if i < len(SECTIONS) else None
        if known and raw != known.encode().ljust(8, b"\0"):
            raise _malformed(name, f"section {i} is called {raw!a}, expected {known}")
        at = HEADER.size + ENTRY.size * i
        if data[at + ENTRY.size - 4 : at + ENTRY.size] != bytes(4):
            raise _malformed(name, f"reserved bytes of section {i} are not zero")
        start = _aligned(free)
        if offset != start or size > end - start:
            raise _malformed(name, f"section {i} has {size} B at {offset}, expected {start} and an end by {end}")
        if data[free:start].strip(b"\0"):
            raise _malformed(name, f"the padding before section {i} is not zero")
        free = start + size
        if zlib.crc32(memoryview(data)[start:free]) != crc:
            raise _damaged(name, f"the CRC32 of section {known or i} does not match")
        if known:
            yield known, start, free
    if end != _aligned(free) or data[free:end].strip(b"\0"):
        raise _malformed(name, "its sections do not end where its digest begins")


def _damaged(name: str, what: str) -> CompileError:
    return CompileError.of("SCC093", f"{name} was changed after it was written: {what}", help=HELP)


# ---- sections --------------------------------------------------------------------------------------------------------


def _bodies(program: UnitProgram) -> list[bytes]:
    """In the order of SECTIONS. The program has been checked."""
    notes = {str(place): note for place, note in program.notes.items()}
    try:
        meta = canonical_json(dict(program.meta))
        if json.loads(meta) != program.meta:
            raise ValueError("it reads back differently")
    except (TypeError, ValueError, RecursionError) as error:
        raise CompileError.of("SCC090", f"`meta` of the program is not plain JSON: {error}") from error
    return [
        meta,
        b"".join(CFG.pack(*pair) for pair in program.config),
        pack(program.code),
        program.constants,
        program.smap,
        b"".join(map(_contract_record, program.contracts)),
        b"".join(map(_kernel_record, program.kernels)),
        canonical_json({"labels": dict(program.labels), "notes": notes}),
    ]


def _contract_record(contract: Contract) -> bytes:
    return CNTR.pack(*astuple(contract))


def _kernel_record(kernel: Kernel) -> bytes:
    operands = [number for o in kernel.operands for number in (o.address, o.bytes)]
    padded = operands + [0] * (2 * MAX_OPERANDS - len(operands))
    head = (kernel.symbol.encode(), kernel.m, kernel.n, kernel.k, kernel.dtype, len(kernel.operands))
    return KTAB.pack(*head, kernel.input_bytes, kernel.output_bytes, *padded)


def _parse(sections: dict[str, bytes]) -> UnitProgram:
    """Raises: ValueError, struct.error or RecursionError for sections that ``_bodies`` cannot have made."""
    if len(sections["CODE"]) % DESCRIPTOR_BYTES:
        raise ValueError(f"section CODE has {len(sections['CODE'])} B, expected a multiple of {DESCRIPTOR_BYTES}")
    labels, notes = _debug(_object("DBG", sections["DBG"]))
    program = UnitProgram(
        code=unpack(sections["CODE"]),
        contracts=tuple(Contract(*fields) for fields in CNTR.iter_unpack(sections["CNTR"])),
        kernels=tuple(map(_kernel, KTAB.iter_unpack(sections["KTAB"]))),
        config=tuple((offset, value) for offset, value in CFG.iter_unpack(sections["CFG"])),
        constants=sections["CONST"],
        smap=sections["SMAP"],
        meta=_object("META", sections["META"]),
        labels=labels,
        notes=notes,
    )
    if b"".join(map(_contract_record, program.contracts)) != sections["CNTR"]:
        raise ValueError("reserved bytes of section CNTR are not zero")
    if b"".join(map(_kernel_record, program.kernels)) != sections["KTAB"]:
        raise ValueError("unused bytes of section KTAB are not zero")
    return program


def _kernel(fields: tuple[Any, ...]) -> Kernel:
    symbol, m, n, k, dtype, count, input_bytes, output_bytes, *numbers = fields
    if count > MAX_OPERANDS:
        raise ValueError(f"a kernel of section KTAB has {count} operands, and the record holds {MAX_OPERANDS}")
    operands = tuple(Operand(numbers[2 * i], numbers[2 * i + 1]) for i in range(count))
    return Kernel(symbol.rstrip(b"\0").decode("ascii"), dtype, m, n, k, input_bytes, output_bytes, operands)


def _object(section: str, body: bytes) -> dict[str, Any]:
    tree: object = json.loads(body.decode("ascii"))
    if not isinstance(tree, dict) or canonical_json(cast(object, tree)) != body:
        raise ValueError(f"section {section} is not an object in canonical JSON")
    return cast("dict[str, Any]", tree)


def _debug(tree: dict[str, Any]) -> tuple[dict[str, int], dict[int, str]]:
    labels, notes = tree.get("labels"), tree.get("notes")
    if not isinstance(labels, dict) or not isinstance(notes, dict) or len(tree) != 2:
        raise ValueError("section DBG does not hold labels and notes")
    places = dict[int, str]()
    for place, note in cast("dict[str, object]", notes).items():
        if not (place.isdecimal() and str(int(place)) == place and isinstance(note, str)):
            raise ValueError(f"section DBG has no valid note at {place[:20]!a}")
        places[int(place)] = note
    for label, at in cast("dict[str, object]", labels).items():
        if type(at) is not int:
            raise ValueError(f"section DBG has no valid label {label[:20]!a}")
    return cast("dict[str, int]", labels), places
