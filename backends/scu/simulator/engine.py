"""The order and the times of descriptors: a deterministic event queue. Normative for what runs before what.

The command processor hands descriptors to their queues in program order, and waits while the queue of the next one
holds ``queue_descriptors`` that have not begun, or while a FENCE or PREDICATED NOP is not done. A queue begins its next
descriptor once the one before has ended, its semaphore allows, and no other queue has its units; a FENCE once all
else is done. It acquires then, holds its units to its end, and releases at its end. Of what could begin at the same
time, the queue with the lowest number is first. A program ends when everything handed out has ended.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sparsecc.backends.scu.descriptor import Descriptor, Flag, Op, Queue
from sparsecc.backends.scu.machine import Target
from sparsecc.diagnostics import CompileError

_HELP = "compile the model again; if that does not help, please report it"


@dataclass(frozen=True)
class Span:
    """When a descriptor ran, in cycles, and what it moved in blocks."""

    place: int
    start: int
    end: int
    payload_bytes: int


@dataclass
class Engine:
    """One run of ``code``. ``begin(place)`` does a descriptor's work and returns its cycles and payload bytes;
    ``goes_on(place)`` is asked when a PREDICATED NOP begins; ``units[place]`` are taken from begin to end.
    """

    code: Sequence[Descriptor]
    target: Target
    begin: Callable[[int], tuple[int, int]]
    goes_on: Callable[[int], bool]
    units: Sequence[frozenset[str]]
    semaphores: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.semaphores = [0] * self.target.command.semaphores
        self._now = 0
        self._next = 0  # the descriptor to hand out
        self._barrier: int | None = None  # FENCE or PREDICATED NOP that is not done
        self._waiting = [deque[int]() for _ in Queue]
        self._running: list[int | None] = [None for _ in Queue]
        self._ends: list[tuple[int, int]] = []  # heap of (cycle, queue)
        self._taken = set[str]()

    def run(self) -> list[Span]:
        """All spans, in the order in which they began; each descriptor is in at most one.

        Raises: CompileError SCC103 when nothing can go on, or a semaphore counts too far.
        """
        spans = list[Span]()
        while True:
            self._hand_out()
            queue = self._ready()
            if queue is not None:
                spans.append(self._start(queue))
            elif self._ends:
                self._advance()
            else:
                break
        if any(self._waiting) or self._next < len(self.code):
            raise self._deadlock()
        return spans

    def _hand_out(self) -> None:
        while self._next < len(self.code) and self._barrier is None:
            d = self.code[self._next]
            waiting = self._waiting[d.queue]
            if len(waiting) == self.target.command.queue_descriptors:
                return
            waiting.append(self._next)
            if d.op == Op.FENCE or (d.has(Flag.PREDICATED) and d.op == Op.NOP):
                self._barrier = self._next
            self._next += 1

    def _ready(self) -> int | None:
        """The first queue that can begin its next descriptor."""
        for queue, waiting in enumerate(self._waiting):
            if not waiting or self._running[queue] is not None:
                continue
            d = self.code[waiting[0]]
            if self.semaphores[d.acq_sem] < d.acq_ge or not self._taken.isdisjoint(self.units[waiting[0]]):
                continue
            alone = not self._ends and sum(map(len, self._waiting)) == 1
            if d.op != Op.FENCE or alone:
                return queue
        return None

    def _advance(self) -> None:
        """To the next end, and all others of the same cycle."""
        self._now = self._ends[0][0]
        while self._ends and self._ends[0][0] == self._now:
            self._finish(heapq.heappop(self._ends)[1])

    def _start(self, queue: int) -> Span:
        place = self._waiting[queue].popleft()
        d = self.code[place]
        self.semaphores[d.acq_sem] -= d.acq_ge
        self._taken |= self.units[place]
        self._running[queue] = place
        cycles, payload_bytes = self.begin(place)
        if d.op == Op.NOP and d.has(Flag.PREDICATED) and not self.goes_on(place):
            self._next = d.next
        heapq.heappush(self._ends, (self._now + cycles, queue))
        return Span(place, self._now, self._now + cycles, payload_bytes)

    def _finish(self, queue: int) -> None:
        place = self._running[queue]
        assert place is not None
        d = self.code[place]
        self._running[queue] = None
        self._taken -= self.units[place]
        if place == self._barrier:
            self._barrier = None
        most = self.target.command.semaphore_most
        if self.semaphores[d.rel_sem] + d.rel_add > most:
            raise CompileError.of(
                "SCC103",
                f"{self._name(place)} counts semaphore {d.rel_sem} from {self.semaphores[d.rel_sem]} to "
                f"{self.semaphores[d.rel_sem] + d.rel_add}, and a semaphore counts to {most}",
                help=_HELP,
            )
        self.semaphores[d.rel_sem] += d.rel_add

    def _deadlock(self) -> CompileError:
        stuck = [waiting[0] for waiting in self._waiting if waiting]
        reasons = [self._reason(place) for place in stuck]
        if self._barrier is None and self._next < len(self.code):
            reasons.append(f"{self._name(self._next)} is not fetched: its queue is full")
        return CompileError.of("SCC103", f"the program stands still: {'; '.join(reasons)}", help=_HELP)

    def _reason(self, place: int) -> str:
        d = self.code[place]
        count = self.semaphores[d.acq_sem]
        if count < d.acq_ge:
            return f"{self._name(place)} waits for semaphore {d.acq_sem} to reach {d.acq_ge}, and it is {count}"
        return f"{self._name(place)} waits for all others"

    def _name(self, place: int) -> str:
        d = self.code[place]
        return f"descriptor {place} ({Op(d.op).name}, queue {d.queue.name})"
