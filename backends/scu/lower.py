"""Program -> TaskGraph: stages on compute tiles, edges as blocks over the link.

Stage i runs on tile i modulo their number, node by node, one kernel each, from scratchpad to scratchpad. A tensor that
another stage reads goes over the link: with a contract as blocks of its k, without one whole. Where the link's buffer
cannot hold a block of an edge, they spill: they go through DRAM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import fx
from torch._ops import OpOverload

from sparsecc.contracts import SensitivityMap
from sparsecc.contracts.binding import EDGE
from sparsecc.contracts.keys import Array
from sparsecc.contracts.op import KEEP_TOPS
from sparsecc.contracts.stages import Edge, assign_stages, edges
from sparsecc.diagnostics import CompileError
from sparsecc.program import Program, where

from .chunks import Ranking, Sending, without_zeros
from .codecs import Codec, Dtype
from .descriptor import Op, Queue
from .int8_edges import expand_int8
from .machine import Target
from .map_space import MapSpace
from .pieces import chain_granularity, chain_to, piece_of
from .spill import block_memory, tile_of_everything
from .static import Static, specialise
from .tasks import Buffer, Call, Part, Task, TaskGraph
from .unit_program import MAX_OPERANDS, Contract

aten = torch.ops.aten
ALIASES = frozenset(
    {
        aten.view.default,
        aten.reshape.default,
        aten.flatten.using_ints,
        aten.unsqueeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.contiguous.default,
        aten.alias.default,
        aten.detach.default,
        aten.expand.default,
        aten.dropout.default,
        aten.clone.default,
        aten._to_copy.default,
    }
)
"""The same bytes under another shape, if no element was added and the dtype is the same."""
ALIGN_BYTES = 64
CHUNKS_IN_LINK = 4
"""A chunk of a transfer takes at most this part of the receiver's buffer, so that several are under way at once."""
KERNEL_QUEUES = (Queue.LINK, Queue.CONFIG)


@dataclass(frozen=True)
class KernelCode:
    """A kernel of the compute tiles: see unit_program.Kernel. ``scratch_bytes`` it needs while it runs."""

    symbol: str
    m: int
    n: int
    k: int
    scratch_bytes: int = 0


Generate = Callable[[fx.Node], KernelCode]
"""The kernel of a node whose arguments have fixed sizes; its parameters are src, dst, then the other tensors."""


def lower(
    program: Program,
    target: Target,
    generate: Generate,
    codecs: Sequence[Codec],
    *,
    lossless: bool = False,
    maps: Mapping[str, SensitivityMap] | None = None,
) -> TaskGraph:
    """All that the unit does for one sample.

    ``codecs`` are those that payloads may have. ``lossless`` sends edges that have no contract without their zeros, in
    blocks of varying length (of any codec that the target has), instead of whole. ``maps`` of edges are renewed from
    what arrives (map_updates).
    Raises: CompileError (SCC113 a kernel with more tensors than a KTAB record holds; SCC120 a contract that no codec
    carries; SCC124 no room for maps), and what ``generate`` raises.
    """
    static = specialise(program)
    stages = expand_int8(static.graph, assign_stages(static.graph))
    bound = {node.meta.get(EDGE) for node in static.graph.nodes if node.target in KEEP_TOPS}
    space = MapSpace(target, {edge: measured for edge, measured in (maps or {}).items() if edge in bound})
    lowering = _Lowering(target, static, stages, {e.node: e for e in edges(stages)}, generate, codecs, lossless, space)
    lowering.find_chains()
    for node in static.graph.nodes:
        lowering.add(node)
    return lowering.finish(program)


