"""Call the regions of a kernels.so through ctypes: for tuning and tests, without onnxruntime."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from sparsecc.backends.tvm.kernels.spec import Isa
from sparsecc.machine import cpu_flags

Array = npt.NDArray[Any]
ISA_NUMBERS: dict[Isa | Literal["auto"], int] = {"auto": 0, "avx2": 1, "avx512": 2}  # as in `enum isa` of runtime.h
AVX512_FLAGS = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}  # as `supported` of runtime.c asks
MESSAGE_BYTES = 512  # struct message of runtime.h


def own_isa() -> Isa:
    """The one that a region opens with here, as `sparsecc_choose_isa` of runtime.c decides where both are built."""
    match os.environ.get("SPARSECC_ISA"):
        case "avx2" | "avx512" as asked:
            return asked
        case _:
            return "avx512" if cpu_flags() >= AVX512_FLAGS else "avx2"


class Measured(ctypes.Structure):
    """A step and what it took, over all items: struct measured of runtime.c."""

    name: bytes
    kernel: bytes
    flops: int
    touched_bytes: int
    seconds: float
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("kernel", ctypes.c_char_p),
        ("flops", ctypes.c_int64),
        ("touched_bytes", ctypes.c_int64),
        ("seconds", ctypes.c_double),
    )


class NativeRegion:
    """One region with its constants bound. Close it, or use it in ``with``; one thread.

    ``arrays``: every input of the node by number, C-contiguous; activations may be None until `bind`.
    Raises: ValueError with the runtime's message where the constants or the CPU do not fit.
    """

    def __init__(
        self, library: Path, region: int, arrays: Sequence[Array | None], isa: Isa | Literal["auto"] = "auto"
    ) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.sparsecc_open.restype = ctypes.c_void_p
        self._arrays = list(arrays)
        message = ctypes.create_string_buffer(MESSAGE_BYTES)
        self._engine: int | None = self._library.sparsecc_open(region, _pointers(arrays), ISA_NUMBERS[isa], message)
        if not self._engine:
            raise ValueError(message.value.decode())

    def bind(
        self, activations: Sequence[Array], outputs: Sequence[Array], rows: int, pool: int | None = None
    ) -> NativeCall:
        """A call that can be repeated at the cost of one C call: what tuning times. Shapes are the caller's duty.

        ``pool``: the address of a struct pool of runtime.h, which must outlive the call; None is one thread.
        """
        if self._engine is None:
            raise ValueError("the region is closed")
        inputs = [*activations, *self._arrays[len(activations) :]]
        return NativeCall(self._library, self._engine, inputs, outputs, rows, pool)

    def close(self) -> None:
        if self._engine:
            self._library.sparsecc_close(ctypes.c_void_p(self._engine))
            self._engine = None

    def __enter__(self) -> NativeRegion:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NativeCall:
    """Computes a region from and into fixed arrays, which it keeps alive.

    ``function`` with ``arguments`` is what it calls, for C code that is to do so.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        engine: int,
        inputs: Sequence[Array | None],
        outputs: Sequence[Array],
        rows: int,
        pool: int | None,
    ) -> None:
        self._library, self._kept = library, (inputs, outputs)
        self._region = (ctypes.c_void_p(engine), _pointers(inputs), _pointers(outputs), ctypes.c_int64(rows))
        self.function, self.arguments = library.sparsecc_run, (*self._region, ctypes.c_void_p(pool))

    def __call__(self) -> None:
        if self.function(*self.arguments):
            raise MemoryError("the arena of a region")

    def profile(self) -> Sequence[Measured]:
        """The same, and what each step took on one thread, in the order of the plan.

        Raises: AttributeError where the library was built before there were profiles.
        """
        engine, *_, rows = self._region
        steps = (Measured * self._library.sparsecc_step_count(engine, rows))()
        if self._library.sparsecc_profile(*self._region, steps):
            raise MemoryError("the arena of a region")
        return list(steps)


def _pointers(arrays: Sequence[Array | None]) -> ctypes.Array[ctypes.c_void_p]:
    for array in arrays:
        if array is not None and not array.flags.c_contiguous:
            raise ValueError("arrays must be C-contiguous")
    return (ctypes.c_void_p * len(arrays))(*(None if array is None else array.ctypes.data for array in arrays))
