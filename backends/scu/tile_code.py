"""Build the compute tiles' C code for this machine, and call its functions on numpy arrays.

The flags are -O3 -ffp-contract=off, never -ffast-math: the compiler may use vectors, but neither reorders a sum nor
joins a multiplication with an addition, so results are those of the source's order of accumulation on any machine with
IEEE 754 arithmetic. Only expf, erff and their like are libm's, and may differ in the last bit between systems.

Loading a library runs native code: load only what `build` has made on this machine.
"""

from __future__ import annotations

import ctypes
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sparsecc.backends.onnxruntime.library import c_compiler
from sparsecc.diagnostics import CompileError

FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Werror=implicit-function-declaration")

KERNEL = re.compile(r"\w+_[0-9a-f]{8}")
Array = NDArray[Any]
TileFunction = Callable[..., None]


@dataclass(frozen=True)
class TileCode:
    """A C file of kernels and their names."""

    source: str
    symbols: tuple[str, ...]


def build(source: str, path: Path) -> None:
    """Write the shared library of a `c_library_source` to ``path``.

    Raises: CompileError SCC050 without a working C compiler.
    """
    compiler = c_compiler()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tiles.c").write_text(source)
        command = (*compiler, *FLAGS, "tiles.c", "-o", "tiles.so", "-lm")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            problem = "; ".join((done.stderr or done.stdout).strip().splitlines()[:3]) or "no output"
            raise CompileError.of(
                "SCC050",
                f"the C compiler '{shlex.join(compiler)}' failed on the tiles' code: {problem}",
                help="set CC to another C compiler, or unset it and `pip install ziglang`",
            )
        shutil.copyfile(Path(folder) / "tiles.so", path)


def load(path: Path, symbols: Iterable[str]) -> dict[str, TileFunction]:
    """The functions of a built library: ``load(path, [s])[s](src, dst, *operands)``, C-contiguous arrays all.

    Shapes and types are the caller's duty. Raises: KeyError for a symbol that is no kernel's or not in the library.
    """
    library = ctypes.CDLL(str(path.resolve()))
    return {symbol: _function(library, symbol) for symbol in symbols}


def _function(library: ctypes.CDLL, symbol: str) -> TileFunction:
    if not KERNEL.fullmatch(symbol) or not hasattr(library, symbol):  # libc's functions are visible too
        raise KeyError(symbol)
    function = getattr(library, symbol)
    function.restype = None

    def call(*arrays: Array) -> None:
        if not all(array.flags.c_contiguous for array in arrays):
            raise ValueError("arrays must be C-contiguous")
        function(*(ctypes.c_void_p(array.ctypes.data) for array in arrays))

    return call
