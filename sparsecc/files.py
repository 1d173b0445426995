"""Files that commands write beside artifacts: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sparsecc.diagnostics import CompileError


def verify_writable(path: Path, option: str) -> None:
    """What can be known before the content: ``option`` is where the user gave the path.

    Raises: CompileError SCC075.
    """
    if path.is_dir():
        raise _unwritable(path, "Is a directory", option)
    if not path.parent.is_dir():
        raise _unwritable(path, "No such file or directory", option)


def verify_folder(path: Path, option: str) -> None:
    """That files can be written into a folder, which may be yet to be made.

    Raises: CompileError SCC075.
    """
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise _unwritable(path, "Not a directory", option)
    if not os.access(there, os.W_OK | os.X_OK):
        raise _unwritable(path, "Permission denied", option)


def write_file(path: Path, data: bytes, option: str) -> None:
    """Write a file that takes its name at the end: an error or Ctrl-C leaves what was there.

    Raises: CompileError SCC075.
    """
    verify_writable(path, option)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as workspace:
            new = Path(workspace, "new")
            new.write_bytes(data)
            os.replace(new, path)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error), option) from error


def _unwritable(path: Path, why: str, option: str) -> CompileError:
    return CompileError.of("SCC075", f"{path} cannot be written: {why}", help=f"choose another path with {option}")
