"""What a TaskGraph asks of a schedule, in numbers: dependencies, cycles, and what lives in which memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import networkx as nx

from sparsecc.backends.scu.descriptor import Flag, Op, Queue
from sparsecc.backends.scu.machine import Memory, Target
from sparsecc.backends.scu.tasks import Buffer, Part, Task, TaskGraph

ALIGN_BYTES = 64
"""Of every buffer: one burst of the DMA in scu.toml, and a multiple of the blocks' 32 B."""


@dataclass(frozen=True)
class Resident:
    """A buffer that needs a place, from the start of the first of its users to the end of the last."""

    name: str
    memory: str
    bytes: int  # a multiple of ALIGN_BYTES
    users: tuple[int, ...]  # tasks


@dataclass(frozen=True)
class Problem:
    """Tasks are numbers, in the order of the TaskGraph: every dependency leads from a smaller to a greater one.

    ``room``: per memory the bytes for residents, once buffers with a given place have theirs.
    """

    cycles: tuple[int, ...]
    queue: tuple[int, ...]
    before: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]
    residents: tuple[Resident, ...]
    touches: tuple[tuple[int, ...], ...]  # residents of each task
    room: Mapping[str, int]


@dataclass(frozen=True)
class Schedule:
    """When every task starts and where every buffer lies; times in cycles, offsets in bytes from the memory's start.

    ``makespan`` leaves out the WAIT and SIGNAL descriptors that semaphores need. No schedule of these tasks is shorter
    than ``lower_bound``. ``method`` says which search found it.
    """

    start: Mapping[str, int]
    queues: Mapping[Queue, tuple[str, ...]]
    offsets: Mapping[str, int]
    makespan: int
    lower_bound: int
    method: str


def problem_of(graph: TaskGraph, target: Target, cycles: Callable[[Task], int]) -> Problem:
    """Raises: ValueError for a graph that contradicts itself (a part beyond its buffer, a read before any write)."""
    tasks = graph.tasks
    network = dependencies(graph, target)
    users = defaultdict[str, dict[int, None]](dict)
    for i, task in enumerate(tasks):
        for part, written in _parts(task):
            buffer = graph.buffers[part.buffer]
            if not 0 <= part.start < part.start + part.bytes <= buffer.bytes:
                raise ValueError(f"task {task.name}: {part} is not in {buffer}")
            if buffer.offset is None:
                if not written and part.buffer not in users and all(p.buffer != part.buffer for p in task.writes):
                    raise ValueError(f"task {task.name} reads buffer {part.buffer}, which nothing has written")
                users[part.buffer][i] = None
    residents = tuple(
        Resident(name, graph.buffers[name].memory, aligned(graph.buffers[name].bytes), tuple(numbers))
        for name, numbers in users.items()
    )
    touches = [list[int]() for _ in tasks]
    for number, resident in enumerate(residents):
        for i in resident.users:
            touches[i].append(number)
    return Problem(
        cycles=tuple(max(1, cycles(task)) for task in tasks),
        queue=tuple(int(task.queue) for task in tasks),
        before=tuple(tuple(network.predecessors(i)) for i in range(len(tasks))),
        after=tuple(tuple(network.successors(i)) for i in range(len(tasks))),
        residents=residents,
        touches=tuple(map(tuple, touches)),
        room={
            name: lines_bytes(memory) - sum(e - f for f, e in fixed(graph, name))
            for name, memory in target.memory.items()
        },
    )


def aligned(number: int) -> int:
    return -(-number // ALIGN_BYTES) * ALIGN_BYTES


def fixed(graph: TaskGraph, memory: str) -> list[tuple[int, int]]:
    """First byte and end of the buffers of a memory whose place is given, widened to whole lines, in ascending order.

    Buffers that overlap are one.
    """
    spans = sorted(
        (b.offset // ALIGN_BYTES * ALIGN_BYTES, aligned(b.offset + b.bytes))
        for b in graph.buffers.values()
        if b.memory == memory and b.offset is not None
    )
    merged = list[tuple[int, int]]()
    for first, end in spans:
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((first, end))
    return merged


def lines_bytes(memory: Memory) -> int:
    """Of a memory that buffers can use: whole multiples of ALIGN_BYTES."""
    return memory.bytes // ALIGN_BYTES * ALIGN_BYTES


# ---- dependencies ----------------------------------------------------------------------------------------------------

Space = tuple[str, str]
Access = tuple[Space, int, int, bool]  # where, first byte, end, whether it is written


def dependencies(graph: TaskGraph, target: Target) -> nx.DiGraph[int]:
    """An edge from every task to those later ones that must wait for it.

    They touch the same bytes and one of them writes: of a buffer, of a memory at a given place, of the sensitivity map
    and the registers, which SENDs and CONTRACTs touch without naming a buffer. A FENCE is between all others.
    """
    network: nx.DiGraph[int] = nx.DiGraph()
    network.add_nodes_from(range(len(graph.tasks)))
    written = defaultdict[Space, list[tuple[int, int, int]]](list)
    read = defaultdict[Space, list[tuple[int, int, int]]](list)
    fence = -1
    for i, task in enumerate(graph.tasks):
        if task.op == Op.FENCE:
            network.add_edges_from((j, i) for j in range(max(fence, 0), i))
            fence = i
        elif fence >= 0:
            network.add_edge(fence, i)
        accesses = list(_accesses(task, graph.buffers, target))
        for space, first, end, writes in accesses:
            earlier = written[space] + read[space] if writes else written[space]
            network.add_edges_from((j, i) for j, other, stop in earlier if other < end and first < stop)
        for space, first, end, writes in accesses:
            (written if writes else read)[space].append((i, first, end))
    return network


def _parts(task: Task) -> Iterator[tuple[Part, bool]]:
    for part in task.reads:
        yield part, False
    for part in task.writes:
        yield part, True


def _accesses(task: Task, buffers: Mapping[str, Buffer], target: Target) -> Iterator[Access]:
    for part, writes in _parts(task):
        buffer = buffers[part.buffer]
        if buffer.offset is None:
            yield ("buffer", buffer.name), part.start, part.start + part.bytes, writes
        else:
            first = buffer.offset + part.start
            yield ("memory", target.memory[buffer.memory].kind), first, first + part.bytes, writes
    fields = task.fields
    register = fields.get("contract", 0)
    if task.op in (Op.SEND, Op.CONTRACT):
        yield ("memory", "config"), 0, target.the("config").bytes, False
    if task.op == Op.CONTRACT or (task.op == Op.SEND and fields.get("flags", 0) & Flag.REGISTER):
        yield ("contract registers", ""), register, register + 1, True  # a SEND counts its tiles there
    if task.op == Op.SMAP_UPD or (task.op == Op.SEND and fields.get("flags", 0) & Flag.SCORED):
        entries = -(-fields["tiles"] * fields["tile_n"] // fields["dst_st2"])
        yield ("memory", "smap"), fields["smap"], fields["smap"] + entries, task.op == Op.SMAP_UPD
