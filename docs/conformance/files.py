"""program.scu and program.s of a program, written from ../scu.md alone (chapters 11 and 12)."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reference import Op, Program

FIELDS = [
    "op",
    "flags",
    "dtype",
    "codec",
    "contract",
    "k",
    "acq_sem",
    "acq_ge",
    "rel_sem",
    "rel_add",
    "tile_n",
    "tiles",
    "src",
    "dst",
    "run_bytes",
    "reps1",
    "reps2",
    "src_st1",
    "dst_st1",
    "src_st2",
    "dst_st2",
    "smap",
    "fill",
    "next",
    "tag",
]
DESCRIPTOR = struct.Struct("<4B2H4B2H2QI2H4i4H")
HEADER = struct.Struct("<4s2H32s2I2Q")
ENTRY = struct.Struct("<8s2Q2I")
SECTIONS = ("META", "CFG", "CODE", "CONST", "SMAP", "CNTR", "KTAB", "DBG")
CONTRACT = ("k", "k_lo", "k_hi", "period", "margin_lo", "margin_hi")
QUEUES = ("in", "out", "link", "config")
FLAGS = ("predicated", "skip_zero", "scored", "register", "wide_keys")
DTYPES = ("int8", "float16", "bfloat16", "float32")
CODECS = ("raw", "bitmask", "index", "run", "huffman")
KERNEL = ("m", "n", "k", "input_bytes", "output_bytes")


def canonical(tree: object) -> bytes:
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()


def digest(target: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(canonical(target)).digest()


def bodies(program: Program) -> list[bytes]:
    kernels = b""
    for kernel in program["kernels"]:
        numbers = [number for operand in kernel["operands"] for number in operand]
        kernels += struct.pack(
            "<32s3I2BH2Q8Q",
            kernel["symbol"].encode(),
            kernel["m"],
            kernel["n"],
            kernel["k"],
            kernel["dtype"],
            len(kernel["operands"]),
            0,
            kernel["input_bytes"],
            kernel["output_bytes"],
            *numbers,
            *[0] * (8 - len(numbers)),
        )
    notes = {str(place): note for place, note in program["notes"].items()}
    return [
        canonical(program["meta"]),
        b"".join(struct.pack("<2I", *pair) for pair in program["config"]),
        b"".join(DESCRIPTOR.pack(*(d[name] for name in FIELDS)) for d in program["code"]),
        program["const"],
        program["smap"],
        b"".join(struct.pack("<6HI", *contract, 0) for contract in program["contracts"]),
        kernels,
        canonical({"labels": program["labels"], "notes": notes}),
    ]


def container(
    program: Program, target: Mapping[str, Any], minor: int = 0, more: Sequence[tuple[str, bytes]] = ()
) -> bytes:
    """The file of a program; ``more`` are sections of a later minor version."""
    return frame([*zip(SECTIONS, bodies(program), strict=True), *more], digest(target), minor)


def frame(sections: Sequence[tuple[str, bytes]], target: bytes, minor: int = 0, major: int = 1) -> bytes:
    table, data, first = b"", b"", 64 + 32 * len(sections)
    for name, body in sections:
        start = -(-(first + len(data)) // 64) * 64
        data = data.ljust(start - first, b"\0") + body
        table += ENTRY.pack(name.encode(), start, len(body), zlib.crc32(body), 0)
    size = -(-(first + len(data)) // 64) * 64 + 32
    head = [b"SCUP", major, minor, target, len(sections), 0, size, 0]
    head[5] = zlib.crc32(HEADER.pack(*head) + table)
    content = (HEADER.pack(*head) + table + data).ljust(size - 32, b"\0")
    return content + hashlib.sha256(content).digest()


def reseal(file: bytes) -> bytes:
    """Every checksum made right again after a change, so that only the change itself can be refused."""
    data = bytearray(file)
    (count,) = struct.unpack_from("<I", data, 40)
    for at in range(64, 64 + 32 * count, 32):
        _, start, size, _, _ = ENTRY.unpack_from(data, at)
        struct.pack_into("<I", data, at + 24, zlib.crc32(data[start : start + size]))
    struct.pack_into("<I", data, 44, 0)
    struct.pack_into("<I", data, 44, zlib.crc32(data[: 64 + 32 * count]))
    return bytes(data[:-32]) + hashlib.sha256(data[:-32]).digest()


# ---- assembly --------------------------------------------------------------------------------------------------------


def assembly(program: Program, target: Mapping[str, Any]) -> str:
    regions = {memory["region"]: name for name, memory in target["memory"].items()}
    lines = [f".target {target['name']} {digest(target).hex()}", f".meta {canonical(program['meta']).decode()}"]
    lines += [f".cfg {offset:#x} = {number:#x}" for offset, number in program["config"]]
    for name in ("const", "smap"):
        data = program[name]
        lines += [f".{name} {data[at : at + 32].hex()}" for at in range(0, len(data), 32)]
    for contract in program["contracts"]:
        lines.append(".contract " + " ".join(f"{n}={v}" for n, v in zip(CONTRACT, contract, strict=True)))
    for kernel in program["kernels"]:
        words = [f".kernel {kernel['symbol']} dtype={DTYPES[kernel['dtype']]}"]
        words += [f"{name}={kernel[name]}" for name in KERNEL]
        shown = [f"{_address(address, regions)}:{size}" for address, size in kernel["operands"]]
        lines.append(" ".join(words + ["operands=" + ",".join(shown)] * bool(shown)))
    lines.append("")
    labels = sorted(program["labels"].items())
    for place, d in enumerate(program["code"]):
        lines += [f"{label}:" for label, at in labels if at == place]
        line = "    " + " ".join(_words(d, regions, labels))
        lines.append(f"{line}  ; {program['notes'][place]}" if place in program["notes"] else line)
    return "\n".join(lines) + "\n"


def _address(address: int, regions: Mapping[int, str]) -> str:
    return f"{regions[address >> 56]}+{address & ((1 << 56) - 1):#x}"


def _words(d: Mapping[str, int], regions: Mapping[int, str], labels: list[tuple[str, int]]) -> Iterator[str]:
    yield f"{Op(d['op']).name.lower()}.{QUEUES[d['flags'] >> 6]}"
    yield from (name for i, name in enumerate(FLAGS) if d["flags"] >> i & 1)
    if d["acq_ge"]:
        yield f"acq={d['acq_sem']}>={d['acq_ge']}"
    if d["rel_add"]:
        yield f"rel={d['rel_sem']}+{d['rel_add']}"
    for name in FIELDS[2:]:
        number = d[name]
        if not number or name in ("acq_sem", "acq_ge", "rel_sem", "rel_add"):
            continue
        shown = str(number)
        if name in ("src", "dst"):
            shown = _address(number, regions)
        elif name in ("dtype", "codec"):
            shown = (DTYPES if name == "dtype" else CODECS)[number]
        elif name == "next":
            shown = next((label for label, at in labels if at == number), shown)
        yield f"{name}={shown}"
