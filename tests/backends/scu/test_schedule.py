"""Schedules respect their graph, come close to their bound, and become programs that any timing computes right."""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import LINES, copies, cycles, minilm, networks, parallel, peak_bytes, resnet20, small, used

from sparsecc.backends.scu.check import check_program
from sparsecc.backends.scu.container import read, write
from sparsecc.backends.scu.descriptor import Descriptor, Flag, Op, Queue
from sparsecc.backends.scu.machine import Target, scu_v1
from sparsecc.backends.scu.schedule import Schedule, assemble, schedule, schedule_dma
from sparsecc.backends.scu.schedule.bound import lower_bound, tails
from sparsecc.backends.scu.schedule.graph import Problem, dependencies, problem_of
from sparsecc.backends.scu.schedule.lists import list_schedule
from sparsecc.backends.scu.schedule.semaphores import synchronise
from sparsecc.backends.scu.tasks import Buffer, Part, Task, TaskGraph
from sparsecc.backends.scu.unit_program import Contract, UnitProgram
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


@settings(max_examples=60, deadline=None)
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


@settings(max_examples=60, deadline=None)
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


@settings(max_examples=25, deadline=None)
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


# ---- quality ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "share"),
    [(resnet20(), 1.0), (minilm(), 1.0), (parallel(3, 3, 1), 1.0), (parallel(8, 6), 1.05)],
    ids=["resnet20", "minilm", "three branches", "eight branches"],
)
def test_makespan_is_close_to_its_bound(graph: TaskGraph, share: float) -> None:
    found = schedule(graph, TARGET, cycles, seconds=2)
    assert found.lower_bound <= found.makespan <= share * found.lower_bound
    assert_respects(graph, found, TARGET, cycles)


def test_windows_improve_a_list_schedule() -> None:
    graph = parallel(3, 3, 1)
    listed, improved = schedule(graph, TARGET, cycles, seconds=0), schedule(graph, TARGET, cycles, seconds=2)
    assert improved.makespan < listed.makespan
    assert improved.method == f"{listed.method}; CP-SAT windows"


def test_equal_calls_have_equal_results() -> None:
    graph = parallel(3, 4, 2)
    first, second = (write(schedule_dma(graph, TARGET, cycles, 0.5)[0], TARGET) for _ in range(2))
    assert first == second


def test_two_tasks_overlap_and_share_no_unit() -> None:
    a, b = (Buffer(name, "tile0", 64) for name in "ab")
    tasks = [task("a", Queue.IN, None, Part("a", 0, 64)), task("b", Queue.OUT, None, Part("b", 0, 64))]
    found = schedule(graph_of(tasks, a, b), TARGET, lambda _: 7)
    assert (found.makespan, found.lower_bound) == (7, 7)
    one_queue = [replace(t, queue=Queue.IN) for t in tasks]
    found = schedule(graph_of(one_queue, a, b), TARGET, lambda _: 7)
    assert (found.makespan, found.lower_bound) == (14, 14)


def task(name: str, queue: Queue, src: Part | None, dst: Part) -> Task:
    """A COPY, from the given place or from DRAM."""
    source = src or Part("dram", 0, dst.bytes)
    return Task(name, Op.COPY, queue, source, dst, {"run_bytes": dst.bytes, **LINES})


def graph_of(tasks: list[Task], *buffers: Buffer) -> TaskGraph:
    return TaskGraph(tuple(tasks), {b.name: b for b in (*buffers, Buffer("dram", "dram", 4096, 0))})


