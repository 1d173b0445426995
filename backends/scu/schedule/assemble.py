"""From a Schedule to a UnitProgram: addresses, kernels, semaphores, and one list of descriptors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from sparsecc.backends.scu.descriptor import Descriptor, Flag, Op, Queue, extent, flags
from sparsecc.backends.scu.machine import Target
from sparsecc.backends.scu.tasks import Call, Part, Task, TaskGraph
from sparsecc.backends.scu.unit_program import Kernel, Operand, UnitProgram
from sparsecc.diagnostics import CompileError

from .allocate import reuses
from .graph import Schedule, problem_of
from .semaphores import synchronise

MOST_NOTE = 200  # characters; check.py


def assemble(graph: TaskGraph, schedule: Schedule, target: Target) -> UnitProgram:
    """The program in which every queue runs its tasks in the schedule's order, and waits for others where it must.

    No timing of the units changes what it computes: tasks that share bytes are ordered by queues and semaphores. The
    list is itself an order in which everything can run, so filling the queues from it cannot block either.
    Raises: CompileError SCC112 if the target has too few semaphores.
    """
    tasks = graph.tasks
    problem = problem_of(graph, target, lambda _: 1)
    start = [schedule.start[task.name] for task in tasks]
    offsets = [schedule.offsets[resident.name] for resident in problem.residents]
    pairs = [(j, i) for i, before in enumerate(problem.before) for j in before]
    pairs += reuses(problem, start, offsets)
    order, waits = synchronise(problem.queue, start, pairs, target.command.semaphore_most)
    semaphores = _semaphores(graph, waits, target)
    heirs = defaultdict[int, list[int]](list)
    for k in order:
        for i in waits[k]:
            heirs[i].append(k)
    program = _Listing(graph, schedule, target)
    for i in order:
        task = tasks[i]
        acquired = [(semaphores[tasks[j].queue, task.queue], tasks[j].name) for j in waits[i]]
        waiting = {tasks[k].queue: tasks[k].name for k in heirs[i]}
        released = [(semaphores[task.queue, queue], name) for queue, name in waiting.items()]
        program.add(task, acquired, released)
    return UnitProgram(
        code=(*program.code, Descriptor(Op.END)),
        contracts=graph.contracts,
        kernels=tuple(program.kernels),
        config=graph.config,
        constants=graph.constants,
        smap=graph.smap,
        meta=graph.meta,
        notes=program.notes,
    )


def _semaphores(graph: TaskGraph, waits: Mapping[int, list[int]], target: Target) -> dict[tuple[Queue, Queue], int]:
    """One per ordered pair of queues (releasing, acquiring) of which the second waits for the first."""
    used = sorted({(graph.tasks[j].queue, graph.tasks[i].queue) for i, others in waits.items() for j in others})
    if len(used) > target.command.semaphores:
        raise CompileError.of(
            "SCC112",
            f"{len(used)} pairs of queues wait for each other, and {target.name} has {target.command.semaphores} "
            "semaphores, one for each pair",
            help=f"give command.semaphores at least {len(used)} in the target file (--target-file)",
        )
    return {pair: number for number, pair in enumerate(used)}


@dataclass
class _Listing:
    """Descriptors, kernels and notes so far."""

    graph: TaskGraph
    schedule: Schedule
    target: Target
    code: list[Descriptor] = field(default_factory=list[Descriptor])
    kernels: dict[Kernel, int] = field(default_factory=dict[Kernel, int])
    notes: dict[int, str] = field(default_factory=dict[int, str])

    def add(self, task: Task, acquired: list[tuple[int, str]], released: list[tuple[int, str]]) -> None:
        """The descriptor of a task acquires one semaphore and releases one; WAIT and SIGNAL around it do the rest.

        With each semaphore goes the name of the task at its other end.
        """
        queue = flags(task.queue)
        own = self._descriptor(task)
        for semaphore, name in acquired[1:]:
            self._append(Descriptor(Op.WAIT, queue, acq_sem=semaphore, acq_ge=1), f"waits for {name}")
        if acquired:
            own |= {"acq_sem": acquired[0][0], "acq_ge": 1}
        if released:
            own |= {"rel_sem": released[0][0], "rel_add": 1}
        self._append(Descriptor(**own), f"{task.edge}: {task.name}" if task.edge else task.name)
        for semaphore, name in released[1:]:
            self._append(Descriptor(Op.SIGNAL, queue, rel_sem=semaphore, rel_add=1), f"lets {name} go on")

    def _append(self, descriptor: Descriptor, note: str) -> None:
        printable = "".join(c if " " <= c <= "~" else "?" for c in note).strip()
        self.notes[len(self.code)] = printable[:MOST_NOTE].strip() or "?"
        self.code.append(descriptor)

    def _descriptor(self, task: Task) -> dict[str, int]:
        """Fields of a task's descriptor, but for its semaphores."""
        fields = {name: value for name, value in task.fields.items() if name != "flags"}
        fields |= {"op": int(task.op), "flags": flags(task.queue, Flag(task.fields.get("flags", 0)))}
        for side, part in (("src", task.src), ("dst", task.dst)):
            if part:
                fields[side] = self._address(part) + _climb(task, side)
        if task.call:
            fields["k"] = self._kernel(task, task.call)
        edges = self.graph.meta.get("edges")
        if isinstance(edges, list) and task.edge in edges:
            fields["tag"] = edges.index(task.edge)
        return fields

    def _address(self, part: Part) -> int:
        buffer = self.graph.buffers[part.buffer]
        offset = self.schedule.offsets[part.buffer] if buffer.offset is None else buffer.offset
        return self.target.memory[buffer.memory].address + offset + part.start

    def _kernel(self, task: Task, call: Call) -> int:
        if not (task.src and task.dst):
            raise ValueError(f"task {task.name} computes without source or destination")
        operands = tuple(Operand(self._address(part), part.bytes) for part in call.operands)
        sizes = (call.m, call.n, call.k, task.src.bytes, task.dst.bytes)
        return self.kernels.setdefault(Kernel(call.symbol, call.dtype, *sizes, operands), len(self.kernels))


def _climb(task: Task, side: str) -> int:
    """Bytes from the first byte of a part to where its access begins: 0 unless a stride is negative."""
    if task.op in (Op.SEND, Op.RECV) and (side == "dst") == (task.op == Op.SEND):
        return 0  # the side of the blocks, whose "stride" is their room
    fields = task.fields
    reps = fields.get("reps1", 1), fields.get("reps2", 1)
    return -extent(0, 0, reps, (fields.get(f"{side}_st1", 0), fields.get(f"{side}_st2", 0)))[0]
