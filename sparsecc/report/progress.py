"""How far long work is: one moving line on a terminal, a plain line per stage elsewhere. Always on stderr."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from sparsecc.progress import Progress as Listener


@contextmanager
def shown_on_stderr(*, enabled: bool) -> Generator[Listener | None]:
    """A listener for the stages of the work inside the block; what a terminal showed is gone afterwards."""
    if not enabled:
        yield None
    elif not sys.stderr.isatty():
        yield plain_lines()
    else:
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total)


def plain_lines() -> Listener:
    """A listener that prints the name of each stage once, when it begins."""
    last = ""

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal last
        del done, total
        if stage != last:
            print(stage, file=sys.stderr, flush=True)
        last = stage

    return tell
