"""What the simulated unit did, beside sending everything: tables for `simulate`, `inspect` and the end of a compile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparsecc.artifact import Artifact
from sparsecc.backends.scu.codecs import FIXED
from sparsecc.backends.scu.descriptor import Flag, Op
from sparsecc.backends.scu.files import has_program
from sparsecc.backends.scu.report_file import Figure, Figures, Report, read_report
from sparsecc.backends.scu.simulator import Outcome
from sparsecc.backends.scu.timing import DMA
from sparsecc.contracts.negotiation import SPILL
from sparsecc.contracts.topk import WHOLE
from sparsecc.manifest import Distance

from .text import FACTS, count, data_size, energy, ratio, table

if TYPE_CHECKING:
    from sparsecc.backends.scu.host import Unit
    from sparsecc.backends.scu.unit_program import UnitProgram

BASELINES = {"dense": "dense", "zero_compression": "zero compression"}
REMARK = """\
dense sends every value, zero compression every value but 0, both in float32 and each with a schedule of its own; the
compile simulated them on its example, if they fit the machine. Lower bounds are for payloads of known length: there is
none where the data decide on it, as without zeros. Absolute energy is good to about 2x: quote ratios."""
Spelling = Callable[[float], str]


def number(n: float) -> str:
    return f"{n:,}"


QUANTITIES: Mapping[str, tuple[str, Spelling]] = {
    "cycles": ("cycles", number),
    "lower_bound_cycles": ("lower bound, cycles", number),
    "link_bytes": ("over the link, with headers", data_size),
    "dram_bytes": ("over DRAM, with constants", data_size),
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
    figures = report.figures
    given = "" if report.negotiated else "; the shares were given, nothing was negotiated"
    int8 = sum(edge.get("dtype") == "int8" for edge in report.edges)
    travels = f", as int8 on {int8}" if int8 else ""
    yield "contracts", f"less than everything on {_cut(report)} of {count(len(report.edges), 'edge')}{travels}{given}"
    yield from quality_rows(report.settlement or {})
    yield "link", f"{_beside(figures, 'link_bytes')}; with headers"
    if spilled := sum(SPILL in str(edge.get("binding")) for edge in report.edges):
        what = f"the blocks of {count(spilled, 'edge')} go there, for they are longer than the link's buffer"
        yield "DRAM", f"{_beside(figures, 'dram_bytes')}; {what}"
    yield "cycles", f"{_beside(figures, 'cycles')}; schedule {_gap(report)} above its lower bound"
    yield "energy", f"{_beside(figures, 'energy_pj')}; ratios only: absolute numbers are good to about 2x"
    yield from (("does not fit", f"{BASELINES[name]}: {why}") for name, why in figures.does_not_fit.items())


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
        text += f" on {count(int(settled['samples']), 'held-out sample')}"
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


def _beside(figures: Figures, name: str) -> str:
    def value(figure: Figure | None) -> Any:
        return None if figure is None else getattr(figure, name)

    spelled = QUANTITIES[name][1]
    ours, dense, zeros = map(value, (figures.contracts, figures.dense, figures.zero_compression))
    others = "zero compression " + ("does not fit" if zeros is None else spelled(zeros))
    if dense is None:
        return f"{spelled(ours)} (dense does not fit, {others})"
    others += "" if zeros is None else f", {ratio(dense, zeros)}"
    return f"{spelled(dense)} dense -> {spelled(ours)}, {ratio(dense, ours)} ({others})"


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


def simulation_facts(outcome: Outcome, unit: Unit, report: Report, trace: Path | None) -> dict[str, Any]:
    """One run on one sample, and the baselines of the report, null where ``does_not_fit`` has a reason.

    Lower bounds are those of the schedules; ``lower_bound_holds`` tells for which of the runs they are ones.
    """
    units = {
        name: {"busy_cycles": busy, "stall_cycles": outcome.stall_cycles[name]}
        for name, busy in outcome.busy_cycles.items()
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
    baselines = {name: getattr(report.figures, name) for name in BASELINES}
    bounded = {"run": run if _lengths_are_known(unit.program) else None, "dense": report.figures.dense}
    return {
        "target": unit.target.name,
        "microseconds": outcome.cycles / unit.target.clock_mhz,
        "run": asdict(run),
        "units": units,
        "counters": vars(outcome.counters),
        "baselines": {name: figure and asdict(figure) for name, figure in baselines.items()},
        "does_not_fit": dict(report.figures.does_not_fit),
        "lower_bound_holds": [name for name, f in bounded.items() if f and 0 < f.lower_bound_cycles <= f.cycles],
        "schedule": asdict(report.schedule),
        "trace": str(trace) if trace else None,
    }


def _lengths_are_known(program: UnitProgram) -> bool:
    """Whether no payload of the program may be shorter than the schedule assumes."""
    sends = [d for d in program.code if d.op == Op.SEND]
    return all(d.codec in FIXED and not (d.has(Flag.SKIP_ZERO) or d.has(Flag.REGISTER)) for d in sends)


def simulation(facts: Mapping[str, Any]) -> RenderableType:
    """What `simulate` shows."""
    unfit = [f"{BASELINES[name]} does not fit: {why}" for name, why in facts["does_not_fit"].items()]
    last = [f"trace: {facts['trace']}, which ui.perfetto.dev opens"] if facts["trace"] else []
    return Group(_comparison(facts), _units(facts), _energy(facts), Text("\n".join([REMARK, *unfit, *last])))


def _comparison(facts: Mapping[str, Any]) -> Table:
    figures = {"run": facts["run"], **facts["baselines"]}
    bounds = {
        name: figures[name]["lower_bound_cycles"] if name in facts["lower_bound_holds"] else None for name in figures
    }
    rows = list[tuple[str, ...]]()
    for name, (title, spelled) in QUANTITIES.items():
        own = bounds if name == "lower_bound_cycles" else {form: f and f[name] for form, f in figures.items()}
        run, *others = own.values()
        ratios = ["-" if run is None or other is None else ratio(other, run) for other in others]
        rows.append((title, *_cells(spelled, own.values()), *ratios))
    above = [bound and figures[name]["cycles"] / bound - 1 for name, bound in bounds.items()]
    rows.insert(2, ("above the bound", *_cells("{:+.1%}".format, above), "", ""))
    overlaps, shares = ([f and f[name] for f in figures.values()] for name in ("overlap", "compute_share"))
    rows.append(("units at work, on average", *_cells("{:.2f}".format, overlaps), "", ""))
    rows.append(("of the tiles' cycles computing", *_cells("{:.1%}".format, shares), "", ""))
    columns = ("", ">this run", *(f">{name}" for name in BASELINES.values()))
    title = f"one sample on {facts['target']}, {facts['microseconds']:,.3g} µs"
    return table(title, (*columns, *(f">{name} / run" for name in BASELINES.values())), rows)


def _cells(spelled: Spelling, values: Iterable[float | None]) -> Iterator[str]:
    return ("-" if value is None else spelled(value) for value in values)


def _units(facts: Mapping[str, Any]) -> Table:
    cycles = facts["run"]["cycles"]

    def row(unit: str, busy: int, stall: int) -> tuple[str, ...]:
        return unit, number(busy), number(stall), f"{busy / cycles:.1%}" if cycles else "-"

    names = {unit: "dma of all queues" if unit == DMA else unit for unit in facts["units"]}
    rows = [row(names[unit], own["busy_cycles"], own["stall_cycles"]) for unit, own in facts["units"].items()]
    return table("units, in cycles", ("unit", ">busy", ">stalled", ">busy share"), rows)


def _energy(facts: Mapping[str, Any]) -> Table:
    figures = [facts["run"], *(facts["baselines"][name] for name in BASELINES)]
    first, *others = (figure and figure["energy_by_component_pj"] for figure in figures)
    names = sorted({name for part in (first, *others) for name in part or ()}, key=lambda n: (-first.get(n, 0), n))
    total = facts["run"]["energy_pj"]

    def row(name: str) -> tuple[str, ...]:
        own, rest = first.get(name, 0), _cells(energy, (part and part.get(name, 0) for part in others))
        return name, energy(own), f"{own / total:.1%}" if total else "-", *rest

    columns = ("component", ">this run", ">share", *(f">{name}" for name in BASELINES.values()))
    return table("energy", columns, map(row, names))


def highlights(report: Report) -> Table:
    """The section of `inspect` without flags."""
    hint = [("more", "--contracts, --schedule, --disasm; sparsecc simulate")]
    return table("Sparse Communication Unit", FACTS, [*summary_rows(report), *hint])
