"""Figures that are files: one look for all, whole or not at all, the same bytes for the same data.

That is so with the same matplotlib, whatever its settings on this machine. It is imported when something is drawn, and
no state of pyplot is used.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sparsecc.diagnostics import CompileError
from sparsecc.files import verify_writable, write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png", ".pdf")
BLUE, ORANGE, GREY, PALE, INK = "#0072B2", "#D55E00", "#8C8C8C", "#D4D4D4", "#222222"
"""Blue and orange are Okabe and Ito's (Color Universal Design, 2008), told apart with any colour vision."""
STYLE: dict[str, Any] = {
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "font.size": 9,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.hashsalt": "sparsecc",
    "text.color": INK,
    "text.parse_math": False,  # a $ in a layer's name is no formula
    "xtick.color": INK,
    "ytick.color": INK,
}
UNDATED: Mapping[str, dict[str, Any]] = {
    ".svg": {"Date": None},
    ".png": {},
    ".pdf": {"CreationDate": None},
}
WIDTH, ROW, TOP, BOTTOM, GAP = 10.0, 0.28, 0.85, 0.85, 0.4  # inches
TALLEST = 400.0
"""Inches: PNG files of matplotlib end at 65,536 pixels. Beyond about 1,400 rows these are narrower."""
NAME_CHARACTERS = 30


def verify_drawable(path: Path) -> None:
    """What can be known before there is a picture.

    Raises: CompileError (SCC075 the place; SCC087 the kind of file; SCC125 there is no matplotlib).
    """
    if path.suffix.lower() not in SUFFIXES:
        raise CompileError.of(
            "SCC087",
            f"--plot {path} is no picture that can be drawn",
            help=f"end the name with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}",
        )
    verify_writable(path, "--plot")
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise CompileError.of(
            "SCC125", f"pictures are drawn by matplotlib: {error}", help="pip install 'sparsecc[plot]'"
        ) from error


@contextmanager
def drawing(path: Path, height: float, width: float = WIDTH) -> Generator[Figure]:
    """A figure of so many inches; it is written to ``path``, whole or not at all, when the block ends.

    Raises: CompileError as verify_drawable.
    """
    verify_drawable(path)
    import matplotlib.style
    from matplotlib.figure import Figure

    suffix = path.suffix.lower()
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure((width, height))
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format=suffix[1:], metadata=UNDATED[suffix])
    write_file(path, content.getvalue(), "--plot")


# ---- rows that panels share ------------------------------------------------------------------------------------------


def height_of(rows: int, thickness: float = 1.0) -> float:
    return min(TALLEST, TOP + BOTTOM + ROW * thickness * rows)


def panels(figure: Figure, names: Sequence[str], widths: Sequence[float]) -> list[Axes]:
    """Panels beside each other, each with a row per name, from the top down."""
    shown = [name if len(name) <= NAME_CHARACTERS else f"…{name[1 - NAME_CHARACTERS :]}" for name in names]
    height = figure.get_figheight()
    left = 0.3 + 0.08 * max(map(len, shown))
    room = WIDTH - left - 0.1 - GAP * len(widths)
    beside: list[Axes] = []
    for i, width in enumerate(widths):
        inside = room * width - (1.2 if i == 2 else 0)
        bounds = (left / WIDTH, BOTTOM / height, inside / WIDTH, 1 - (TOP + BOTTOM) / height)
        panel = figure.add_axes(bounds)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.tick_params(axis="y", length=0)
        panel.set_yticks(range(len(names)), [] if i else shown)
        beside.append(panel)
        left += room * width + GAP
    return beside


def head(figure: Figure, title: str, handles: Sequence[Any], labels: Sequence[str]) -> None:
    height = figure.get_figheight()
    figure.text(0.15 / WIDTH, 1 - 0.15 / height, title, va="top", fontsize=11, fontweight="bold")
    figure.legend(
        cast("list[Any]", handles), labels, loc="upper left", bbox_to_anchor=(0.02 / WIDTH, 1 - 0.36 / height), ncols=6,
        handlelength=1.4, columnspacing=1.6,
    )  # fmt: skip
