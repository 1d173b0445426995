"""What the unit keeps between descriptors beside its memories: contract registers, the map's averages. Normative.

Contract registers lie in memory config as RECORD. A SEND with REGISTER takes k from one for each tile, never more than
the descriptor's own k. While ``period`` is not 0 the register also counts, over its tiles, the key mass of what the
selector kept and of all elements (before SKIP_ZERO). After every ``period`` tiles, also within one descriptor,

    share = floor(65536 * kept / total), and, unless total = 0,
    share > margin_hi:  k = max(k_lo, k - step)        step = max(1, floor((k_hi - k_lo) / 16))
    share < margin_lo:  k = min(k_hi, k + step)

and both masses start again from 0. CONTRACT sets all fields and both masses; writing to memory config changes the
fields only.

The map: an entry that is loaded, by section SMAP or SMAP_LOAD, is also the gradient part of its block, and its average
becomes 0. SMAP_UPD makes of a block's elements the average ``new``: each |x - zero point|, |x| of floats, as
floor(256 * it), at most 65535 (so is NaN), then the floor of the mean. Then, as SensitivityMap.updated with
rate_shift 3 over the entries that the descriptor covers, it renews averages and entries; the greatest entry is 255.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecc.backends.scu.machine import Target
from sparsecc.backends.scu.unit_program import Contract
from sparsecc.contracts.maps import SensitivityMap
from sparsecc.contracts.topk import moved_k

from .memory import Bytes, Memories

RECORD: np.dtype[Any] = np.dtype(
    [
        ("k", "<u2"),
        ("k_lo", "<u2"),
        ("k_hi", "<u2"),
        ("period", "<u2"),
        ("margin_lo", "<u2"),
        ("margin_hi", "<u2"),
        ("reserved", "<u4"),
    ]
)
UNIT = 256  # an average of 1
MAX_AVERAGE = 65_535


@dataclass
class _Mass:
    tiles: int = 0
    kept: int = 0
    total: int = 0


class ContractRegisters:
    def __init__(self, memories: Memories, target: Target) -> None:
        count = target.command.contracts
        self._records = memories.registers(target, "contracts", RECORD, count)
        self._mass = [_Mass() for _ in range(count)]

    def load(self, register: int, contract: Contract) -> None:
        self._records[register] = (*astuple(contract), 0)
        self._mass[register] = _Mass()

    def k(self, register: int) -> int:
        return int(self._records[register]["k"])

    def tiles_left(self, register: int, most: int) -> int:
        """Tiles, at most ``most``, for which k stays as it is."""
        period = int(self._records[register]["period"])
        return min(most, max(1, period - self._mass[register].tiles)) if period else most

    def account(self, register: int, tiles: int, kept_mass: int, total_mass: int) -> None:
        """After ``tiles`` that ``tiles_left`` allowed: their masses, and at the end of a period the new k."""
        record, mass = self._records[register], self._mass[register]
        k, lo, hi, period, margin_lo, margin_hi, _ = record.tolist()
        if not period:
            return
        mass.tiles += tiles
        mass.kept += kept_mass
        mass.total += total_mass
        if mass.tiles < period:
            return
        record["k"] = moved_k(k, (lo, hi), (margin_lo, margin_hi), mass.kept, mass.total)
        self._mass[register] = _Mass()


class MapAverages:
    """The gradient part and the average of each entry of the map."""

    def __init__(self, smap: Bytes) -> None:
        self._smap = smap
        self._gradient = smap.copy()
        self._average = np.zeros(len(smap), np.uint16)

    def load(self, first: int, entries: Bytes) -> None:
        span = slice(first, first + len(entries))
        self._smap[span] = entries
        self._gradient[span] = entries
        self._average[span] = 0

    def values(self) -> bytes:
        return self._average.astype("<u2").tobytes()

    def update(self, first: int, block: int, distances: npt.NDArray[np.float64]) -> None:
        """``distances`` are |x - zero point| in traversal order, exact; NaN counts as the greatest."""
        fixed = np.fmin(np.floor(distances * UNIT), MAX_AVERAGE)
        starts = np.arange(0, len(fixed), block)
        counts = np.diff(starts, append=len(fixed))
        means = np.add.reduceat(fixed.astype(np.int64), starts) // counts
        span = slice(first, first + len(starts))
        old = SensitivityMap(block, self._smap[span], self._gradient[span], self._average[span], 1 / UNIT)
        new = old.updated(means.astype(np.uint16))
        self._smap[span] = new.sensitivity
        self._average[span] = new.activation
