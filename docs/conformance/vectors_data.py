"""Vectors of what transfers send: codecs, constants, keys, selection, fill."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from elements import (
    BFLOAT16,
    BITMASK,
    FLOAT16,
    FLOAT32,
    INDEX,
    INT8,
    RAW,
    RUN,
    WIDTH,
    encode,
    huffman_block,
    join,
    split,
)
from files import DTYPES
from programs import (
    CONST,
    SPECIAL,
    TILE0,
    Fields,
    Series,
    Vector,
    descriptor,
    noise,
    program,
    tensor,
)
from reference import SCORED, SKIP_ZERO, WIDE_KEYS, Op

KEYS = [(0x500, 0), (0x504, 0x3000), (0x508, 0x3D00), (0x50C, 0x3D00), (0x510, 7), (0x514, 6), (0x518, 3), (0x51C, 3)]
"""Bases and shifts for values around 1: a window of 8 bits over some octaves."""


def vectors() -> Iterator[Vector]:
    yield from codecs()
    yield constants()
    yield from keys()
    yield from selection()
    yield from zeros()


def codecs() -> Iterator[Vector]:
    for codec, name in ((RAW, "raw"), (BITMASK, "bitmask"), (INDEX, "index"), (RUN, "run")):
        series = Series()
        for dtype in (INT8, FLOAT16, BFLOAT16, FLOAT32):
            data = tensor(f"{name} {DTYPES[dtype]}", 50, dtype)
            series.add(data, (2, 25), 25 if codec == RAW else 6, dtype, codec, flags=SKIP_ZERO * (codec == RUN))
            if codec != RAW:
                few = data[: 17 * WIDTH[dtype]]
                series.add(few, (1, 17), 17, dtype, codec)
        if codec != RAW:
            series.add(bytes(17), (1, 17), 0, INT8, codec)
        yield series.vector(f"codec-{name}", f"{name.upper()}, every dtype; all, some and none kept", config=KEYS)
    series = Series()
    for gap in (14, 15, 30):  # the nibbles 14 and 15, and chains of 15
        series.add(bytes(gap) + b"\x40" + bytes(60 - gap), (1, 61), 1, INT8, RUN)
        series.add(b"\x40" + bytes(gap) + b"\x40" + bytes(59 - gap), (1, 61), 2, INT8, RUN)
    yield series.vector("codec-run-gaps", "RUN with gaps around multiples of 15", config=[(0x510, 6)])
    series = Series()
    for n in (1, 2, 3, 5, 8, 129):
        series.add(noise(f"index {n}", n), (1, n), -(-n // 3), INT8, INDEX)
    yield series.vector("codec-widths", "INDEX positions of 0 to 8 bits", config=[(0x510, 7)])


def constants() -> Vector:
    skewed = bytes((0, 0, 0, 0, 1, 1, 2, 3)[byte & 7] for byte in noise("weights", 340))
    floats = [0x3F80_0000 | word % 0x40_0000 for word in struct.unpack("<160I", noise("floats", 640))]
    half = list(range(0, 340, 2))
    deep = {symbol: min(symbol + 1, 15) for symbol in range(16)}
    ladder = [symbol for symbol in range(16) for _ in range(1 if symbol else 300)]
    cases = [
        (INT8, huffman_block(list(skewed), range(340), INT8, {0: {0: 1, 1: 2, 2: 3, 3: 3}}), 340, 340),
        (INT8, huffman_block(list(skewed), half, INT8, {0: {0: 1, 1: 2, 2: 3, 3: 3}}), 340, len(half)),
        (INT8, huffman_block([9] * 160, range(160), INT8, {0: {9: 1}}), 160, 160),
        (INT8, huffman_block(ladder, range(315), INT8, {0: deep}), 315, 315),
        (INT8, huffman_block([1, 2, 3], [0, 2], INT8, {}), 3, 2),
        (INT8, huffman_block([1, 2, 3], [], INT8, {}), 3, 0),
        (FLOAT32, huffman_block(floats, range(160), FLOAT32, {3: {0x3F: 1}}), 160, 160),
        (
            FLOAT16,
            huffman_block([b * 257 for b in skewed[:340]], half, FLOAT16, {1: {0: 1, 1: 2, 2: 3, 3: 3}}),
            340,
            len(half),
        ),
        (INT8, encode(BITMASK, list(skewed[:80]), list(range(0, 80, 5)), INT8), 80, 16),
        (BFLOAT16, encode(RAW, split(noise("raw constant", 20), BFLOAT16), (), BFLOAT16), 10, 10),
    ]
    code, const, expect, at = list[Fields](), b"", list[tuple[int, int]](), TILE0
    for dtype, block, n, count in cases:
        size = n * WIDTH[dtype]
        code.append(
            descriptor(
                Op.RECV,
                dtype=dtype,
                codec=block[1],
                k=count,
                tile_n=n,
                tiles=1,
                src=CONST + len(const),
                dst=at,
                run_bytes=size,
                src_st1=len(block),
                fill=5,
            )
        )
        const += block
        expect.append((at, size))
        at += -(-size // 64) * 64
    return Vector("constants", "HUFFMAN and other blocks in section CONST", program(*code, const=const), {}, expect)


def keys() -> Iterator[Vector]:
    for dtype, name in enumerate(DTYPES):
        series = Series()
        for flags in (0, WIDE_KEYS, SCORED, SCORED | WIDE_KEYS):
            more = {"smap": 3, "dst_st2": 7} if flags & SCORED else {}
            series.add(tensor(f"keys {name} {flags}", 60, dtype), (2, 30), 11, dtype, flags=flags, **more)
        if dtype != INT8:
            data = join(SPECIAL[dtype], dtype)
            for k in (1, 5):
                series.add(data, (1, 10), k, dtype, flags=WIDE_KEYS)
        base = -3 & 0xFFFF_FFFF if dtype == INT8 else (0x3000, 0x3D00, 0x3D00)[dtype - 1]
        config = [(0x500 + 4 * dtype, base), (0x510 + 4 * dtype, 0xFFF5 if dtype == INT8 else 3)]
        smap = b"\xff\xff\xff" + noise("map", 7) + b"\0\x01"
        title = f"keys of {name}: 8 and 16 bits, with and without the map"
        yield series.vector(f"keys-{name}", title, config=config, smap=smap)


def selection() -> Iterator[Vector]:
    cases = [
        ("ties", bytes(b"\x05\xfb\x05\x04"[b & 3] for b in noise("ties", 48))),
        ("all equal", b"\x05" * 48),
        ("all zero", bytes(48)),
    ]
    series = Series()
    for _, data in cases:
        for k in (0, 1, 31):
            series.add(data, (1, 48), k, INT8)
    yield series.vector("select-ties", "ties, all equal, all zero; k of 0, 1 and 31", config=[(0x510, 2)])
    series = Series()
    series.add(b"\x11", (1, 1), 1, INT8)
    series.add(b"\x11", (1, 1), 0, INT8)
    series.add(noise("1023", 1023), (1, 1023), 255, INT8)
    # 1124 elements at a share of 0.25: a whole tile with k = 256, and a last one of 100 with k = 25
    long = noise("short last tile", 1124)
    series.add(long[:1024], (1, 1024), 256, INT8)
    series.add(long[1024:], (1, 100), 25, INT8)
    yield series.vector("select-lengths", "tiles of 1, 1023 and 1024 elements, a last short tile", config=[(0x510, 7)])


def zeros() -> Iterator[Vector]:
    series = Series()
    sparse = bytes(b if b & 0x60 == 0 else 7 for b in noise("sparse", 64))
    for codec in (BITMASK, INDEX, RUN, RAW):
        series.add(sparse, (2, 32), 32 if codec == RAW else 20, INT8, codec, flags=SKIP_ZERO, fill=7)
    series.add(b"\x07" * 64, (1, 64), 16, INT8, flags=SKIP_ZERO, fill=7)
    series.add(sparse, (1, 64), 40, INT8, flags=SKIP_ZERO)  # a fill that is not the zero point
    yield series.vector("skip-zero-int8", "SKIP_ZERO with the zero point as fill", config=[(0x500, 7), (0x510, 7)])
    series = Series()
    for dtype in (FLOAT16, BFLOAT16, FLOAT32):
        nan = {FLOAT16: 0x7E00, BFLOAT16: 0x7FC0, FLOAT32: 0x7FC0}[dtype]
        data = join(SPECIAL[dtype], dtype)
        for fill in (0, 0x8000, nan):
            series.add(data, (1, 10), 10, dtype, flags=SKIP_ZERO, fill=fill)
        series.add(data, (1, 10), 10, dtype, RAW, flags=SKIP_ZERO, fill=0x8000)
    yield series.vector("skip-zero-floats", "-0 equals 0, NaN equals nothing, not even itself", config=KEYS)
