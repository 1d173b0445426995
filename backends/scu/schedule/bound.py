"""Cycles that no schedule can undercut, whatever it does with memory."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from .graph import Problem


def heads(problem: Problem) -> list[int]:
    """Per task the cycles that pass before it can start: the longest path that leads to it."""
    head = [0] * len(problem.cycles)
    for i, before in enumerate(problem.before):
        head[i] = max((head[j] + problem.cycles[j] for j in before), default=0)
    return head


def tails(problem: Problem) -> list[int]:
    """Per task the cycles from its start to the end of the longest path that leads from it."""
    tail = list(problem.cycles)
    for i in range(len(tail) - 1, -1, -1):
        tail[i] += max((tail[j] for j in problem.after[i]), default=0)
    return tail


def lower_bound(problem: Problem) -> int:
    """The greatest of: the critical path, and per unit the time of its tasks with what comes before and after them."""
    head, tail = heads(problem), tails(problem)
    path = max(map(sum, zip(head, tail, strict=True)), default=0)
    units = ([i for i, q in enumerate(problem.queue) if q == unit] for unit in set(problem.queue))
    return max((path, *(_one_machine((head[i], problem.cycles[i], tail[i]) for i in unit) for unit in units)))


def _one_machine(jobs: Iterable[tuple[int, int, int]]) -> int:
    """The least time in which one machine with preemption does jobs of (head, cycles, tail including cycles).

    At any time it works on the available job of the greatest tail.
    Source: Jackson's preemptive schedule; Carlier, The one-machine sequencing problem, EJOR 11 (1982).
    """
    arriving = sorted(jobs)
    waiting = list[tuple[int, int]]()  # (-tail after the job, cycles left)
    time = bound = 0
    while arriving or waiting:
        if not waiting:
            time = max(time, arriving[0][0])
        while arriving and arriving[0][0] <= time:
            _, cycles, tail = arriving.pop(0)
            heapq.heappush(waiting, (cycles - tail, cycles))
        after, left = heapq.heappop(waiting)
        step = min(left, arriving[0][0] - time) if arriving else left
        time += step
        if step < left:
            heapq.heappush(waiting, (after, left - step))
        else:
            bound = max(bound, time - after)
    return bound
