"""A run as a Chrome JSON trace, which Perfetto opens: a track per queue and per unit, and counters of bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sparsecc.backends.scu.descriptor import DESCRIPTOR_BYTES, Op, Queue
from sparsecc.backends.scu.machine import Target
from sparsecc.backends.scu.timing import busy_cycles, stages, units
from sparsecc.backends.scu.unit_program import UnitProgram

from .energy import events
from .engine import Span
from .report import DRAM_KINDS, Outcome, kernel_of

QUEUES, UNITS, BYTES = 1, 2, 3
"""Processes of the trace."""


def trace_json(outcome: Outcome, program: UnitProgram, target: Target) -> str:
    """The trace of a run with timing, in microseconds at the target's clock.

    Slices are named by label and note, else by operation; their argument ``edge`` is the descriptor's tag. A slice on a
    unit's track is as long as the unit is busy. The counters are sums up to the end of each descriptor.
    """
    named = [(QUEUES, [queue.name for queue in Queue]), (UNITS, list(units(target)))]
    processes = ((QUEUES, "queues"), (UNITS, "units"), (BYTES, "bytes"))
    rows = [_meta("process_name", process, 0, name) for process, name in processes]
    rows += [_meta("thread_name", process, i, name) for process, names in named for i, name in enumerate(names)]
    names = _names(program)
    for span in outcome.spans:
        rows += _slices(span, names[span.place], program, target)
    rows += _counters(outcome, program, target)
    trace = {"displayTimeUnit": "ns", "otherData": {"target": target.name}, "traceEvents": rows}
    return json.dumps(trace, separators=(",", ":"))


def _names(program: UnitProgram) -> list[str]:
    labels = {place: label for label, place in program.labels.items()}
    said = [": ".join(filter(None, (labels.get(i), program.notes.get(i)))) for i in range(len(program.code))]
    return [name or Op(d.op).name for name, d in zip(said, program.code, strict=True)]


def _slices(span: Span, name: str, program: UnitProgram, target: Target) -> Iterator[dict[str, Any]]:
    d = program.code[span.place]
    about = {"descriptor": span.place, "op": Op(d.op).name, "edge": d.tag, "payload_bytes": span.payload_bytes}
    own = busy_cycles(stages(d, kernel_of(d, program), target, span.payload_bytes))
    yield _slice(QUEUES, d.queue, name, (span.start, span.end - span.start), about, target)
    for unit, cycles in own.items():
        yield _slice(UNITS, units(target).index(unit), name, (span.end - cycles, cycles), about, target)


def _counters(outcome: Outcome, program: UnitProgram, target: Target) -> Iterator[dict[str, Any]]:
    sums = {"link": 0, "dram": 0, "descriptors": 0}
    dram = {name for name, memory in target.memory.items() if memory.kind in DRAM_KINDS}
    for span in sorted(outcome.spans, key=lambda span: span.end):
        d = program.code[span.place]
        for event, count in events(d, kernel_of(d, program), target, span.payload_bytes):
            component = "dram" if event.rpartition(" ")[0] in dram else event
            if component in ("link", "dram"):
                sums[component] += count
        sums["descriptors"] += DESCRIPTOR_BYTES
        for component, total in sums.items():
            at = {"ts": _us(span.end, target), "args": {"bytes": total}}
            yield {"ph": "C", "pid": BYTES, "name": f"{component} bytes"} | at


def _slice(
    process: int, track: int, name: str, times: tuple[int, int], about: Mapping[str, object], target: Target
) -> dict[str, Any]:
    start, length = (_us(cycles, target) for cycles in times)
    return {"ph": "X", "pid": process, "tid": track, "name": name, "ts": start, "dur": length, "args": about}


def _meta(what: str, process: int, track: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": process, "tid": track, "name": what, "args": {"name": name}}


def _us(cycles: int, target: Target) -> float:
    return cycles / target.clock_mhz
