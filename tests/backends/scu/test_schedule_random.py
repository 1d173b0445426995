"""Random graphs: a schedule respects what they ask, and any timing of its program computes what they mean."""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import copies, cycles, networks, peak_bytes, small, used

from sparsecc.backends.scu.check import check_program
from sparsecc.backends.scu.container import read, write
from sparsecc.backends.scu.descriptor import Descriptor, Op, Queue
from sparsecc.backends.scu.machine import Target, scu_v1
from sparsecc.backends.scu.schedule import Schedule, schedule, schedule_dma
from sparsecc.backends.scu.schedule.graph import problem_of
from sparsecc.backends.scu.schedule.lists import list_schedule
from sparsecc.backends.scu.tasks import Buffer, Part, Task, TaskGraph
from sparsecc.backends.scu.unit_program import UnitProgram
from sparsecc.backends.scu.verify import verify_program
from sparsecc.diagnostics import CompileError

TARGET = scu_v1()
GRAPHS = networks() | copies()


def tight(graph: TaskGraph, spare_bytes: int) -> Target:
    """Memories that hold little more than the graph needs in its order."""
    sizes = {memory: size + spare_bytes for memory, size in peak_bytes(graph).items()}
    return small(TARGET, **{memory: max(size, 64) for memory, size in sizes.items()})


# ---- what a schedule must respect, checked without the scheduler's code ----------------------------------------------


def overlap(a: Part, b: Part, buffers: dict[str, Buffer]) -> bool:
    x, y = buffers[a.buffer], buffers[b.buffer]
    if x.offset is None or y.offset is None:
        return a.buffer == b.buffer and a.start < b.start + b.bytes and b.start < a.start + a.bytes
    first, second = x.offset + a.start, y.offset + b.start
    return x.memory == y.memory and first < second + b.bytes and second < first + a.bytes


def assert_respects(graph: TaskGraph, found: Schedule, target: Target, time: Callable[[Task], int]) -> None:
    buffers, start = dict(graph.buffers), found.start
    end = {task.name: start[task.name] + time(task) for task in graph.tasks}
    for n, later in enumerate(graph.tasks):
        for earlier in graph.tasks[:n]:
            if any(overlap(w, p, buffers) for w in earlier.writes for p in (*later.reads, *later.writes)) or any(
                overlap(w, p, buffers) for w in later.writes for p in earlier.reads
            ):
                assert end[earlier.name] <= start[later.name]
    for queue, names in found.queues.items():
        assert sorted(names) == sorted(task.name for task in graph.tasks if task.queue == queue)
        assert all(end[a] <= start[b] for a, b in pairwise(names))
    for memory in target.memory:
        lives = [
            (
                found.offsets[name] if b.offset is None else b.offset,
                b.bytes,
                min(start[t.name] for t in graph.tasks if name in used(t)) if b.offset is None else 0,
                max(end[t.name] for t in graph.tasks if name in used(t)) if b.offset is None else found.makespan + 1,
            )
            for name, b in buffers.items()
            if b.memory == memory and (b.offset is not None or name in found.offsets)
        ]
        for i, (offset, size, first, last) in enumerate(lives):
            assert 0 <= offset <= offset + size <= target.memory[memory].bytes
            for other, other_size, other_first, other_last in lives[:i]:
                apart = offset + size <= other or other + other_size <= offset
                assert apart or last <= other_first or other_last <= first
    assert all(offset % 64 == 0 for offset in found.offsets.values())
    assert found.lower_bound <= found.makespan == max(end.values(), default=0)


# ---- an interpreter: bytes hold a hash of who wrote them, and of what it had read ------------------------------------


def value(name: str, seen: list[list[int]]) -> int:
    return hash((name, tuple(map(tuple, seen)))) | 1


def run_in_order(graph: TaskGraph) -> dict[str, int]:
    """What each task computes, one after the other, every buffer in bytes of its own."""
    memory = defaultdict[tuple[str, int], int](int)
    result = dict[str, int]()
    for task in graph.tasks:
        seen = [[memory[p.buffer, p.start + i] for i in range(p.bytes)] for p in task.reads]
        result[task.name] = value(task.name, seen)
        for p in task.writes:
            memory.update(((p.buffer, p.start + i), result[task.name]) for i in range(p.bytes))
    return result


