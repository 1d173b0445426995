"""The simulated memories: bytes at the addresses of descriptors, and the registers in memory config.

No access leaves its memory, whatever a program says.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparsecc.backends.scu.descriptor import extent
from sparsecc.backends.scu.machine import OFFSET_BITS, OFFSET_MASK, Memory, Target
from sparsecc.backends.scu.unit_program import UnitProgram
from sparsecc.diagnostics import CompileError

Bytes: TypeAlias = npt.NDArray[np.uint8]
ALIGN_BYTES = 64  # of each memory's first byte, for kernels that load vectors
_CHUNK_BYTES = 1 << 20


class Memories:
    """All zero but for the program's constants, map and configuration. Pages that nobody touches take no room."""

    def __init__(self, program: UnitProgram, target: Target) -> None:
        """Raises: CompileError SCC101 when a memory is larger than this machine can provide."""
        self._names = target.regions
        self._bytes = dict[int, Bytes]()
        for name, memory in target.memory.items():
            size = len(program.constants) if memory.kind == "const" else memory.bytes
            self._bytes[memory.region] = _zeros(name, size)
        self.config = self._of(target.the("config"))
        self.smap = self._of(target.the("smap"))
        self.smap[: len(program.smap)] = np.frombuffer(program.smap, np.uint8)
        const = self._of(target.the("const"))
        const[:] = np.frombuffer(program.constants, np.uint8)
        const.setflags(write=False)
        for offset, value in program.config:
            self.config[offset : offset + 4] = np.array([value], "<u4").view(np.uint8)

    def _of(self, memory: Memory) -> Bytes:
        return self._bytes[memory.region]

    def view(self, address: int, size_bytes: int) -> Bytes:
        """The bytes themselves, not a copy. Raises: CompileError SCC101."""
        return self._at(address, (address, address + size_bytes))[:size_bytes]

    def gather(self, address: int, run_bytes: int, reps: tuple[int, int], strides: tuple[int, int]) -> Bytes:
        """A copy of the bytes of a strided access, one run after the other. Raises: CompileError SCC101."""
        return np.array(self._runs(address, run_bytes, reps, strides), order="C").reshape(-1)

    def scatter(
        self, address: int, run_bytes: int, reps: tuple[int, int], strides: tuple[int, int], data: Bytes
    ) -> None:
        """Write ``data`` run by run; where runs overlap, the last one stays. Raises: CompileError SCC101."""
        runs = self._runs(address, run_bytes, reps, strides)
        if not _overlap(run_bytes, reps, strides):
            runs[:] = data.reshape(runs.shape)
            return
        first, _ = extent(address, run_bytes, reps, strides)
        memory = self._at(first, extent(address, run_bytes, reps, strides))
        starts = np.add.outer(np.arange(reps[1]) * strides[1], np.arange(reps[0]) * strides[0]).reshape(-1)
        starts += address - first
        rows = data.reshape(len(starts), run_bytes)
        step = max(1, _CHUNK_BYTES // run_bytes)
        for i in range(0, len(starts), step):  # numpy assigns repeated indices in order
            memory[starts[i : i + step, None] + np.arange(run_bytes)] = rows[i : i + step]

    def registers(self, target: Target, name: str, kind: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        """``count`` registers as an array in memory config; one apart from it where the target has them not."""
        wanted = np.dtype(kind)
        register = target.register.get(name)
        if register is None or register.bytes != wanted.itemsize or register.count < count:
            return np.zeros(count, wanted)
        return self.config[register.offset : register.offset + count * wanted.itemsize].view(wanted)

    def _runs(self, address: int, run_bytes: int, reps: tuple[int, int], strides: tuple[int, int]) -> Bytes:
        start = self._at(address, extent(address, run_bytes, reps, strides))
        shape = (reps[1], reps[0], run_bytes)
        return np.lib.stride_tricks.as_strided(start, shape, (strides[1], strides[0], 1))

    def _at(self, address: int, span: tuple[int, int]) -> Bytes:
        """A memory from an address on, once [first, end) is known to be in it."""
        region = address >> OFFSET_BITS
        base = region << OFFSET_BITS
        size = len(self._bytes[region]) if region in self._bytes else 0
        if span[0] < base or span[1] > base + size:
            where = f"{self._names.get(region, 'no memory')}, which has {size} B"
            raise CompileError.of(
                "SCC101",
                f"an access reaches bytes {span[0] - base} to {span[1] - base - 1} of {where}",
                help="read programs and their inputs through the checks of `sparsecc`, or compile the model again",
            )
        return self._bytes[region][address & OFFSET_MASK :]


def _zeros(name: str, size_bytes: int) -> Bytes:
    try:
        room = np.zeros(size_bytes + ALIGN_BYTES, np.uint8)
    except MemoryError as error:
        raise CompileError.of(
            "SCC101",
            f"memory {name} of the target has {size_bytes} B, more than this machine can simulate",
            help="give the memory in your target file only the bytes that programs use",
        ) from error
    start = -room.ctypes.data % ALIGN_BYTES
    return room[start : start + size_bytes]


def _overlap(run_bytes: int, reps: tuple[int, int], strides: tuple[int, int]) -> bool:
    """Whether runs may overlap one another; False is certain."""
    span = run_bytes
    for stride, count in sorted((abs(s), n) for s, n in zip(strides, reps, strict=True) if n > 1):
        if stride < span:
            return True
        span += (count - 1) * stride
    return False
