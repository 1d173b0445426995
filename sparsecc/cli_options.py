"""What commands share: their options, the meaning of those that have a form of their own, and how results are shown."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsecc.diagnostics import CompileError

if TYPE_CHECKING:
    from rich.console import RenderableType

ArtifactPath = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Directory that `sparsecc compile` wrote.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, with every number unrounded.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads that the engine may use.")]

USUAL_AXES = {"batch": 0, "sequence": 1}
PIPE_COLUMNS = 200


def parse_axes(text: str) -> dict[str, int]:
    """ "batch,sequence" or "batch=0,frames=2": names of axes that may have any size, and their numbers.

    Raises: CompileError SCC087.
    """
    axes = dict[str, int]()
    for item in text.split(","):
        name, equals, axis = (part.strip() for part in item.partition("="))
        known = name in USUAL_AXES if not equals else axis.isdecimal()
        if not name.isidentifier() or not known:
            raise CompileError.of(
                "SCC087",
                f"--dynamic '{text}' names no axis at '{item.strip()}'",
                help="use batch (axis 0), sequence (axis 1) or NAME=AXIS: --dynamic batch,frames=2",
            )
        axes[name] = int(axis) if equals else USUAL_AXES[name]
    return axes


def example_inputs(path: Path) -> Any:
    """The arrays of an .npz file as tensors: by name, or in order if nobody named them (arr_0, arr_1, ...)."""
    import torch

    from sparsecc.arrays import read_arrays

    tensors = {name: torch.as_tensor(array) for name, array in read_arrays(path).items()}
    if all(re.fullmatch(r"arr_\d+", name) for name in tensors):
        return tuple(tensors[name] for name in sorted(tensors, key=lambda name: int(name[4:])))
    return tensors


def show(facts: object, table: Callable[[], RenderableType], as_json: bool, quiet: bool = False) -> None:
    """Print the facts as JSON, or as a table unless all is to be quiet."""
    if as_json:
        print(json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False))
    elif not quiet:
        from rich.console import Console

        # where the output is a file or a pipe, no terminal's width is there to be kept
        width = None if sys.stdout.isatty() else PIPE_COLUMNS
        Console(width=width, markup=False, emoji=False, highlight=False).print(table())
