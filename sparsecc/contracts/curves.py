"""Degradation curves: made monotone, made convex, and read between their points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Curve:
    """What an edge loses at each share: ``shares`` in 1/65536 ascend to 65536, ``losses`` descend to 0."""

    shares: tuple[int, ...]
    losses: tuple[float, ...]

    def at(self, share_q16: int) -> float:
        """Between points linear; below the first its value."""
        return float(np.interp(share_q16, self.shares, self.losses))


def isotonic(values: Sequence[float]) -> list[float]:
    """The non-increasing sequence nearest in least squares: pool adjacent violators.

    Source: Barlow, Bartholomew, Bremner, Brunk, "Statistical inference under order restrictions", 1972.
    """
    pools = list[tuple[float, int]]()  # mean, members
    for value in values:
        mean, members = value, 1
        while pools and pools[-1][0] < mean:
            before, n = pools.pop()
            mean, members = (before * n + mean * members) / (n + members), n + members
        pools.append((mean, members))
    return [mean for mean, members in pools for _ in range(members)]


def lower_hull(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of the points (x strictly ascending) are corners of the lower convex hull (Andrew's monotone chain)."""
    hull = list[int]()
    for i, (x, y) in enumerate(points):
        while len(hull) > 1:
            (x0, y0), (x1, y1) = points[hull[-2]], points[hull[-1]]
            if (y1 - y0) * (x - x0) < (y - y0) * (x1 - x0):
                break
            hull.pop()
        hull.append(i)
    return hull