def test_bound_counts_what_a_unit_does_one_after_the_other() -> None:
    """Four sends of 10 and a receive of each of 1: no path is longer than 11, and 41 cycles must pass."""
    before = ((), (), (), (), (0,), (1,), (2,), (3,), (4, 5, 6, 7))
    after = ((4,), (5,), (6,), (7,), (8,), (8,), (8,), (8,), ())
    problem = Problem((10,) * 4 + (1,) * 5, (1,) * 4 + (0,) * 4 + (2,), before, after, (), ((),) * 9, {})
    assert tails(problem)[0] == 12
    assert lower_bound(problem) == 42


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_model_that_does_not_fit() -> None:
    buffers = [Buffer(name, "tile0", 100) for name in ("conv1>conv2", "conv2.out")]
    tasks = [
        task("load", Queue.IN, None, Part("conv1>conv2", 0, 100)),
        task("conv2", Queue.LINK, Part("conv1>conv2", 0, 100), Part("conv2.out", 0, 100)),
    ]
    with pytest.raises(CompileError) as caught:
        schedule(graph_of(tasks, *buffers), small(TARGET, tile0=255), cycles)
    assert str(caught.value) == (
        "error[SCC111]: at conv2, memory tile0 has to hold 256 B at once and has 192 B for it: conv1>conv2 (128 B), "
        "conv2.out (128 B)\n"
        "  help: give memory.tile0 more bytes in a target file (--target-file), or compile a smaller model"
    )
    assert schedule(graph_of(tasks, *buffers), small(TARGET, tile0=256), cycles).makespan == 32


def test_memory_in_pieces() -> None:
    """A buffer with a given place splits the memory: 256 B are free, and 192 B find no place."""
    buffers = [Buffer("fixed", "tile0", 64, 128), Buffer("large", "tile0", 192)]
    tasks = [task("load", Queue.IN, None, Part("large", 0, 192))]
    with pytest.raises(CompileError) as caught:
        schedule(graph_of(tasks, *buffers), small(TARGET, tile0=320), cycles)
    assert str(caught.value) == (
        "error[SCC111]: memory tile0 has to hold 192 B at once and has 256 B, but in pieces: no places were found for "
        "its buffers that do not overlap\n"
        "  help: give memory.tile0 more bytes in a target file (--target-file), or compile a smaller model"
    )


def test_less_memory_takes_longer() -> None:
    """Loads run ahead of their uses as far as there is room for them."""
    tasks, buffers = list[Task](), list[Buffer]()
    for n in range(6):
        buffers += [Buffer(f"in{n}", "tile0", 64), Buffer(f"out{n}", "tile1", 64)]
        tasks += [
            task(f"load{n}", Queue.IN, None, Part(f"in{n}", 0, 64)),
            task(f"use{n}", Queue.LINK, Part(f"in{n}", 0, 64), Part(f"out{n}", 0, 64)),
        ]
    graph = graph_of(tasks, *buffers)
    lines = {64: 12, 128: 7, 192: 7}  # one buffer: no overlap; two: double buffering, which is enough
    for size, steps in lines.items():
        assert schedule(graph, small(TARGET, tile0=size), lambda _: 10).makespan == 10 * steps


def test_graph_that_contradicts_itself() -> None:
    buffer = Buffer("a", "tile0", 64)
    beyond = graph_of([task("t", Queue.IN, None, Part("a", 1, 64))], buffer)
    unwritten = graph_of([task("t", Queue.IN, Part("a", 0, 64), Part("dram", 0, 64))], buffer)
    with pytest.raises(ValueError, match=r"task t: Part.* is not in Buffer"):
        schedule(beyond, TARGET, cycles)
    with pytest.raises(ValueError, match="task t reads buffer a, which nothing has written"):
        schedule(unwritten, TARGET, cycles)


# ---- dependencies that no buffer shows -------------------------------------------------------------------------------


def test_registers_map_and_fence_are_dependencies() -> None:
    send = {"flags": Flag.REGISTER | Flag.SCORED, "contract": 3, "smap": 8, "tiles": 1, "tile_n": 64, "dst_st2": 64}
    buffers = {"map": Buffer("map", "smap", 64, 0), "key": Buffer("key", "config", 4, 0x510)}
    tasks = (
        Task("load", Op.SMAP_LOAD, Queue.CONFIG, dst=Part("map", 0, 64)),
        Task("key", Op.CFGW, Queue.CONFIG, dst=Part("key", 0, 4)),
        Task("other", Op.CONTRACT, Queue.CONFIG, fields={"contract": 2}),
        Task("mine", Op.CONTRACT, Queue.CONFIG, fields={"contract": 3}),
        Task("send", Op.SEND, Queue.OUT, fields=send),
        Task("again", Op.CONTRACT, Queue.CONFIG, fields={"contract": 3}),
        Task("fence", Op.FENCE, Queue.IN),
        Task("last", Op.NOP, Queue.LINK),
    )
    edges = set(dependencies(TaskGraph(tasks, buffers), TARGET).edges)
    assert edges >= {(0, 4), (1, 4), (3, 4), (4, 5), (1, 2), *((i, 6) for i in range(6)), (6, 7)}
    assert not {(2, 4), (2, 3), (0, 1), (0, 3)} & edges


