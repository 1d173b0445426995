"""The 64-byte descriptor: fields, operations, and the packing of lists of them. Little-endian, no padding.

What the fields mean; what an operation does not use is 0:

op, flags        Op; Flag in bits 5:0, Queue in bits 7:6. Descriptors of a queue run in program order, those of
                 different queues are ordered by semaphores alone.
dtype, codec     of SEND, RECV, SMAP_UPD; as in block headers
contract         CONTRACT: the register to load. SEND with REGISTER: the register that holds the k of each tile
k                SEND, RECV: kept elements of each tile, with REGISTER the most that the contract may ask for.
                 CONTRACT: the entry of section CNTR. COMPUTE: the entry of section KTAB
acq_sem, acq_ge  before it runs: wait until the count is at least acq_ge, then take acq_ge away; 0 does not wait
rel_sem, rel_add after it ran: add rel_add to the count
tile_n, tiles    elements of a tile, and how many tiles; all tiles of a descriptor have the same length
src, dst         region in bits 63:56, byte offset below; 0 is no address
run_bytes, reps1, reps2, *_st1, *_st2
                 the dense side is run_bytes x reps1 x reps2 with byte strides st1, st2 (0 where it repeats once)
dst_st1, dst_st2 of SEND: bytes reserved for each block, a multiple of 32; elements that share a map entry, if SCORED
src_st1          of RECV: bytes reserved for each block
smap             the first map entry: SEND with SCORED, SMAP_UPD (whose dst_st2 says how many elements share one)
fill             the element that stands for what was dropped, of float32 its top 16 bits
next             PREDICATED: where the program goes on if the byte at src is 0; only forward, so every program ends
tag              of the compiler's choosing; traces show it

Operations:

NOP        nothing but its semaphores. PREDICATED: the command processor reads a byte at src and may skip to ``next``
COPY       src to dst, dense on both sides
SEND       dense tiles at src -> blocks at dst: keep k of each, encode
RECV       blocks at src -> dense tiles at dst: decode, put ``fill`` elsewhere
COMPUTE    run kernel k on src -> dst (and on the operands that section KTAB lists)
WAIT       hold the queue until acq_sem allows
SIGNAL     add to rel_sem
CFGW       run_bytes from src into the registers at dst
SMAP_LOAD  run_bytes from src into the sensitivity map at dst
SMAP_UPD   fold the activations at src into the running averages of the map
CONTRACT   load a contract register from an entry of section CNTR
FENCE      hold all queues until every descriptor before it is done
END        the last descriptor
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt

DESCRIPTOR_BYTES = 64


class Op(IntEnum):
    NOP = 0
    COPY = 1
    SEND = 2
    RECV = 3
    COMPUTE = 4
    WAIT = 5
    SIGNAL = 6
    CFGW = 7
    SMAP_LOAD = 8
    SMAP_UPD = 9
    CONTRACT = 10
    FENCE = 11
    END = 12


class Flag(IntFlag):
    PREDICATED = 1  # NOP
    SKIP_ZERO = 2  # SEND: drop kept elements equal to fill, too
    SCORED = 4  # SEND: keys take the sensitivity map into account
    REGISTER = 8  # SEND: k is that of a contract register
    WIDE_KEYS = 16  # SEND: keys of 16 bits, not 8


class Queue(IntEnum):
    IN = 0
    OUT = 1
    LINK = 2
    CONFIG = 3


NO_FLAG = Flag(0)
QUEUE_SHIFT = 6
FLAG_MASK = (1 << QUEUE_SHIFT) - 1

LAYOUT: np.dtype[Any] = np.dtype(
    [
        ("op", "u1"), ("flags", "u1"), ("dtype", "u1"), ("codec", "u1"),
        ("contract", "<u2"), ("k", "<u2"),
        ("acq_sem", "u1"), ("acq_ge", "u1"), ("rel_sem", "u1"), ("rel_add", "u1"),
        ("tile_n", "<u2"), ("tiles", "<u2"),
        ("src", "<u8"), ("dst", "<u8"),
        ("run_bytes", "<u4"), ("reps1", "<u2"), ("reps2", "<u2"),
        ("src_st1", "<i4"), ("dst_st1", "<i4"), ("src_st2", "<i4"), ("dst_st2", "<i4"),
        ("smap", "<u2"), ("fill", "<u2"), ("next", "<u2"), ("tag", "<u2"),
    ]
)  # fmt: skip
"""Source: scu.md, Descriptor."""


@dataclass(frozen=True)
class Descriptor:
    """One descriptor; the fields in the order of LAYOUT, whole numbers within their widths."""

    op: int
    flags: int = 0
    dtype: int = 0
    codec: int = 0
    contract: int = 0
    k: int = 0
    acq_sem: int = 0
    acq_ge: int = 0
    rel_sem: int = 0
    rel_add: int = 0
    tile_n: int = 0
    tiles: int = 0
    src: int = 0
    dst: int = 0
    run_bytes: int = 0
    reps1: int = 0
    reps2: int = 0
    src_st1: int = 0
    dst_st1: int = 0
    src_st2: int = 0
    dst_st2: int = 0
    smap: int = 0
    fill: int = 0
    next: int = 0
    tag: int = 0

    @property
    def queue(self) -> Queue:
        return Queue(self.flags >> QUEUE_SHIFT)

    def has(self, flag: Flag) -> bool:
        return bool(self.flags & flag)

    @property
    def dense_bytes(self) -> int:
        """Bytes that the dense side moves."""
        return self.run_bytes * self.reps1 * self.reps2


FIELDS = tuple(field.name for field in fields(Descriptor))


def flags(queue: Queue, flag: Flag = NO_FLAG) -> int:
    """The flags field."""
    return int(flag) | queue << QUEUE_SHIFT


def pack(code: Sequence[Descriptor]) -> bytes:
    """Section CODE.

    Raises: OverflowError for a number that its field cannot hold.
    """
    return np.array([astuple(descriptor) for descriptor in code], LAYOUT).tobytes()


def unpack(data: bytes) -> tuple[Descriptor, ...]:
    """Inverse of ``pack``; what the fields hold is not checked.

    Raises: ValueError unless the length is a multiple of 64.
    """
    records: npt.NDArray[Any] = np.frombuffer(data, LAYOUT)
    return tuple(Descriptor(*record) for record in records.tolist())


def extent(address: int, run_bytes: int, reps: tuple[int, int], strides: tuple[int, int]) -> tuple[int, int]:
    """The least address of a strided access, and the one after its greatest; reps are at least 1."""
    spans = [(rep - 1) * stride for rep, stride in zip(reps, strides, strict=True)]
    return address + sum(min(s, 0) for s in spans), address + sum(max(s, 0) for s in spans) + run_bytes
