"""Places for buffers: those that live at the same time lie apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ortools.sat.python import cp_model

from .graph import ALIGN_BYTES, Problem

MOST_SOLVED = 150
"""Blocks that are handed to CP-SAT where every order fails: its model grows with the square of their number."""
SOLVER_SECONDS = 5.0
"""Deterministic, not of the clock."""


@dataclass(frozen=True)
class Block:
    """A resident in time and space: it lives in cycles [start, end)."""

    resident: int
    bytes: int
    start: int
    end: int

    def meets(self, other: Block) -> bool:
        return self.start < other.end and other.start < self.end


def blocks(problem: Problem, start: Sequence[int], memory: str) -> list[Block]:
    """What lives in a memory under a schedule."""
    return [
        Block(
            number,
            resident.bytes,
            min(start[i] for i in resident.users),
            max(start[i] + problem.cycles[i] for i in resident.users),
        )
        for number, resident in enumerate(problem.residents)
        if resident.memory == memory
    ]


ORDERS: tuple[Callable[[Block], tuple[int, ...]], ...] = (
    lambda b: (-b.bytes, b.start),
    lambda b: (b.start, -b.bytes),
    lambda b: (-b.bytes * (b.end - b.start), b.start),
    lambda b: (b.start - b.end, -b.bytes),
    lambda b: (b.end, -b.bytes),
    lambda b: (-b.end, -b.bytes),
)
"""Canonical orders in which blocks take the lowest place that is free."""


def pack(found: Sequence[Block], memory_bytes: int, taken: Sequence[tuple[int, int]]) -> dict[int, int] | None:
    """Offset of every resident in a memory of which the spans ``taken`` are given away; None where no search succeeds.

    Offsets are multiples of ALIGN_BYTES.
    """
    for order in ORDERS:
        if offsets := _first_fit(sorted(found, key=order), memory_bytes, taken):
            return offsets
    return _solve(found, memory_bytes, taken) if len(found) <= MOST_SOLVED else None


def _first_fit(found: Iterable[Block], memory_bytes: int, taken: Sequence[tuple[int, int]]) -> dict[int, int] | None:
    placed = list[tuple[Block, int]]()
    for block in found:
        offset = 0
        nearby = ((at, at + other.bytes) for other, at in placed if block.meets(other))
        for first, end in sorted([*nearby, *taken]):
            if first >= offset + block.bytes:
                break
            offset = max(offset, end)
        if offset + block.bytes > memory_bytes:
            return None
        placed.append((block, offset))
    return {block.resident: offset for block, offset in placed}


def _solve(found: Sequence[Block], memory_bytes: int, taken: Sequence[tuple[int, int]]) -> dict[int, int] | None:
    """CP-SAT: rectangles of time and lines of ALIGN_BYTES that do not overlap."""
    model = cp_model.CpModel()
    lines, last = memory_bytes // ALIGN_BYTES, max((block.end for block in found), default=1)
    if any(block.bytes > memory_bytes for block in found):
        return None
    places = [model.new_int_var(0, lines - block.bytes // ALIGN_BYTES, "") for block in found]
    spans = [
        model.new_fixed_size_interval_var(place, block.bytes // ALIGN_BYTES, "")
        for place, block in zip(places, found, strict=True)
    ]
    times = [model.new_fixed_size_interval_var(block.start, block.end - block.start, "") for block in found]
    for first, end in taken:
        spans.append(model.new_fixed_size_interval_var(first // ALIGN_BYTES, (end - first) // ALIGN_BYTES, ""))
        times.append(model.new_fixed_size_interval_var(0, last, ""))
    model.add_no_overlap_2d(times, spans)
    solver = deterministic_solver(SOLVER_SECONDS)
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return {block.resident: solver.value(place) * ALIGN_BYTES for block, place in zip(found, places, strict=True)}


def deterministic_solver(seconds: float) -> cp_model.CpSolver:
    """The same model gives the same answer on every run: one worker, a seed, and a limit that does not read a clock."""
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = seconds
    return solver


def reuses(problem: Problem, start: Sequence[int], offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs of tasks (before, after): who used some bytes last, and who first uses them for another buffer.

    ``offsets``: of every resident. With these as dependencies, no timing of the units lets two buffers share bytes.
    """
    for memory in {resident.memory for resident in problem.residents}:
        found = sorted(blocks(problem, start, memory), key=lambda block: block.start)
        for n, later in enumerate(found):
            low, high = offsets[later.resident], offsets[later.resident] + later.bytes
            heirs = _edge_users(problem, start, later.resident, last=False)
            for earlier in found[:n]:
                first = offsets[earlier.resident]
                if first < high and low < first + earlier.bytes:
                    for before in _edge_users(problem, start, earlier.resident, last=True):
                        yield from ((before, after) for after in heirs if before != after)


def _edge_users(problem: Problem, start: Sequence[int], resident: int, last: bool) -> list[int]:
    """Per unit the first or the last task that uses a resident: the others are ordered by their queue."""
    chosen = dict[int, int]()
    for i in problem.residents[resident].users:
        unit = problem.queue[i]
        if unit not in chosen or (start[i] > start[chosen[unit]]) == last:
            chosen[unit] = i
    return list(chosen.values())
