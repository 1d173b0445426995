"""Which descriptor runs when: queues, semaphores, units, fences, jumps; and that every program ends."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from scu_programs import CONFIG, EVERY_OP, IN, LINK, OUT, RUNS, TARGET, M, programs

from sparsecc.backends.scu import container
from sparsecc.backends.scu.codecs import Codec, Dtype
from sparsecc.backends.scu.descriptor import Descriptor, Flag, Op, Queue, flags
from sparsecc.backends.scu.simulator import Outcome, simulate
from sparsecc.backends.scu.timing import duration
from sparsecc.backends.scu.unit_program import Kernel, UnitProgram
from sparsecc.diagnostics import CompileError


def copy(queue: int = IN, src: int = 0, dst: int = 0, run_bytes: int = 64, **fields: int) -> Descriptor:
    """Between the scratchpads."""
    return Descriptor(Op.COPY, queue, src=M["tile0"] + src, dst=M["tile1"] + dst, run_bytes=run_bytes, **RUNS, **fields)


def send(queue: int, dst: int = 0) -> Descriptor:
    return Descriptor(Op.SEND, queue, Dtype.INT8, Codec.RAW, k=32, tile_n=32, tiles=1, src=M["tile0"],
                      dst=M["link"] + dst, run_bytes=32, **RUNS, dst_st1=64)  # fmt: skip


def run(*code: Descriptor, load: dict[int, bytes] | None = None, read: Any = (), **options: Any) -> Outcome:
    return simulate(UnitProgram((*code, Descriptor(Op.END))), TARGET, {}, load or {}, read, **options)


def times(outcome: Outcome) -> dict[int, tuple[int, int]]:
    return {span.place: (span.start, span.end) for span in outcome.spans}


COPY = duration(copy(), None, TARGET)
SEND = duration(send(IN), None, TARGET)
ISSUE = 5


def test_a_queue_is_in_order_and_queues_overlap() -> None:
    outcome = run(copy(), copy(OUT), copy(), copy(LINK))
    assert times(outcome) == {
        0: (0, COPY), 1: (0, COPY), 2: (COPY, 2 * COPY), 3: (0, COPY), 4: (2 * COPY, 2 * COPY + ISSUE),
    }  # fmt: skip
    assert [span.place for span in outcome.spans] == [0, 1, 3, 2, 4]  # of equal starts, the lower queue first
    assert outcome.cycles == 2 * COPY + ISSUE


def test_semaphores_count() -> None:
    # OUT waits for both copies of IN, and takes 2 of 3
    outcome = run(
        copy(rel_sem=4, rel_add=1), copy(rel_sem=4, rel_add=2), copy(OUT, acq_sem=4, acq_ge=2),
        Descriptor(Op.WAIT, LINK, acq_sem=4, acq_ge=1), read=[(M["config"] + 0x400, 20)],
    )  # fmt: skip
    assert times(outcome)[2] == (2 * COPY, 3 * COPY)
    assert times(outcome)[3] == (COPY, COPY + ISSUE)  # it could at COPY, where only 1 was there
    assert outcome.outputs == [bytes(20)]


def test_a_unit_serves_one_queue_at_a_time() -> None:
    assert times(run(send(IN), send(OUT, 64)))[1] == (SEND, 2 * SEND)
    kernel = Kernel("f", Dtype.INT8, 8, 8, 8, 1, 1)
    places = ((LINK, "tile0"), (CONFIG, "tile1"), (OUT, "tile0"))
    compute = [Descriptor(Op.COMPUTE, queue, src=M["tile0"], dst=M[tile]) for queue, tile in places]
    program = UnitProgram((*compute, Descriptor(Op.END)), kernels=(kernel,))
    outcome = simulate(program, TARGET, {"f": lambda *_: None}, {}, [])
    one = duration(compute[0], kernel, TARGET)
    assert one == ISSUE + 2 * 16 + 16 + 8 - 2
    assert times(outcome) == {2: (0, one), 1: (0, one), 0: (one, 2 * one), 3: (0, ISSUE)}


def test_sending_and_receiving_do_not_hinder_each_other() -> None:
    receive = Descriptor(Op.RECV, IN, Dtype.INT8, Codec.RAW, k=32, tile_n=32, tiles=1, src=M["link"], dst=M["tile1"],
                         run_bytes=32, **RUNS, src_st1=64, acq_sem=1, acq_ge=1)  # fmt: skip
    outcome = run(replace(send(OUT), rel_sem=1, rel_add=1), send(OUT, 64), receive)
    assert times(outcome)[1][0] == times(outcome)[2][0] == SEND


def test_a_fence_holds_all_queues() -> None:
    outcome = run(copy(), copy(), Descriptor(Op.FENCE, OUT), copy(LINK), copy(OUT))
    assert times(outcome)[2] == (2 * COPY, 2 * COPY + ISSUE)
    assert times(outcome)[3] == times(outcome)[4] == (2 * COPY + ISSUE, 3 * COPY + ISSUE)


@pytest.mark.parametrize("timing", [True, False])
@pytest.mark.parametrize(("byte", "ran"), [(0, {0, 1, 4, 5}), (1, {0, 1, 2, 3, 4, 5}), (255, {0, 1, 2, 3, 4, 5})])
def test_a_predicate_skips_descriptors_of_every_queue(byte: int, ran: set[int], timing: bool) -> None:
    # the byte arrives by the copy before, in another queue
    outcome = run(
        copy(dst=8, run_bytes=1, rel_sem=1, rel_add=1),
        Descriptor(Op.NOP, flags(Queue.LINK, Flag.PREDICATED), src=M["tile1"] + 8, next=4, acq_sem=1, acq_ge=1),
        copy(IN, 1, 1, 1),
        copy(OUT, 1, 2, 1),
        copy(CONFIG, 1, 3, 1),
        load={M["tile0"]: bytes([byte, 7])},
        read=[(M["tile1"], 9)],
        timing=timing,
    )
    assert {span.place for span in outcome.spans} == ran
    assert outcome.outputs == [bytes([0, *((7, 7) if byte else (0, 0)), 7, 0, 0, 0, 0, byte])]
    assert outcome.descriptor_bytes == 64 * len(ran)
    if timing:
        assert min(start for place, (start, _) in times(outcome).items() if place > 1) == times(outcome)[1][1]


def test_a_deadlock_names_queue_descriptor_and_semaphore() -> None:
    code = (
        Descriptor(Op.WAIT, IN, acq_sem=3, acq_ge=2, rel_sem=5, rel_add=1),
        Descriptor(Op.SIGNAL, OUT, rel_sem=3, rel_add=1),
        copy(LINK, acq_sem=5, acq_ge=1),
        Descriptor(Op.FENCE, OUT),
    )
    for timing in (True, False):
        with pytest.raises(CompileError) as caught:
            run(*code, timing=timing)
        assert str(caught.value) == (
            "error[SCC103]: the program stands still: descriptor 0 (WAIT, queue IN) waits for semaphore 3 to reach 2, "
            "and it is 1; descriptor 3 (FENCE, queue OUT) waits for all others; descriptor 2 (COPY, queue LINK) waits "
            "for semaphore 5 to reach 1, and it is 0\n"
            "  help: compile the model again; if that does not help, please report it"
        )


def test_a_full_queue_stops_the_command_processor() -> None:
    waits = [Descriptor(Op.WAIT, IN, acq_sem=1, acq_ge=1)] * 9
    signal = Descriptor(Op.SIGNAL, OUT, rel_sem=1, rel_add=9)
    with pytest.raises(CompileError, match=r"descriptor 8 \(WAIT, queue IN\) is not fetched: its queue is full"):
        run(*waits, signal)
    assert run(*waits[:8], signal).cycles == 10 * ISSUE


def test_a_semaphore_that_counts_too_far() -> None:
    with pytest.raises(CompileError) as caught:
        run(Descriptor(Op.SIGNAL, IN, rel_sem=9, rel_add=200), Descriptor(Op.SIGNAL, OUT, rel_sem=9, rel_add=56))
    assert str(caught.value) == (
        "error[SCC103]: descriptor 1 (SIGNAL, queue OUT) counts semaphore 9 from 200 to 256, and a semaphore counts to "
        "255\n  help: compile the model again; if that does not help, please report it"
    )


def conv_or_count(src: Any, dst: Any, *operands: Any) -> None:
    dst[:] = np.resize(src, dst.shape) + np.uint8(len(operands))


def conv(src: Any, dst: Any, *operands: Any) -> None:
    dst[:] = np.resize(src, dst.shape) + operands[0][0]


# EVERY_OP with the semaphores that it lacks: SEND after COMPUTE, RECV after SEND, SMAP_UPD after RECV
ORDER = {4: (0, 6), 7: (6, 4), 8: (4, 5), 9: (5, 0)}
ORDERED = replace(
    EVERY_OP,
    code=tuple(
        replace(
            d,
            **({"acq_sem": ORDER[i][0], "acq_ge": 1} if i in ORDER and ORDER[i][0] else {}),
            **({"rel_sem": ORDER[i][1], "rel_add": 1} if i in ORDER and ORDER[i][1] else {}),
        )
        for i, d in enumerate(EVERY_OP.code)
    ),
)
LOAD = {M["dram"]: bytes(range(1, 256)) * 3, M["tile0"] + 0x500: b"\1"}
READ = [(M["tile1"], 1024), (M["link"], 512), (M["smap"], 4)]


def test_every_operation_together() -> None:
    program = container.read(container.write(ORDERED, TARGET), TARGET)
    outcome = simulate(program, TARGET, {"conv1": conv}, LOAD, READ)
    assert sorted(span.place for span in outcome.spans) == list(range(13))
    assert outcome.counters.bytes_dense == 1024
    assert outcome.counters.elems_kept == 4 * 48
    assert outcome.cycles == max(span.end for span in outcome.spans)


def test_times_change_nothing_but_times() -> None:
    timed, untimed, again = (simulate(ORDERED, TARGET, {"conv1": conv}, LOAD, READ, t) for t in (True, False, True))
    assert (timed.outputs, timed.spans) == (again.outputs, again.spans)
    assert (timed.outputs, timed.counters) == (untimed.outputs, untimed.counters)
    assert untimed.cycles == untimed.overlap == untimed.compute_share == 0
    assert untimed.busy_cycles.keys() == timed.busy_cycles.keys()
    assert timed.events
    assert (untimed.events, untimed.total_pj, untimed.dram_bytes) == ({}, 0, 0)


@given(programs())
def test_programs_without_races_compute_the_same_at_all_times(program: UnitProgram) -> None:
    code = list[Descriptor]()
    for d in program.code[:-1]:
        if d.op not in (Op.WAIT, Op.SIGNAL, Op.RECV) and not d.next:
            code += [replace(d, acq_sem=0, acq_ge=0, rel_sem=0, rel_add=0), Descriptor(Op.FENCE)]
    fenced = replace(program, code=(*code, program.code[-1]), labels={}, notes={})
    kernels = {kernel.symbol: conv_or_count for kernel in program.kernels}
    load = {M["tile0"]: bytes(range(256)) * 20, M["dram"]: bytes(range(255, 0, -1)) * 20}
    read = [(M["link"], 0x8000), (M["tile1"], 0x40000), (M["smap"], 0x4000), (M["config"], 0x540)]
    timed, untimed = (simulate(fenced, TARGET, kernels, load, read, timing) for timing in (True, False))
    assert [span.place for span in timed.spans] == list(range(len(fenced.code)))
    assert (timed.outputs, timed.counters) == (untimed.outputs, untimed.counters)


def codes_of(program: UnitProgram, timing: bool) -> set[str]:
    """The codes of what stops a program; none where it ends."""
    kernels = {kernel.symbol: conv_or_count for kernel in program.kernels}
    try:
        outcome = simulate(program, TARGET, kernels, {}, [(M["link"], 0x8000)], timing)
    except CompileError as error:
        return {d.code for d in error.diagnostics}
    assert len({span.place for span in outcome.spans}) == len(outcome.spans) <= len(program.code)
    return set()


@given(programs())
def test_every_valid_program_ends(program: UnitProgram) -> None:
    began = time.monotonic()
    for timing in (True, False):
        # what they receive are no blocks, or others'; what they wait for may not come
        assert codes_of(program, timing) <= {"SCC096", "SCC097", "SCC098", "SCC099", "SCC103"}
    assert time.monotonic() - began < 5
