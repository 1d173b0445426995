"""Calibration data: samples of what the network will see, from which maps, degradations and contracts are measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from sparsecc.arrays import read_arrays
from sparsecc.diagnostics import CompileError
from sparsecc.program import Program

from .keys import Array

BATCH = 64  # samples at once where the Program leaves it open; a bound on memory
LABELS = "labels"


@dataclass(frozen=True, eq=False)
class Calibration:
    """``inputs`` are those of the Program, in its order, with the samples along axis 0; ``labels`` int64, one each.

    ``step`` samples run at once at most; a Program of a fixed batch takes exactly so many.
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor | None
    step: int

    def __len__(self) -> int:
        return len(self.inputs[0])

    def take(self, places: Tensor | slice) -> Calibration:
        labels = None if self.labels is None else self.labels[places]
        return Calibration(tuple(x[places] for x in self.inputs), labels, self.step)

    def batches(self) -> list[Calibration]:
        return [self.take(slice(start, start + self.step)) for start in range(0, len(self), self.step)]


def load(path: Path, program: Program) -> Calibration:
    """Read untrusted samples: an .npz file of arrays under the names of the inputs, and perhaps ``labels``.

    Raises: CompileError (SCC058 arrays that do not fit the Program, SCC076 no arrays).
    """
    return from_arrays(program, read_arrays(path), str(path))


def from_arrays(program: Program, arrays: Mapping[str, Array], name: str = "the calibration data") -> Calibration:
    """Samples by the names of the inputs, and perhaps ``labels``; ``name`` is what errors call them.

    Of a Program with a fixed batch, a last batch that is not whole is left out.

    Raises: CompileError SCC058.
    """
    names = program.input_names
    if set(arrays) - {LABELS} != set(names):
        given = ", ".join(sorted(arrays)) or "nothing"
        _refuse(
            f"{name} holds {given}, but the model takes {', '.join(names)}",
            f"write it with numpy: np.savez('calibration.npz', {', '.join(f'{n}=...' for n in names)}, labels=...); "
            "labels are optional",
        )
    count = count_samples(arrays, name)
    placeholders = program.graph.find_nodes(op="placeholder")
    for node in placeholders:
        _check_input(name, node.name, arrays[node.name], node.meta["val"])
    size = placeholders[0].meta["val"].shape[0]
    step = BATCH if isinstance(size, torch.SymInt) else int(size)
    if count < max(2, 2 * step if isinstance(size, int) else 2):
        needed = "2 samples" if step == 1 or isinstance(size, torch.SymInt) else f"{2 * step} (two batches of {step})"
        _refuse(
            f"{name} holds {count} sample{'s' * (count != 1)}, and at least {needed} are needed: one part is for "
            "calibration, the other is held out",
            "give some hundred samples that resemble what the network will see",
        )
    labels = arrays.get(LABELS)
    whole = count if isinstance(size, torch.SymInt) else count // step * step
    return Calibration(
        tuple(torch.from_numpy(np.ascontiguousarray(arrays[n])[:whole]) for n in names),
        None if labels is None else torch.from_numpy(labels.astype(np.int64)[:whole]),
        step,
    )


def count_samples(arrays: Mapping[str, Array], name: str = "the calibration data") -> int:
    """Entries along axis 0 of every array, as many labels among them if there are any.

    Raises: CompileError SCC058.
    """
    counts = {n: x.shape[0] if x.ndim else 0 for n, x in arrays.items() if n != LABELS}
    if len(set(counts.values())) > 1:
        sizes = ", ".join(f"{count} of {n}" for n, count in counts.items())
        _refuse(f"{name} holds different numbers of samples: {sizes}", "give one entry along axis 0 per sample")
    count, labels = max(counts.values(), default=0), arrays.get(LABELS)
    if labels is not None and counts and (labels.shape != (count,) or labels.dtype.kind not in "iu"):
        _refuse(
            f"{name} holds labels of shape {list(labels.shape)} and type {labels.dtype.name} for {count} samples",
            "give one integer per sample, its class, or no labels",
        )
    return count


def split(calibration: Calibration, held_out: float = 0.5, seed: int = 0) -> tuple[Calibration, Calibration]:
    """What to measure with and what to check on, disjoint, at least one batch (or sample) each; equal for equal seeds.

    ``held_out`` is the share of the second part.
    """
    count = len(calibration)
    unit = calibration.step if count % calibration.step == 0 and count > calibration.step else 1
    units = count // unit
    kept_back = min(units - 1, max(1, round(units * held_out))) * unit
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return calibration.take(order[kept_back:].sort().values), calibration.take(order[:kept_back].sort().values)


def _check_input(name: str, key: str, array: Array, expected: Tensor) -> None:
    dtype = str(expected.dtype).removeprefix("torch.")
    if array.dtype.name != dtype:
        _refuse(
            f"{name} holds {key} as {array.dtype.name}, but the model takes {dtype}",
            f"convert it: {key}.astype('{dtype}')",
        )
    sizes = expected.shape[1:]
    fits = array.ndim == expected.dim() and all(
        isinstance(want, torch.SymInt) or want == got for want, got in zip(sizes, array.shape[1:], strict=True)
    )
    if not fits:
        wanted = ["samples", *("any" if isinstance(s, torch.SymInt) else str(s) for s in sizes)]
        _refuse(
            f"{name} holds {key} of shape {list(array.shape)}, but the model takes [{', '.join(wanted)}]",
            "give the samples along axis 0, prepared as for the model itself",
        )


def _refuse(message: str, way_out: str) -> NoReturn:
    raise CompileError.of("SCC058", message, help=way_out)
