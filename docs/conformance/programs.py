"""What vectors are made of: descriptors, programs, tensors, transfers."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elements import BFLOAT16, BITMASK, FLOAT16, FLOAT32, INT8, WIDTH, join, room
from files import FIELDS
from reference import Op

SCU_V1 = json.loads(Path(__file__).with_name("scu-v1.json").read_text())
AT = {name: memory["region"] << 56 for name, memory in SCU_V1["memory"].items()}
DRAM, TILE0, TILE1, LINK, SMAP, CONST, CONFIG = (
    AT[name] for name in ("dram", "tile0", "tile1", "link", "smap", "const", "config")
)
IN, OUT, KERNELS, CONFIGURATION = 0, 64, 128, 192
"""Queue, as bits of the field flags."""
Fields = dict[str, int]
SPECIAL = {
    FLOAT16: (0x0000, 0x8000, 0x7C00, 0xFC00, 0x7C01, 0xFE00, 0x0001, 0x8001, 0x7BFF, 0x0400),
    BFLOAT16: (0x0000, 0x8000, 0x7F80, 0xFF80, 0x7F81, 0xFFC0, 0x0001, 0x8001, 0x7F7F, 0x0080),
    FLOAT32: (
        0,
        0x8000_0000,
        0x7F80_0000,
        0xFF80_0000,
        0x7F80_0001,
        0xFFC0_0000,
        1,
        0x8000_0001,
        0x7F7F_FFFF,
        0x80_0000,
    ),
}
"""Zeros, infinities, NaNs of both kinds, subnormals, the largest and the smallest normal number."""


@dataclass(frozen=True)
class Vector:
    """``expect`` are the (address, bytes) to compare after the run, ``load`` what lies there before."""

    name: str
    title: str
    program: Mapping[str, Any]
    load: Mapping[int, bytes] = field(default_factory=dict)
    expect: Sequence[tuple[int, int]] = ()
    target: Mapping[str, Any] = field(default_factory=lambda: SCU_V1)


def descriptor(op: Op, flags: int = CONFIGURATION, **fields: int) -> Fields:
    if op in (Op.COPY, Op.SEND, Op.RECV, Op.SMAP_UPD):
        fields = {"reps1": 1, "reps2": 1} | fields
    return dict.fromkeys(FIELDS, 0) | {"op": int(op), "flags": flags} | fields


END = descriptor(Op.END)


def program(*code: Fields, **more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "contracts": [],
        "kernels": [],
        "config": [],
        "const": b"",
        "smap": b"",
        "meta": {},
        "labels": {},
        "notes": {},
    }
    return empty | {"code": [*code, END]} | more


def noise(name: str, size: int) -> bytes:
    """Bytes that look random and are the same everywhere."""
    return hashlib.shake_128(name.encode()).digest(size)


def halves(name: str, n: int, dtype: int) -> bytes:
    """Finite floats of a few octaves around 1, of both signs, some of them special."""
    words = struct.unpack(f"<{n}I", noise(name, 4 * n))
    exponent = {FLOAT16: 10, BFLOAT16: 7, FLOAT32: 23}[dtype]
    middle, sign = ((15 if dtype == FLOAT16 else 127) - 4) << exponent, 8 * WIDTH[dtype] - 1
    usual = [middle + word % (6 << exponent) | (word >> 31) << sign for word in words]
    special = SPECIAL[dtype]
    return join([special[w % len(special)] if w >> 8 & 7 == 0 else u for w, u in zip(words, usual, strict=True)], dtype)


def tensor(name: str, n: int, dtype: int) -> bytes:
    return noise(name, n) if dtype == INT8 else halves(name, n, dtype)


def transfer(
    shape: tuple[int, int],
    k: int,
    dtype: int,
    codec: int,
    places: tuple[int, int, int] = (TILE0, LINK, TILE1),
    flags: int = 0,
    fill: int = 0,
    **send: int,
) -> list[Fields]:
    """A SEND and its RECV, of ``shape`` = (tiles, elements of each)."""
    tiles, n = shape
    slot, size = room(codec, n, k, dtype), tiles * n * WIDTH[dtype]
    both = {"dtype": dtype, "codec": codec, "k": k, "tile_n": n, "tiles": tiles, "run_bytes": size, "fill": fill}
    source, link, destination = places
    return [
        descriptor(Op.SEND, CONFIGURATION | flags, **both, src=source, dst=link, dst_st1=slot, **send),
        descriptor(Op.RECV, **both, src=link, dst=destination, src_st1=slot),
    ]


@dataclass
class Series:
    """Transfers one after the other, each with source, link and destination of its own."""

    code: list[Fields] = field(default_factory=list)
    load: dict[int, bytes] = field(default_factory=dict)
    expect: list[tuple[int, int]] = field(default_factory=list)
    source: int = TILE0
    link: int = LINK
    destination: int = TILE1

    def add(self, data: bytes, shape: tuple[int, int], k: int, dtype: int, codec: int = BITMASK, **more: int) -> None:
        pair = transfer(shape, k, dtype, codec, (self.source, self.link, self.destination), **more)
        blocks = shape[0] * pair[0]["dst_st1"]
        self.code += pair
        self.load[self.source] = data
        self.expect += [(self.link, blocks), (self.destination, len(data))]
        self.source, self.destination = (a + -(-len(data) // 64) * 64 for a in (self.source, self.destination))
        self.link += blocks

    def vector(self, name: str, title: str, **more: Any) -> Vector:
        return Vector(name, title, program(*self.code, **more), self.load, self.expect)
