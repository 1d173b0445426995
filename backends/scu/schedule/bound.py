"""Cycles that no schedule can undercut, whatever it does with memory."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence

from .graph import Problem

NEAREST = 64
"""Tasks that are looked at together before each task: a transfer in chunks, and the stages around it."""


def tails(problem: Problem) -> list[int]:
    """Per task the cycles from its start to the end of the longest path that leads from it."""
    tail = list(problem.cycles)
    for i in range(len(tail) - 1, -1, -1):
        tail[i] += max((tail[j] for j in problem.after[i]), default=0)
    return tail


def heads(cycles: Sequence[int], queue: Sequence[int], before: Sequence[Sequence[int]]) -> list[int]:
    """Per task the cycles that must pass before it can start.

    The longest path that leads to it, or more: what it needs done by one unit is done one after the other.
    """
    head = list[int]()
    for direct in before:
        rest = dict.fromkeys(direct, 0)  # cycles between the end of a task and the start of this one
        nearest = [-j for j in direct]
        heapq.heapify(nearest)
        jobs = defaultdict[int, list[tuple[int, int, int]]](list)
        seen = 0
        while nearest and seen < NEAREST:
            j = -heapq.heappop(nearest)  # all that it leads to on the way here have been seen
            seen += 1
            jobs[queue[j]].append((head[j], cycles[j], cycles[j] + rest[j]))
            for i in before[j]:
                if i not in rest:
                    heapq.heappush(nearest, -i)
                rest[i] = max(rest.get(i, 0), cycles[j] + rest[j])
        head.append(max(map(_one_machine, jobs.values()), default=0))
    return head


def lower_bound(problem: Problem) -> int:
    """The greatest of: the critical path, and per unit the time of its tasks with what comes before and after them."""
    head = heads(problem.cycles, problem.queue, problem.before)
    last = len(head) - 1
    mirrored = heads(
        problem.cycles[::-1],
        problem.queue[::-1],
        [[last - j for j in problem.after[last - i]] for i in range(last + 1)],
    )
    tail = [cycles + rest for cycles, rest in zip(problem.cycles, reversed(mirrored), strict=True)]
    path = max(map(sum, zip(head, tail, strict=True)), default=0)
    jobs = defaultdict[int, list[tuple[int, int, int]]](list)
    for unit, *job in zip(problem.queue, head, problem.cycles, tail, strict=True):
        jobs[unit].append((job[0], job[1], job[2]))
    return max((path, *map(_one_machine, jobs.values())))


def _one_machine(jobs: Iterable[tuple[int, int, int]]) -> int:
    """The least time in which one machine with preemption does jobs of (head, cycles, tail including cycles).

    At any time it works on the available job of the greatest tail.
    Source: Jackson's preemptive schedule; Carlier, The one-machine sequencing problem, EJOR 11 (1982).
    """
    arriving = sorted(jobs, reverse=True)
    waiting = list[tuple[int, int]]()  # (-tail after the job, cycles left)
    time = bound = 0
    while arriving or waiting:
        if not waiting:
            time = max(time, arriving[-1][0])
        while arriving and arriving[-1][0] <= time:
            _, cycles, tail = arriving.pop()
            heapq.heappush(waiting, (cycles - tail, cycles))
        after, left = heapq.heappop(waiting)
        step = min(left, arriving[-1][0] - time) if arriving else left
        time += step
        if step < left:
            heapq.heappush(waiting, (after, left - step))
        else:
            bound = max(bound, time - after)
    return bound
