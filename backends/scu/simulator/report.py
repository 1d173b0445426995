"""What a run returns, and the performance registers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsecc.backends.scu.descriptor import DESCRIPTOR_BYTES, Descriptor, Op
from sparsecc.backends.scu.machine import Target
from sparsecc.backends.scu.timing import PACKER, UNPACKER, busy_cycles, stages, units
from sparsecc.backends.scu.unit_program import Kernel, UnitProgram

from .energy import events, prices
from .engine import Span
from .memory import Memories
from .operations import Counters

DRAM_KINDS = ("dram", "const")
"""Memories that are in DRAM: section CONST is."""


@dataclass(frozen=True)
class Outcome:
    """A run of a program. Without timing all cycles are 0, and there are no events, nor what is made of them.

    ``spans`` are in the order in which descriptors began; those that were skipped are not there. A unit is busy while
    its slowest stage works, and stalls for the rest of the descriptors that hold it. The DMA units of the four queues
    count as one, and so may be busy for more than ``cycles``.
    """

    outputs: list[bytes]
    cycles: int
    spans: Sequence[Span]
    counters: Counters
    busy_cycles: Mapping[str, int]  # by unit, timing.units
    stall_cycles: Mapping[str, int]
    events: Mapping[str, int]  # by component, energy.prices
    energy_pj: Mapping[str, float]
    link_bytes: int  # with headers and padding
    dram_bytes: int  # of memories dram and const, without descriptors
    descriptor_bytes: int
    averages: bytes  # u16 of each entry of the map

    @property
    def total_pj(self) -> float:
        return sum(self.energy_pj.values())

    @property
    def overlap(self) -> float:
        """Units at work on average: the sum of busy cycles over all units, by ``cycles``."""
        return sum(self.busy_cycles.values()) / self.cycles if self.cycles else 0.0

    @property
    def compute_share(self) -> float:
        """The share of all tiles' cycles that they compute in."""
        tiles = [cycles for unit, cycles in self.busy_cycles.items() if unit.startswith("tile")]
        return sum(tiles) / (self.cycles * len(tiles)) if self.cycles else 0.0


def kernel_of(d: Descriptor, program: UnitProgram) -> Kernel | None:
    return program.kernels[d.k] if d.op == Op.COMPUTE else None


def count_events(spans: Iterable[Span], program: UnitProgram, target: Target) -> Counter[str]:
    """Events of all descriptors that ran."""
    counts = Counter[str]()
    for span in spans:
        d = program.code[span.place]
        for name, count in events(d, kernel_of(d, program), target, span.payload_bytes):
            counts[name] += count
    return counts


def unit_cycles(
    spans: Iterable[Span], program: UnitProgram, target: Target
) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Busy and stall cycles by unit."""
    busy, stall = dict.fromkeys(units(target), 0), dict.fromkeys(units(target), 0)
    for span in spans:
        d = program.code[span.place]
        own = busy_cycles(stages(d, kernel_of(d, program), target, span.payload_bytes))
        for unit, cycles in own.items():
            busy[unit] += cycles
            stall[unit] += span.end - span.start - cycles
    return busy, stall


def outcome(
    spans: Sequence[Span],
    counters: Counters,
    outputs: list[bytes],
    cycles: tuple[Mapping[str, int], Mapping[str, int]],
    counted: Counter[str],
    target: Target,
    averages: bytes,
) -> Outcome:
    """The outcome of a run; ``cycles`` are busy and stall of every unit, ``counted`` its events."""
    price = prices(target)
    in_dram = {
        f"{name} {way}"
        for name, memory in target.memory.items()
        if memory.kind in DRAM_KINDS
        for way in ("read", "write")
    }
    return Outcome(
        outputs,
        max((span.end for span in spans), default=0),
        spans,
        counters,
        *cycles,
        counted,
        {name: count * price[name] for name, count in counted.items()},
        counters.bytes_link,
        sum(counted[name] for name in in_dram),
        len(spans) * DESCRIPTOR_BYTES,
        averages,
    )


def write_registers(
    memories: Memories,
    target: Target,
    counters: Counters,
    semaphores: Sequence[int],
    cycles: tuple[Mapping[str, int], Mapping[str, int]],
) -> None:
    """Performance counters and semaphores into memory config, as far as the target has registers for them.

    busy_cycles and stall_cycles are those of dma, key, selector, packer (with the unpacker), link, then the tiles.
    """
    for name, value in vars(counters).items():
        memories.registers(target, name, "<u8", 1)[0] = value
    memories.registers(target, "semaphores", "<u4", len(semaphores))[:] = semaphores
    for name, by_unit in zip(("busy_cycles", "stall_cycles"), cycles, strict=True):
        merged = {unit: n + (by_unit[UNPACKER] if unit == PACKER else 0) for unit, n in by_unit.items()}
        del merged[UNPACKER]
        memories.registers(target, name, "<u8", len(merged))[:] = np.array(list(merged.values()), np.uint64)
