"""Energy, traffic, busy units and the trace of a run."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from scu_programs import CONFIG, IN, LINK, OUT, RUNS, TARGET, M, programs

from sparsecc.backends.scu.codecs import Codec, Dtype
from sparsecc.backends.scu.descriptor import Descriptor, Op
from sparsecc.backends.scu.simulator import Outcome, simulate, trace_json
from sparsecc.backends.scu.simulator.energy import events, prices
from sparsecc.backends.scu.timing import duration
from sparsecc.backends.scu.unit_program import Kernel, Operand, UnitProgram

KERNELS = (
    Kernel("gemm", Dtype.INT8, 64, 16, 32, 2048, 1024, (Operand(M["const"], 512),)),
    Kernel("relu", Dtype.FLOAT32, 16, 16, 0, 1024, 1024, (Operand(M["const"], 4096),)),
)
PROGRAM = UnitProgram(
    (
        Descriptor(Op.COPY, IN, src=M["dram"], dst=M["tile0"], run_bytes=1024, **RUNS, rel_sem=1, rel_add=1, tag=1),
        Descriptor(Op.COMPUTE, LINK, k=0, src=M["tile0"], dst=M["tile0"], acq_sem=1, acq_ge=1, rel_sem=2, rel_add=1),
        Descriptor(Op.SEND, OUT, Dtype.INT8, Codec.BITMASK, k=256, tile_n=1024, tiles=1, src=M["tile0"], dst=M["link"],
                   run_bytes=1024, **RUNS, dst_st1=416, acq_sem=2, acq_ge=1, rel_sem=3, rel_add=1, tag=2),
        Descriptor(Op.RECV, IN, Dtype.INT8, Codec.BITMASK, k=256, tile_n=1024, tiles=1, src=M["link"], dst=M["tile1"],
                   run_bytes=1024, **RUNS, src_st1=416, acq_sem=3, acq_ge=1, rel_sem=4, rel_add=1, tag=2),
        Descriptor(Op.COMPUTE, CONFIG, k=1, src=M["tile1"], dst=M["tile1"] + 1024, acq_sem=4, acq_ge=1),
        Descriptor(Op.END, OUT),
    ),
    kernels=KERNELS, constants=bytes(4096), labels={"again": 3}, notes={1: "conv1", 3: "edge conv1 -> relu"},
)  # fmt: skip


def outcome() -> Outcome:
    nothing = {kernel.symbol: (lambda *_: None) for kernel in KERNELS}
    return simulate(PROGRAM, TARGET, nothing, {M["dram"]: bytes(range(256)) * 4}, [(M["config"] + 0x840, 56 + 64)])


def test_events_and_energy_by_component() -> None:
    result = outcome()
    assert result.events == {
        "descriptors": 6 * 64,
        "dram read": 1024,
        "tile0 write": 1024 + 1024,
        "tile0 read": 2048 + 1024,
        "const read": 512 + 16 * 16 * 4,
        "int8 mac": 64 * 16 * 32,
        "int8 key": 1024,
        "select": 2 * 1024,
        "pack": 2 * 1024,
        "link": 416,
        "link write": 416,
        "link read": 416,
        "tile1 write": 1024 + 1024,
        "tile1 read": 1024,
        "float32 element-wise": 256,
    }
    assert result.energy_pj["dram read"] == 1024 * 64
    assert result.energy_pj["int8 mac"] == pytest.approx(64 * 16 * 32 * (0.2 + 0.1))
    assert result.energy_pj["link"] == 416 * 1.0
    assert result.energy_pj["float32 element-wise"] == pytest.approx(256 * 0.9)
    assert result.total_pj == pytest.approx(sum(n * prices(TARGET)[name] for name, n in result.events.items()))
    assert (result.link_bytes, result.dram_bytes, result.descriptor_bytes) == (416, 1024 + 512 + 1024, 384)


@given(programs())
def test_every_event_has_a_price(program: UnitProgram) -> None:
    for d in program.code:
        kernel = program.kernels[d.k] if d.op == Op.COMPUTE else None
        for name, count in events(d, kernel, TARGET, 32):
            assert name in prices(TARGET)
            assert count >= 0


def test_busy_and_stall_add_up_to_what_held_the_unit() -> None:
    result = outcome()
    length = {span.place: span.end - span.start for span in result.spans}
    assert result.cycles == sum(length[i] for i in range(5))  # one after the other; END ran meanwhile
    assert result.busy_cycles["tile0"] == 2 * (2 * 16 + 16 + 64 - 2)
    assert result.busy_cycles["tile0"] + result.stall_cycles["tile0"] == length[1]
    assert result.busy_cycles["link"] == 416 // 4
    assert result.busy_cycles["selector"] + result.stall_cycles["selector"] == length[2]
    assert result.overlap == sum(result.busy_cycles.values()) / result.cycles
    tiles = result.busy_cycles["tile0"] + result.busy_cycles["tile1"]
    assert result.compute_share == tiles / (2 * result.cycles)
    busy, stall = (by_unit.values() for by_unit in (result.busy_cycles, result.stall_cycles))
    for cycles, at in ((list(busy), 0), (list(stall), 64)):
        dma, key, selector, packer, unpacker, *rest = cycles
        assert struct.unpack_from("<7Q", result.outputs[0], at) == (dma, key, selector, packer + unpacker, *rest)


def test_spans_follow_the_timing_model() -> None:
    for span in outcome().spans:
        d = PROGRAM.code[span.place]
        kernel = KERNELS[d.k] if d.op == Op.COMPUTE else None
        assert span.end - span.start == duration(d, kernel, TARGET, span.payload_bytes)


def rows(trace: str, phase: str, process: int) -> list[dict[str, Any]]:
    return [row for row in json.loads(trace)["traceEvents"] if row["ph"] == phase and row["pid"] == process]


def test_trace_has_a_track_per_queue_and_unit() -> None:
    result = outcome()
    trace = trace_json(result, PROGRAM, TARGET)
    named = [r for process in (1, 2) for r in rows(trace, "M", process) if r["name"] == "thread_name"]
    tracks = {(r["pid"], r["tid"]): r["args"]["name"] for r in named}
    assert [tracks[1, i] for i in range(4)] == ["IN", "OUT", "LINK", "CONFIG"]
    assert [tracks[2, i] for i in range(8)] == list(result.busy_cycles)
    queues = rows(trace, "X", 1)
    assert [(r["name"], tracks[1, r["tid"]], r["args"]["edge"]) for r in queues] == [
        ("COPY", "IN", 1), ("conv1", "LINK", 0), ("SEND", "OUT", 2), ("again: edge conv1 -> relu", "IN", 2),
        ("END", "OUT", 0), ("COMPUTE", "CONFIG", 0),
    ]  # fmt: skip
    assert queues[0]["dur"] == result.spans[0].end / 1000  # us at 1 GHz
    links = [r for r in rows(trace, "X", 2) if tracks[2, r["tid"]] == "link"]
    assert [(r["name"], r["dur"]) for r in links] == [("SEND", 0.104)]
    totals = {r["name"]: r["args"]["bytes"] for r in rows(trace, "C", 3)}
    assert totals == {"link bytes": 416, "dram bytes": result.dram_bytes, "descriptors bytes": 384}


def test_overlapping_queues_overlap_in_the_trace() -> None:
    copies = [Descriptor(Op.COPY, q, src=M["tile0"], dst=M["tile1"], run_bytes=64, **RUNS) for q in (IN, OUT)]
    program = UnitProgram((*copies, Descriptor(Op.END)))
    trace = trace_json(simulate(program, TARGET, {}, {}, []), program, TARGET)
    slices = [(r["ts"], r["tid"]) for r in rows(trace, "X", 1) if r["name"] == "COPY"]
    assert slices == [(0, 0), (0, 1)]
    assert trace == trace_json(simulate(program, TARGET, {}, {}, []), program, TARGET)
