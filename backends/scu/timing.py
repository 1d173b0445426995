"""How long one descriptor takes: the model that schedules are made with and that the simulator runs.

A descriptor passes through stages that all work at the same time, each with a latency and a rate:

    duration = fetch + issue + (setup, if it moves bytes) + sum of the stages' latencies + cycles of the slowest stage

Cycles of a stage, for T tiles of N elements:

    memory     beat + (bursts - 1) * interval;  beat = burst / bytes_per_cycle, interval = max(beat, (latency + beat) /
               outstanding_bursts). A run shorter than a burst is one short burst, the rest of a longer one a whole one
    link       bytes / bytes_per_cycle
    key        T * N / lanes
    selector   T * max(N / lanes, scan / tiles_in_flight);  scan = digits * (N / lanes + latency_cycles) is its latency:
               it sees a tile once per digit before it passes on the first element
    packer     T * N / lanes; so the unpacker, of the same numbers
    tile       GEMM: Tile.gemm_cycles; k = 0: m * n / vector_lanes

with every quotient rounded up. SEND with codec RAW has no key and no selector. COMPUTE streams its input, and those of
its operands, that are in const or dram, of which an element-wise kernel (k = 0) reads at most m * n elements each; its
scratchpad keeps up. SMAP_UPD reads a tensor along which the entries repeat by groups of entries, as many as there are
lanes: its sums do not depend on the order, and each lane of the key unit has (an assumption) an accumulator of 32 bits.

What this leaves out: contention for memory ports, refresh and row misses of DRAM, fetching ahead (every descriptor pays
for its fetch), the alignment of runs to bursts, merging of adjacent runs. Cycles of a contract's entry in section CNTR
are those of writing the register.

Letters: T tiles, N elements of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .codecs import Codec, Dtype, worst_case_bytes
from .descriptor import Descriptor, Flag, Op
from .machine import OFFSET_BITS, Memory, Target
from .tasks import Call
from .unit_program import Kernel

DMA, KEY, SELECTOR, PACKER, UNPACKER, LINK = "dma", "key", "selector", "packer", "unpacker", "link"
STREAMED = ("const", "dram")
"""Kinds of memory for whose data a kernel waits."""
CONTRACT_BYTES = 16


@dataclass(frozen=True)
class Stage:
    """What one unit does for a descriptor: it passes on its first result after ``latency_cycles``."""

    unit: str
    latency_cycles: int
    cycles: int


def duration(d: Descriptor, kernel: Kernel | None, target: Target, payload_bytes: int | None = None) -> int:
    """Cycles from issue to end of one descriptor, all units idle.

    ``kernel`` is that of a COMPUTE. ``payload_bytes`` are those of all blocks of a SEND or RECV together; without them,
    the most that its k allows.
    """
    return span_cycles(stages(d, kernel, target, payload_bytes), target)


def span_cycles(passed: list[Stage], target: Target) -> int:
    """The duration that follows from the stages."""
    setup = target.dma.setup_cycles if any(stage.unit == DMA for stage in passed) else 0
    latency = sum(stage.latency_cycles for stage in passed)
    slowest = max((stage.cycles for stage in passed), default=0)
    return target.command.fetch_cycles + target.command.issue_cycles + setup + latency + slowest


def busy_cycles(passed: list[Stage]) -> dict[str, int]:
    """Cycles that each unit works: those of its slowest stage."""
    busy = dict[str, int]()
    for stage in passed:
        busy[stage.unit] = max(busy.get(stage.unit, 0), stage.cycles)
    return busy


def units(target: Target) -> tuple[str, ...]:
    """Names of all units. Each queue has a DMA unit of its own; of the others there is one."""
    return (DMA, KEY, SELECTOR, PACKER, UNPACKER, LINK, *(f"tile{i}" for i in range(target.tile.count)))


def memory_at(address: int, target: Target) -> Memory:
    return target.memory[target.regions[address >> OFFSET_BITS]]


def tile_of(address: int, target: Target) -> int:
    """The number of the compute tile whose scratchpad is at an address: scratchpads count in the order of regions."""
    regions = sorted(memory.region for memory in target.memory.values() if memory.kind == "scratchpad")
    return regions.index(address >> OFFSET_BITS)


def payload_bound(d: Descriptor) -> int:
    """Most bytes of all blocks of a SEND or RECV."""
    return d.tiles * worst_case_bytes(Codec(d.codec), d.tile_n, d.k, Dtype(d.dtype))


def digits(d: Descriptor, target: Target) -> int:
    """Passes of the selector over a tile."""
    return _quotient(16 if d.has(Flag.WIDE_KEYS) else 8, target.selector.digit_bits)


def kernel_reads(d: Descriptor, kernel: Kernel, target: Target) -> Iterator[tuple[Memory, int]]:
    """What a kernel reads of its input and of each operand, and from where; input in const is as an operand there."""
    source = memory_at(d.src, target)
    yield source, operand_bytes(kernel, kernel.input_bytes) if source.kind in STREAMED else kernel.input_bytes
    for operand in kernel.operands:
        yield memory_at(operand.address, target), operand_bytes(kernel, operand.bytes)


def operand_bytes(kernel: Kernel | Call, whole_bytes: int) -> int:
    """What a kernel reads of an operand: one that is element-wise may gather a few of its elements."""
    most = whole_bytes if kernel.k else kernel.m * kernel.n * Dtype(kernel.dtype).width_bytes
    return min(whole_bytes, most)


def stages(d: Descriptor, kernel: Kernel | None, target: Target, payload_bytes: int | None = None) -> list[Stage]:
    """The stages of a descriptor, from its source to its destination."""
    op = Op(d.op)
    if op in (Op.SEND, Op.RECV):
        return _transfer(d, target, payload_bound(d) if payload_bytes is None else payload_bytes)
    if op == Op.COPY:
        runs = d.reps1 * d.reps2
        both = [_memory(memory_at(address, target), target, d.run_bytes, runs) for address in (d.src, d.dst)]
        return [*both, *_link(d, target, d.dense_bytes)]
    if op in (Op.CFGW, Op.SMAP_LOAD):
        return [_memory(memory_at(address, target), target, d.run_bytes, 1) for address in (d.src, d.dst)]
    if op == Op.SMAP_UPD:
        entries = _quotient(d.tiles * d.tile_n, d.dst_st2)
        renewed = _memory(target.the("smap"), target, 2 * entries, 1)  # read, then written
        return [_update_reads(d, target), _key(d, target), renewed]
    if op == Op.CONTRACT:
        return [_memory(target.the("config"), target, CONTRACT_BYTES, 1)]
    if op == Op.NOP and d.has(Flag.PREDICATED):
        return [_memory(memory_at(d.src, target), target, 1, 1)]
    if op == Op.COMPUTE and kernel is not None:
        return _compute(d, kernel, target)
    return []


def _transfer(d: Descriptor, target: Target, payload_bytes: int) -> list[Stage]:
    lanes = d.tiles * _quotient(d.tile_n, target.packer.lanes)
    source, destination = memory_at(d.src, target), memory_at(d.dst, target)
    per_block = _quotient(payload_bytes, d.tiles)
    if d.op == Op.RECV:
        unpack = Stage(UNPACKER, target.packer.latency_cycles, lanes)
        write = _memory(destination, target, d.run_bytes, d.reps1 * d.reps2)
        return [_memory(source, target, per_block, d.tiles), unpack, write]
    read = _memory(source, target, d.run_bytes, d.reps1 * d.reps2)
    pack = Stage(PACKER, target.packer.latency_cycles, lanes)
    chosen = [] if d.codec == Codec.RAW else [*_map(d, target), _key(d, target), _selector(d, target)]
    return [read, *chosen, pack, *_link(d, target, payload_bytes), _memory(destination, target, per_block, d.tiles)]


def _compute(d: Descriptor, kernel: Kernel, target: Target) -> list[Stage]:
    tile = target.tile
    work = tile.gemm_cycles(kernel.m, kernel.n, kernel.k)
    if kernel.k == 0:
        work = _quotient(kernel.m * kernel.n, tile.vector_lanes)
    streams = [
        _memory(memory, target, read_bytes, 1)
        for memory, read_bytes in kernel_reads(d, kernel, target)
        if memory.kind in STREAMED and read_bytes
    ]
    stages = [Stage(f"tile{tile_of(d.dst, target)}", 0, work)]
    if streams:  # one after the other, through one DMA unit
        latency = max(stream.latency_cycles for stream in streams)
        stages.append(Stage(DMA, latency, sum(stream.cycles for stream in streams)))
    return stages


def _memory(memory: Memory, target: Target, run_bytes: int, runs: int) -> Stage:
    dma = target.dma
    bursts = runs * _quotient(run_bytes, dma.burst_bytes)
    beat = _quotient(min(run_bytes, dma.burst_bytes), memory.bytes_per_cycle)
    interval = max(beat, _quotient(memory.latency_cycles + beat, dma.outstanding_bursts))
    return Stage(DMA, memory.latency_cycles, beat + (bursts - 1) * interval)


def _update_reads(d: Descriptor, target: Target) -> Stage:
    """The source of an SMAP_UPD. Where runs of neighbouring entries are neighbours, as many are read as one as there
    are lanes: each lane adds up an entry of its own.
    """
    run_bytes, reps2 = d.run_bytes, d.reps2
    own_runs = d.dst_st2 * Dtype(d.dtype).width_bytes == run_bytes * d.reps1
    if own_runs and d.src_st2 == run_bytes:
        together = min(target.key.lanes, reps2)
        run_bytes, reps2 = run_bytes * together, _quotient(reps2, together)
    return _memory(memory_at(d.src, target), target, run_bytes, d.reps1 * reps2)


def _link(d: Descriptor, target: Target, moved_bytes: int) -> list[Stage]:
    if memory_at(d.dst, target).kind != "link":
        return []
    return [Stage(LINK, target.link.latency_cycles, _quotient(moved_bytes, target.link.bytes_per_cycle))]


def _map(d: Descriptor, target: Target) -> list[Stage]:
    if not d.has(Flag.SCORED):
        return []
    return [_memory(target.the("smap"), target, _quotient(d.tiles * d.tile_n, d.dst_st2), 1)]


def _key(d: Descriptor, target: Target) -> Stage:
    return Stage(KEY, target.key.latency_cycles, d.tiles * _quotient(d.tile_n, target.key.lanes))


def _selector(d: Descriptor, target: Target) -> Stage:
    selector = target.selector
    one_pass = _quotient(d.tile_n, selector.lanes)
    scan = digits(d, target) * (one_pass + selector.latency_cycles)
    return Stage(SELECTOR, scan, d.tiles * max(one_pass, _quotient(scan, selector.tiles_in_flight)))


def _quotient(amount: int, per: int) -> int:
    return -(-amount // per)
