"""What single descriptors cannot show: that a program ends, that nothing races, that payloads are what is read.

Proven from the program alone, for every timing of the units and for queues that hold queue_descriptors each:
  - it ends (order.py)
  - no semaphore counts beyond semaphore_most
  - any two descriptors that touch the same bytes, one writing, run in a known order
  - every block that is received was sent with the same fields, and none is overwritten before
What it leaves out: strided accesses count with the gaps between their runs, and nothing is known of what bytes mean.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from sparsecc.diagnostics import Diagnostic

from .descriptor import Descriptor, Flag, Op, Queue, extent
from .machine import OFFSET_BITS, Target
from .order import Order, finding, predicated
from .unit_program import UnitProgram

Access = tuple[int, int, int, bool]  # region (in tables per region: descriptor), first byte and end there, writes
CONTRACTS = -1  # in place of a region: the contract registers
MATCHING = ("dtype", "codec", "k", "tile_n", "fill")


def verify_program(program: UnitProgram, target: Target) -> Iterator[Diagnostic]:
    """Findings of a program without any of check_program.

    SCC105 it may stop before its end, SCC106 a reader that does not wait for its writer, SCC128 buffers that overlap,
    SCC107 a payload is not what its reader expects, SCC108 a semaphore may count too far. Where something may be
    skipped, both cases must hold: what cannot be proven is reported.
    """
    order = Order(program.code)
    if findings := [*order.unclear(), *order.stuck(target.command.queue_descriptors)]:
        yield from findings
        return  # without an execution that ends there is no order
    yield from _overflows(order, target.command.semaphore_most)
    touched = [list(_touched(d, program, target)) for d in program.code]
    yield from _races(order, touched, target)
    yield from _payloads(order, touched, target)


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
                    yield finding(
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
    if predicated(d):
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
    """Pairs of descriptors that touch the same bytes in no known order, one of them writing: each as what it means."""
    reported = set[tuple[int, int, bool]]()
    for region, accesses in _by_region(order, touched):
        for (a, low, high, a_writes), (b, other_low, other_high, b_writes) in _unordered(order, accesses):
            if (a, b, b_writes) in reported:
                continue
            reported.add((a, b, b_writes))
            both = max(low, other_low), min(high, other_high)
            where = _place(region, *both, target)
            if b_writes:
                yield _overlap(order.name(b), order.name(a), where, "written" if a_writes else "read")
            elif _has_its_data(order, accesses, a, b, *both):
                yield _overlap(order.name(a), order.name(b), where, "read")
            else:
                yield finding(
                    "SCC106",
                    f"{order.name(b)} reads {where}, and does not wait until {order.name(a)} has written there",
                )


def _unordered(order: Order, accesses: Sequence[Access]) -> Iterator[tuple[Access, Access]]:
    """Which of these accesses meet in no known order; of each pair that of the earlier descriptor first."""
    if not any(writes for *_, writes in accesses):
        return
    clocks = order.clocks()
    table: Records = np.array([(*a, order.queue[a[0]], order.place[a[0]]) for a in accesses], np.int64)
    number, first, end, writes, queue, place = table.T
    for n, access in enumerate(accesses):
        i, low, high, written = access
        clock = np.array(clocks[i])
        met = (first[:n] < high) & (end[:n] > low) & (place[:n] >= clock[queue[:n]]) & (number[:n] != i)
        if not written:
            met &= writes[:n] == 1
        for m in np.flatnonzero(met).tolist():
            if not order.before(accesses[m][0], i):
                yield (accesses[m], access) if accesses[m][0] < i else (access, accesses[m])


def _has_its_data(order: Order, accesses: Sequence[Access], writer: int, reader: int, first: int, end: int) -> bool:
    """Does ``writer`` write over what another wrote and nothing has read, and which ``reader`` surely runs after?

    Then the reader wants what was there before.
    """
    before = [(i, writes) for i, low, high, writes in accesses if i < writer and low < end and high > first]
    last, writes = max(before, default=(reader, False))
    return writes and order.before(last, reader)


def _overlap(writer: str, other: str, where: str, done: str) -> Diagnostic:
    return finding(
        "SCC128",
        f"{writer} writes {where}, and does not wait until {other} has {done} there: "
        "buffers overlap that are alive at once",
    )


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
                yield finding(
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
            yield finding("SCC107", f"{order.name(i)} receives blocks that nothing has sent")
        elif sender.op != Op.SEND:
            yield finding("SCC107", f"{order.name(i)} receives blocks, and {order.name(w)} wrote there")
        elif not order.runs_with(w, i):
            yield finding("SCC107", f"{order.name(i)} receives blocks of {order.name(w)}, which may be skipped")
        elif wrong := [name for name in MATCHING if getattr(sender, name) != getattr(d, name)]:
            yield finding(
                "SCC107",
                f"{order.name(i)} expects {wrong[0]} {getattr(d, wrong[0])}, and {order.name(w)} sent blocks with "
                f"{wrong[0]} {getattr(sender, wrong[0])}",
            )
        elif sender.dst_st1 != d.src_st1 or (sender.dst - d.src) % d.src_st1:
            yield finding(
                "SCC107",
                f"{order.name(i)} expects a block every {d.src_st1} B from {d.src:#x}, and {order.name(w)} sent one "
                f"every {sender.dst_st1} B from {sender.dst:#x}",
            )
