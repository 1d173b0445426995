"""What contracts keep, what they cost, and the sensitivity maps that they are based on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsecc.contracts.contract import Contract
from sparsecc.contracts.maps import SensitivityMap
from sparsecc.contracts.topk import WHOLE
from sparsecc.diagnostics import CompileError
from sparsecc.report.text import count, data_size, ratio

from .drawing import BLUE, ORANGE, PALE, drawing, head, height_of, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAT: dict[str, Any] = {"cmap": "cividis", "vmin": 0, "vmax": 1, "aspect": "auto", "interpolation": "nearest"}
"""cividis is ordered by lightness, with any colour vision: Nunez, Anderton and Renslow, PLOS ONE 13(7), 2018."""
THICK = 0.62  # of a row
CELLS = 256
"""Cells of a map that can be told apart on a screen; of longer maps, the greatest of neighbours is drawn."""


def plot_contracts(
    log: Sequence[Mapping[str, Any]],
    path: Path,
    contracts: Iterable[Contract] = (),
    maps: Mapping[str, SensitivityMap] | None = None,
) -> None:
    """Per edge of the log the share of its elements that is sent, its bytes, and its sensitivity map, if there is one.

    ``log`` has the fields of EdgeRecord, as objects of JSON; what an edge lacks is left out. ``contracts`` tell what
    the entries of ``maps`` stand for.

    Raises: CompileError as verify_drawable; SCC126 when no edge has a share.
    """
    if np.isnan(_numbers(log, "settled_q16")).all():
        raise CompileError.of(
            "SCC126",
            f"there is nothing to plot: {'no edge has a share' if log else 'the model has no edges'}",
            help="compile a model of at least two layers with --target scu",
        )
    names = [str(edge.get("edge", "?")) for edge in log]
    drawn = [(maps or {}).get(name) for name in names]
    with drawing(path, height_of(len(log))) as figure:
        shares, sizes, *heat = panels(figure, names, (0.33, 0.26, 0.41) if any(drawn) else (0.55, 0.45))
        _draw_shares(shares, log)
        _draw_bytes(sizes, log)
        for panel in heat:
            terms = {contract.edge: contract for contract in contracts}
            _draw_maps(panel, drawn, [_entries(*of, terms) for of in zip(log, drawn, strict=True)])
            _draw_key(figure, panel, longer=any(m and len(m.sensitivity) > CELLS for m in drawn))
        dense, sent = (sum(_numbers(log, f"{name}_bytes", 0.0)) for name in ("dense", "settled"))
        title = f"Contracts of {count(len(log), 'edge')}: {data_size(dense)} -> {data_size(sent)}, {ratio(dense, sent)}"
        ours, theirs = shares.get_legend_handles_labels(), sizes.get_legend_handles_labels()
        head(figure, title, ours[0] + theirs[0], ours[1] + theirs[1])


def _draw_shares(panel: Axes, log: Sequence[Mapping[str, Any]]) -> None:
    settled, adjusted, proposed = (
        [100 * share / WHOLE for share in _numbers(log, f"{name}_q16")] for name in ("settled", "adjusted", "proposed")
    )
    rows = range(len(log))
    panel.barh(rows, settled, THICK, color=BLUE, label="settled")
    look: dict[str, Any] = {"markersize": 7, "fillstyle": "none", "color": ORANGE, "clip_on": False, "zorder": 3}
    for shares, form, label in (
        (proposed, "o", "proposed by the sender"),
        (adjusted, "|", "adjusted by receivers"),
    ):
        if not np.isnan(shares).all():
            panel.plot(shares, rows, form, label=label, **look)
    panel.set(xlim=(0, 100), xlabel="elements sent, %", xticks=range(0, 101, 25))


def _draw_bytes(panel: Axes, log: Sequence[Mapping[str, Any]]) -> None:
    """Dense and settled in one place: the longer of the two lies below."""
    dense, sent = np.array(_numbers(log, "dense_bytes")), np.array(_numbers(log, "settled_bytes"))
    ends = np.fmax(dense, sent)
    most = max(1.0, float(np.nan_to_num(ends).max()))
    unit, name = next((size, name) for size, name in ((1e6, "MB"), (1e3, "kB"), (1.0, "B")) if most >= size)
    rows = range(len(log))
    panel.barh(rows, dense / unit, THICK, color=PALE, label="dense")
    panel.barh(rows, sent / unit, THICK, color=BLUE)
    for row in np.flatnonzero(dense * sent > 0):
        place = (ends[row] / unit, row)
        panel.annotate(f"{dense[row] / sent[row]:.1f}x", place, (4, 0), textcoords="offset points", va="center")
    panel.set(xlim=(0, 1.2 * most / unit), xlabel=f"{name} of a sample")


def _draw_maps(panel: Axes, maps: Sequence[SensitivityMap | None], labels: Sequence[str]) -> None:
    for row, measured in enumerate(maps):
        if measured:
            place = (0, 1, row + THICK / 2, row - THICK / 2)
            panel.imshow(_cells(measured.sensitivity / 255)[None], extent=place, **HEAT)
    panel.set(xlim=(0, 1), ylim=(len(maps) - 0.5, -0.5), xticks=[])
    panel.spines[["left", "bottom"]].set_visible(False)
    panel.yaxis.tick_right()
    panel.set_yticks(range(len(maps)), labels)


def _draw_key(figure: Figure, above: Axes, *, longer: bool) -> None:
    """What the colours mean, below the panel of maps."""
    left, bottom, width, _ = above.get_position().bounds
    height = figure.get_figheight()
    panel = figure.add_axes((left, bottom - 0.2 / height, width, 0.1 / height))
    panel.imshow(np.linspace(0, 1, CELLS)[None], extent=(0, 1, 0, 1), **HEAT)
    panel.spines[["left", "bottom"]].set_visible(False)
    remark = f"\nover {CELLS} entries: greatest of neighbours" if longer else ""
    panel.set(xticks=[0, 0.5, 1], yticks=[])
    panel.set_xlabel(f"sensitivity, 1: greatest of the edge{remark}", ha="left", x=0, labelpad=2)


def _cells(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """At most CELLS of them: the greatest of neighbours."""
    if len(values) <= CELLS:
        return values
    return np.array([part.max() for part in np.array_split(values, CELLS)])


def _entries(edge: Mapping[str, Any], measured: SensitivityMap | None, terms: Mapping[str, Contract]) -> str:
    """What the cells of an edge's map are."""
    if measured is None:
        return "no map"
    entries, contract = len(measured.sensitivity), terms.get(str(edge.get("edge")))
    if entries == 1:
        return "the same for all"
    if measured.block > 1:
        return f"{entries:,} blocks of {measured.block:,}"
    if contract is None or entries == edge.get("elems"):
        return f"{entries:,} elements"
    return f"{entries:,} channels" if contract.order == "channels-last" else f"{entries:,} features"


def _numbers(log: Sequence[Mapping[str, Any]], name: str, default: float = np.nan) -> list[float]:
    """What edges say under a name; the log of an artifact may lack it, or say something else."""
    values = [edge.get(name) for edge in log]
    return [float(v) if isinstance(v, int | float) and not isinstance(v, bool) else default for v in values]
