"""Exact top-k per tile: the first k under (key descending, place in the tile ascending). Normative.

A tile is ``tile_elems`` consecutive elements of one sample in row-major order; the last one may be shorter, and its k
comes from its own length.

k may move: then a sample begins with the k of ``Moves.start_q16``, and after every ``period`` whole tiles ``moved_k``
decides by the share of the key mass that they kept. A short last tile keeps what it does at ``hi_q16`` and moves
nothing.

Letters: R samples, N elements of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .keys import Array, Keys

Mask = npt.NDArray[np.bool_]
Selector = Callable[[Keys, int], Mask]

WHOLE = 65_536
"""The share that keeps everything. Shares are counted in 1/65536."""
MAX_TILE_ELEMS = 65_535
"""A descriptor's tile length has 16 bits; so has the place in ``_ranks``."""
STEPS = 16
"""Moves that take k from one end of its range to the other, unless the range is shorter."""


@dataclass(frozen=True)
class Moves:
    """How the k of whole tiles moves within a sample: shares and margins in 1/65536, ``period`` in tiles."""

    start_q16: int
    lo_q16: int
    hi_q16: int
    period: int
    margin_lo_q16: int
    margin_hi_q16: int


def keep_elems(elems: int, share_q16: int) -> int:
    """k of a tile of ``elems``: floor(elems * share / 65536), at least 1 unless the share or the tile is empty."""
    return max(elems * share_q16 >> 16, min(share_q16, elems, 1))


def tiles(elems: int, tile_elems: int) -> Iterator[slice]:
    """The tiles of a traversal, in order."""
    for start in range(0, elems, tile_elems):
        yield slice(start, min(start + tile_elems, elems))


def first_k(keys: Keys, k: int) -> Mask:
    """The k elements to keep of each tile in keys [..., n], keys in 0..65535, n <= 65535: bool [..., n].

    Linear in n: ranks are distinct, so exactly k of them reach the k-th greatest.
    """
    n = keys.shape[-1]
    if k == 0 or keys.size == 0:
        return np.zeros(keys.shape, np.bool_)
    ranks = _ranks(keys)
    threshold = np.partition(ranks, n - k, axis=-1)[..., n - k, None]
    kept: Mask = ranks >= threshold
    return kept


def first_k_reference(keys: Keys, k: int) -> Mask:
    """``first_k`` as the specification writes it."""
    elems: int = keys.shape[-1]
    mask = np.zeros(keys.shape, np.bool_)
    for tile in np.ndindex(keys.shape[:-1]):
        order = np.lexsort((np.arange(elems), -keys[tile].astype(np.int64)))
        mask[tile][order[:k]] = True
    return mask


def select(keys: Keys, share_q16: int, tile_elems: int, selector: Selector = first_k) -> Mask:
    """What each tile of keys [R, N] keeps: bool [R, N]."""
    rows, elems = keys.shape
    width = max(1, min(tile_elems, elems))
    whole = elems // width * width
    mask = np.empty(keys.shape, np.bool_)
    tiled = keys[:, :whole].reshape(rows, whole // width, width)
    mask[:, :whole] = selector(tiled, keep_elems(width, share_q16)).reshape(rows, whole)
    mask[:, whole:] = selector(keys[:, whole:], keep_elems(elems - whole, share_q16))
    return mask


def moved_k(k: int, ends: tuple[int, int], margins_q16: tuple[int, int], kept_mass: int, total_mass: int) -> int:
    """The k that follows a period in which ``kept_mass`` of ``total_mass`` was kept; both ends are k's."""
    lo, hi = ends
    if not total_mass:
        return k
    share, step = WHOLE * kept_mass // total_mass, max(1, (hi - lo) // STEPS)
    if share > margins_q16[1]:
        return max(lo, k - step)
    return min(hi, k + step) if share < margins_q16[0] else k


def select_moving(keys: Keys, moves: Moves, tile_elems: int, selector: Selector = first_k) -> Mask:
    """``select`` with a k that moves: what each tile of keys [R, N] keeps, bool [R, N]."""
    elems = keys.shape[1]
    width = max(1, min(tile_elems, elems))
    mask = np.empty(keys.shape, np.bool_)
    ends = keep_elems(width, moves.lo_q16), keep_elems(width, moves.hi_q16)
    for row, kept in zip(keys, mask, strict=True):
        k, seen, kept_mass, total_mass = keep_elems(width, moves.start_q16), 0, 0, 0
        for tile in tiles(elems, tile_elems):
            if tile.stop - tile.start < width:
                kept[tile] = selector(row[tile], keep_elems(tile.stop - tile.start, moves.hi_q16))
                continue
            kept[tile] = selector(row[tile], k)
            kept_mass += int(row[tile].sum(where=kept[tile], dtype=np.int64))
            total_mass += int(row[tile].sum(dtype=np.int64))
            seen += 1
            if seen == moves.period:
                k = moved_k(k, ends, (moves.margin_lo_q16, moves.margin_hi_q16), kept_mass, total_mass)
                seen = kept_mass = total_mass = 0
    return mask


def fill_dropped(x: Array, kept: Mask, fill: Array, skip_zero: bool) -> tuple[Array, Mask]:
    """x where it is kept and sent, ``fill`` elsewhere; and the mask of what is sent.

    ``skip_zero`` also leaves out kept elements that equal the fill; -0 equals 0, so it arrives as 0.
    """
    with np.errstate(invalid="ignore"):  # comparing a signalling NaN of bfloat16 warns
        sent: Mask = kept & (x != fill) if skip_zero else kept
    values: npt.NDArray[Any] = np.where(sent, x, fill)
    return values, sent


def _ranks(keys: Keys) -> npt.NDArray[np.uint32]:
    """Key and place in one number, so that the total order is the order of integers."""
    elems: int = keys.shape[-1]
    from_end = (0xFFFF - np.arange(elems)).astype(np.uint32)
    ranks: npt.NDArray[np.uint32] = (keys.astype(np.uint32) << np.uint32(16)) | from_end
    return ranks
