"""Elements, keys, selection and blocks in plain Python, written from ../scu.md alone (chapters 6, 7 and 10).

Slow on purpose: every line is a sentence of the specification. An element is the unsigned integer of its bits.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping, Sequence

INT8, FLOAT16, BFLOAT16, FLOAT32 = range(4)
RAW, BITMASK, INDEX, RUN, HUFFMAN = range(5)
WIDTH = (1, 2, 2, 4)
INFINITY = (0, 0x7C00, 0x7F80, 0x7F80_0000)
MANTISSA_BITS = (0, 10, 7, 7)


class Refused(Exception):
    """A block that no unit may accept; the argument is the error class."""


def split(data: bytes, dtype: int) -> list[int]:
    width = WIDTH[dtype]
    return [int.from_bytes(data[i : i + width], "little") for i in range(0, len(data), width)]


def join(elements: Sequence[int], dtype: int) -> bytes:
    return b"".join(bits.to_bytes(WIDTH[dtype], "little") for bits in elements)


def value(bits: int, dtype: int) -> float:
    """Exact in binary64."""
    if dtype == INT8:
        return float(bits - 256 if bits > 127 else bits)
    if dtype == FLOAT16:
        return float(struct.unpack("<e", struct.pack("<H", bits))[0])
    return float(struct.unpack("<f", struct.pack("<I", bits << 16 if dtype == BFLOAT16 else bits))[0])


# ---- keys and selection ----------------------------------------------------------------------------------------------


def offset(s: int, mantissa_bits: int) -> int:
    """round(2**mantissa_bits * log2(s / 255)) by whole numbers alone, so that no libm can differ."""
    if s == 0:
        return -32768
    power = 1 << (mantissa_bits + 1)
    high, low = int(255**power), int(s**power)
    floor_log2 = high.bit_length() - low.bit_length()
    if low << floor_log2 > high:
        floor_log2 -= 1
    return -((floor_log2 + 1) // 2)


OFFSETS: list[list[int]] = [[]] + [[offset(s, bits) for s in range(256)] for bits in MANTISSA_BITS[1:]]


def key(bits: int, dtype: int, s: int, base: int, shift: int, most: int) -> int:
    if dtype == INT8:
        return min(most, int(abs(value(bits, INT8) - base)) * s >> shift)
    unsigned = bits & (0x7FFF_FFFF if dtype == FLOAT32 else 0x7FFF)
    if unsigned > INFINITY[dtype]:
        return most
    magnitude = unsigned >> 16 if dtype == FLOAT32 else unsigned
    return max(0, min(most, (magnitude + OFFSETS[dtype][s] - base) >> shift))


def first_k(keys: Sequence[int], k: int) -> list[int]:
    return sorted(sorted(range(len(keys)), key=lambda place: (-keys[place], place))[:k])


# ---- blocks ----------------------------------------------------------------------------------------------------------


def padded(body_bytes: int) -> int:
    return -(-(16 + body_bytes) // 32) * 32


def index_bits(n: int) -> int:
    return math.ceil(math.log2(n)) if n > 1 else 0


def most_body_bytes(codec: int, n: int, k: int, width: int) -> int:
    mask, values = -(-n // 8), k * width
    if codec == RAW:
        return n * width
    if codec == INDEX:
        return -(-k * index_bits(n) // 8) + values
    if codec == RUN:
        return -(-(k + (n - k) // 15) // 2) + values if k else 0
    if codec == HUFFMAN:
        return max(mask + min(k, n - 1) * width, values)
    return mask + values


def room(codec: int, n: int, k: int, dtype: int) -> int:
    """The most bytes of a block."""
    return padded(most_body_bytes(codec, n, k, WIDTH[dtype]))


def seal(codec: int, dtype: int, flags: int, n: int, count: int, body: bytes) -> bytes:
    head = struct.pack("<4B2HI", 1, codec, dtype, flags, n, count, len(body))
    return (head + struct.pack("<I", zlib.crc32(head + body)) + body).ljust(padded(len(body)), b"\0")


def positions(codec: int, n: int, places: Sequence[int]) -> bytes:
    if codec == BITMASK:
        return sum(1 << place for place in places).to_bytes(-(-n // 8), "little")
    if codec == INDEX:
        bits = index_bits(n)
        stream = sum(place << (i * bits) for i, place in enumerate(places))
        return stream.to_bytes(-(-len(places) * bits // 8), "little")
    nibbles, at = list[int](), 0
    for place in places:
        while place - at > 14:
            nibbles.append(15)
            at += 15
        nibbles.append(place - at)
        at = place + 1
    if len(nibbles) % 2:
        nibbles.append(15)
    return bytes(low | high << 4 for low, high in zip(nibbles[0::2], nibbles[1::2], strict=True))


def encode(codec: int, elements: Sequence[int], places: Sequence[int], dtype: int) -> bytes:
    """Of RAW, ``elements`` are those that are sent, fill among them."""
    n = len(elements)
    if codec == RAW:
        return seal(RAW, dtype, 0, n, n, join(elements, dtype))
    body = positions(codec, n, places) + join([elements[place] for place in places], dtype)
    return seal(codec, dtype, 0, n, len(places), body)


def codes(lengths: Mapping[int, int]) -> dict[int, str]:
    """Canonical: of the symbols by (length, symbol), each code is the one before plus 1, widened by zeros."""
    found, code, before = dict[int, str](), -1, 0
    for symbol, length in sorted(lengths.items(), key=lambda item: (item[1], item[0])):
        code = (code + 1) << (length - before) if before else 0
        before = length
        found[symbol] = format(code, f"0{length}b")
    return found


def coded_plane(plane: bytes, lengths: Mapping[int, int]) -> bytes:
    table = bytes(lengths.get(s, 0) | lengths.get(s + 1, 0) << 4 for s in range(0, 256, 2))
    code = codes(lengths)
    stream = "".join(code[symbol] for symbol in plane)
    return table + int("0" + stream[::-1], 2).to_bytes(-(-len(stream) // 8), "little")


def huffman_block(
    elements: Sequence[int], places: Sequence[int], dtype: int, lengths: Mapping[int, Mapping[int, int]]
) -> bytes:
    """A legal HUFFMAN block; ``lengths`` are the code lengths of those byte planes that are coded."""
    n, kept = len(elements), join([elements[place] for place in places], dtype)
    body = positions(BITMASK, n, places) if len(places) < n else b""
    for i in range(WIDTH[dtype]):
        plane = kept[i :: WIDTH[dtype]]
        body += coded_plane(plane, lengths[i]) if i in lengths else plane
    return seal(HUFFMAN, dtype, sum(1 << i for i in lengths), n, len(places), body)


def decode(data: bytes, codec: int, dtype: int, tile_n: int, k: int) -> tuple[dict[int, int], int]:
    """Elements by place, and the bytes of the block at the start of ``data``; checks only what vectors need."""
    version, found, own, flags, n, count, size, crc = struct.unpack_from("<4B2H2I", data)
    if version != 1:
        raise Refused("SCC098")
    if (found, own, n) != (codec, dtype, tile_n) or count > k:
        raise Refused("SCC099")
    if padded(size) > len(data):
        raise Refused("SCC096")
    body = data[16 : 16 + size]
    if zlib.crc32(data[:12] + body) != crc:
        raise Refused("SCC097")
    if codec == HUFFMAN:
        return _decode_huffman(body, flags, n, count, dtype), padded(size)
    start = size - count * WIDTH[dtype]
    places = list(range(n)) if codec == RAW else _places(codec, body[:start], n, count)
    return dict(zip(places, split(body[start:], dtype), strict=True)), padded(size)


def _places(codec: int, data: bytes, n: int, count: int) -> list[int]:
    stream = int.from_bytes(data, "little")
    if codec == BITMASK:
        return [place for place in range(n) if stream >> place & 1]
    if codec == INDEX:
        bits = index_bits(n)
        return [stream >> (i * bits) & ((1 << bits) - 1) for i in range(count)]
    places, at = list[int](), 0
    for i in range(2 * len(data)):
        nibble = stream >> (4 * i) & 15
        at += nibble
        if nibble < 15:
            places.append(at)
            at += 1
    return places


def _decode_huffman(body: bytes, flags: int, n: int, count: int, dtype: int) -> dict[int, int]:
    at, places = 0, list(range(n))
    if count < n:
        at = -(-n // 8)
        places = _places(BITMASK, body[:at], n, count)
    elements = [0] * count
    for i in range(WIDTH[dtype]):
        plane, at = (_coded(body, at, count)) if flags >> i & 1 else (body[at : at + count], at + count)
        elements = [element | byte << (8 * i) for element, byte in zip(elements, plane, strict=True)]
    return dict(zip(places, elements, strict=True))


def _coded(body: bytes, at: int, count: int) -> tuple[bytes, int]:
    lengths = {s: body[at + s // 2] >> (s % 2 * 4) & 15 for s in range(256)}
    symbols = {code: s for s, code in codes({s: length for s, length in lengths.items() if length}).items()}
    plane, bit, start = bytearray(), 0, 8 * (at + 128)
    while len(plane) < count:
        code = ""
        while code not in symbols:
            code += str(body[(start + bit) // 8] >> ((start + bit) % 8) & 1)
            bit += 1
        plane.append(symbols[code])
    return bytes(plane), at + 128 + -(-bit // 8)
