"""The host's side of a program: put arrays where it expects them, run it on the simulated unit, take its results."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from sparsecc.artifact import Artifact
from sparsecc.contracts import SensitivityMap
from sparsecc.diagnostics import CompileError
from sparsecc.reference import Array

from . import tile_code
from .files import KERNELS, read_program
from .machine import Target
from .map_updates import renewed, updated_map
from .simulator import KernelFunction, Outcome, simulate
from .unit_program import UnitProgram
from .verify import verify_program


@dataclass(frozen=True)
class Port:
    """An input or output of a program: row-major, from ``address`` in DRAM."""

    name: str
    address: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


@dataclass(frozen=True)
class Unit:
    """A program, the target it was made for, and the code of its compute tiles."""

    program: UnitProgram
    target: Target
    kernels: Mapping[str, KernelFunction]

    def ports(self, role: str) -> tuple[Port, ...]:
        """The "inputs" or "outputs", from section META.

        Raises: CompileError SCC114 where META does not describe them.
        """
        try:
            return tuple(map(_port, cast("Sequence[Mapping[str, Any]]", self.program.meta[role])))
        except (KeyError, TypeError, ValueError) as error:
            raise CompileError.of(
                "SCC114",
                f"section META of the program does not say where its {role} lie: {error}",
                help="the program was not made by sparsecc compile; simulate it with the Python functions",
            ) from error

    def simulate(self, inputs: Mapping[str, Array], *, timing: bool = True) -> Outcome:
        """One run on one sample; arrays have the shapes of the ports."""
        arrays = {port.address: np.ascontiguousarray(inputs[port.name], port.dtype) for port in self.ports("inputs")}
        load = {address: array.tobytes() for address, array in arrays.items()}
        smap = self.target.the("smap").address
        maps = [(smap + one.first, one.entries) for one in renewed(self.program)]
        return simulate(self.program, self.target, self.kernels, load, [*self._results(), *maps], timing)

    def updated_maps(self, outcome: Outcome) -> dict[str, SensitivityMap]:
        """By edge, after ``simulate``; none if the program was compiled without --update-maps."""
        entries = outcome.outputs[len(self.ports("outputs")) :]
        found = zip(renewed(self.program), entries, strict=True)
        return {one.edge: updated_map(one, self.program, data, outcome.averages) for one, data in found}

    def run(self, names: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs for a batch, one sample after the other.

        Raises: CompileError SCC071 for arrays whose axes after the first are not those of the ports.
        """
        ports = self.ports("inputs")
        results = dict[str, list[Array]]()
        for sample in samples(ports, inputs):
            outcome = self.simulate(sample, timing=False)
            for port, data in zip(self.ports("outputs"), outcome.outputs, strict=False):
                results.setdefault(port.name, []).append(np.frombuffer(data, port.dtype).reshape(port.shape))
        return [np.concatenate(results[name]) for name in names]

    def _results(self) -> list[tuple[int, int]]:
        return [(port.address, port.bytes) for port in self.ports("outputs")]


def open_unit(artifact: Artifact) -> Unit:
    """The unit of an artifact made for target scu. Its kernels.c is compiled and loaded: native code, as kernels.so is.

    Raises: CompileError (SCC117 the artifact has no program; SCC065 a file is missing; SCC090 to SCC108 the program is
    not what it should be; SCC089 target.json; what the C compiler refuses).
    """
    program, target = read_program(artifact)
    if findings := list(verify_program(program, target)):
        raise CompileError(findings)
    code = tile_code.TileCode(artifact.file(KERNELS).read_text(), tuple({k.symbol for k in program.kernels}))
    try:
        return Unit(program, target, load_kernels(code))
    except KeyError as missing:
        raise CompileError.of(
            "SCC100",
            f"{artifact.path / KERNELS} has no kernel {missing}, which the program calls",
            help="the artifact is damaged; compile the model again",
        ) from missing


def load_kernels(code: tile_code.TileCode) -> Mapping[str, KernelFunction]:
    """Compile C for this machine and load it; nothing is left on disk."""
    with tempfile.TemporaryDirectory(prefix="sparsecc-") as folder:
        library = Path(folder, "kernels.so")
        tile_code.build(code.source, library)
        return tile_code.load(library, code.symbols)


def _port(entry: Mapping[str, Any]) -> Port:
    shape = tuple(entry["shape"])
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"shape {shape}")
    return Port(str(entry["name"]), int(entry["address"]), np.dtype(str(entry["dtype"])), shape)


def samples(ports: Sequence[Port], inputs: Mapping[str, Array]) -> list[dict[str, Array]]:
    """The arrays cut along axis 0 in pieces that the ports hold, one a run.

    Raises: CompileError SCC071 for arrays whose axes are not those of the ports.
    """
    for port in ports:
        shape = inputs[port.name].shape
        step = port.shape[0] if port.shape else 1
        if shape[1:] != port.shape[1:] or len(shape) != len(port.shape) or shape[0] % step:
            raise CompileError.of(
                "SCC071",
                f"input '{port.name}' has shape {list(shape)}, and the unit's program was scheduled for "
                f"{list(port.shape)} and multiples of its first axis",
                help="give such arrays (pad them), or compile with example inputs of the size you need",
            )
    counts = {inputs[port.name].shape[0] // port.shape[0] for port in ports if port.shape}
    count = max(counts, default=1)
    pieces = list[dict[str, Array]]()
    for i in range(count):
        pieces.append({p.name: inputs[p.name][i * p.shape[0] : (i + 1) * p.shape[0]] for p in ports})
    return pieces
