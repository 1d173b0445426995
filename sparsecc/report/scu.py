"""What the simulated unit did, beside sending everything: tables for `simulate`, `inspect` and the end of a compile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparsecc.artifact import Artifact
from sparsecc.backends.scu.files import has_program
from sparsecc.backends.scu.machine import Target
from sparsecc.backends.scu.report_file import Figure, Report, read_report
from sparsecc.backends.scu.simulator import Outcome
from sparsecc.backends.scu.timing import DMA
from sparsecc.contracts.topk import WHOLE
from sparsecc.manifest import Distance

from .text import FACTS, count, data_size, energy, ratio, table

BASELINES = {"dense": "dense", "zero_compression": "zero compression"}
REMARK = """\
dense sends every value, zero compression every value but 0, each with a schedule of its own; both were simulated by the
compile, on its example. Lower bounds are for the longest payloads: a run whose payloads are shorter may be below.
Absolute energy is good to about 2x: quote ratios."""
Spelling = Callable[[float], str]


def number(n: float) -> str:
    return f"{n:,}"


QUANTITIES: Mapping[str, tuple[str, Spelling]] = {
    "cycles": ("cycles", number),
    "lower_bound_cycles": ("lower bound, cycles", number),
    "link_bytes": ("over the link", data_size),
    "dram_bytes": ("over DRAM", data_size),
    "descriptor_bytes": ("descriptors", data_size),
    "energy_pj": ("energy", energy),
}
"""What is better the less there is of it."""

# ---- compile and inspect ---------------------------------------------------------------------------------------------


def report_of(artifact: Artifact) -> Report | None:
    """None for an artifact of another target."""
    return read_report(artifact) if has_program(artifact) else None


def summary_facts(report: Report) -> dict[str, Any]:
    """The most important figures, as `compile --json` prints them."""
    negotiated = {name: value for name, value in (report.settlement or {}).items() if name != "edges"}
    return {
        "edges": len(report.edges),
        "edges_cut": _cut(report),
        "negotiated": negotiated or None,
        "schedule": asdict(report.schedule),
        "figures": report.figures.to_json(),
    }


def summary_rows(report: Report) -> Iterator[tuple[str, str]]:
    """The most important figures, for people."""
    ours, dense, zeros = report.figures.contracts, report.figures.dense, report.figures.zero_compression
    given = "" if report.negotiated else "; the shares were given, nothing was negotiated"
    yield "contracts", f"less than everything on {_cut(report)} of {count(len(report.edges), 'edge')}{given}"
    yield from quality_rows(report.settlement or {})
    yield "link", _beside(ours, dense, zeros, "link_bytes")
    yield "cycles", f"{_beside(ours, dense, zeros, 'cycles')}; schedule {_gap(report)} above its lower bound"
    yield "energy", f"{_beside(ours, dense, zeros, 'energy_pj')}; ratios only: absolute numbers are good to about 2x"


def quality_rows(settlement: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the contracts together do to held-out samples, as far as the log tells."""
    dense, settled = (_numbers(settlement.get(name)) for name in ("dense", "settled"))
    if "value" not in settled:
        return
    text = f"{dense['value']:.1%} -> " if "value" in dense else ""
    text += f"{settled['value']:.1%}"
    if settled.keys() >= {"low", "high"}:
        text += f" (95 % interval {settled['low']:.1%} to {settled['high']:.1%})"
    if "samples" in settled:
        text += f" on {number(settled['samples'])} held-out samples"
    quality = settlement.get("quality")
    yield quality if isinstance(quality, str) else "quality", text


def _numbers(value: object) -> dict[str, float]:
    """The numbers among the fields of an object of the log."""
    fields = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    return {name: field for name, field in fields.items() if isinstance(field, int | float)}


def _cut(report: Report) -> int:
    """Edges that send less than everything."""
    shares = [edge.get("settled_q16") for edge in report.edges]
    return sum(isinstance(share, int) and share < WHOLE for share in shares)


def _beside(ours: Figure, dense: Figure, zeros: Figure, name: str) -> str:
    spelled = QUANTITIES[name][1]
    a, b, c = (getattr(figure, name) for figure in (ours, dense, zeros))
    return f"{spelled(b)} dense -> {spelled(a)}, {ratio(b, a)} (zero compression {spelled(c)}, {ratio(b, c)})"


def original_rows(distances: Mapping[str, Distance] | None) -> Iterator[tuple[str, str]]:
    """How far the output that contracts change most is from the original's; nothing for other targets."""
    if not distances:
        return
    name, worst = max(distances.items(), key=lambda item: _size(item[1]))
    share = "" if worst.max_relative_error is None else " of the largest value"
    text = f"{difference_text(worst)}{share}" + (f" in {name}" if len(distances) > 1 else "")
    argmax = f", the same argmax in {argmax_text(worst)} {'row' if worst.rows == 1 else 'rows'}" if worst.rows else ""
    yield "from original", f"{text}{argmax}; what contracts change of the example's outputs"


