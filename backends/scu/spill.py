"""Where the blocks of an edge wait for their receivers: in the link's buffer, or in DRAM if one is longer than that."""

from __future__ import annotations

from sparsecc.contracts.negotiation import halves

from .codecs import Codec, Dtype, worst_case_bytes
from .machine import Target
from .schedule.graph import lines_bytes


def block_memory(target: Target, block_bytes: int) -> str:
    """The memory of the blocks of an edge, by the bytes of its longest."""
    kind = "link" if block_bytes <= lines_bytes(target.the("link")) else "dram"
    return next(name for name, memory in target.memory.items() if memory.kind == kind)


def tile_of_everything(target: Target, codec: Codec, elems: int) -> int:
    """The tile of an edge without a contract: the longest that negotiation offers whose block need not spill.

    Where all of them must, the longest.
    """
    tiles = [min(tile, elems) for tile in halves(target.selector.tile_elems)]
    rooms = {n: worst_case_bytes(codec, n, n, Dtype.FLOAT32) for n in tiles}
    return next((n for n in tiles if rooms[n] <= lines_bytes(target.the("link"))), tiles[0])
