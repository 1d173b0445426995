"""Task graphs to schedule: networks as lowering makes them, and copies between random places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from sparsecc.backends.scu.codecs import Codec, Dtype, worst_case_bytes
from sparsecc.backends.scu.descriptor import Op, Queue
from sparsecc.backends.scu.machine import Target, scu_v1
from sparsecc.backends.scu.tasks import Buffer, Call, Part, Task, TaskGraph

TILE_N, KEPT = 1024, 256
SLOT = worst_case_bytes(Codec.BITMASK, TILE_N, KEPT, Dtype.INT8)
LINES = {"reps1": 1, "reps2": 1}


def cycles(task: Task) -> int:
    """Plausible durations on scu-v1; not those of the simulator."""
    fields = task.fields
    if task.call:
        return scu_v1().tile.gemm_cycles(task.call.m, task.call.n, task.call.k or 1)
    if task.op == Op.SEND:  # two passes of radix select, 16 lanes
        return 40 + fields["tiles"] * 128
    if task.op == Op.RECV:
        return 20 + fields["tiles"] * 64
    return 10 + fields.get("run_bytes", 0) // 16


def small(target: Target, **memory_bytes: int) -> Target:
    """A target with memories of other sizes."""
    memories = {n: replace(m, bytes=memory_bytes.get(n, m.bytes)) for n, m in target.memory.items()}
    return replace(target, memory=memories)


@dataclass
class Network:
    """Builds a graph stage by stage; stage i computes on tile i % 2, and every tensor between stages is transferred."""

    chunks: int = 4
    tasks: list[Task] = field(default_factory=list[Task])
    buffers: dict[str, Buffer] = field(default_factory=dict[str, Buffer])
    edges: list[str] = field(default_factory=list[str])
    stages: int = 0

    def buffer(self, name: str, memory: str, size: int, offset: int | None = None) -> Part:
        self.buffers[name] = Buffer(name, memory, size, offset)
        return Part(name, 0, size)

    def input(self, tiles: int) -> str:
        """An int8 tensor of so many tiles, from DRAM, as the output of stage -1 on tile 1."""
        source, target = self.buffer("x", "dram", tiles * TILE_N, 0), self.buffer("x.out", "tile1", tiles * TILE_N)
        self.tasks.append(Task("x.load", Op.COPY, Queue.IN, source, target, {"run_bytes": tiles * TILE_N, **LINES}))
        return "x"

    def stage(self, name: str, sources: list[str], tiles: int, gemm: tuple[int, int, int], nodes: int = 2) -> str:
        """A weighted layer and what follows it, one COMPUTE each; ``gemm`` is (m, n, k) of the first."""
        tile = self.stages % 2
        self.stages += 1
        inputs = [self._receive(source, name, tile) for source in sources]
        queue = (Queue.LINK, Queue.CONFIG)[tile]
        for node in range(nodes):
            out = self.buffer(f"{name}.out" if node == nodes - 1 else f"{name}.{node}", f"tile{tile}", tiles * TILE_N)
            call = Call(f"k{node}", int(Dtype.INT8), *(gemm if node == 0 else (tiles, 16, 0)), tuple(inputs[1:4]))
            self.tasks.append(Task(f"{name}.{node}", Op.COMPUTE, queue, inputs[0], out, call=call))
            inputs = [out]
        return name

    def output(self, source: str) -> None:
        part = Part(f"{source}.out", 0, self.buffers[f"{source}.out"].bytes)
        target = self.buffer("y", "dram", part.bytes, 1 << 20)
        self.tasks.append(Task("y.store", Op.COPY, Queue.OUT, part, target, {"run_bytes": part.bytes, **LINES}))

    def graph(self) -> TaskGraph:
        return TaskGraph(tuple(self.tasks), self.buffers, meta={"edges": self.edges})

    def _receive(self, source: str, name: str, tile: int) -> Part:
        """The tensor in the scratchpad of its consumer. It is sent once and received by every consumer."""
        size = self.buffers[f"{source}.out"].bytes
        dense = self.buffer(f"{source}>{name}", f"tile{tile}", size)
        if source not in self.edges:
            self.edges.append(source)
            self._chunked(source, size, None)
        self._chunked(source, size, dense)
        return dense

    def _chunked(self, source: str, size: int, dense: Part | None) -> None:
        tiles = size // TILE_N
        for n, chunk in enumerate(range(0, tiles, -(-tiles // self.chunks))):
            count = min(-(-tiles // self.chunks), tiles - chunk)
            shape = {"dtype": int(Dtype.INT8), "codec": int(Codec.BITMASK), "k": KEPT, "tile_n": TILE_N, "tiles": count}
            shape |= {"run_bytes": count * TILE_N, **LINES}
            span = chunk * TILE_N, count * TILE_N
            blocks = f"{source}.blocks{n}"
            if dense is None:
                payload = self.buffer(blocks, "link", count * SLOT)
                fields = shape | {"dst_st1": SLOT}
                part = Part(f"{source}.out", *span)
                task = Task(f"{source}.send{n}", Op.SEND, Queue.OUT, part, payload, fields, edge=source)
            else:
                fields = shape | {"src_st1": SLOT}
                payload = Part(blocks, 0, count * SLOT)
                part = Part(dense.buffer, *span)
                task = Task(f"{dense.buffer}.recv{n}", Op.RECV, Queue.IN, payload, part, fields, edge=source)
            self.tasks.append(task)


def resnet20(chunks: int = 4) -> TaskGraph:
    """CIFAR shapes: 32x32x16, 16x16x32, 8x8x64 int8, a residual around every two convolutions."""
    net = Network(chunks)
    x = net.stage("conv0", [net.input(4)], 16, (1024, 16, 27))
    for group, (tiles, side, channels) in enumerate(((16, 32, 16), (8, 16, 32), (4, 8, 64))):
        for block in range(3):
            gemm = side * side, channels, 9 * channels
            first = net.stage(f"g{group}b{block}a", [x], tiles, gemm)
            x = net.stage(f"g{group}b{block}b", [first, x], tiles, gemm, nodes=3)
    net.output(net.stage("fc", [x], 1, (1, 10, 64)))
    return net.graph()


def minilm(chunks: int = 4, layers: int = 6) -> TaskGraph:
    """Six transformer layers of width 384 on 32 tokens in int8: q, k and v side by side, two residuals each."""
    net = Network(chunks)
    tiles = 32 * 384 // TILE_N
    x = net.stage("embed", [net.input(tiles)], tiles, (32, 384, 384))
    for i in range(layers):
        q, k, v = (net.stage(f"l{i}{name}", [x], tiles, (32, 384, 384), 1) for name in "qkv")
        mixed = net.stage(f"l{i}mix", [q, k, v], tiles, (32, 32, 384), 3)
        attended = net.stage(f"l{i}proj", [mixed, x], tiles, (32, 384, 384))
        wide = net.stage(f"l{i}up", [attended], tiles, (32, 1536, 384))
        x = net.stage(f"l{i}down", [wide, attended], tiles, (32, 384, 1536))
    net.output(x)
    return net.graph()


def parallel(branches: int, length: int, chunks: int = 2) -> TaskGraph:
    """Chains without a common tensor but the first: units compete, and the order decides."""
    net = Network(chunks)
    start = net.stage("start", [net.input(4)], 4, (64, 16, 64))
    ends = list[str]()
    for b in range(branches):
        x = start
        for n in range(length):
            x = net.stage(f"b{b}n{n}", [x], 1 + (b * 7 + n * 3) % 5, (16 + 37 * ((b * 5 + n) % 7), 16, 48), 1 + n % 2)
        ends.append(x)
    net.output(net.stage("end", ends[:4], 2, (16, 16, 16)))
    return net.graph()


# ---- random graphs ---------------------------------------------------------------------------------------------------


@st.composite
def networks(draw: st.DrawFn) -> TaskGraph:
    """Stages with one to three inputs among the tensors so far."""
    net = Network(draw(st.integers(1, 4)))
    names = [net.input(draw(st.integers(1, 4)))]
    for n in range(draw(st.integers(1, 7))):
        sources = draw(st.lists(st.sampled_from(names[-4:]), min_size=1, max_size=3, unique=True))
        gemm = draw(st.tuples(st.integers(1, 300), st.integers(1, 40), st.integers(1, 40)))
        names.append(net.stage(f"s{n}", sources, draw(st.integers(1, 6)), gemm, draw(st.integers(1, 3))))
    net.output(names[-1])
    return net.graph()


PLACES = ("tile0", "tile1", "link", "dram")


@st.composite
def copies(draw: st.DrawFn) -> TaskGraph:
    """COPYs in any queue, of bytes that were written, to the same or other parts of new and old buffers."""
    buffers: dict[str, Buffer] = {"in": Buffer("in", "dram", 256, 64), "const": Buffer("const", "const", 256, 0)}
    written = [Part("in", 0, 256), Part("const", 0, 256)]
    tasks = list[Task]()
    for n in range(draw(st.integers(1, 25))):
        source = draw(st.sampled_from(written[-8:]))
        skip = draw(st.integers(0, source.bytes - 1))
        src = Part(source.buffer, source.start + skip, draw(st.integers(1, source.bytes - skip)))
        old = [name for name, b in buffers.items() if b.offset is None and b.bytes >= src.bytes]
        name = draw(st.sampled_from(["", *old]))
        buffer = buffers.get(name)
        if buffer is None:
            memory = draw(st.sampled_from(PLACES))
            buffer = Buffer(f"b{n}", memory, draw(st.integers(src.bytes, src.bytes + 200)))
            buffers[buffer.name] = buffer
        start = draw(st.integers(0, buffer.bytes - src.bytes))
        dst = Part(buffer.name, start, src.bytes)
        if dst.buffer == src.buffer and dst.start < src.start + src.bytes and src.start < dst.start + dst.bytes:
            continue  # a copy onto itself
        queue = draw(st.sampled_from(Queue))
        tasks.append(Task(f"t{n}", Op.COPY, queue, src, dst, {"run_bytes": src.bytes, **LINES}))
        written.append(dst)
    return TaskGraph(tuple(tasks), buffers, constants=bytes(range(256)))


def peak_bytes(graph: TaskGraph) -> Mapping[str, int]:
    """Bytes alive at once in each memory, run in the given order: what a memory needs at least."""
    floating = {name: b for name, b in graph.buffers.items() if b.offset is None}
    users = {name: [i for i, t in enumerate(graph.tasks) if name in used(t)] for name in floating}
    fixed = {
        memory: max((b.offset + b.bytes for b in graph.buffers.values() if b.memory == memory and b.offset is not None),
                    default=0)
        for memory in PLACES
    }  # fmt: skip
    return {
        memory: -(-fixed[memory] // 64) * 64
        + max(
            sum(-(-b.bytes // 64) * 64 for name, b in floating.items()
                if b.memory == memory and users[name] and users[name][0] <= i <= users[name][-1])
            for i in range(len(graph.tasks))
        )
        for memory in PLACES
    }  # fmt: skip


def used(task: Task) -> set[str]:
    return {part.buffer for part in (*task.reads, *task.writes)}