@dataclass
class _Lowering:
    target: Target
    static: Static
    stages: dict[fx.Node, int]
    edges: dict[fx.Node, Edge]
    generate: Generate
    codecs: Sequence[Codec]
    lossless: bool
    smap: MapSpace
    tasks: list[Task] = field(default_factory=list[Task])
    buffers: dict[str, Buffer] = field(default_factory=dict[str, Buffer])
    places: dict[tuple[fx.Node, int], Part] = field(default_factory=dict[tuple[fx.Node, int], Part])
    constants: bytearray = field(default_factory=bytearray)
    homes: dict[bytes, Part] = field(default_factory=dict[bytes, Part])
    chains: dict[fx.Node, list[fx.Node]] = field(default_factory=dict[fx.Node, list[fx.Node]])
    deferred: set[fx.Node] = field(default_factory=set[fx.Node])
    contracts: list[Contract] = field(default_factory=list[Contract])
    dram_bytes: int = 0
    zero_point: int = 0  # that the unit ranks int8 by
    meta: dict[str, Any] = field(default_factory=lambda: {"inputs": [], "outputs": [], "edges": []})

    def find_chains(self) -> None:
        """What is computed in pieces while it is sent: by the node that sends, the chain that leads to it."""
        outputs = set(self.static.graph.output_node().all_input_nodes)
        for edge in self.edges.values():
            source = cast(fx.Node, edge.node.args[0]) if edge.node.target in KEEP_TOPS else edge.node
            if _in_blocks(edge) and source.op == "call_function":
                chain = chain_to(source, self.stages, {*self.edges, *outputs}, self.target.tile.cols)
                self.chains[edge.node] = chain
                self.deferred.update(chain)

    def add(self, node: fx.Node) -> None:
        match node.op:
            case "placeholder":
                self._external("inputs", node.name, node.meta["val"])
            case "output":
                for i, result in enumerate(cast("tuple[fx.Node, ...]", node.args[0])):
                    self._return(i, result)
            case "call_function":
                if node not in self.deferred and node.target not in KEEP_TOPS:
                    self._compute(node)
                if node in self.edges:
                    self._transfer(self.edges[node])
            case _:
                pass  # constants are placed where they are read

    def finish(self, program: Program) -> TaskGraph:
        for entry, name in zip(self.meta["outputs"], program.output_names, strict=True):
            entry["name"] = name
        if self.smap.renewed:
            self.meta["maps"] = self.smap.renewed
        return TaskGraph(
            tuple(self.tasks),
            self.buffers,
            contracts=tuple(self.contracts),
            constants=bytes(self.constants),
            smap=bytes(self.smap.entries),
            meta=self.meta,
        )

    # ---- values ------------------------------------------------------------------------------------------------------

    def _tile(self, node: fx.Node) -> int:
        return self.stages[node] % self.target.tile.count

    def _at(self, node: fx.Node, tile: int) -> Part:
        """Where a value lies for a kernel on a tile; inputs are fetched when they are first read there."""
        if node in self.static.constants:
            return self._constant(self.static.constants[node])
        if (node, tile) not in self.places and node.op == "placeholder":
            bytes_ = _bytes(node.meta["val"])
            self.places[node, tile] = self._buffer(f"{node.name}@tile{tile}", f"tile{tile}", bytes_)
            source = Part(f"{node.name}@dram", 0, bytes_)
            self._copy(f"{node.name}:load{tile}", Queue.IN, source, self.places[node, tile])
        return self.places[node, tile]

    def _buffer(self, name: str, memory: str, bytes_: int, offset: int | None = None) -> Part:
        self.buffers[name] = Buffer(name, memory, bytes_, offset)
        return Part(name, 0, bytes_)

    def _constant(self, value: torch.Tensor) -> Part:
        """Equal constants are stored once."""
        content = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        if content not in self.homes:
            self.constants += bytes(-len(self.constants) % ALIGN_BYTES)
            offset = len(self.constants)
            self.constants += content
            self.homes[content] = self._buffer(f"const+{offset}", "const", len(content), offset)
        return self.homes[content]

    def _external(self, role: str, name: str, value: torch.Tensor) -> Part:
        """An input or output of the program: a place in DRAM that META tells."""
        bytes_ = _bytes(value)
        memory = next(name for name, memory in self.target.memory.items() if memory.kind == "dram")
        part = self._buffer(f"{name}@dram", memory, bytes_, self.dram_bytes)
        self.meta[role].append(
            {
                "name": name,
                "address": self.target.memory[memory].address + self.dram_bytes,
                "dtype": str(value.dtype).removeprefix("torch."),
                "shape": list(value.shape),
            }
        )
        self.dram_bytes += -(-bytes_ // ALIGN_BYTES) * ALIGN_BYTES
        return part

    def _return(self, index: int, node: fx.Node) -> None:
        target = self._external("outputs", f"output_{index}", node.meta["val"])
        tile = self._tile(node) if node in self.stages else 0
        self._copy(f"output_{index}:store", Queue.OUT, self._at(node, tile), target)

    def _copy(self, name: str, queue: Queue, source: Part, target: Part, edge: str = "") -> None:
        fields = {"run_bytes": source.bytes, "reps1": 1, "reps2": 1}
        self.tasks.append(Task(name, Op.COPY, queue, source, target, fields, edge=edge))

    # ---- kernels -----------------------------------------------------------------------------------------------------

    def _compute(self, node: fx.Node) -> None:
        tile = self._tile(node)
        if is_alias(node):
            self.places[node, tile] = self._at(node.all_input_nodes[0], tile)
            return
        sources = [self._at(n, tile) for n in node.all_input_nodes]
        self.places[node, tile] = self._buffer(f"{node.name}@tile{tile}", f"tile{tile}", _bytes(node.meta["val"]))
        self._kernel(node.name, node, tile, sources, self.places[node, tile])

    def _kernel(self, name: str, node: fx.Node, tile: int, sources: Sequence[Part], result: Part) -> None:
        kernel = self.generate(node)
        source, *operands = sources
        if len(operands) > MAX_OPERANDS:
            raise CompileError.of(
                "SCC113",
                f"%{node.name} ({node.target}) reads {len(operands) + 1} tensors, and a kernel of the unit takes "
                f"{MAX_OPERANDS + 1}",
                where=where(node),
                help="do it in steps in the model: concatenate two and two",
            )
        scratch = list[Part]()
        if kernel.scratch_bytes:
            scratch.append(self._buffer(f"{name}.scratch", f"tile{tile}", kernel.scratch_bytes))
        floats = any(n.meta["val"].is_floating_point() for n in (node, *node.all_input_nodes[:1]))
        dtype = Dtype.FLOAT32 if floats else Dtype.INT8
        call = Call(kernel.symbol, dtype, kernel.m, kernel.n, kernel.k, tuple(operands))
        queue = KERNEL_QUEUES[tile % len(KERNEL_QUEUES)]
        self.tasks.append(Task(name, Op.COMPUTE, queue, source, result, call=call, scratch=tuple(scratch)))

    def _pieces(self, chain: Sequence[fx.Node], ends: Sequence[int], tile: int) -> Iterator[Part]:
        """Compute a chain up to each of the element numbers ``ends``; gives the part of the last one's result.

        Where pieces end as transfers do, each has a buffer of its own, that is free once it was sent.
        """
        last, grain = chain[-1], chain_granularity(chain, self.target.tile.cols)
        elems, width = last.meta["val"].numel(), last.meta["val"].element_size()
        whole = grain > 1 or self._read_here(last)
        if whole:
            self.places[last, tile] = self._buffer(f"{last.name}@tile{tile}", f"tile{tile}", width * elems)
        done = before = 0
        for end in ends:
            part = Part("", 0, 0)
            while done < end:
                stop = min(elems, -(-end // grain) * grain)
                if chain[0].target is aten.conv2d.default:  # one filter group after the other
                    stop = min(stop, done + grain)
                part = self._piece(chain, done, stop - done, tile, whole=whole)
                done = stop
            yield Part(self.places[last, tile].buffer, width * before, width * (end - before)) if whole else part
            before = end

    def _piece(self, chain: Sequence[fx.Node], start: int, elems: int, tile: int, *, whole: bool) -> Part:
        made = dict[fx.Node, Part]()
        for node in chain:
            piece, width = piece_of(node, start, elems), node.meta["val"].element_size()
            sources = [made[n] if n in made else self._slice(n, tile, *span) for n, *span in piece.inputs]
            if node is chain[-1] and whole:
                result = Part(self.places[node, tile].buffer, width * start, width * elems)
            else:
                result = self._buffer(f"{node.name}[{start}]@tile{tile}", f"tile{tile}", width * elems)
            self._kernel(f"{node.name}[{start}]", piece.node, tile, sources, result)
            made[node] = result
        return made[chain[-1]]

    def _slice(self, node: fx.Node, tile: int, first: int, elems: int) -> Part:
        part, width = self._at(node, tile), node.meta["val"].element_size()
        return Part(part.buffer, part.start + width * first, width * elems)

    def _read_here(self, node: fx.Node) -> bool:
        """Whether a kernel on the node's own tile, or an output, takes it from there."""
        users = (user for user in node.users if user.target not in KEEP_TOPS)
        return any(user not in self.stages or self._tile(user) == self._tile(node) for user in users)

    # ---- transfers ---------------------------------------------------------------------------------------------------

    def _transfer(self, edge: Edge) -> None:
        node, tile = edge.node, self._tile(edge.node)
        tiles = sorted({self._tile(reader) for reader in edge.readers})
        bound = node.target in KEEP_TOPS
        source = cast(fx.Node, node.args[0]) if bound else node
        chain = self.chains.get(node, [])
        if not bound:
            tiles = [t for t in tiles if t != tile]
        if not tiles:
            if chain:
                list(self._pieces(chain, [source.meta["val"].numel()], tile))
            return
        for t in tiles:
            memory, bytes_ = f"tile{t}", _bytes(source.meta["val"])
            self.places[node, t] = self._buffer(f"{node.name}@{memory}:received", memory, bytes_)
        if _in_blocks(edge):
            self._send_and_receive(edge, source, [self.places[node, t] for t in tiles])
        else:
            for t in tiles:
                self._copy(f"{node.name}:copy{t}", Queue.OUT, self._at(node, tile), self.places[node, t], node.name)

    def _send_and_receive(self, edge: Edge, source: fx.Node, received: Sequence[Part]) -> None:
        link, tile = self.target.the("link"), self._tile(source)
        number = len(self.meta["edges"])
        name: str = edge.node.meta.get(EDGE, source.name)
        self.meta["edges"].append(name)
        sending = self._sending(edge, name, source.meta["val"])
        chunks = list(sending.chunks(link.bytes // CHUNKS_IN_LINK))
        memory = block_memory(self.target, max(chunk.block_bytes for chunk in chunks))
        entry = len(self.contracts)
        if sending.moves:
            self.contracts.append(sending.contract)
        if sending.dtype == Dtype.INT8:
            self._set_zero_point(name, sending.numbers["zero_point"])
        chain = self.chains.get(edge.node, [])
        ends = [(chunk.start + chunk.bytes) // sending.dtype.width_bytes for chunk in chunks]
        if chain:
            parts = self._pieces(chain, ends, tile)
        else:
            at = self._at(source, tile)
            parts = (Part(at.buffer, at.start + chunk.start, chunk.bytes) for chunk in chunks)
        for i, (chunk, part) in enumerate(zip(chunks, parts, strict=True)):
            if chunk.opens:
                load = {"contract": sending.register, "k": entry, "tag": number}
                self.tasks.append(Task(f"{source.name}:contract{i}", Op.CONTRACT, Queue.CONFIG, fields=load, edge=name))
            blocks = self._buffer(f"{source.name}:blocks{i}", memory, chunk.tiles * chunk.block_bytes)
            fields = {"dtype": sending.dtype, "codec": chunk.codec, "k": chunk.k, "tile_n": chunk.tile_n}
            fields |= {"fill": sending.fill, "tiles": chunk.tiles, "run_bytes": chunk.bytes}
            fields |= {"reps1": 1, "reps2": 1, "tag": number}
            sent = fields | {"flags": chunk.flags, "dst_st1": chunk.block_bytes, **chunk.more}
            self.tasks.append(Task(f"{source.name}:send{i}", Op.SEND, Queue.OUT, part, blocks, sent, edge=name))
            for there in received:
                arrives = Part(there.buffer, chunk.start, chunk.bytes)
                held = fields | {"src_st1": chunk.block_bytes}
                self.tasks.append(Task(f"{there.buffer}:recv{i}", Op.RECV, Queue.IN, blocks, arrives, held, edge=name))

        if sending.numbers and name in self.smap.maps:
            row_bytes, update = sending.dtype.width_bytes * sending.elems, self.smap.update(sending)
            for row in range(sending.rows):
                part = Part(received[0].buffer, row * row_bytes, row_bytes)
                self.tasks.append(Task(f"{name}:update{row}", Op.SMAP_UPD, Queue.CONFIG, part, fields=update))

    def _set_zero_point(self, edge: str, zero_point: int) -> None:
        """There is one for all of int8, so it changes between edges."""
        if zero_point == self.zero_point:
            return
        self.zero_point = zero_point
        source = self._constant(torch.tensor([zero_point], dtype=torch.int32))
        memory = next(name for name, memory in self.target.memory.items() if memory.kind == "config")
        register = self.target.register["key_base"]
        place = self._buffer(f"{edge}:key_base", memory, source.bytes, register.offset + register.bytes * Dtype.INT8)
        fields = {"run_bytes": source.bytes}
        self.tasks.append(Task(f"{edge}:zero point", Op.CFGW, Queue.CONFIG, source, place, fields, edge=edge))

    def _sending(self, edge: Edge, name: str, value: torch.Tensor) -> Sending:
        node, rows, elems, numbers = edge.node, 1, value.numel(), dict[str, int]()
        if node.target in KEEP_TOPS:
            names = KEEP_TOPS[cast(OpOverload, node.target)]
            numbers = dict(zip(names, cast("tuple[int, ...]", node.args[3:]), strict=True))
            shape: torch.Size = node.meta["val"].shape
            rows = shape[: numbers["axis"]].numel()
            elems //= rows
        dtype = Dtype.INT8 if value.dtype == torch.int8 else Dtype.FLOAT32
        lossless = without_zeros(self.target) if self.lossless else None
        whole = tile_of_everything(self.target, Codec.RAW if lossless is None else lossless, elems)
        tile_elems = min(numbers.get("tile_elems", whole), elems)
        return Sending(
            name=name,
            rows=rows,
            elems=elems,
            tile_elems=tile_elems,
            numbers=numbers,
            codecs=self.codecs,
            lossless=lossless,
            ranking=self._ranking(node, name, numbers, elems, tile_elems) if numbers else None,
            dtype=dtype,
            fill=_fill_bits(self._constant_of(node, 2), dtype) if numbers else 0,
            register=len(self.contracts) % self.target.command.contracts,
            where=where(node),
        )

    def _ranking(
        self, node: fx.Node, name: str, numbers: Mapping[str, int], elems: int, tile_elems: int
    ) -> Ranking | None:
        """What the edge's SENDs rank by; loaded here if section SMAP has no room for it."""
        ranking = self.smap.ranked(name, self._constant_of(node, 1), numbers["map_block"], elems, tile_elems)
        if ranking and ranking.load:
            source = self._constant(torch.frombuffer(bytearray(ranking.load), dtype=torch.uint8))
            memory = next(name for name, memory in self.target.memory.items() if memory.kind == "smap")
            place = self._buffer(f"{name}:map", memory, ranking.entries, ranking.first)
            fields = {"run_bytes": ranking.entries}
            self.tasks.append(Task(f"{name}:load map", Op.SMAP_LOAD, Queue.CONFIG, source, place, fields, edge=name))
        return ranking

    def _constant_of(self, node: fx.Node, argument: int) -> Array:
        value: Array = self.static.constants[cast(fx.Node, node.args[argument])].numpy()
        return value


def is_alias(node: fx.Node) -> bool:
    value, source = node.meta["val"], node.all_input_nodes[0].meta["val"]
    return node.target in ALIASES and value.numel() == source.numel() and value.dtype == source.dtype


def _bytes(value: torch.Tensor) -> int:
    return value.numel() * value.element_size()


def _in_blocks(edge: Edge) -> bool:
    """Whether it travels through the link; the rest is copied."""
    return edge.carries_float32 or edge.node.target in KEEP_TOPS


def _fill_bits(fill: Array, dtype: Dtype) -> int:
    """Field ``fill`` of a descriptor: of float32 the upper bits, the others are 0."""
    bits = int(fill.view(dtype.bits)[0])
    return bits >> 16 if dtype == Dtype.FLOAT32 else bits
