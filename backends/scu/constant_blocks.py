"""Constants as blocks: their values are known, so with every codec, RUN and HUFFMAN too, the lengths of blocks are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .codecs import Codec, Dtype, encode

WORD = Dtype.FLOAT32
"""What any data of whole words is cut into. Blocks carry bits, so it may be of another dtype."""
MOST_TILES = 8
"""Of one RECV: queue IN has the transfers of edges too, which wait for what has begun there."""
Words = npt.NDArray[Any]  # [tiles, elements]


@dataclass(frozen=True)
class Blocks:
    """Blocks of ``tiles`` tiles of ``tile_n`` words, at most ``k`` in each, every one in a room of the longest."""

    codec: Codec
    tile_n: int
    tiles: int
    k: int
    room_bytes: int
    sent_bytes: int  # of the blocks, without what the rooms have beyond them
    data: bytes  # tiles * room_bytes

    @property
    def dense_bytes(self) -> int:
        return self.tiles * self.tile_n * WORD.width_bytes


def constant_blocks(data: bytes, tile_elems: int, codecs: Collection[Codec]) -> list[Blocks]:
    """Blocks of whole words, MOST_TILES tiles of ``tile_elems`` in a group; a shorter last tile is a group of its own.

    Words of 0 are left out, for RECV to fill in. A group has the codec that takes the fewest bytes in it.
    """
    words = np.frombuffer(data, WORD.array)
    whole = len(words) // tile_elems * tile_elems
    tiles = words[:whole].reshape(-1, tile_elems)
    groups = [tiles[i : i + MOST_TILES] for i in range(0, len(tiles), MOST_TILES)] + [words[whole:].reshape(1, -1)]
    return [_shortest(group, codecs) for group in groups if group.size]


def _shortest(tiles: Words, codecs: Collection[Codec]) -> Blocks:
    kept = tiles.view(WORD.bits) != 0  # so -0 travels

    def blocks(codec: Codec) -> list[bytes]:
        return [encode(codec, tile, mask, WORD) for tile, mask in zip(tiles, kept, strict=True)]

    encoded = {codec: blocks(codec) for codec in sorted(codecs)}
    codec = min(encoded, key=lambda codec: sum(map(len, encoded[codec])))
    sent, n = encoded[codec], tiles.shape[1]
    room = max(map(len, sent))
    k = n if codec == Codec.RAW else int(kept.sum(1).max())
    data = b"".join(block.ljust(room, b"\0") for block in sent)
    return Blocks(codec, n, len(sent), k, room, sum(map(len, sent)), data)
