"""The bodies of RAW, BITMASK, INDEX and RUN: first the positions of the kept elements, then their values.

Values are little-endian, without gaps, in traversal order. Positions fill bits from the least significant of each byte
up; unused bits are zero. Every body has exactly one encoding, so ``decode`` refuses all others.

n is the elements of the tile, k and count those kept, width the bytes of one.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from .block import Bits, Header, Indices, impossible

RUN_ESCAPE = 15  # the largest nibble: this many elements dropped, and no value yet


class Body(Protocol):
    """What a codec puts between header and padding."""

    @staticmethod
    def worst_bytes(n: int, k: int, width: int) -> int:
        """Bytes that no body with k or fewer kept elements of n exceeds."""
        ...

    @staticmethod
    def encode(bits: Bits, indices: Indices, n: int) -> tuple[int, bytes]:
        """The header's flags and the body."""
        ...

    @staticmethod
    def decode(body: bytes, header: Header) -> tuple[Indices, Bits]:
        """Inverse of encode, for a body of at most ``worst_bytes(n, count)``.

        Raises: CompileError SCC099 for a body that encode cannot have made.
        """
        ...


class Raw:
    """Every element, no positions; what was dropped is its fill."""

    @staticmethod
    def worst_bytes(n: int, k: int, width: int) -> int:  # noqa: ARG004  one length, whatever is kept
        return n * width

    @staticmethod
    def encode(bits: Bits, indices: Indices, n: int) -> tuple[int, bytes]:  # noqa: ARG004
        return 0, bits.tobytes()

    @staticmethod
    def decode(body: bytes, header: Header) -> tuple[Indices, Bits]:
        check_length(body, header, Raw.worst_bytes(header.n, header.n, header.dtype.width_bytes))
        return np.arange(header.n, dtype=np.int64), np.frombuffer(body, header.dtype.bits)


class Bitmask:
    """ceil(n / 8) bytes of mask, bit i set if element i is kept, then the values."""

    @staticmethod
    def worst_bytes(n: int, k: int, width: int) -> int:
        return mask_bytes(n) + k * width

    @staticmethod
    def encode(bits: Bits, indices: Indices, n: int) -> tuple[int, bytes]:
        return 0, encode_mask(indices, n) + bits.tobytes()

    @staticmethod
    def decode(body: bytes, header: Header) -> tuple[Indices, Bits]:
        check_length(body, header, Bitmask.worst_bytes(header.n, header.count, header.dtype.width_bytes))
        return decode_mask(body, header), np.frombuffer(body, header.dtype.bits, offset=mask_bytes(header.n))


class Index:
    """ceil(log2 n) bits of position per kept element, then the values."""

    @staticmethod
    def worst_bytes(n: int, k: int, width: int) -> int:
        return _index_bytes(n, k) + k * width

    @staticmethod
    def encode(bits: Bits, indices: Indices, n: int) -> tuple[int, bytes]:
        wide = np.unpackbits(indices.astype("<u2")[:, None].view(np.uint8), axis=1, bitorder="little")
        return 0, np.packbits(wide[:, : index_bits(n)], bitorder="little").tobytes() + bits.tobytes()

    @staticmethod
    def decode(body: bytes, header: Header) -> tuple[Indices, Bits]:
        n, count = header.n, header.count
        check_length(body, header, Index.worst_bytes(n, count, header.dtype.width_bytes))
        stream = np.unpackbits(np.frombuffer(body, np.uint8, _index_bytes(n, count)), bitorder="little")
        used = count * index_bits(n)
        if stream[used:].any():
            raise impossible("the unused bits after the INDEX block's last position are not zero")
        wide = np.zeros((count, 16), np.uint8)
        wide[:, : index_bits(n)] = stream[:used].reshape(count, index_bits(n))
        indices = np.packbits(wide, axis=1, bitorder="little").view("<u2").ravel().astype(np.int64)
        if (np.diff(indices) <= 0).any() or (count and indices[-1] >= n):
            raise impossible(f"the positions of the INDEX block are not {count} ascending numbers below {n}")
        return indices, np.frombuffer(body, header.dtype.bits, offset=_index_bytes(n, count))


