"""What `inspect --contracts` and `inspect --schedule` show of an artifact for target scu."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparsecc.backends.scu.codecs import HEADER_BYTES, Header
from sparsecc.backends.scu.descriptor import Descriptor, Op, Queue
from sparsecc.backends.scu.machine import CODECS, DTYPES, OFFSET_MASK, Target
from sparsecc.backends.scu.report_file import Report
from sparsecc.backends.scu.timing import duration, kernel_reads, memory_at, payload_bound
from sparsecc.backends.scu.unit_program import UnitProgram
from sparsecc.contracts.topk import WHOLE

from .scu import number, quality_rows
from .text import FACTS, data_size, ratio, table

GIVEN = "the shares were given (--contracts, or --keep without --calibration): nothing was negotiated"
PROPOSED = (
    "proposed: what the sender would send by itself; adjusted: what the receiver made of it; at least, at most: what "
    "both can do with. Settled is what the budget chose."
)
NEGOTIATED = ("proposed_q16", "adjusted_q16", "lo_q16", "hi_q16", "degradation")
EDGE_COLUMNS = {
    "edge": "edge",
    "elems": ">elements",
    "dtype": "sent as",
    "tile_elems": ">per tile",
    "proposed_q16": ">proposed",
    "adjusted_q16": ">adjusted",
    "lo_q16": ">at least",
    "hi_q16": ">at most",
    "settled_q16": ">settled",
    "binding": "binding constraint",
    "degradation": ">degradation",
    "dense_bytes": ">values alone",
    "settled_bytes": ">sent, with headers",
    "codec": "codec",
}

# ---- contracts -------------------------------------------------------------------------------------------------------


def contracts_facts(report: Report, program: UnitProgram) -> dict[str, Any]:
    """The log of the negotiation, each edge with its codecs; without a negotiation, what the program sends."""
    sent = _sent(program)
    logged = [{**edge, "codec": sent.get(str(edge.get("edge")), {}).get("codec")} for edge in report.edges]
    edges = [{"edge": name, **own} for name, own in sent.items()] if report.settlement is None else logged
    return {**(report.settlement or {}), "negotiated": report.negotiated, "edges": edges}


def _sent(program: UnitProgram) -> dict[str, dict[str, Any]]:
    """Per edge, in the terms of the log, what all its SENDs take and give at most."""
    sends = defaultdict[str, list[Descriptor]](list)
    for d in program.code:
        if d.op == Op.SEND:
            sends[edge_name(d, program)].append(d)
    return {name: _sum(own) for name, own in sends.items()}


def _sum(sends: Sequence[Descriptor]) -> dict[str, Any]:
    elems, kept = sum(d.tiles * d.tile_n for d in sends), sum(d.tiles * d.k for d in sends)
    return {
        "elems": elems,
        "dtype": ", ".join(dict.fromkeys(DTYPES[d.dtype] for d in sends)),
        "settled_q16": kept * WHOLE // elems,
        "dense_bytes": sum(d.dense_bytes for d in sends),
        "settled_bytes": sum(map(payload_bound, sends)),
        "codec": ", ".join(dict.fromkeys(CODECS[d.codec] for d in sends)),
    }


def contracts_tables(facts: Mapping[str, Any]) -> RenderableType:
    """A line per edge with all that the log says of it, and what holds for all edges together.

    Columns of a negotiation that was none are left out, and what values are sent as if all are sent as float32.
    """
    edges: Sequence[Mapping[str, Any]] = facts["edges"]
    plain = [(name, value) for edge in edges for name, value in edge.items() if not isinstance(value, dict | list)]
    said = dict.fromkeys(name for name, value in plain if value is not None or name not in NEGOTIATED)
    if all(value == "float32" for name, value in plain if name == "dtype"):
        said.pop("dtype", None)
    names = [name for name in EDGE_COLUMNS if name in said] + [name for name in said if name not in EDGE_COLUMNS]
    columns = [EDGE_COLUMNS.get(name, name) for name in names]
    rows = [[_cell(name, edge.get(name)) for name in names] for edge in edges]
    contracts = table("contracts", columns, rows)
    return Group(contracts, table("all edges", FACTS, _totals(facts, edges)), *_remarks(facts))


def _totals(facts: Mapping[str, Any], edges: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    dense, settled = (
        sum(edge[name] for edge in edges if isinstance(edge.get(name), int | float))
        for name in ("dense_bytes", "settled_bytes")
    )
    sizes = f"{data_size(dense)} of values, without headers -> {data_size(settled)} with headers"
    yield "bytes of a sample", f"{sizes}, {ratio(dense, settled)}"
    yield from quality_rows(facts)
    for name, value in facts.items():
        if name not in ("quality", "negotiated") and not isinstance(value, dict | list):
            yield name.replace("_", " "), _cell(name, value)


def _remarks(facts: Mapping[str, Any]) -> Iterator[Text]:
    if not facts["negotiated"]:
        yield Text(GIVEN)
    elif any(edge.get("proposed_q16") is not None for edge in facts["edges"]):
        yield Text(PROPOSED)


def _cell(name: str, value: object) -> str:
    """A value of the log in the unit that its name tells."""
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    amount = cast("int | float", value)
    if name.endswith("_bytes"):
        return data_size(amount)
    if name.endswith("_q16"):
        return f"{amount / WHOLE:.1%}"
    return number(amount) if isinstance(amount, int) else f"{amount:.3g}"


# ---- schedule --------------------------------------------------------------------------------------------------------


def schedule_facts(report: Report, program: UnitProgram, target: Target) -> dict[str, Any]:
    """Cycles are those that the schedule counts on: each descriptor alone, with the longest payload that it may have.

    An edge's are the sums over its SENDs and RECVs, of which several run at the same time. "constants" are those that
    kernels stream, and those that arrive as blocks.
    """
    queues = {queue.name: {"descriptors": 0, "busy_cycles": 0} for queue in Queue}
    edges = defaultdict[str, dict[str, int]](lambda: dict.fromkeys(_EDGE, 0))
    for d in program.code:
        known = _block_bytes(d, program) if from_const(d, target) else None
        cycles = duration(d, program.kernels[d.k] if d.op == Op.COMPUTE else None, target, known)
        queue = queues[d.queue.name]
        queue["descriptors"] += 1
        queue["busy_cycles"] += cycles
        if d.op in (Op.SEND, Op.RECV) and not from_const(d, target):
            edge, way = edges[edge_name(d, program)], "send" if d.op == Op.SEND else "receive"
            edge[f"{way}s"] += 1
            edge[f"{way}_cycles"] += cycles
            edge["payload_bytes"] += payload_bound(d) if d.op == Op.SEND else 0
    return {
        "target": target.name,
        **asdict(report.schedule),
        "queues": queues,
        "edges": [{"edge": name, **edge} for name, edge in edges.items()],
        "constants": _constants(program, target),
    }


def from_const(d: Descriptor, target: Target) -> bool:
    """Whether it receives constants, and nothing of an edge."""
    return d.op == Op.RECV and memory_at(d.src, target).kind == "const"


def _constants(program: UnitProgram, target: Target) -> dict[str, Any]:
    """What kernels stream of section CONST, and what they receive as blocks: bytes dense and sent, tiles by codec."""
    computes = [(d, program.kernels[d.k]) for d in program.code if d.op == Op.COMPUTE]
    reads = [read for d, kernel in computes for read in kernel_reads(d, kernel, target)]
    loads = [d for d in program.code if from_const(d, target)]
    tiles = Counter[str]()
    for d in loads:
        tiles[CODECS[d.codec]] += d.tiles
    return {
        "streamed_bytes": sum(n for memory, n in reads if memory.kind == "const"),
        "dense_bytes": sum(d.dense_bytes for d in loads),
        "sent_bytes": sum(_block_bytes(d, program) for d in loads),
        "tiles": dict(tiles),
    }


def _block_bytes(d: Descriptor, program: UnitProgram) -> int:
    """Of the blocks that a RECV from const reads. Raises: CompileError SCC096, SCC098, SCC099."""
    first = d.src & OFFSET_MASK
    rooms = (program.constants[first + i * d.src_st1 :] for i in range(d.tiles))
    return sum(Header.parse(room[:HEADER_BYTES]).block_bytes for room in rooms)


_EDGE = ("sends", "send_cycles", "receives", "receive_cycles", "payload_bytes")


def schedule_tables(facts: Mapping[str, Any]) -> RenderableType:
    """The schedule as a whole, per queue, and per edge."""
    makespan, bound = facts["makespan_cycles"], facts["lower_bound_cycles"]
    gap = f"{makespan / bound - 1:.1%}" if bound else "-"
    rows = [
        ("makespan", f"{number(makespan)} cycles"),
        ("lower bound", f"{number(bound)} cycles; the schedule is {gap} above it"),
        ("found by", facts["method"]),
    ]
    rows.append(("constants", _constants_text(facts["constants"])))
    return Group(table(f"schedule for {facts['target']}", FACTS, rows), _queues(facts, makespan), _edges(facts))


def _constants_text(facts: Mapping[str, Any]) -> str:
    text = f"{data_size(facts['streamed_bytes'])} streamed by kernels"
    if facts["dense_bytes"]:
        tiles = ", ".join(f"{count} {codec}" for codec, count in facts["tiles"].items())
        text += f"; {data_size(facts['dense_bytes'])} -> {data_size(facts['sent_bytes'])} in blocks ({tiles})"
    return text


def _queues(facts: Mapping[str, Any], makespan: int) -> Table:
    rows = [
        (
            name,
            number(own["descriptors"]),
            number(own["busy_cycles"]),
            f"{own['busy_cycles'] / makespan:.1%}" if makespan else "-",
        )
        for name, own in facts["queues"].items()
    ]
    return table("queues", ("queue", ">descriptors", ">busy cycles", ">of the makespan"), rows)


def _edges(facts: Mapping[str, Any]) -> Table:
    rows = [
        (edge["edge"], *(number(edge[name]) for name in _EDGE[:-1]), data_size(edge["payload_bytes"]))
        for edge in facts["edges"]
    ]
    columns = ("edge", ">sends", ">cycles", ">receives", ">cycles", ">at most transferred")
    return table("edges, each descriptor alone with its longest payload", columns, rows)


def edge_name(d: Descriptor, program: UnitProgram) -> str:
    """The edge of a SEND or RECV as section META, which is not to be trusted, calls it."""
    edges = program.meta.get("edges")
    names = cast("list[object]", edges) if isinstance(edges, list) else []
    name = names[d.tag] if d.tag < len(names) else None
    return name if isinstance(name, str) and name.isprintable() else f"edge {d.tag}"
