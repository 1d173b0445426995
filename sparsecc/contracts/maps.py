"""How much each neuron matters to the loss: measured by the host, stored as u8, refreshed from live activations.

A neuron is one element of a sample in traversal order; a block is several in a row (H * W for one entry per channel).

Letters: S blocks, N neurons.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from sparsecc.arrays import read_arrays, write_arrays
from sparsecc.diagnostics import CompileError

from .keys import Array, Bytes

Averages = npt.NDArray[np.float64]
Counts = npt.NDArray[np.uint16]

SCHEMA = 1
MAX_ACTIVATION = 65_535
FIELDS = ("schema", "block", "sensitivity", "gradient", "activation", "activation_unit")


@dataclass(frozen=True, eq=False)
class SensitivityMap:
    """The maps of one layer: u8 [S], the greatest entry 255 unless all are 0; 255 stands for sensitivity 1.

    ``sensitivity`` sets contracts. ``gradient`` routes: with it as the map of ``make_keys``, the score |a| * gradient
    approximates |a * g|. ``activation`` is the average |a| of a block, u16 [S], in multiples of ``activation_unit``;
    the unit updates it, and the gradient part stays, as there are no gradients at inference.
    """

    block: int  # neurons
    sensitivity: Bytes
    gradient: Bytes
    activation: Counts
    activation_unit: float

    def updated(self, activation: Counts, rate_shift: int = 3) -> SensitivityMap:
        """After a new average of |a| (u16 [S], same unit) came in with weight 2**-rate_shift.

        Normative, in integers: a' = a + floor((new - a + half) / 2**rate_shift), half = 2**(rate_shift - 1) or 0, and
        s = floor((255 * p + max(p) // 2) / max(p)) of p = a' * gradient, which fits 32 bits.
        """
        old = self.activation.astype(np.int64)
        average = old + ((activation.astype(np.int64) - old + (1 << rate_shift >> 1)) >> rate_shift)
        products = average * self.gradient.astype(np.int64)
        return replace(self, activation=average.astype(np.uint16), sensitivity=_normalised_integers(products))

    def in_units(self, mean_abs: Array) -> Counts:
        """Averages of |a| per block as ``updated`` takes them; larger ones than the unit can count saturate."""
        return np.clip(np.rint(mean_abs / self.activation_unit), 0, MAX_ACTIVATION).astype(np.uint16)

    def save(self, path: Path) -> None:
        """Write an .npz file. Raises: CompileError SCC075."""
        write_arrays(path, self.arrays)

    @property
    def arrays(self) -> dict[str, Array]:
        """What ``load`` reads."""
        fields = {name: np.asarray(getattr(self, name)) for name in FIELDS if name != "schema"}
        return {"schema": np.array(SCHEMA), **fields}

    @classmethod
    def load(cls, path: Path) -> SensitivityMap:
        """Read an untrusted file. Raises: CompileError (SCC047 not a map, SCC076 no arrays)."""
        arrays = read_arrays(path)
        if set(arrays) != set(FIELDS) or int(_scalar(path, arrays["schema"], "iu")) != SCHEMA:
            raise _unusable(f"{path} is not a sensitivity map of schema {SCHEMA}")
        maps = {"sensitivity": np.uint8, "gradient": np.uint8, "activation": np.uint16}
        shapes = {arrays[name].shape for name in maps}
        if len(shapes) != 1 or any(arrays[name].dtype != dtype for name, dtype in maps.items()):
            raise _unusable(f"{path} has maps of different lengths, or not of u8 and u16")
        block, unit = int(_scalar(path, arrays["block"], "iu")), float(_scalar(path, arrays["activation_unit"], "f"))
        if len(shapes.pop()) != 1 or not arrays["gradient"].size or block < 1 or not 0 < unit < np.inf:
            raise _unusable(f"{path} has an empty map, block or unit")
        sensitivity, gradient = cast(Bytes, arrays["sensitivity"]), cast(Bytes, arrays["gradient"])
        return cls(block, sensitivity, gradient, cast(Counts, arrays["activation"]), unit)


@dataclass
class Moments:
    """Sums over calibration data per neuron: |a|, |g| and |a * g|, where g is the gradient of the loss."""

    samples: int = 0
    abs_a: Averages | float = 0.0
    abs_g: Averages | float = 0.0
    abs_ag: Averages | float = 0.0

    def add(self, a: Array, g: Array | None = None) -> None:
        """One batch: a and its gradient g, both [samples, N]. Without g only activations are counted."""
        wide_a = np.abs(a.astype(np.float64))
        self.samples += len(a)
        self.abs_a = self.abs_a + wide_a.sum(0)
        if g is not None:
            wide_g = np.abs(g.astype(np.float64))
            self.abs_g = self.abs_g + wide_g.sum(0)
            self.abs_ag = self.abs_ag + (wide_a * wide_g).sum(0)


def measured_map(
    moments: Moments, block: int = 1, form: str = "taylor", alpha: float = 1.0, beta: float = 1.0
) -> SensitivityMap:
    """The map of a layer; blocks are means over their neurons, the last one over those it has.

    ``form`` is "taylor" (E|a * g|, first order), "product" (E|a|**alpha * E|g|**beta, as the idea was first written) or
    "activation" (E|a|, no gradients). The gradient part is what times E|a| gives the sensitivity; where E|a| = 0 it is
    E|g|.

    Raises: CompileError SCC047 without samples, or when an average is not finite.
    """
    if not moments.samples:
        raise _unusable("there are no calibration samples")
    sums = (moments.abs_a, moments.abs_g, moments.abs_ag)
    a, g, ag = (np.asarray(part, np.float64) / moments.samples for part in sums)
    if form not in ("taylor", "product", "activation"):
        raise _unusable(f"'{form}' is no form of sensitivity: taylor, product or activation")
    if form != "activation" and not g.shape:
        raise _unusable(f"sensitivity of the form {form} needs gradients, and only activations were measured")
    a = _block_means(a, block)
    if form == "activation":
        s, gradient = a, np.ones_like(a)
    else:
        g = _block_means(g, block)
        s = _block_means(ag, block) if form == "taylor" else a**alpha * g**beta
        gradient = np.divide(s, a, out=g.copy(), where=a > 0)
    if not (np.isfinite(s).all() and np.isfinite(gradient).all()):
        raise _unusable("an average of activations or gradients is not finite")
    unit = float(a.max()) * 4 / MAX_ACTIVATION or 1.0  # averages may grow to four times those of calibration
    measured = SensitivityMap(block, _normalised(s), _normalised(gradient), np.zeros(len(a), np.uint16), unit)
    return replace(measured, activation=measured.in_units(a))


def uniform_map(blocks: int = 1, block: int = 1) -> SensitivityMap:
    """Every neuron matters the same: keys rank by |a| alone."""
    ones: Bytes = np.full(blocks, 255, np.uint8)
    return SensitivityMap(block, ones, ones, np.zeros(blocks, np.uint16), 1.0)


def _block_means(per_neuron: Averages, block: int) -> Averages:
    starts = np.arange(0, len(per_neuron), block)
    counts = np.diff(np.append(starts, len(per_neuron)))
    means: Averages = np.add.reduceat(per_neuron, starts) / counts
    return means


def _normalised(values: Averages) -> Bytes:
    top = values.max()
    return np.rint(values * (255 / top) if top > 0 else values).astype(np.uint8)


def _normalised_integers(products: npt.NDArray[np.int64]) -> Bytes:
    top = max(1, int(products.max()))
    return ((255 * products + top // 2) // top).astype(np.uint8)


def _scalar(path: Path, value: Array, kinds: str) -> Array:
    if value.shape != () or value.dtype.kind not in kinds:
        raise _unusable(f"{path} is not a sensitivity map of schema {SCHEMA}")
    return value


def _unusable(message: str) -> CompileError:
    return CompileError.of("SCC047", message, help="measure the map again from calibration data")
