"""Encode, decode, and choose: the public functions over the five bodies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from .block import MAX_ELEMS, Codec, Dtype, Header, Indices, Tile, Values, impossible, padded, seal, unseal
from .bodies import Bitmask, Body, Index, Raw, Run
from .huffman import Huffman

BODIES: Mapping[Codec, type[Body]] = {
    Codec.RAW: Raw,
    Codec.BITMASK: Bitmask,
    Codec.INDEX: Index,
    Codec.RUN: Run,
    Codec.HUFFMAN: Huffman,
}
FIXED = (Codec.RAW, Codec.BITMASK, Codec.INDEX)  # length known from n, the count and the dtype alone


def worst_case_bytes(codec: Codec, n: int, k: int, dtype: Dtype) -> int:
    """Bytes of the longest block with at most k of n elements kept: header, body and padding.

    For the FIXED codecs and exactly k kept elements, the bytes of every block.

    Raises: ValueError unless 0 <= k <= n <= 65535.
    """
    if not 0 <= k <= n <= MAX_ELEMS:
        raise ValueError(f"0 <= k <= n <= {MAX_ELEMS} does not hold for k = {k}, n = {n}")
    return padded(BODIES[codec].worst_bytes(n, k, dtype.width_bytes))


def smallest(n: int, k: int, dtype: Dtype, allowed: Iterable[Codec] = FIXED) -> Codec:
    """The allowed codec with the least worst-case bytes; of equals the one with the lower number, which does less.

    HUFFMAN's worst case is that of BITMASK: for constants, whose values are known, ask ``shortest_block``.

    Raises: ValueError if no codec is allowed, or as ``worst_case_bytes``.
    """
    return min(sorted(allowed), key=lambda codec: worst_case_bytes(codec, n, k, dtype))


def smallest_exact(n: int, k: int, dtype: Dtype, allowed: Iterable[Codec] = FIXED) -> Codec | None:
    """``smallest`` for a SEND that keeps exactly k: RAW carries all elements, so it may only where k = n.

    None if no other codec is allowed.
    """
    fitting = [codec for codec in allowed if codec != Codec.RAW or k == n]
    return smallest(n, k, dtype, fitting) if fitting else None


def encode(codec: Codec, values: Values, kept: npt.ArrayLike, dtype: Dtype, fill: float = 0) -> bytes:
    """The block of a tile, of at most ``worst_case_bytes(codec, n, k, dtype)``.

    ``kept`` is a bool mask, or the ascending indices, of what is kept. ``decode(...).dense(fill)`` returns the tile
    with ``fill`` elsewhere, whichever codec: only RAW writes the fill, the receiver of the others puts it in.

    Shapes: values [n] in ``dtype.array``, in traversal order; kept [n] bool, or [k] integer.
    Raises: ValueError for other shapes or types, n > 65535, or indices that do not ascend below n.
    """
    if values.dtype != dtype.array or values.ndim != 1 or len(values) > MAX_ELEMS:
        raise ValueError(
            f"a tile of {dtype.name} is one axis of at most {MAX_ELEMS} {dtype.array} values, "
            f"not {values.dtype} {list(values.shape)}"
        )
    n = len(values)
    indices = _indices(np.asarray(kept), n)
    kept_bits = np.ascontiguousarray(values).view(dtype.bits)[indices]
    tile = Tile(n, dtype, indices, kept_bits.view(dtype.array))
    if codec == Codec.RAW:
        tile = Tile(n, dtype, np.arange(n), tile.dense(fill))
    flags, body = BODIES[codec].encode(tile.values.view(dtype.bits), tile.indices, n)
    return seal(codec, dtype, flags, n, len(tile.indices), body)


def shortest_block(
    values: Values, kept: npt.ArrayLike, dtype: Dtype, allowed: Iterable[Codec] = tuple(Codec), fill: float = 0
) -> bytes:
    """The shortest block of a tile whose values are known when it is compiled; of equals as ``smallest``.

    Raises: ValueError if no codec is allowed, or as ``encode``.
    """
    return min((encode(codec, values, kept, dtype, fill) for codec in sorted(allowed)), key=len)


def decode(data: bytes) -> Tile:
    """The tile in a block, which nobody has vouched for.

    ``data`` is the block and nothing else; ``Header.parse(memory).block_bytes`` tells its length. A block that is
    accepted has the checksum it claims and decodes to ``count`` elements at ascending places below n; RAW, BITMASK,
    INDEX and RUN blocks are, in addition, byte for byte what ``encode`` writes for that tile.

    Raises: CompileError SCC096 (too long or short), SCC097 (checksum), SCC098 (unknown version, codec, dtype or flag),
    SCC099 (fields that contradict each other or the body).
    """
    header = Header.parse(data)
    bound = BODIES[header.codec].worst_bytes(header.n, header.count, header.dtype.width_bytes)
    if header.body_bytes > bound:
        raise impossible(
            f"the {header.codec.name} block has a body of {header.body_bytes} B; {header.count} of {header.n} "
            f"{header.dtype.name} elements never take more than {bound} B"
        )
    indices, bits = BODIES[header.codec].decode(unseal(data, header), header)
    return Tile(header.n, header.dtype, indices, bits.view(header.dtype.array))


def _indices(kept: npt.NDArray[np.generic], n: int) -> Indices:
    if kept.dtype == np.bool_ and kept.shape == (n,):
        return np.flatnonzero(kept)
    if kept.ndim == 1 and (kept.dtype.kind in "iu" or not kept.size):
        indices = kept.astype(np.int64)
        if not len(indices) or (indices[0] >= 0 and indices[-1] < n and (np.diff(indices) > 0).all()):
            return indices
    raise ValueError(f"what is kept is a mask of {n}, or ascending indices below {n}")
