"""List scheduling on in-order units with memories of limited size. It cannot get stuck.

A schedule is *safe* at a time if everything that has not started could still run one task after the other in a known
order, and fit. A task that needs a place in a memory starts only if that remains so (Dijkstra's banker).
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Sequence

from sparsecc.diagnostics import CompileError

from .graph import Problem

MOST_NAMES = 8
LOOK_AHEAD = 64
"""Tasks of the safe order that may overtake the first one that has not started.

What comes later would only hold memory, and costs a look at all before it. ResNet-56 at 30 % kept, constants as blocks,
979 tasks: 989,421 cycles in 0.06 s; 996,904 with 32, 1,003,803 with 256; without a limit of 2,023 tasks 3.4 s for one
schedule, 0.4 % shorter than with 64.
"""


def check_fits(problem: Problem, names: Sequence[str]) -> None:
    """Does the given order fit in memory, run one task after the other? ``names`` are those of the tasks.

    Raises: CompileError SCC111.
    """
    left = [len(resident.users) for resident in problem.residents]
    alive = dict[int, None]()
    for i, touched in enumerate(problem.touches):
        alive.update(dict.fromkeys(touched))
        for memory in {problem.residents[r].memory for r in touched}:
            there = [problem.residents[r] for r in alive if problem.residents[r].memory == memory]
            needed_bytes, room = sum(resident.bytes for resident in there), problem.room[memory]
            if needed_bytes > room:
                largest = sorted(there, key=lambda resident: -resident.bytes)
                shown = ", ".join(f"{r.name} ({r.bytes} B)" for r in largest[:MOST_NAMES])
                more = f" and {len(there) - MOST_NAMES} smaller ones" if len(there) > MOST_NAMES else ""
                raise no_room(
                    f"at {names[i]}, memory {memory} has to hold {needed_bytes} B at once and has {room} B for it: "
                    + shown
                    + more,
                    memory,
                )
        for r in touched:
            left[r] -= 1
            if not left[r]:
                del alive[r]


def no_room(message: str, memory: str) -> CompileError:
    return CompileError.of(
        "SCC111",
        message,
        help=f"give memory.{memory} more bytes in a target file (--target-file), or compile a smaller model",
    )


def list_schedule(problem: Problem, order: Sequence[int], safe: Sequence[int], in_order: bool) -> list[int]:
    """Start of every task, in cycles: whenever a unit is free, it takes the first task of ``order`` that may start.

    ``safe``: an order that fits in memory one task after the other. ``in_order``: units never overtake ``order``.
    """
    return _Run(problem, order, safe, in_order).start


class _Run:
    def __init__(self, problem: Problem, order: Sequence[int], safe: Sequence[int], in_order: bool) -> None:
        self.problem, self.safe = problem, safe
        self.place = {task: place for place, task in enumerate(safe)}
        self.start = [-1] * len(problem.cycles)
        self.running = list[tuple[int, int]]()  # (end, task)
        self.left = [len(resident.users) for resident in problem.residents]  # users that have not ended
        self.live = [False] * len(problem.residents)
        self.used = dict.fromkeys(problem.room, 0)
        self.first, self.furthest = 0, -1  # in `safe`: everything before first has started, nothing after furthest
        self.peak = peaks(problem, safe)
        self._simulate(order, in_order)

    def _simulate(self, order: Sequence[int], in_order: bool) -> None:
        p = self.problem
        rank = {task: number for number, task in enumerate(order)}
        missing = [len(before) for before in p.before]
        ranks = {unit: [n for n, i in enumerate(order) if p.queue[i] == unit] for unit in sorted(set(p.queue))}
        ready = {unit: [n for n in numbers if not missing[order[n]]] for unit, numbers in ranks.items()}
        turns = {unit: iter(numbers) for unit, numbers in ranks.items()}
        turn = {unit: next(numbers) for unit, numbers in turns.items()}
        busy, time = set[int](), 0
        while True:
            for unit, waiting in ready.items():
                if unit in busy:
                    continue
                allowed = [turn[unit]] if in_order and turn[unit] in waiting else [] if in_order else waiting
                number = next((n for n in allowed if self._may_start(order[n])), None)
                if number is not None:
                    waiting.remove(number)
                    busy.add(unit)
                    turn[unit] = next(turns[unit], -1)
                    self._begin(order[number], time)
            if not self.running:
                return
            time = self.running[0][0]
            while self.running and self.running[0][0] == time:
                _, task = heapq.heappop(self.running)
                busy.discard(p.queue[task])
                self._end(task)
                for j in p.after[task]:
                    missing[j] -= 1
                    if not missing[j]:
                        insort(ready[p.queue[j]], rank[j])

    def _begin(self, task: int, time: int) -> None:
        p = self.problem
        self.start[task] = time
        heapq.heappush(self.running, (time + p.cycles[task], task))
        self.furthest = max(self.furthest, self.place[task])
        while self.first < len(self.safe) and self.start[self.safe[self.first]] >= 0:
            self.first += 1
        for r in p.touches[task]:
            if not self.live[r]:
                self.live[r] = True
                self.used[p.residents[r].memory] += p.residents[r].bytes

    def _end(self, task: int) -> None:
        for r in self.problem.touches[task]:
            self.left[r] -= 1
            if not self.left[r]:
                self.used[self.problem.residents[r].memory] -= self.problem.residents[r].bytes

    def _may_start(self, task: int) -> bool:
        """Is there room, and would the rest still be safe?"""
        p = self.problem
        if self.place[task] - self.first > LOOK_AHEAD:
            return False
        used, fresh = dict(self.used), [r for r in p.touches[task] if not self.live[r]]
        for r in fresh:
            used[p.residents[r].memory] += p.residents[r].bytes
        memories = {p.residents[r].memory for r in fresh}
        if any(used[memory] > p.room[memory] for memory in memories):
            return False
        return all(used[memory] + self.peak[memory] <= p.room[memory] for memory in memories) or self._safe(task, used)

    def _safe(self, task: int, used: dict[str, int]) -> bool:
        """Once what runs has ended, do the tasks that have not started fit one after the other?

        Beyond the furthest task that has started, memory holds what it holds in the safe order itself.
        """
        p, residents = self.problem, self.problem.residents
        left, live = dict[int, int](), set(p.touches[task])

        def end(i: int) -> None:
            for r in p.touches[i]:
                left[r] = left.get(r, self.left[r]) - 1
                if not left[r]:
                    used[residents[r].memory] -= residents[r].bytes

        for i in (task, *(other for _, other in self.running)):
            end(i)
        for place in range(self.first, max(self.furthest, self.place[task]) + 1):
            i = self.safe[place]
            if self.start[i] >= 0 or i == task:
                continue
            for r in p.touches[i]:
                if not self.live[r] and r not in live:
                    live.add(r)
                    used[residents[r].memory] += residents[r].bytes
                    if used[residents[r].memory] > p.room[residents[r].memory]:
                        return False
            end(i)
        return True


def peaks(problem: Problem, order: Sequence[int]) -> dict[str, int]:
    """Per memory the most bytes alive at once, run one task after the other."""
    used, peak = dict.fromkeys(problem.room, 0), dict.fromkeys(problem.room, 0)
    left = [len(resident.users) for resident in problem.residents]
    for i in order:
        for r in problem.touches[i]:
            resident = problem.residents[r]
            if left[r] == len(resident.users):
                used[resident.memory] += resident.bytes
                peak[resident.memory] = max(peak[resident.memory], used[resident.memory])
        for r in problem.touches[i]:
            left[r] -= 1
            if not left[r]:
                used[problem.residents[r].memory] -= problem.residents[r].bytes
    return peak
