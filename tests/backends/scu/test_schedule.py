"""Schedules come close to their bound, say what does not fit, and become programs."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import LINES, cycles, minilm, parallel, resnet20, small
from test_schedule_random import GRAPHS, assert_respects

from sparsecc.backends.scu.check import check_program
from sparsecc.backends.scu.container import write
from sparsecc.backends.scu.descriptor import Flag, Op, Queue
from sparsecc.backends.scu.machine import scu_v1
from sparsecc.backends.scu.schedule import assemble, schedule, schedule_dma
from sparsecc.backends.scu.schedule.bound import lower_bound, tails
from sparsecc.backends.scu.schedule.graph import Problem, dependencies
from sparsecc.backends.scu.schedule.semaphores import synchronise
from sparsecc.backends.scu.tasks import Buffer, Part, Task, TaskGraph
from sparsecc.backends.scu.unit_program import Contract
from sparsecc.backends.scu.verify import verify_program
from sparsecc.diagnostics import CompileError

TARGET = scu_v1()


# ---- quality ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "share"),
    [(resnet20(), 1.0), (minilm(), 1.0), (parallel(3, 3, 1), 1.0), (parallel(8, 6), 1.05)],
    ids=["resnet20", "minilm", "three branches", "eight branches"],
)
def test_makespan_is_close_to_its_bound(graph: TaskGraph, share: float) -> None:
    found = schedule(graph, TARGET, cycles, seconds=0.5)
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


@settings(max_examples=40)
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
