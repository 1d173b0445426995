"""Small words for quantities, and one look for tables."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

FACTS = ("", "")
"""The columns of a table of names and values, which needs no headings."""


def data_size(size_bytes: float) -> str:
    """Decimal units, as file managers and `ls --si` use: 1 kB = 1000 B."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    for unit in ("kB", "MB"):
        size_bytes /= 1000
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}" if size_bytes < 100 else f"{size_bytes:.0f} {unit}"
    return f"{size_bytes / 1000:.3g} GB"


def duration(seconds: float) -> str:
    """Three digits in the unit that fits: µs, ms or s."""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"


def energy(picojoules: float) -> str:
    """Three digits in the unit that fits, from pJ to J."""
    units = ("pJ", "nJ", "µJ", "mJ")
    for unit in units:
        if picojoules < 999.5:
            return f"{picojoules:.3g} {unit}"
        picojoules /= 1000
    return f"{picojoules:,.3g} J"


def ratio(a: float, b: float) -> str:
    return f"{a / b:.2f}x" if b else "-"


def shape_text(dtype: str, shape: Iterable[int | str]) -> str:
    return f"{dtype}[{', '.join(map(str, shape))}]"


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """Columns whose name begins with > are aligned to the right. Cells are plain text: brackets are no markup."""
    result = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    columns = tuple(columns)
    result.show_header = any(columns)
    for name in columns:
        result.add_column(Text(name.removeprefix(">")), justify="right" if name.startswith(">") else "left")
    for row in rows:
        result.add_row(*(Text(cell) for cell in row))
    return result
