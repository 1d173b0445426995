"""The global settlement: the shares that lose least in sum within a budget of cost, by greedy marginal gain.

Between neighbouring points an edge's cost and loss are taken as linear in its share when gains are compared; the cost
of what is settled is exact. On the convex hulls of the curves the greedy order is optimal up to the last step taken.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .curves import Curve, lower_hull

Cost = Callable[[int], int]
"""Of a share in 1/65536: bytes on the link or cycles. Never falls as the share rises."""


@dataclass(frozen=True)
class Terms:
    """What one edge brings to the settlement; shares are within [lo_q16, hi_q16]."""

    curve: Curve
    cost: Cost
    lo_q16: int
    hi_q16: int


def settle(terms: Mapping[str, Terms], budget: int) -> dict[str, int] | None:
    """The share of every edge; None where even the least shares cost more than the budget."""
    shares = {edge: t.lo_q16 for edge, t in terms.items()}
    left = budget - sum(t.cost(t.lo_q16) for t in terms.values())
    if left < 0:
        return None
    steps = [(gain, edge, target) for edge, t in terms.items() for gain, target in _steps(t)]
    stopped = set[str]()
    for _, edge, target in sorted(steps, key=lambda step: -step[0]):
        if edge in stopped:  # its steps are to be taken in order
            continue
        cost, paid = terms[edge].cost, terms[edge].cost(shares[edge])
        if cost(target) - paid > left:
            stopped.add(edge)
            target = _most(cost, shares[edge], target, paid + left)
        left -= cost(target) - paid
        shares[edge] = target
    return shares


def total_cost(terms: Mapping[str, Terms], shares: Mapping[str, int]) -> int:
    return sum(t.cost(shares[edge]) for edge, t in terms.items())


def _steps(t: Terms) -> list[tuple[float, int]]:
    """From corner to corner of the hull of loss over cost: (loss avoided per unit of cost, share reached)."""
    shares = [t.lo_q16, *(s for s in t.curve.shares if t.lo_q16 < s < t.hi_q16), t.hi_q16]
    least = dict[int, int]()  # the greatest share that a cost pays for
    for share in shares:
        least[t.cost(share)] = share
    points = [(float(cost), t.curve.at(share)) for cost, share in least.items()]
    corners = [(*points[i], list(least.values())[i]) for i in lower_hull(points)]
    return [((y0 - y) / (x - x0), share) for (x0, y0, _), (x, y, share) in itertools.pairwise(corners)]


def _most(cost: Cost, lo: int, hi: int, budget: int) -> int:
    """The greatest share in [lo, hi) that the budget pays for; lo is one."""
    return lo + bisect_right(range(lo + 1, hi), budget, key=cost)
