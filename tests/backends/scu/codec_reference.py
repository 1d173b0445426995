"""A second decoder, from the text of the format alone: one bit at a time, no numpy, no checks."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

WIDTH_BYTES = (1, 2, 2, 4)


def bits_of(data: bytes) -> Iterator[int]:
    for byte in data:
        for place in range(8):
            yield byte >> place & 1


def marked(data: bytes, n: int) -> list[int]:
    return [i for i, bit in zip(range(n), bits_of(data), strict=False) if bit]


def positions_of_index(data: bytes, n: int, count: int) -> list[int]:
    width = 0
    while 2**width < n:
        width += 1
    bits = bits_of(data)
    return [sum(next(bits) << place for place in range(width)) for _ in range(count)]


def positions_of_run(data: bytes) -> list[int]:
    positions: list[int] = []
    at = 0
    for nibble in (half for byte in data for half in (byte & 15, byte >> 4)):
        at += nibble
        if nibble < 15:
            positions.append(at)
            at += 1
    return positions


def coded_plane(data: bytes, count: int) -> tuple[bytes, int]:
    lengths = [half for byte in data[:128] for half in (byte & 15, byte >> 4)]
    symbol_of: dict[tuple[int, int], int] = {}
    code = 0
    for length in range(1, 16):
        code <<= 1
        for symbol in range(256):
            if lengths[symbol] == length:
                symbol_of[length, code] = symbol
                code += 1
    stream = bits_of(data[128:])
    plane = bytearray()
    used = 0
    while len(plane) < count:
        length = word = 0
        while (length, word) not in symbol_of:
            word = word << 1 | next(stream)
            length += 1
        plane.append(symbol_of[length, word])
        used += length
    return bytes(plane), 128 + (used + 7) // 8


def reference_decode(block: bytes) -> tuple[int, list[int], list[int]]:
    """n, the positions of the values, and their bits."""
    version, codec, dtype, flags, n, count, body_bytes, crc = struct.unpack("<BBBBHHII", block[:16])
    body = block[16 : 16 + body_bytes]
    assert version == 1
    assert crc == zlib.crc32(block[:12] + body)
    assert len(block) == (16 + body_bytes + 31) // 32 * 32
    width = WIDTH_BYTES[dtype]
    mask_bytes = (n + 7) // 8
    stored = body[len(body) - count * width :]
    if codec == 0:
        positions = list(range(n))
    elif codec == 1:
        positions = marked(body, n)
    elif codec == 2:
        positions = positions_of_index(body, n, count)
    elif codec == 3:
        positions = positions_of_run(body[: len(body) - count * width])
    else:
        positions = list(range(n)) if count == n else marked(body, n)
        rest = body if count == n else body[mask_bytes:]
        planes: list[bytes] = []
        for i in range(width):
            plane, used = coded_plane(rest, count) if flags >> i & 1 else (rest[:count], count)
            planes.append(plane)
            rest = rest[used:]
        assert rest == b""
        stored = bytes(plane[j] for j in range(count) for plane in planes)
    values = [int.from_bytes(stored[j * width : (j + 1) * width], "little") for j in range(count)]
    return n, positions, values