def run_program(program: UnitProgram, r: random.Random, depth: int) -> dict[str, int]:
    """What each descriptor computes, by the task its note names, in one of the orders that its semaphores allow.

    A descriptor reads when it starts and writes when it ends; between the two, other queues go on.
    """
    memory, counts, result = defaultdict[int, int](int), [0] * 32, dict[str, int]()
    waiting = [deque[int]() for _ in Queue]
    running = dict[Queue, tuple[int, int]]()
    fetched = 0
    while True:
        while fetched < len(program.code) and len(waiting[program.code[fetched].queue]) < depth:
            waiting[program.code[fetched].queue].append(fetched)
            fetched += 1
        ready = [
            q for q in Queue
            if q not in running and waiting[q] and counts[(d := program.code[waiting[q][0]]).acq_sem] >= d.acq_ge
        ]  # fmt: skip
        if not ready and not running:
            assert fetched == len(program.code)
            assert not any(waiting)
            return result
        queue = r.choice([*ready, *running])
        i = waiting[queue][0]
        d = program.code[i]
        if queue not in running:
            if d.acq_ge:
                counts[d.acq_sem] -= d.acq_ge
            name = program.notes.get(i, "end").rpartition(": ")[2]
            seen = [[memory[at] for at in range(*span)] for span in read_spans(d, program)]
            running[queue] = i, value(name, seen)
            if d.op not in (Op.WAIT, Op.SIGNAL, Op.END):
                result[name] = running[queue][1]
        else:
            computed = running.pop(queue)[1]
            if span := written_span(d, program):
                memory.update((at, computed) for at in range(*span))
            if d.rel_add:
                counts[d.rel_sem] += d.rel_add
            assert max(counts) <= 255
            waiting[queue].popleft()


def read_spans(d: Descriptor, program: UnitProgram) -> Iterator[tuple[int, int]]:
    if d.op in (Op.COPY, Op.SEND):
        yield d.src, d.src + d.run_bytes
    if d.op == Op.RECV:
        yield d.src, d.src + d.tiles * d.src_st1
    if d.op == Op.COMPUTE:
        kernel = program.kernels[d.k]
        yield d.src, d.src + kernel.input_bytes
        yield from ((o.address, o.address + o.bytes) for o in kernel.operands)


def written_span(d: Descriptor, program: UnitProgram) -> tuple[int, int] | None:
    if d.op in (Op.COPY, Op.RECV):
        return d.dst, d.dst + d.run_bytes
    if d.op == Op.SEND:
        return d.dst, d.dst + d.tiles * d.dst_st1
    return (d.dst, d.dst + program.kernels[d.k].output_bytes) if d.op == Op.COMPUTE else None


# ---- properties ------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(GRAPHS, st.sampled_from([0, 64, 1024, None]), st.data())
def test_schedule_respects_the_graph(graph: TaskGraph, spare_bytes: int | None, data: st.DataObject) -> None:
    target = TARGET if spare_bytes is None else tight(graph, spare_bytes)
    times = {task.name: data.draw(st.integers(1, 50)) for task in graph.tasks[:20]}

    def time(task: Task) -> int:
        return times.get(task.name, cycles(task))

    try:
        found = schedule(graph, target, time, seconds=0.2)
    except CompileError as error:
        assert "in pieces" in str(error)  # noqa: PT017  sizes fit: only places can be missing
        assert spare_bytes == 0
        return
    assert_respects(graph, found, target, time)
    problem = problem_of(graph, target, time)
    given_order = list(range(len(graph.tasks)))
    in_order = list_schedule(problem, given_order, given_order, in_order=True)
    if "less memory" not in found.method and found.method != "one after the other":
        assert found.makespan <= max(s + c for s, c in zip(in_order, problem.cycles, strict=True))


@settings(max_examples=40)
@given(copies(), st.sampled_from([0, 64, 256, None]), st.integers(0, 2**32))
def test_any_interleaving_computes_the_same(graph: TaskGraph, spare_bytes: int | None, seed: int) -> None:
    target = TARGET if spare_bytes is None else tight(graph, spare_bytes)
    try:
        program, _ = schedule_dma(graph, target, cycles, 0.2)
    except CompileError as error:
        assert "in pieces" in str(error)  # noqa: PT017
        return
    assert list(check_program(program, target)) == []
    assert list(verify_program(program, target)) == []
    expected = run_in_order(graph)
    r = random.Random(seed)
    for depth in (1, 2, 8, 1000):
        computed = run_program(program, r, depth)
        assert {name: computed[name] for name in expected} == expected


@settings(max_examples=25)
@given(networks(), st.sampled_from([0, 1024, None]), st.integers(0, 2**32))
def test_any_interleaving_of_a_network_computes_the_same(graph: TaskGraph, spare_bytes: int | None, seed: int) -> None:
    target = TARGET if spare_bytes is None else tight(graph, spare_bytes)
    try:
        program, _ = schedule_dma(graph, target, cycles, 0.2)
    except CompileError as error:
        assert "in pieces" in str(error)  # noqa: PT017
        return
    assert list(check_program(program, target)) == []
    assert list(verify_program(program, target)) == []
    assert read(write(program, target), target) == program
    r = random.Random(seed)
    assert run_program(program, r, r.choice([1, 8, 1000])) == run_in_order(graph)
