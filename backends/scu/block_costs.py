"""What the block of one tile takes, before there is a program: bytes, and cycles of the timing model."""

from __future__ import annotations

from collections.abc import Sequence

from sparsecc.contracts import keep_elems

from .codecs import Codec, Dtype, smallest_exact, worst_case_bytes
from .descriptor import Descriptor, Flag, Op, Queue, flags
from .lower import CHUNKS_IN_LINK
from .machine import Target
from .spill import block_memory
from .timing import duration


def block_bytes(allowed: Sequence[Codec], elems: int, share_q16: int, payload_dtype: str) -> int:
    """Header and padding included, of the shortest codec; what no codec allowed leaves out is sent with RAW."""
    dtype = Dtype[payload_dtype.upper()]
    codec, k = _codec(allowed, elems, share_q16, dtype)
    return worst_case_bytes(codec, elems, k, dtype)


def block_cycles(target: Target, allowed: Sequence[Codec], elems: int, share_q16: int, payload_dtype: str) -> int:
    """Of a SEND and one RECV, on idle units and one after the other.

    A tile of full length takes its part of a descriptor with as many tiles as lowering gives to one; a shorter one has
    a descriptor of its own. A block that is longer than the link's buffer goes through DRAM. Left out: further
    receivers, what the schedule overlaps, and the kernels that make int8 of float32 and float32 of int8.
    """
    dtype = Dtype[payload_dtype.upper()]
    codec, k = _codec(allowed, elems, share_q16, dtype)
    block = worst_case_bytes(codec, elems, k, dtype)
    room = target.the("link").bytes // CHUNKS_IN_LINK
    tiles = max(1, room // block) if elems == target.selector.tile_elems else 1
    between = target.memory[block_memory(target, block)].address
    ends = sorted(memory.address for memory in target.memory.values() if memory.kind == "scratchpad")
    shape = {"dtype": dtype, "codec": codec, "k": k, "tile_n": elems, "tiles": tiles}
    shape |= {"run_bytes": dtype.width_bytes * elems * tiles, "reps1": 1, "reps2": 1}
    keys = Flag.WIDE_KEYS if k < elems else Flag(0)
    send = Descriptor(Op.SEND, flags(Queue.OUT) | keys, src=ends[0], dst=between, dst_st1=block, **shape)
    receive = Descriptor(Op.RECV, flags(Queue.IN), src=between, dst=ends[-1], src_st1=block, **shape)
    return -(-(duration(send, None, target) + duration(receive, None, target)) // tiles)


def _codec(allowed: Sequence[Codec], elems: int, share_q16: int, dtype: Dtype) -> tuple[Codec, int]:
    k = keep_elems(elems, share_q16)
    codec = smallest_exact(elems, k, dtype, allowed)
    return (Codec.RAW, elems) if codec is None else (codec, k)
