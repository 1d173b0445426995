"""The body of HUFFMAN, for constants: BITMASK with the values split into byte planes, each coded where that is shorter.

The mask comes first, and is left out where every element is kept. Then, from the least significant byte of the values
up, one plane of ``count`` bytes each: as it is, or (flag bit set) as 256 code lengths of 4 bits, low nibble first, and
the codes, up to a full byte. Codes are canonical (shorter first, then by symbol), of at most 15 bits, and written
from their most significant bit into the least significant free bit of the stream, as in DEFLATE (RFC 1951, 3.1.1 and
3.2.2). The code is complete; only that of a plane with a single symbol has one unused code, 1. A coded plane is always
shorter than the plain one, so the worst case is that of BITMASK.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import merge
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .block import Bits, Header, Indices, impossible
from .bodies import decode_mask, encode_mask, mask_bytes

MAX_CODE_BITS = 15  # a length fits a nibble
TABLE_BYTES = 128
_Package: TypeAlias = tuple[int, tuple[int, ...]]  # how often its symbols occur, and the symbols
Plane: TypeAlias = npt.NDArray[np.uint8]  # [count] one byte of every value
Lengths: TypeAlias = npt.NDArray[np.int64]  # [256] bits of each symbol's code, 0 without one; or [codes] of some


class Huffman:
    """The codec as in Body; encode finds the shortest lengths under the 15-bit limit, decode accepts any others."""

    @staticmethod
    def worst_bytes(n: int, k: int, width: int) -> int:
        """With every element kept the mask goes, which can make the block shorter than with one element less."""
        return max(mask_bytes(n) + min(k, max(n - 1, 0)) * width, k * width)

    @staticmethod
    def encode(bits: Bits, indices: Indices, n: int) -> tuple[int, bytes]:
        planes = bits.view(np.uint8).reshape(len(bits), bits.itemsize)
        flags, body = 0, encode_mask(indices, n) if len(indices) < n else b""
        for i in range(bits.itemsize):
            plain = planes[:, i].tobytes()
            coded = encode_plane(planes[:, i]) if _may_shrink(planes[:, i]) else plain
            shorter = len(coded) < len(plain)
            flags |= shorter << i
            body += coded if shorter else plain
        return flags, body

    @staticmethod
    def decode(body: bytes, header: Header) -> tuple[Indices, Bits]:
        n, count, width = header.n, header.count, header.dtype.width_bytes
        start = mask_bytes(n) if count < n else 0
        if len(body) < start:
            raise impossible(f"the body of the HUFFMAN block has {len(body)} B, too few for a mask of {n} elements")
        indices = decode_mask(body, header) if count < n else np.arange(n, dtype=np.int64)
        planes = np.empty((count, width), np.uint8)
        for i in range(width):
            rest = body[start:]
            if header.flags >> i & 1:
                planes[:, i], used = decode_plane(rest, count)
            elif len(rest) >= count:
                planes[:, i], used = np.frombuffer(rest, np.uint8, count), count
            else:
                raise impossible(f"the HUFFMAN block ends inside byte {i} of its values")
            start += used
        if start != len(body):
            raise impossible(f"the HUFFMAN block goes on for {len(body) - start} B after its last value")
        return indices, planes.view(header.dtype.bits).reshape(count)


def _may_shrink(plane: Plane) -> bool:
    """False only where no code is short enough: none beats the entropy (Shannon), which is far quicker to find."""
    counts = np.bincount(plane, minlength=1)
    counts = counts[counts > 0]
    bits = float((counts * np.log2(len(plane) / counts)).sum())
    return TABLE_BYTES + bits / 8 < len(plane) + 1  # 1: far beyond rounding


def encode_plane(plane: Plane) -> bytes:
    """Table and codes of a plane of at least one byte."""
    lengths = code_lengths(np.bincount(plane, minlength=256).tolist())
    order = canonical(lengths)
    share = shares(lengths[order])
    codes = np.zeros(256, np.int64)
    codes[order] = (np.cumsum(share) - share) >> (MAX_CODE_BITS - lengths[order])
    length = lengths[plane][:, None]
    place = np.arange(MAX_CODE_BITS)
    stream = (codes[plane][:, None] >> np.maximum(length - 1 - place, 0) & 1)[place < length]
    table = lengths.astype(np.uint8)
    return (table[0::2] | table[1::2] << 4).tobytes() + np.packbits(stream, bitorder="little").tobytes()


def decode_plane(data: bytes, count: int) -> tuple[Plane, int]:
    """The plane of ``count`` bytes at the start of ``data``, and the bytes it took there.

    Raises: CompileError SCC099 for lengths that make no complete code, a code that does not exist, a stream that ends
    early, unused bits that are not zero, or a plane that is not shorter than ``count``.
    """
    if len(data) < TABLE_BYTES:
        raise impossible("the HUFFMAN block ends inside a table of code lengths")
    pairs = np.frombuffer(data, np.uint8, TABLE_BYTES)
    lengths = np.stack((pairs & 15, pairs >> 4), axis=1).ravel().astype(np.int64)
    order = canonical(lengths)
    share = shares(lengths[order])
    if share.sum() != 1 << MAX_CODE_BITS and lengths[order].tolist() != [1]:
        raise impossible("the code lengths of the HUFFMAN block make no complete prefix code")
    symbol_of = np.repeat(order, share)
    # A plane is shorter than count bytes, so nothing of it lies beyond.
    stream = np.unpackbits(np.frombuffer(data[TABLE_BYTES:count], np.uint8), bitorder="little")
    ahead = np.append(stream, np.zeros(MAX_CODE_BITS, np.uint8)).astype(np.int32)
    words = np.zeros(len(stream) + 1, np.int32)  # the next 15 bits at every bit, and at the end
    for j in range(MAX_CODE_BITS):
        words |= ahead[j : j + len(words)] << (MAX_CODE_BITS - 1 - j)
    known = words < len(symbol_of)
    symbols = np.where(known, symbol_of[np.where(known, words, 0)], -1)
    places, end = _walk(np.where(known, lengths[symbols], len(words)).tolist(), count)
    if end > len(stream):
        raise impossible("the codes of the HUFFMAN block end early, or one does not exist")
    used = TABLE_BYTES + -(-end // 8)
    if used >= count:
        raise impossible("a coded plane of the HUFFMAN block is not shorter than the plain one")
    if stream[end : (used - TABLE_BYTES) * 8].any():
        raise impossible("the unused bits after the HUFFMAN block's last code are not zero")
    return symbols[places].astype(np.uint8), used


def canonical(lengths: Lengths) -> npt.NDArray[np.int64]:
    """The symbols that have a code, in the order of their codes."""
    return np.argsort(lengths, kind="stable")[np.count_nonzero(lengths == 0) :]


def shares(lengths: Lengths) -> npt.NDArray[np.int64]:
    """How many of the 2^15 words of 15 bits start with a code of each length."""
    return np.left_shift(1, MAX_CODE_BITS - lengths)


def code_lengths(counts: Sequence[int]) -> Lengths:
    """The lengths, at most 15, that write symbols of these counts in the fewest bits; 0 for symbols that do not occur.

    Source: package-merge, Larmore and Hirschberg, "A fast algorithm for optimal length-limited Huffman codes", 1990.
    """
    leaves: list[_Package] = sorted((count, (symbol,)) for symbol, count in enumerate(counts) if count)
    if len(leaves) == 1:
        return (np.asarray(counts) > 0).astype(np.int64)
    merged = leaves
    for _ in range(MAX_CODE_BITS - 1):
        packages = [(a + b, s + t) for (a, s), (b, t) in zip(merged[0::2], merged[1::2], strict=False)]
        merged = list(merge(leaves, packages, key=lambda item: item[0]))  # stable: a leaf before a package
    chosen = [symbol for _, symbols in merged[: 2 * len(leaves) - 2] for symbol in symbols]
    return np.bincount(chosen, minlength=256)


def _walk(steps: list[int], count: int) -> tuple[list[int], int]:
    """Where ``count`` steps from 0 start, and where the last one ends, which is off the list once one leads there."""
    places: list[int] = []
    at = 0
    for _ in range(count):
        if at >= len(steps):
            break
        places.append(at)
        at += steps[at]
    return places, at