class Run:
    """A nibble per kept element, the elements dropped before it (0 to 14), then the values.

    Nibble 15 drops 15 elements and has no value; the low nibble of a byte comes first; an odd number of nibbles is
    filled up with a 15. What follows the last kept element is dropped without being written. The length depends on
    where the kept elements are.
    """

    @staticmethod
    def worst_bytes(n: int, k: int, width: int) -> int:
        """Each of the n - k dropped elements stands in at most one nibble 15."""
        nibbles = k + (n - k) // RUN_ESCAPE if k else 0
        return -(-nibbles // 2) + k * width

    @staticmethod
    def encode(bits: Bits, indices: Indices, n: int) -> tuple[int, bytes]:  # noqa: ARG004
        escapes, rest = np.divmod(np.diff(indices, prepend=-1) - 1, RUN_ESCAPE)
        ends = np.cumsum(escapes + 1)
        used = int(ends[-1]) if len(ends) else 0
        nibbles = np.full(used + used % 2, RUN_ESCAPE, np.uint8)
        nibbles[ends - 1] = rest
        return 0, (nibbles[0::2] | nibbles[1::2] << 4).tobytes() + bits.tobytes()

    @staticmethod
    def decode(body: bytes, header: Header) -> tuple[Indices, Bits]:
        count = header.count
        run_bytes = len(body) - count * header.dtype.width_bytes
        if run_bytes < 0:
            raise impossible(f"the body of the RUN block has {len(body)} B, too few for {count} values")
        pairs = np.frombuffer(body, np.uint8, run_bytes)
        nibbles = np.stack((pairs & 15, pairs >> 4), axis=1).ravel()
        has_value = nibbles < RUN_ESCAPE
        indices = np.cumsum(nibbles + has_value, dtype=np.int64)[has_value] - 1
        if len(indices) != count or (count and indices[-1] >= header.n):
            raise impossible(f"the runs of the RUN block do not lead to {count} of {header.n} elements")
        if run_bytes and not has_value[-2:].any():
            raise impossible("the RUN block goes on after its last value")
        return indices, np.frombuffer(body, header.dtype.bits, offset=run_bytes)


def mask_bytes(n: int) -> int:
    return -(-n // 8)


def encode_mask(indices: Indices, n: int) -> bytes:
    mask = np.zeros(n, np.uint8)
    mask[indices] = 1
    return np.packbits(mask, bitorder="little").tobytes()


def decode_mask(body: bytes, header: Header) -> Indices:
    """The positions in the mask at the start of a body.

    Raises: CompileError SCC099 unless exactly ``count`` bits are set, all below n.
    """
    mask: npt.NDArray[np.uint8] = np.frombuffer(body, np.uint8, mask_bytes(header.n))
    indices = np.flatnonzero(np.unpackbits(mask, bitorder="little"))
    if len(indices) != header.count or (header.count and indices[-1] >= header.n):
        name = header.codec.name
        raise impossible(f"the mask of the {name} block does not mark {header.count} of {header.n} elements")
    return indices


def index_bits(n: int) -> int:
    """Bits of one position: ceil(log2 n), none where only one is possible."""
    return (n - 1).bit_length() if n else 0


def check_length(body: bytes, header: Header, expected: int) -> None:
    """Raises: CompileError SCC099 if a body of fixed length has another one."""
    if len(body) != expected:
        raise impossible(
            f"the body of the {header.codec.name} block has {len(body)} B; {header.count} of {header.n} "
            f"{header.dtype.name} elements take {expected} B"
        )


def _index_bytes(n: int, k: int) -> int:
    return -(-k * index_bits(n) // 8)
