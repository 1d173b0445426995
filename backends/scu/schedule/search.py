"""From tasks to a Schedule: list schedules, windows, and a place for every buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

from sparsecc.backends.scu.descriptor import Queue
from sparsecc.backends.scu.machine import Target
from sparsecc.backends.scu.tasks import Task, TaskGraph

from .allocate import blocks, pack
from .bound import lower_bound, tails
from .graph import Problem, Schedule, fixed, lines_bytes, problem_of
from .lists import check_fits, list_schedule, no_room, peaks
from .windows import improve, makespan_of

STEPS = 16
"""In so many steps a memory shrinks to what the given order needs, until its buffers find places."""


def schedule(graph: TaskGraph, target: Target, cycles: Callable[[Task], int], seconds: float = 20) -> Schedule:
    """When every task starts and where every buffer lies.

    ``cycles``: how long a task holds its unit; less than 1 counts as 1. ``seconds`` limits the search, in CP-SAT's
    deterministic time (about as long as a second): equal calls have equal results.
    Raises: CompileError SCC111 if the buffers do not fit; ValueError for a graph that contradicts itself.
    """
    problem = problem_of(graph, target, cycles)
    names = [task.name for task in graph.tasks]
    check_fits(problem, names)
    start, bound, method = _shortest(problem, seconds)
    offsets, crowded = _places(graph, problem, start, target)
    if crowded:
        start, offsets, method = _serialised(graph, problem, target, crowded, seconds)
    return Schedule(
        start={name: start[i] for i, name in enumerate(names)},
        queues={
            unit: tuple(names[i] for i in sorted(range(len(names)), key=lambda i: start[i]) if problem.queue[i] == unit)
            for unit in Queue
        },
        offsets={problem.residents[r].name: offset for r, offset in offsets.items()},
        makespan=makespan_of(problem, start),
        lower_bound=bound,
        method=method,
    )


def listed(problem: Problem) -> tuple[list[int], str]:
    """Starts of the shortest list schedule, and which one it is; for a problem that ``check_fits`` accepts."""
    given = list(range(len(problem.cycles)))
    tail = tails(problem)
    urgent = sorted(given, key=lambda i: -tail[i])
    candidates = {
        "list, longest path first": list_schedule(problem, urgent, given, in_order=False),
        "list, given order": list_schedule(problem, given, given, in_order=False),
        "given order": list_schedule(problem, given, given, in_order=True),
    }
    method = min(candidates, key=lambda name: makespan_of(problem, candidates[name]))
    return candidates[method], method


def _shortest(problem: Problem, seconds: float) -> tuple[list[int], int, str]:
    """Starts, a lower bound on the makespan, and what found them."""
    draft, method = listed(problem)
    start, bound = improve(problem, draft, lower_bound(problem), seconds)
    return start, bound, method if start == draft else f"{method}; CP-SAT windows"


def _places(
    graph: TaskGraph, problem: Problem, start: Sequence[int], target: Target
) -> tuple[dict[int, int], str | None]:
    """Offset of every resident; and the first memory, if any, in which no places were found."""
    offsets = dict[int, int]()
    for name, memory in target.memory.items():
        if found := blocks(problem, start, name):
            placed = pack(found, lines_bytes(memory), fixed(graph, name))
            if placed is None:
                return offsets, name
            offsets |= placed
    return offsets, None


def _serialised(
    graph: TaskGraph, problem: Problem, target: Target, crowded: str, seconds: float
) -> tuple[list[int], dict[int, int], str]:
    """Starts, offsets and method of a schedule that has less alive at once, so that its buffers find places.

    Raises: CompileError SCC111 where they find none even if the tasks run one after the other.
    """
    least = peaks(problem, range(len(problem.cycles)))
    room = dict(problem.room)
    while room[crowded] > least[crowded]:
        step = max(1, (problem.room[crowded] - least[crowded]) // STEPS)
        room[crowded] = max(least[crowded], room[crowded] - step)
        start, _, method = _shortest(replace(problem, room=room), seconds / STEPS)
        offsets, memory = _places(graph, problem, start, target)
        if memory is None:
            return start, offsets, f"{method}; less memory"
        crowded = memory
    start = [0, *accumulate(problem.cycles)][:-1]
    offsets, memory = _places(graph, problem, start, target)
    if memory is None:
        return start, offsets, "one after the other"
    raise no_room(
        f"memory {memory} has to hold {least[memory]} B at once and has {problem.room[memory]} B, but in pieces: no "
        "places were found for its buffers that do not overlap",
        memory,
    )
