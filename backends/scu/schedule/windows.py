"""Improvement of a schedule, window by window: CP-SAT finds better orders for up to MOST_TASKS tasks at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ortools.sat.python import cp_model

from .allocate import deterministic_solver
from .graph import Problem
from .lists import list_schedule

MOST_TASKS = 60
"""Source: scu.md; CP-SAT alone was worse than a list schedule on 588 tasks, and optimal in a second on 52."""
WINDOW_SECONDS = 1.0
"""Deterministic. Most windows are decided well before."""


def makespan_of(problem: Problem, start: Sequence[int]) -> int:
    return max((s + c for s, c in zip(start, problem.cycles, strict=True)), default=0)


def improve(problem: Problem, start: list[int], bound: int, seconds: float) -> tuple[list[int], int]:
    """A schedule no longer than ``start``, and a lower bound on any: greater than ``bound`` if one window proved it.

    ``seconds`` limits the search, in CP-SAT's deterministic time: equal calls have equal results.
    """
    best, proven, left = makespan_of(problem, start), bound, seconds
    number = len(start)
    whole = number <= MOST_TASKS
    progress = True
    while progress and best > proven and left > 0:
        progress = False
        for first in range(0, max(1, number - MOST_TASKS // 2), MOST_TASKS // 2):
            if best <= proven or left <= 0:
                break
            order = sorted(range(number), key=lambda i: (start[i], i))
            window = _Window(problem, start, order, first, proven)
            limit = min(left, seconds if whole else WINDOW_SECONDS)
            found, floor, spent = window.solve(best, limit)
            left -= max(spent, 0.001)
            if whole:
                proven = max(proven, min(floor, best))
            if found is None:
                continue
            order.sort(key=list(zip(found, range(number), strict=True)).__getitem__)
            candidate = list_schedule(problem, order, order, in_order=True)
            if makespan_of(problem, candidate) < best:
                start, best, progress = candidate, makespan_of(problem, candidate), True
        if whole:
            break
    return start, min(proven, best)


@dataclass
class _Window:
    """Tasks ``order[first:first + MOST_TASKS]`` are free; those before keep their starts, those after their order."""

    problem: Problem
    start: Sequence[int]
    order: Sequence[int]
    first: int
    bound: int

    def solve(self, best: int, seconds: float) -> tuple[list[int] | None, int, float]:
        """Starts that should make the whole shorter than ``best``, a floor for it, and the deterministic time spent.

        Tasks after the window only get an order, the one they have: their starts are not an answer.
        """
        p, start = self.problem, self.start
        end = self.first + MOST_TASKS
        past, inside, later = self.order[: self.first], self.order[self.first : end], self.order[end:]
        base = start[inside[0]]
        model = cp_model.CpModel()
        free = {i: model.new_int_var(base, best, "") for i in inside}
        released = dict.fromkeys(p.queue, base)
        for i in past:
            released[p.queue[i]] = max(released[p.queue[i]], start[i] + p.cycles[i])
        tail = self._tails(later)
        makespan = model.new_int_var(self.bound, best - 1, "")
        for i in inside:
            for j in p.before[i]:
                model.add(free[i] >= (free[j] if j in free else start[j]) + p.cycles[j])
            model.add(free[i] >= released[p.queue[i]])
            model.add(free[i] + p.cycles[i] + tail[i] <= makespan)
            model.add_hint(free[i], start[i])
        for unit in set(p.queue):
            tasks = [model.new_fixed_size_interval_var(free[i], p.cycles[i], "") for i in inside if p.queue[i] == unit]
            model.add_no_overlap(tasks)
        self._memory(model, free, set(past), set(later), best)
        model.minimize(makespan)
        solver = deterministic_solver(seconds)
        status = solver.solve(model)
        spent = solver.response_proto.deterministic_time
        if status == cp_model.INFEASIBLE:
            return None, best, spent
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None, int(solver.best_objective_bound), spent
        found = list(start)
        for i in later:
            found[i] += best  # they come after it, in their order
        for i, variable in free.items():
            found[i] = solver.value(variable)
        return found, int(solver.best_objective_bound), spent

    def _tails(self, later: Sequence[int]) -> dict[int, int]:
        """Cycles that must follow the end of each task inside, with the order of the later ones as it is."""
        p = self.problem
        rest = dict[int, int]()  # from the start of a later task
        following = dict[int, int]()  # per unit, of its first later task so far
        for i in reversed(later):
            rest[i] = p.cycles[i] + max((following.get(p.queue[i], 0), *(rest[j] for j in p.after[i])))
            following[p.queue[i]] = rest[i]
        return {
            i: max((following.get(p.queue[i], 0), *(rest.get(j, 0) for j in p.after[i])))
            for i in self.order[self.first : self.first + MOST_TASKS]
        }

    def _memory(
        self,
        model: cp_model.CpModel,
        free: dict[int, cp_model.IntVar],
        past: set[int],
        later: set[int],
        horizon: int,
    ) -> None:
        """What lives in the window fits at any time; what later tasks use lives to its end."""
        p, start = self.problem, self.start
        base = min(start[i] for i in free)
        found = defaultdict[str, list[tuple[int, cp_model.IntervalVar]]](list)
        for resident in p.residents:
            before = [i for i in resident.users if i in past]
            inside = [i for i in resident.users if i in free]
            after = any(i in later for i in resident.users)
            ended = max((start[i] + p.cycles[i] for i in before), default=0)
            if not inside and (not before or (not after and ended <= base)):
                continue
            first = model.new_int_var(base, horizon, "")
            last = model.new_int_var(max(base, ended), horizon, "")
            if before:
                model.add(first == base)
            for i in inside:
                model.add(first <= free[i])
                model.add(last >= free[i] + p.cycles[i])
            if after:
                model.add(last == horizon)
            length = model.new_int_var(0, horizon, "")
            found[resident.memory].append((resident.bytes, model.new_interval_var(first, length, last, "")))
        for memory, alive in found.items():
            if sum(size for size, _ in alive) > p.room[memory]:
                model.add_cumulative([span for _, span in alive], [size for size, _ in alive], p.room[memory])
