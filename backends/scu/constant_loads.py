"""A TaskGraph whose kernels read some constants from their scratchpad, where RECVs unpack blocks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .constant_blocks import WORD, Blocks
from .descriptor import Op, Queue
from .machine import Target
from .schedule import aligned
from .tasks import Buffer, Part, Task, TaskGraph

Loads = Mapping[int, Sequence[Blocks]]
"""By the number of an operand of a kernel, the blocks that it arrives in."""


def with_loads(graph: TaskGraph, target: Target, loads: Mapping[str, Loads]) -> TaskGraph:
    """``loads`` by the name of the kernel's task. Section CONST keeps what is still read there, and gets the blocks."""
    made = _Made(graph, const_name(target))
    for task in graph.tasks:
        made.add(task, loads.get(task.name, {}))
    return replace(graph, tasks=tuple(made.tasks), buffers=made.buffers, constants=bytes(made.constants))


def const_name(target: Target) -> str:
    return next(name for name, memory in target.memory.items() if memory.kind == "const")


def content(graph: TaskGraph, part: Part) -> bytes:
    """Of a part in const."""
    first = (graph.buffers[part.buffer].offset or 0) + part.start
    return graph.constants[first : first + part.bytes]


@dataclass
class _Made:
    graph: TaskGraph
    const: str
    tasks: list[Task] = field(default_factory=list[Task])
    buffers: dict[str, Buffer] = field(default_factory=dict[str, Buffer])
    constants: bytearray = field(default_factory=bytearray)
    homes: dict[bytes, str] = field(default_factory=dict[bytes, str])

    def __post_init__(self) -> None:
        self.buffers |= {name: b for name, b in self.graph.buffers.items() if b.memory != self.const}

    def add(self, task: Task, loads: Loads) -> None:
        if task.src:
            task = replace(task, src=self._kept(task.src))
        if task.call and task.dst:
            memory = self.graph.buffers[task.dst.buffer].memory
            operands = [
                self._load(f"{task.name}:operand{j}", memory, loads[j]) if j in loads else self._kept(part)
                for j, part in enumerate(task.call.operands)
            ]
            task = replace(task, call=replace(task.call, operands=tuple(operands)))
        self.tasks.append(task)

    def _load(self, name: str, memory: str, loaded: Sequence[Blocks]) -> Part:
        whole = Part(name, 0, sum(blocks.dense_bytes for blocks in loaded))
        self.buffers[name] = Buffer(name, memory, whole.bytes)
        start = 0
        for i, blocks in enumerate(loaded):
            fields = {"dtype": WORD, "codec": blocks.codec, "k": blocks.k, "tile_n": blocks.tile_n}
            fields |= {"tiles": blocks.tiles, "run_bytes": blocks.dense_bytes, "reps1": 1, "reps2": 1}
            fields |= {"src_st1": blocks.room_bytes}
            source = Part(self._stored(blocks.data), 0, len(blocks.data))
            arrives = Part(name, start, blocks.dense_bytes)
            sent = blocks.sent_bytes
            self.tasks.append(Task(f"{name}.{i}", Op.RECV, Queue.IN, source, arrives, fields, payload_bytes=sent))
            start += blocks.dense_bytes
        return whole

    def _kept(self, part: Part) -> Part:
        """The same bytes, at their new place if they are in const."""
        buffer = self.graph.buffers[part.buffer]
        if buffer.memory != self.const:
            return part
        return replace(part, buffer=self._stored(content(self.graph, Part(part.buffer, 0, buffer.bytes))))

    def _stored(self, data: bytes) -> str:
        """The buffer in const that holds these bytes; they are stored once."""
        if data not in self.homes:
            offset = aligned(len(self.constants))
            self.constants += bytes(offset - len(self.constants)) + data
            self.homes[data] = f"const+{offset}"
            self.buffers[f"const+{offset}"] = Buffer(f"const+{offset}", self.const, len(data), offset)
        return self.homes[data]