def _size(distance: Distance) -> float:
    return math.inf if distance.max_relative_error is None else distance.max_relative_error


def difference_text(distance: Distance) -> str:
    error = distance.max_relative_error
    return "differs" if error is None else f"{error:.1e}"


def argmax_text(distance: Distance) -> str:
    return f"{number(distance.same_argmax)} of {number(distance.rows)}" if distance.rows else "-"


def _gap(report: Report) -> str:
    bound = report.schedule.lower_bound_cycles
    return f"{report.schedule.makespan_cycles / bound - 1:.1%}" if bound else "-"


# ---- simulate --------------------------------------------------------------------------------------------------------


def simulation_facts(outcome: Outcome, target: Target, report: Report, trace: Path | None) -> dict[str, Any]:
    """One run on one sample, and the baselines of the report."""
    units = {
        unit: {"busy_cycles": busy, "stall_cycles": outcome.stall_cycles[unit]}
        for unit, busy in outcome.busy_cycles.items()
    }
    run = Figure(
        link_bytes=outcome.link_bytes,
        dram_bytes=outcome.dram_bytes,
        descriptor_bytes=outcome.descriptor_bytes,
        cycles=outcome.cycles,
        lower_bound_cycles=report.schedule.lower_bound_cycles,
        energy_pj=outcome.total_pj,
        energy_by_component_pj=dict(outcome.energy_pj),
        overlap=outcome.overlap,
        compute_share=outcome.compute_share,
    )
    return {
        "target": target.name,
        "microseconds": outcome.cycles / target.clock_mhz,
        "run": asdict(run),
        "units": units,
        "counters": vars(outcome.counters),
        "baselines": {name: asdict(getattr(report.figures, name)) for name in BASELINES},
        "schedule": asdict(report.schedule),
        "trace": str(trace) if trace else None,
    }


def simulation(facts: Mapping[str, Any]) -> RenderableType:
    """What `simulate` shows."""
    last = [f"trace: {facts['trace']}, which ui.perfetto.dev opens"] if facts["trace"] else []
    return Group(_comparison(facts), _units(facts), _energy(facts), Text("\n".join([REMARK, *last])))


def _comparison(facts: Mapping[str, Any]) -> Table:
    run, others = facts["run"], [facts["baselines"][name] for name in BASELINES]
    rows = list[tuple[str, ...]]()
    for name, (title, spelled) in QUANTITIES.items():
        values, ratios = [spelled(f[name]) for f in (run, *others)], [ratio(f[name], run[name]) for f in others]
        rows.append((title, *values, *ratios))
    figures = (run, *others)
    rows.insert(2, ("above the bound", *map(_above, figures), "", ""))
    rows.append(("units at work, on average", *(f"{f['overlap']:.2f}" for f in figures), "", ""))
    rows.append(("of the tiles' cycles computing", *(f"{f['compute_share']:.1%}" for f in figures), "", ""))
    columns = ("", ">this run", *(f">{name}" for name in BASELINES.values()))
    title = f"one sample on {facts['target']}, {facts['microseconds']:,.3g} µs"
    return table(title, (*columns, *(f">{name} / run" for name in BASELINES.values())), rows)


def _above(figure: Mapping[str, Any]) -> str:
    """Nothing below it: the bound is for the longest payloads, and those without zeros are shorter."""
    cycles, bound = figure["cycles"], figure["lower_bound_cycles"]
    return f"{cycles / bound - 1:+.1%}" if 0 < bound <= cycles else "-"


def _units(facts: Mapping[str, Any]) -> Table:
    cycles = facts["run"]["cycles"]

    def row(unit: str, busy: int, stall: int) -> tuple[str, ...]:
        return unit, number(busy), number(stall), f"{busy / cycles:.1%}" if cycles else "-"

    names = {unit: "dma of all queues" if unit == DMA else unit for unit in facts["units"]}
    rows = [row(names[unit], own["busy_cycles"], own["stall_cycles"]) for unit, own in facts["units"].items()]
    return table("units, in cycles", ("unit", ">busy", ">stalled", ">busy share"), rows)


def _energy(facts: Mapping[str, Any]) -> Table:
    figures = [facts["run"], *(facts["baselines"][name] for name in BASELINES)]
    parts = [figure["energy_by_component_pj"] for figure in figures]
    names = sorted({name for part in parts for name in part}, key=lambda name: (-parts[0].get(name, 0), name))
    total = figures[0]["energy_pj"]

    def row(name: str) -> tuple[str, ...]:
        own, *others = (part.get(name, 0) for part in parts)
        return name, energy(own), f"{own / total:.1%}" if total else "-", *map(energy, others)

    columns = ("component", ">this run", ">share", *(f">{name}" for name in BASELINES.values()))
    return table("energy", columns, map(row, names))


def highlights(report: Report) -> Table:
    """The section of `inspect` without flags."""
    hint = [("more", "--contracts, --schedule, --disasm; sparsecc simulate")]
    return table("Sparse Communication Unit", FACTS, [*summary_rows(report), *hint])
