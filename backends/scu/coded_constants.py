"""Which constants travel as blocks: kernels that stream them from const  ->  RECV into the scratchpad, then kernels.

A constant is coded where all of this holds:

- its blocks take fewer bytes than the kernel would stream;
- in the given order of the tasks, it fits into the scratchpad beside what lives there while the kernel runs;
- the kernel would not be late for it: a list schedule with the RECVs is no longer than one without. A kernel computes
  while it streams, but waits for blocks, so what is large beside the work that comes before it stays as it is.

What several kernels read is stored once, and received for each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial

from .codecs import Codec
from .constant_blocks import WORD, Blocks, constant_blocks
from .constant_loads import Loads, const_name, content, with_loads
from .machine import Target
from .schedule import Problem, aligned, check_fits, listed, problem_of
from .task_cycles import task_cycles
from .tasks import TaskGraph
from .timing import operand_bytes


def code_constants(graph: TaskGraph, target: Target) -> TaskGraph:
    """Computes the same, bit for bit. Raises: CompileError SCC111 for a graph that has no room even without blocks."""
    problem = _problem(graph, target)
    check_fits(problem, [task.name for task in graph.tasks])
    ends = _ends(graph, problem)
    loads = _candidates(graph, problem, target)
    while loads:  # fewer in each round
        coded = with_loads(graph, target, loads)
        trial = _ends(coded, _problem(coded, target))
        if max(trial.values()) <= max(ends.values()):
            return coded
        loads = _without_slowest(loads, {name: trial[name] - ends[name] for name in loads})
    return graph


def _problem(graph: TaskGraph, target: Target) -> Problem:
    return problem_of(graph, target, partial(task_cycles, graph=graph, target=target))


def _ends(graph: TaskGraph, problem: Problem) -> dict[str, int]:
    """By the name of a task, the cycle in which it ends in a list schedule."""
    start, _ = listed(problem)
    return {task.name: begin + n for task, begin, n in zip(graph.tasks, start, problem.cycles, strict=True)}


def _without_slowest(loads: Mapping[str, Loads], late: Mapping[str, int]) -> dict[str, Loads]:
    """Without those that are most cycles later than the kernel before them is ``late``; without one at least."""
    added = {name: after - before for (name, after), before in zip(late.items(), (0, *late.values()), strict=False)}
    most = max(added.values())
    return {name: own for name, own in loads.items() if added[name] < min(most, most / 2)}


def _candidates(graph: TaskGraph, problem: Problem, target: Target) -> dict[str, Loads]:
    """By the name of its task, what a kernel may have as blocks."""
    codecs = [codec for codec in Codec if codec.name.lower() in target.codecs]
    const, known = const_name(target), dict[bytes, list[Blocks]]()
    found = dict[str, Loads]()
    for task, free in zip(graph.tasks, _free_bytes(graph, problem), strict=True):
        if task.call is None:
            continue
        loads, room = dict[int, list[Blocks]](), free
        for j, part in enumerate(task.call.operands):
            needed = aligned(part.bytes)
            if graph.buffers[part.buffer].memory != const or needed > room or part.bytes % WORD.width_bytes:
                continue
            data = content(graph, part)
            if data not in known:
                known[data] = constant_blocks(data, target.selector.tile_elems, codecs)
            if sum(blocks.sent_bytes for blocks in known[data]) < operand_bytes(task.call, part.bytes):
                loads[j], room = known[data], room - needed
        if loads:
            found[task.name] = loads
    return found


def _free_bytes(graph: TaskGraph, problem: Problem) -> Iterator[int]:
    """What each task leaves of the memory of its destination, run one after the other in the given order."""
    users = Counter(r for touched in problem.touches for r in touched)
    used = Counter[str]()
    seen = set[int]()
    for task, touched in zip(graph.tasks, problem.touches, strict=True):
        for r in touched:
            if r not in seen:
                seen.add(r)
                used[problem.residents[r].memory] += problem.residents[r].bytes
        memory = graph.buffers[task.dst.buffer].memory if task.dst else ""
        yield problem.room.get(memory, 0) - used[memory]
        for r in touched:
            users[r] -= 1
            if not users[r]:
                used[problem.residents[r].memory] -= problem.residents[r].bytes
