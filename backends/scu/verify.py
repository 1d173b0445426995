"""What single descriptors cannot show: that a program ends, that nothing races, that payloads are what is read.

Proven from the program alone, for every timing of the units and for queues that hold queue_descriptors each:
  - it ends: run greedily, all descriptors run. A semaphore that one queue acquires is only ever counted down by that
    queue, in its order, so a descriptor that may run stays so until it does: if one execution ends, all do
  - no semaphore counts beyond semaphore_most
  - any two descriptors that touch the same bytes, one writing, run in a known order
  - every block that is received was sent with the same fields, and none is overwritten before
What it leaves out: strided accesses count with the gaps between their runs, and nothing is known of what bytes mean.

Order is kept in vector clocks: there are four queues, each in order, so "all that surely ended before" is 4 numbers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from sparsecc.diagnostics import Diagnostic

from .descriptor import Descriptor, Flag, Op, Queue, extent
from .machine import OFFSET_BITS, Target
from .unit_program import UnitProgram

Clock = tuple[int, ...]
Access = tuple[int, int, int, bool]  # region (in tables per region: descriptor), first byte and end there, writes
QUEUES = len(Queue)
CONTRACTS = -1  # in place of a region: the contract registers
MOST_REGIONS = 256
MATCHING = ("dtype", "codec", "k", "tile_n", "fill")
HELP = "compile the model again; if the program comes from sparsecc itself, report it with the model and the command"


def verify_program(program: UnitProgram, target: Target) -> Iterator[Diagnostic]:
    """Findings of a program without any of check_program.

    SCC105 it may stop before its end, SCC106 a race, SCC107 a payload is not what its reader expects, SCC108 a
    semaphore may count too far. Where something may be skipped, both cases must hold: who cannot be proven is reported.
    """
    order = Order(program.code)
    if findings := [*order.unclear(), *order.stuck(target.command.queue_descriptors)]:
        yield from findings
        return  # without an execution that ends there is no order
    yield from _overflows(order, target.command.semaphore_most)
    touched = [list(_touched(d, program, target)) for d in program.code]
    yield from _races(order, touched, target)
    yield from _payloads(order, touched, target)


def _finding(code: str, message: str) -> Diagnostic:
    return Diagnostic(code, message, help=HELP)


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
        self.skips = [(i + 1, d.next) for i, d in enumerate(code) if _predicated(d)]
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
                yield _finding(
                    "SCC105", f"semaphore {semaphore} is acquired by {names}: which of them gets on depends on timing"
                )
        if len(self.skips) > MOST_REGIONS:
            yield _finding("SCC105", f"{len(self.skips)} regions may be skipped, and at most {MOST_REGIONS} are proven")
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
                    yield _finding(
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
                if code[fetched].op == Op.FENCE or _predicated(code[fetched]):
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
            yield _finding("SCC105", f"the program never ends: {'; '.join(reasons)}")

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


def _predicated(d: Descriptor) -> bool:
    return d.op == Op.NOP and d.has(Flag.PREDICATED)


# ---- semaphores ------------------------------------------------------------------------------------------------------


def _overflows(order: Order, most: int) -> Iterator[Diagnostic]:
    """After a release, a count is at most: what may have been released by then, less what was surely acquired."""
    clocks, code = order.clocks(), order.code
    for semaphore, by_queue in sorted(order.releases.items()):
        acquiring = next(iter(order.acquires[semaphore].items()), (Queue.IN, list[int]()))
        taken = [0, *accumulate(code[i].acq_ge for i in acquiring[1])]
        places = [order.place[i] for i in acquiring[1]]
        sums = {q: [0, *accumulate(code[i].rel_add for i in found)] for q, found in by_queue.items()}
        for queue, releasing in by_queue.items():
            for n, i in enumerate(releasing):
                count = sums[queue][n + 1]
                for other, found in by_queue.items():
                    if other != queue:  # all but those that wait for this one
                        count += sums[other][bisect_left(found, order.place[i] + 1, key=lambda j: clocks[j][queue])]
                surely = clocks[i][acquiring[0]] + (order.queue[i] == acquiring[0])
                count -= taken[bisect_left(places, surely)]
                if count > most:
                    yield _finding(
                        "SCC108",
                        f"semaphore {semaphore} may count to {count} after {order.name(i)}, and counts to {most}",
                    )
                    break


# ---- memory ----------------------------------------------------------------------------------------------------------


def _touched(d: Descriptor, program: UnitProgram, target: Target) -> Iterator[Access]:
    """All bytes a descriptor may touch; reads come first."""
    op, reps = d.op, (d.reps1, d.reps2)
    config, smap = target.the("config"), target.the("smap")
    if op in (Op.COPY, Op.SEND, Op.SMAP_UPD):
        yield _range(*extent(d.src, d.run_bytes, reps, (d.src_st1, d.src_st2)), False)
    if op in (Op.CFGW, Op.SMAP_LOAD):
        yield _range(d.src, d.src + d.run_bytes, False)
        yield _range(d.dst, d.dst + d.run_bytes, True)
    if op == Op.RECV:
        yield _range(d.src, d.src + d.tiles * d.src_st1, False)
    if _predicated(d):
        yield _range(d.src, d.src + 1, False)
    if op in (Op.SEND, Op.CONTRACT):  # keys; and a CFGW may mean a contract register
        yield _range(config.address, config.address + config.bytes, False)
    if op == Op.CONTRACT or (op == Op.SEND and d.has(Flag.REGISTER)):  # a SEND counts its tiles there
        yield CONTRACTS, d.contract, d.contract + 1, True
    if op == Op.SMAP_UPD or (op == Op.SEND and d.has(Flag.SCORED)):
        first = smap.address + d.smap
        yield _range(first, first - (-d.tiles * d.tile_n // d.dst_st2), op == Op.SMAP_UPD)
    if op == Op.SEND:
        yield _range(d.dst, d.dst + d.tiles * d.dst_st1, True)
    if op in (Op.COPY, Op.RECV):
        yield _range(*extent(d.dst, d.run_bytes, reps, (d.dst_st1, d.dst_st2)), True)
    if op == Op.COMPUTE:
        kernel = program.kernels[d.k]
        yield _range(d.src, d.src + kernel.input_bytes, False)
        for operand in kernel.operands:
            yield _range(operand.address, operand.address + operand.bytes, False)
        yield _range(d.dst, d.dst + kernel.output_bytes, True)


def _range(first: int, end: int, writes: bool) -> Access:
    region = first >> OFFSET_BITS
    return region, first - (region << OFFSET_BITS), end - (region << OFFSET_BITS), writes


Records = npt.NDArray[np.int64]


def _by_region(order: Order, touched: Sequence[Sequence[Access]]) -> Iterator[tuple[int, list[Access]]]:
    """Per region that is touched: (descriptor, first, end, writes) in the order of execution."""
    found = defaultdict[int, list[Access]](list)
    for i in order.executed:
        for region, first, end, writes in touched[i]:
            found[region].append((i, first, end, writes))
    yield from sorted(found.items())


def _races(order: Order, touched: Sequence[Sequence[Access]], target: Target) -> Iterator[Diagnostic]:
    """Pairs of descriptors that touch the same bytes in no known order, one of them writing."""
    clocks = order.clocks()
    reported = set[tuple[int, int]]()
    for region, accesses in _by_region(order, touched):
        if not any(writes for *_, writes in accesses):
            continue
        table: Records = np.array([(*a, order.queue[a[0]], order.place[a[0]]) for a in accesses], np.int64)
        number, first, end, writes, queue, place = table.T
        for n, (i, low, high, written) in enumerate(accesses):
            clock = np.array(clocks[i])
            met = (first[:n] < high) & (end[:n] > low) & (place[:n] >= clock[queue[:n]]) & (number[:n] != i)
            if not written:
                met &= writes[:n] == 1
            for m in np.flatnonzero(met).tolist():
                j, other_low, other_high, other_written = accesses[m]
                if (j, i) in reported or order.before(j, i):
                    continue
                reported.add((j, i))
                (a, a_writes), (b, b_writes) = sorted([(j, other_written), (i, written)])
                both = max(low, other_low), min(high, other_high)
                yield _finding(
                    "SCC106",
                    f"{order.name(a)} and {order.name(b)} may run in any order, and both touch "
                    f"{_place(region, *both, target)}, which {_verb(a_writes, b_writes)}",
                )


def _verb(first_writes: bool, second_writes: bool) -> str:
    if first_writes and second_writes:
        return "both write"
    return "the first writes" if first_writes else "the second writes"


def _place(region: int, first: int, end: int, target: Target) -> str:
    if region == CONTRACTS:
        return f"contract register {first}"
    return f"bytes {first} to {end - 1} of {target.regions[region]}"


def _payloads(order: Order, touched: Sequence[Sequence[Access]], target: Target) -> Iterator[Diagnostic]:
    """Blocks that are received but not as they were sent, and blocks overwritten before they are received."""
    for region, accesses in _by_region(order, touched):
        if region == CONTRACTS or not any(order.code[i].op in (Op.SEND, Op.RECV) for i, *_ in accesses):
            continue
        bounds: Records = np.unique([bound for _, first, end, _ in accesses for bound in (first, end)])
        writer: Records = np.full(len(bounds), -1, np.int64)  # of the bytes from each bound to the next
        unread: npt.NDArray[np.bool_] = np.zeros(len(bounds), bool)
        for i, first, end, writes in accesses:
            span = slice(*np.searchsorted(bounds, (first, end)).tolist())
            d = order.code[i]
            if not writes:
                unread[span] = False
                if d.op == Op.RECV and target.memory[target.regions[region]].kind != "const":
                    yield from _mistaken(order, i, sorted(set(writer[span].tolist())))
                continue
            lost = writer[span][unread[span]]
            if len(lost):
                yield _finding(
                    "SCC107",
                    f"{order.name(i)} overwrites blocks of {order.name(int(lost[0]))} in "
                    f"{_place(region, first, end, target)} before anything reads them",
                )
            writer[span], unread[span] = i, d.op == Op.SEND


def _mistaken(order: Order, i: int, writers: Sequence[int]) -> Iterator[Diagnostic]:
    """Who wrote what a RECV reads must be SENDs whose blocks are those that it expects, at the same places."""
    d = order.code[i]
    for w in writers:
        sender = order.code[w]
        if w < 0:
            yield _finding("SCC107", f"{order.name(i)} receives blocks that nothing has sent")
        elif sender.op != Op.SEND:
            yield _finding("SCC107", f"{order.name(i)} receives blocks, and {order.name(w)} wrote there")
        elif not order.runs_with(w, i):
            yield _finding("SCC107", f"{order.name(i)} receives blocks of {order.name(w)}, which may be skipped")
        elif wrong := [name for name in MATCHING if getattr(sender, name) != getattr(d, name)]:
            yield _finding(
                "SCC107",
                f"{order.name(i)} expects {wrong[0]} {getattr(d, wrong[0])}, and {order.name(w)} sent blocks with "
                f"{wrong[0]} {getattr(sender, wrong[0])}",
            )
        elif sender.dst_st1 != d.src_st1 or (sender.dst - d.src) % d.src_st1:
            yield _finding(
                "SCC107",
                f"{order.name(i)} expects a block every {d.src_st1} B from {d.src:#x}, and {order.name(w)} sent one "
                f"every {sender.dst_st1} B from {sender.dst:#x}",
            )
