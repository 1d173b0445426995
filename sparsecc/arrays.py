"""Arrays in files that people give and get: .npz by name, or .npy for one."""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from sparsecc.diagnostics import CompileError
from sparsecc.manifest import Value
from sparsecc.reference import Array

_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def read_arrays(path: Path, inputs: Sequence[Value] = ()) -> dict[str, Array]:
    """The arrays of a file by name; unnamed ones (``arr_0`` and so on, .npy) get the names of ``inputs`` in order.

    Raises: CompileError SCC076.
    """
    try:
        loaded: object = np.load(path, allow_pickle=False)
        one = isinstance(loaded, np.ndarray)
        found: dict[str, object] = {"arr_0": loaded} if one else dict(cast("Mapping[str, object]", loaded))
        if not all(isinstance(x, np.ndarray) for x in found.values()):
            raise ValueError("a zip file of something else, as torch.save writes")
        arrays = cast("dict[str, Array]", found)
    except _UNREADABLE as error:
        # numpy's own words advise to load pickles
        why = error.strerror if isinstance(error, OSError) else None
        why = why or "it is damaged, or holds something else than arrays of numbers"
        raise CompileError.of(
            "SCC076", f"{path} cannot be read: {why}", help="write it with numpy: np.savez('x.npz', name=array)"
        ) from error
    if len(arrays) == len(inputs) and set(arrays) == {f"arr_{i}" for i in range(len(inputs))}:
        return {value.name: arrays[f"arr_{i}"] for i, value in enumerate(inputs)}
    return arrays


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an .npz file, whole or not at all, under exactly this path.

    Raises: CompileError SCC075.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as workspace:
            new = Path(workspace, "new")
            with new.open("wb") as file:
                np.savez(file, **cast("dict[str, Any]", dict(arrays)))
            os.replace(new, path)
    except OSError as error:
        raise CompileError.of(
            "SCC075", f"{path} cannot be written: {error.strerror}", help="choose another path with -o"
        ) from error
