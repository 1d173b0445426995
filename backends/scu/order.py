"""The order of a program: does it end, and which descriptors surely end before which others start?

It ends if, run greedily, all descriptors run. A semaphore that one queue acquires is only ever counted down by that
queue, in its order, so a descriptor that may run stays so until it does: if one execution ends, all do.

What surely ended is kept in vector clocks: of four queues, each in order, "all that ended before" is 4 numbers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate

from sparsecc.diagnostics import Diagnostic

from .descriptor import Descriptor, Flag, Op, Queue

Clock = tuple[int, ...]
QUEUES = len(Queue)
MOST_REGIONS = 256
HELP = "compile the model again; if the program comes from sparsecc itself, report it with the model and the command"


def finding(code: str, message: str) -> Diagnostic:
    """What a verifier found: a fault that only the compiler, or who wrote the program, can mend."""
    return Diagnostic(code, message, help=HELP)


def predicated(d: Descriptor) -> bool:
    """May what follows ``d`` be skipped?"""
    return d.op == Op.NOP and d.has(Flag.PREDICATED)


class Order:
    """The descriptors of a program, and which of them surely end before which others start."""

    def __init__(self, code: Sequence[Descriptor]) -> None:
        self.code = code
        self.queue = [d.queue for d in code]
        lengths = [0] * QUEUES
        self.place = list[int]()  # in the queue
        for queue in self.queue:
            self.place.append(lengths[queue])
            lengths[queue] += 1
        self.skips = [(i + 1, d.next) for i, d in enumerate(code) if predicated(d)]
        self.executed = list[int]()  # one legal order, once `stuck` found none
        self._clocks = dict[int, list[Clock]]()
        self.releases = defaultdict[int, dict[Queue, list[int]]](lambda: defaultdict(list))
        self.acquires = defaultdict[int, dict[Queue, list[int]]](lambda: defaultdict(list))
        for i, d in enumerate(code):
            if d.rel_add:
                self.releases[d.rel_sem][self.queue[i]].append(i)
            if d.acq_ge:
                self.acquires[d.acq_sem][self.queue[i]].append(i)

    def name(self, i: int) -> str:
        return f"descriptor {i} ({Op(self.code[i].op).name}, queue {self.queue[i].name})"

    # ---- does it end ----

    def unclear(self) -> Iterator[Diagnostic]:
        """Uses of semaphores of which nothing can be proven."""
        for semaphore, by_queue in sorted(self.acquires.items()):
            if len(by_queue) > 1:
                names = " and ".join(self.name(found[0]) for _, found in sorted(by_queue.items()))
                yield finding(
                    "SCC105", f"semaphore {semaphore} is acquired by {names}: which of them gets on depends on timing"
                )
        if len(self.skips) > MOST_REGIONS:
            yield finding("SCC105", f"{len(self.skips)} regions may be skipped, and at most {MOST_REGIONS} are proven")
            return
        if self.skips:
            yield from self._unbalanced()

    def _unbalanced(self) -> Iterator[Diagnostic]:
        """Regions whose semaphores are not left as they were found: they matter to others whether skipped or not."""
        for semaphore in sorted({*self.releases, *self.acquires}):
            steps = [
                (d.rel_add if d.rel_sem == semaphore else 0) - (d.acq_ge if d.acq_sem == semaphore else 0)
                for d in self.code
            ]
            count = [0, *accumulate(steps)]
            users = sorted(i for uses in (self.releases, self.acquires) for q in uses[semaphore].values() for i in q)
            for first, end in self.skips:
                inside = bisect_left(users, first) < bisect_left(users, end)
                if inside and (count[first] or count[end]):
                    yield finding(
                        "SCC105",
                        f"descriptors {first} to {end - 1} may be skipped, and descriptors outside may wait for what "
                        f"they do to semaphore {semaphore}",
                    )

    def stuck(self, depth: int) -> Iterator[Diagnostic]:
        """Run everything as soon as it can; report what never runs.

        The command processor fetches in the order of the program, while there is room in the descriptor's queue. It
        fetches nothing beyond a FENCE, or what may be skipped, until that is done.
        """
        code, executed = self.code, self.executed
        waiting = [deque[int]() for _ in Queue]
        counts = defaultdict[int, int](int)
        fetched, barrier = 0, -1
        moved = True
        while moved:
            moved = False
            while fetched < len(code) and barrier < 0 and len(waiting[self.queue[fetched]]) < depth:
                waiting[self.queue[fetched]].append(fetched)
                if code[fetched].op == Op.FENCE or predicated(code[fetched]):
                    barrier = fetched
                fetched += 1
            for queue in waiting:
                while queue:
                    i, d = queue[0], code[queue[0]]
                    if counts[d.acq_sem] < d.acq_ge or (d.op == Op.FENCE and len(executed) < i):
                        break
                    if d.acq_ge:
                        counts[d.acq_sem] -= d.acq_ge
                    if d.rel_add:
                        counts[d.rel_sem] += d.rel_add
                    executed.append(queue.popleft())
                    barrier = -1 if i == barrier else barrier
                    moved = True
        heads = [queue[0] for queue in waiting if queue and counts[code[queue[0]].acq_sem] < code[queue[0]].acq_ge]
        if len(executed) < len(code):
            reasons = [
                f"{self.name(i)} waits for {code[i].acq_ge} of semaphore {code[i].acq_sem}, which stays at "
                f"{counts[code[i].acq_sem]}"
                for i in sorted(heads)
            ]
            yield finding("SCC105", f"the program never ends: {'; '.join(reasons)}")

    # ---- what is ordered ----

    @cached_property
    def syncs(self) -> list[list[int]]:
        """Per descriptor, the releases without which its acquire cannot have happened: the last of each queue."""
        needed = [list[int]() for _ in self.code]
        for semaphore, by_queue in self.acquires.items():
            releases = self.releases[semaphore]
            sums = {q: [0, *accumulate(self.code[i].rel_add for i in found)] for q, found in releases.items()}
            for queue, acquiring in by_queue.items():
                taken = 0
                for i in acquiring:
                    taken += self.code[i].acq_ge
                    own = sums[queue][bisect_left(releases[queue], i)] if queue in sums else 0
                    most = {q: own if q == queue else total[-1] for q, total in sums.items()}
                    for q in releases:
                        others = sum(count for other, count in most.items() if other != q)
                        last = bisect_left(sums[q], taken - others) - 1  # with fewer, there are not enough
                        if q != queue and last >= 0:
                            needed[i].append(releases[q][last])
        return needed

    @cached_property
    def regions(self) -> list[int]:
        """Per descriptor the bit set of the regions, numbered as in ``skips``, in which it may be skipped."""
        return [
            sum(1 << n for n, (first, end) in enumerate(self.skips) if first <= i < end) for i in range(len(self.code))
        ]

    def clocks(self, regions: int = 0) -> list[Clock]:
        """Per descriptor how many of each queue have surely ended when it starts, if these regions are not skipped."""
        if regions not in self._clocks:
            self._clocks[regions] = self._count(regions)
        return self._clocks[regions]

    def _count(self, regions: int) -> list[Clock]:
        zero: Clock = (0,) * QUEUES
        clocks: list[Clock] = [zero] * len(self.code)
        ended: list[Clock] = [zero] * len(self.code)
        running: list[Clock] = [zero] * QUEUES
        fence = -1, zero
        for i in self.executed:
            q, d = self.queue[i], self.code[i]
            known = [running[q], *(ended[j] for j in self.syncs[i] if not self.regions[j] & ~regions)]
            if i > fence[0]:
                known.append(fence[1])
            if d.op == Op.FENCE:
                known += running  # all of these stand before it in the program
            clocks[i] = clock = tuple(map(max, zip(*known, strict=True)))
            ended[i] = running[q] = (*clock[:q], self.place[i] + 1, *clock[q + 1 :])
            if d.op == Op.FENCE and not self.regions[i] & ~regions:
                fence = i, ended[i]
        return clocks

    def before(self, i: int, j: int) -> bool:
        """Does ``i`` surely end before ``j`` starts, whenever both run?"""
        q = self.queue[i]
        if self.clocks()[j][q] > self.place[i]:
            return True
        both = self.regions[i] | self.regions[j]
        return bool(both) and self.clocks(both)[j][q] > self.place[i]

    def runs_with(self, i: int, j: int) -> bool:
        """Does ``i`` run whenever ``j`` does?"""
        return not self.regions[i] & ~self.regions[j]
