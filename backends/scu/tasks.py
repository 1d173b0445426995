"""A program before it has addresses and times: buffers, and tasks that read and write parts of them.

lower-transfers makes a TaskGraph of a Program; schedule-dma gives it an order, places and semaphores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .descriptor import Op, Queue
from .unit_program import Contract


@dataclass(frozen=True)
class Buffer:
    """Bytes that live in a memory from the first task that writes them to the last that reads them.

    With an ``offset`` the place is given, for the whole program: constants, inputs and outputs of the program.
    """

    name: str
    memory: str  # name in Target.memory
    bytes: int
    offset: int | None = None  # bytes from the start of the memory; None: the scheduler finds a place


@dataclass(frozen=True)
class Part:
    """Bytes [start, start + bytes) of a buffer."""

    buffer: str
    start: int
    bytes: int


@dataclass(frozen=True)
class Call:
    """What a COMPUTE task runs: see unit_program.Kernel, whose operands these parts become."""

    symbol: str
    dtype: int
    m: int
    n: int
    k: int
    operands: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Task:
    """One descriptor to be: all but its addresses and semaphores.

    ``src`` and ``dst`` span everything the descriptor touches there, gaps between strided runs included. ``fields`` are
    the descriptor's others (descriptor.py), as run_bytes, k or tile_n; of a COMPUTE the kernel's number is filled in.
    """

    name: str  # unique
    op: Op
    queue: Queue
    src: Part | None = None
    dst: Part | None = None
    fields: Mapping[str, int] = field(default_factory=dict[str, int])
    call: Call | None = None
    edge: str = ""  # the transfer that it is part of
    scratch: tuple[Part, ...] = ()  # of a COMPUTE: what its kernel writes beside dst, and nobody reads
    payload_bytes: int | None = None  # of all blocks of a RECV, where they are known

    @property
    def reads(self) -> Iterator[Part]:
        if self.src:
            yield self.src
        if self.call:
            yield from self.call.operands

    @property
    def writes(self) -> Iterator[Part]:
        if self.dst:
            yield self.dst
        yield from self.scratch


@dataclass(frozen=True)
class TaskGraph:
    """``tasks`` stand in an order in which they would compute the right result one after the other.

    A task depends on every earlier one that wrote what it reads or writes, or read what it writes.
    """

    tasks: tuple[Task, ...]
    buffers: Mapping[str, Buffer]
    contracts: tuple[Contract, ...] = ()
    config: tuple[tuple[int, int], ...] = ()
    constants: bytes = b""
    smap: bytes = b""
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