# ---- assembly --------------------------------------------------------------------------------------------------------


def test_a_small_program() -> None:
    graph = replace(
        graph_of(
            [
                task("load", Queue.IN, None, Part("a", 0, 64)),
                replace(task("left", Queue.LINK, Part("a", 0, 64), Part("b", 0, 64)), edge="e1"),
                task("right", Queue.CONFIG, Part("a", 0, 64), Part("c", 0, 64)),
            ],
            *(Buffer(name, "tile0", 64) for name in "abc"),
        ),
        contracts=(Contract(1, 1, 1),),
        meta={"edges": ["e0", "e1"]},
    )
    program, _ = schedule_dma(graph, TARGET, lambda _: 1)
    ops = [(Op(d.op), d.queue, d.acq_ge and d.acq_sem, d.rel_add and d.rel_sem, d.tag) for d in program.code]
    assert [(op.name, queue.name, *rest) for op, queue, *rest in ops] == [
        ("COPY", "IN", 0, 0, 0),
        ("SIGNAL", "IN", 0, 1, 0),
        ("COPY", "LINK", 0, 0, 1),
        ("COPY", "CONFIG", 1, 0, 0),
        ("END", "IN", 0, 0, 0),
    ]
    assert program.notes == {0: "load", 1: "lets right go on", 2: "e1: left", 3: "right"}
    assert program.contracts == graph.contracts
    assert list(verify_program(program, TARGET)) == []


def test_negative_strides_begin_at_the_far_end() -> None:
    fields = {"run_bytes": 16, "reps1": 4, "reps2": 1, "src_st1": -16, "dst_st1": 16}
    reverse = Task("t", Op.COPY, Queue.IN, Part("dram", 0, 64), Part("a", 0, 64), fields)
    program, _ = schedule_dma(graph_of([reverse], Buffer("a", "tile0", 64)), TARGET, cycles)
    assert program.code[0].src == TARGET.memory["dram"].address + 48
    assert list(check_program(program, TARGET)) == []


def test_too_few_semaphores() -> None:
    target = replace(TARGET, command=replace(TARGET.command, semaphores=1))
    graph = resnet20()
    with pytest.raises(CompileError) as caught:
        assemble(graph, schedule(graph, target, cycles), target)
    assert str(caught.value) == (
        "error[SCC112]: 6 pairs of queues wait for each other, and scu-v1 has 1 semaphores, one for each pair\n"
        "  help: give command.semaphores at least 6 in the target file (--target-file)"
    )


@settings(max_examples=40, deadline=None)
@given(GRAPHS, st.integers(1, 3))
def test_no_semaphore_counts_beyond_what_the_target_can(graph: TaskGraph, most: int) -> None:
    target = replace(TARGET, command=replace(TARGET.command, semaphore_most=most))
    program, _ = schedule_dma(graph, target, cycles, 0)
    assert list(check_program(program, target)) == []
    assert list(verify_program(program, target)) == []


def test_a_queue_far_ahead_waits_for_the_other() -> None:
    """300 producers, each with a consumer: without the wait, a semaphore would count to 300."""
    queue, start = [0, 1] * 300, [n for n in range(300) for _ in range(2)]
    pairs = [(2 * n, 2 * n + 1) for n in range(300)]
    order, waits = synchronise(queue, start, pairs, 255)
    assert sorted(order) == list(range(600))
    assert {i: js for i, js in waits.items() if js and i % 2 == 0} == {510 + 2 * n: [2 * n + 1] for n in range(45)}
    assert all(waits[2 * n + 1] == [2 * n] for n in range(300))
