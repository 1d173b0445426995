"""The picture of benchmarks/contracts.py: where contracts pay, and where they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecc.plots.drawing import BLUE, GREY, ORANGE, WIDTH, drawing, head

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMS: dict[str, dict[str, Any]] = {
    "zero_compression": {"color": ORANGE, "marker": "s", "linestyle": "--", "label": "zero-compression, lossless"},
    "contracts": {"color": BLUE, "marker": "o", "linestyle": "-", "label": "contracts"},
}
QUANTITIES = {"cycles": "cycles", "energy_pj": "energy"}
LEFT, TOP, BOTTOM, GAP, PANEL = 0.75, 1.05, 0.6, 0.25, 1.75  # inches
Line = Mapping[int, float]
"""By the bytes per cycle of the link."""


def plot_traffic(rows: Sequence[Any], path: Path) -> None:
    """Cycles and energy against the width of the link, relative to dense DMA on the same link; ``rows`` are Traffic.

    All panels have one scale. Raises: CompileError as sparsecc.plots.verify_drawable.
    """
    networks = list(dict.fromkeys(row.network for row in rows))
    grid = [[_relative(rows, name, quantity) for name in networks] for quantity in QUANTITIES]
    ratios = [ratio for row in grid for lines in row for line in lines.values() for ratio in line.values()]
    scale = min([1.0, *ratios]) - 0.025, max([1.0, *ratios]) + 0.025
    height = TOP + BOTTOM + GAP * (len(grid) - 1) + PANEL * len(grid)
    width = (WIDTH - LEFT - 0.15 - GAP * (len(networks) - 1)) / len(networks)
    with drawing(path, height) as figure:
        for down, (quantity, row) in enumerate(zip(QUANTITIES.values(), grid, strict=True)):
            bottom, last = BOTTOM + (len(grid) - 1 - down) * (PANEL + GAP), down == len(grid) - 1
            for right, (name, lines) in enumerate(zip(networks, row, strict=True)):
                left = LEFT + right * (width + GAP)
                panel = figure.add_axes((left / WIDTH, bottom / height, width / WIDTH, PANEL / height))
                _draw(panel, lines)
                panel.set(ylim=scale, title="" if down else name, xlabel="link, B/cycle" if last else "")
                panel.set_ylabel("" if right else f"{quantity}, dense DMA = 1")
                panel.tick_params(labelleft=right == 0, labelbottom=last)
                if down == right == 0:
                    handles, labels = panel.get_legend_handles_labels()
        head(figure, "One sample on the simulated unit: below the line it pays", handles, labels)


def _relative(rows: Sequence[Any], network: str, quantity: str) -> dict[str, Line]:
    """The quantity in each form but dense, relative to dense DMA, on the links for which both fit the machine."""
    own = {(r.form, r.link_bytes_per_cycle): getattr(r, quantity) for r in rows if r.network == network}
    links = sorted({link for _, link in own})
    both = {form: [link for link in links if {(form, link), ("dense", link)} <= own.keys()] for form in FORMS}
    return {form: {link: own[form, link] / own["dense", link] for link in both[form]} for form in FORMS}


def _draw(panel: Axes, lines: Mapping[str, Line]) -> None:
    """The links are far apart, and few: the axis has a place for each."""
    panel.axhline(1, color=GREY, linewidth=1, label="dense DMA")
    links = sorted({link for line in lines.values() for link in line})
    places = {link: place for place, link in enumerate(links)}
    for form, line in lines.items():
        at = [places[link] for link in line]
        panel.plot(at, [*line.values()], markersize=5, linewidth=1.4, clip_on=False, **FORMS[form])
    panel.set_xticks(range(len(links)), map(str, links))
    panel.set_xlim(-0.4, len(links) - 0.6)
    for link, place in places.items():
        there = sorted((form for form in FORMS if link in lines[form]), key=lambda form: -lines[form][link])
        for form, (offset, side) in zip(there, ((5, "bottom"), (-5, "top")), strict=False):  # their numbers lie apart
            ratio, color = lines[form][link], FORMS[form]["color"]
            look: dict[str, Any] = {
                "color": color,
                "fontsize": 8,
                "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            }
            aside: dict[str, Any] = {"xytext": (0, offset), "textcoords": "offset points", "ha": "center", "va": side}
            panel.annotate(f"{ratio:.3f}", (place, ratio), **aside, **look)
