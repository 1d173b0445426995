"""Compiled kernels as Python functions, and memory that notices when a kernel leaves it."""

from __future__ import annotations

import ctypes
import mmap
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from math import erf, pi, sqrt
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sparsecc.backends.tvm.codegen import compile_kernels
from sparsecc.backends.tvm.kernels.parameters import Parameters
from sparsecc.backends.tvm.kernels.spec import (
    Attention,
    AveragePool,
    Dense,
    Elementwise,
    Epilogue,
    Function,
    Gemv,
    GlobalAverage,
    Isa,
    KernelSpec,
    LayerNorm,
    LoadTokens,
    MaxPool,
    Shift,
    Spmm,
    Spmv,
    SpmvSell,
    StoreTokens,
    VectorNorm,
    Window,
    symbol,
)

Array = npt.NDArray[Any]
Placement = Literal["begin", "end"]

FUNCTIONS: tuple[Function, ...] = ("none", "relu", "gelu", "gelu_tanh")
EPILOGUES = [Epilogue(function, add) for function in FUNCTIONS for add in (False, True)]
SPMM = [
    *(Spmm(1, 1, vectors) for vectors in range(1, 8)),
    *(Spmm(4, 1, vectors) for vectors in (1, 4)),
    *(Spmm(*block, vectors=2) for block in ((8, 1), (16, 1), (32, 1), (1, 4), (4, 4), (3, 2))),
    *(Spmm(rows, 1, 2, "int32", epilogue) for rows in (1, 4) for epilogue in EPILOGUES),
]
SLICED = [
    *(Spmm(1, 1, vectors, sliced=True) for vectors in range(1, 8)),
    *(Spmm(rows, 1, 2, "int32", epilogue, sliced=True) for rows in (1, 4, 16) for epilogue in EPILOGUES),
]
DENSE = [*(Dense(rows, 4) for rows in (1, 4, 5, 6)), *(Dense(6, 2, "int32", epilogue) for epilogue in EPILOGUES)]
FRAMED: list[Spmm | Dense] = [
    *(Spmm(1, 1, vectors, epilogue=Epilogue("relu", add=True), frame_width=0) for vectors in (1, 2, 4, 7)),
    *(Spmm(1, 1, 4, epilogue=Epilogue("relu"), frame_width=width) for width in (8, 16, 32, 64)),
    *(Spmm(4, 1, 4, "int32", frame_width=width) for width in (0, 16)),
    *(Dense(6, 4, "int32", frame_width=width) for width in (0, 32)),
    Spmm(16, 1, 2, frame_width=4),
    *(
        Spmm(rows, 1, 4, epilogue=Epilogue("relu", True), frame_width=w, sliced=True)
        for rows in (1, 4)
        for w in (0, 16)
    ),
]
SPMV = [
    *(Spmv(*block) for block in ((1, 1), (4, 1), (16, 1), (4, 4), (2, 3))),
    *(Spmv(1, 1, "int32", epilogue) for epilogue in EPILOGUES),
]
SELL = [SpmvSell(epilogue) for epilogue in EPILOGUES]
GEMV = [Gemv(epilogue) for epilogue in EPILOGUES]
ATTENTION = [Attention(size, masked) for size in (8, 40, 32, 64) for masked in (False, True)]
ELEMENTWISE = [Elementwise(epilogue) for epilogue in EPILOGUES]
OTHERS: list[KernelSpec] = [
    Shift(),
    Window(),
    MaxPool(),
    AveragePool(),
    GlobalAverage(),
    LayerNorm(),
    VectorNorm(),
    LoadTokens(),
    StoreTokens(),
    *ATTENTION,
]
SPECS: list[KernelSpec] = [*SPMM, *SLICED, *DENSE, *FRAMED, *SPMV, *SELL, *GEMV, *ELEMENTWISE, *OTHERS]

SENTINEL = np.float32(-1.2345e30)
PAGE = mmap.PAGESIZE


@cache
def library(isa: Isa) -> ctypes.CDLL:
    folder = Path(mkdtemp(prefix="sparsecc-kernels-"))
    (folder / "kernels.o").write_bytes(compile_kernels(SPECS, isa))
    compiler = shutil.which("cc") or shutil.which("gcc")
    command = [compiler] if compiler else [sys.executable, "-m", "ziglang", "cc"]
    subprocess.run([*command, "-shared", "-o", folder / "kernels.so", folder / "kernels.o"], check=True)
    loaded = ctypes.CDLL(str(folder / "kernels.so"))
    shutil.rmtree(folder)
    return loaded


def guarded(content: Array, placement: Placement = "end") -> Array:
    """A copy that touches a page nobody may touch with its first or last byte, and sentinels on its other side."""
    pages = -(-content.nbytes // PAGE) + 1
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for page in (0, pages + 1):
        if libc.mprotect(ctypes.c_void_p(address + page * PAGE), ctypes.c_size_t(PAGE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    inner = np.frombuffer(memory, dtype=np.float32, count=pages * PAGE // 4, offset=PAGE)
    inner[:] = SENTINEL
    begin = 0 if placement == "begin" else inner.nbytes - content.nbytes
    array: Array = np.frombuffer(memory, content.dtype, content.size, PAGE + begin).reshape(content.shape)
    array[...] = content
    return array


def assert_untouched(array: Array, placement: Placement) -> None:
    """The sentinels beside a `guarded` array are all still there."""
    size = (-(-array.nbytes // PAGE) + 1) * PAGE - array.nbytes
    start = array.ctypes.data + (array.nbytes if placement == "begin" else -size)
    beside: Array = np.frombuffer(ctypes.string_at(start, size), np.float32)
    np.testing.assert_array_equal(beside, SENTINEL)


def call(
    spec: KernelSpec,
    isa: Isa,
    parameters: Parameters,
    units: int,
    *,
    x: Array,
    y: Array,
    z: Array | None = None,
    rows: Array | None = None,
    cols: Array | None = None,
    values: Array | None = None,
    bias: Array | None = None,
    splits: Sequence[int] | None = None,
) -> None:
    """Run units [0, units), cut at ``splits``, the last part first."""
    table = np.array(parameters, np.int32)
    pointers = [ctypes.c_void_p(a.ctypes.data if a is not None else None) for a in (x, y, z, rows, cols, values, bias)]
    function = getattr(library(isa), symbol(spec, isa))
    function.restype = None
    for begin, end in reversed(list(pairwise([0, *(splits or ()), units]))):
        function(*pointers, ctypes.c_void_p(table.ctypes.data), ctypes.c_int32(begin), ctypes.c_int32(end))


def split_points(units: int, seed: int = 0) -> list[int]:
    """A few cuts in [0, units], with an empty part among them."""
    cuts = np.random.default_rng(seed).integers(0, units + 1, 3).tolist()
    return sorted([*cuts, cuts[0]])


def epilogue(spec: Epilogue, total: Array, z: Array) -> Array:
    """In float64."""
    total = total + z if spec.add else total
    match spec.function:
        case "none":
            return total
        case "relu":
            return np.maximum(total, 0)
        case "gelu":
            phi: Array = np.vectorize(erf, otypes=[np.float64])(total / sqrt(2))
            return total * (0.5 + 0.5 * phi)
        case "gelu_tanh":
            bent: Array = np.tanh(sqrt(2 / pi) * (total + 0.044715 * total**3))
            return total * (0.5 + 0.5 * bent)


def uniform(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
