"""Curves and the greedy settlement, against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecc.contracts import WHOLE
from sparsecc.contracts.curves import Curve, isotonic, lower_hull
from sparsecc.contracts.settlement import Terms, settle, total_cost

LOSSES = st.lists(st.floats(0, 100, width=32), min_size=1, max_size=12)


@given(LOSSES)
def test_isotonic_descends_and_keeps_the_mean(values: list[float]) -> None:
    fitted = isotonic(values)
    assert all(a >= b for a, b in itertools.pairwise(fitted))
    assert sum(fitted) == pytest.approx(sum(values))
    assert isotonic(fitted) == pytest.approx(fitted)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_isotonic_is_the_nearest(values: list[int]) -> None:
    """Against all non-increasing sequences whose levels are means of runs, of which the solution is one."""
    levels = sorted({float(np.mean(values[i:j])) for i in range(len(values)) for j in range(i + 1, len(values) + 1)})
    falling = itertools.combinations_with_replacement(levels[::-1], len(values))
    best = min(sum((v - f) ** 2 for v, f in zip(values, fit, strict=True)) for fit in falling)
    assert sum((v - f) ** 2 for v, f in zip(values, isotonic(values), strict=True)) == pytest.approx(best, abs=1e-9)


@given(LOSSES)
def test_the_hull_is_convex_and_below_every_point(losses: list[float]) -> None:
    points = [(float(x), y) for x, y in enumerate(losses)]
    corners = [points[i] for i in lower_hull(points)]
    assert corners[0] == points[0]
    assert corners[-1] == points[-1]
    slopes = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in itertools.pairwise(corners)]
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(slopes))
    below = np.interp([x for x, _ in points], [x for x, _ in corners], [y for _, y in corners])
    assert (below <= np.array(losses) + 1e-9).all()


def test_settled_as_by_exhaustive_search() -> None:
    """Three convex curves with corners a unit of cost apart: greedy is optimal at every whole budget."""
    unit = WHOLE // 8
    shares = tuple(unit * n for n in range(9))
    shapes = {"a": 1.0, "b": 3.0, "c": 0.4}
    curves = {
        edge: Curve(shares, tuple(height * (1 - n / 8) ** 2 for n in range(9))) for edge, height in shapes.items()
    }
    terms = {edge: Terms(curve, lambda share: share, 0, WHOLE) for edge, curve in curves.items()}
    for budget in range(0, 25 * unit, unit):
        settled = settle(terms, budget)
        assert settled is not None
        assert total_cost(terms, settled) <= budget
        best = min(
            sum(curves[edge].at(share) for edge, share in zip(shapes, choice, strict=True))
            for choice in itertools.product(shares, repeat=3)
            if sum(choice) <= budget
        )
        assert sum(curves[edge].at(share) for edge, share in settled.items()) == pytest.approx(best)


@st.composite
def random_terms(draw: st.DrawFn) -> Terms:
    """With costs that jump, as of codecs that pad."""
    shares = (*sorted(draw(st.sets(st.integers(1, WHOLE - 1), min_size=1, max_size=6))), WHOLE)
    losses = isotonic(draw(st.lists(st.floats(0, 10), min_size=len(shares), max_size=len(shares))))
    lo, hi = sorted(draw(st.tuples(st.integers(0, WHOLE), st.integers(0, WHOLE))))
    scale, unit = draw(st.integers(0, 5000)), draw(st.integers(1, 512))
    return Terms(Curve(shares, tuple(losses)), lambda share: -(-(scale * share // WHOLE) // unit) * unit + 16, lo, hi)


@given(st.lists(random_terms(), min_size=1, max_size=4), st.integers(0, 20_000))
def test_the_budget_is_never_exceeded(parts: list[Terms], budget: int) -> None:
    terms = {str(n): part for n, part in enumerate(parts)}
    least = sum(t.cost(t.lo_q16) for t in parts)
    shares = settle(terms, budget)
    assert (shares is None) == (least > budget)
    if shares is not None:
        assert total_cost(terms, shares) <= budget
        assert all(t.lo_q16 <= shares[edge] <= t.hi_q16 for edge, t in terms.items())
