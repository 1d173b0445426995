"""Settlements under budgets that only a run or a schedule can check: the range of costs is halved until one fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sparsecc.diagnostics import CompileError
from sparsecc.progress import track

from .joint import Joint
from .settlement import Terms, settle
from .topk import WHOLE

Shares = dict[str, int]
BISECTIONS = 7  # the cost is known to 1/128 of its range


def within_drop(drop: float, terms: Mapping[str, Terms], joint: Joint) -> Shares:
    """The cheapest settlement found whose joint drop of quality is small enough.

    Raises: CompileError SCC059.
    """
    best = {name: t.hi_q16 for name, t in terms.items()}
    if (reached := joint.drop(best)) > drop:
        raise CompileError.of(
            "SCC059",
            f"on held-out data the greatest shares that senders and receivers agree on lose {reached:.4f} of "
            f"{joint.dense.value:.4f}, more than the {drop:.4f} allowed",
            help="allow a greater drop, or give buffers and links more room in the target file",
        )
    least, most = _range(terms)
    for _ in track("settle-contracts", range(BISECTIONS)):
        middle = (least + most) // 2
        shares = settle(terms, middle)
        if shares is not None and joint.drop(shares) <= drop:
            best, most = shares, middle
        else:
            least = middle
    return best


def within_cycles(share: float, terms: Mapping[str, Terms], makespan: Callable[[Mapping[str, int]], int]) -> Shares:
    """The settlement found that sends most, of those whose schedule takes no more than ``share`` of everything's.

    ``makespan``: cycles of the schedule under these shares. Raises: CompileError SCC059.
    """
    best, greatest = {n: t.lo_q16 for n, t in terms.items()}, {n: t.hi_q16 for n, t in terms.items()}
    dense = makespan(dict.fromkeys(terms, WHOLE))
    allowed = int(share * dense)
    if makespan(greatest) <= allowed:
        return greatest
    if (reached := makespan(best)) > allowed:
        raise CompileError.of(
            "SCC059",
            f"the program may take {allowed} cycles, but with what every receiver needs at least it takes {reached}, "
            f"and {dense} if everything is sent",
            help=f"give --cycles-budget {reached / dense + 0.0005:.3f} or more, or a faster link in the target file",
        )
    least, most = _range(terms)
    for _ in track("settle-contracts", range(BISECTIONS)):
        middle = (least + most) // 2
        shares = settle(terms, middle)
        if shares is not None and makespan(shares) <= allowed:
            best, least = shares, middle
        else:
            most = middle
    return best


def _range(terms: Mapping[str, Terms]) -> tuple[int, int]:
    """The cost of the least and of the greatest shares."""
    return sum(t.cost(t.lo_q16) for t in terms.values()), sum(t.cost(t.hi_q16) for t in terms.values())
