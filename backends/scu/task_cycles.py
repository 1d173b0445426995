"""How long a task takes before its addresses are known: the timing model asks only in which memories they lie."""

from __future__ import annotations

from dataclasses import replace

from .descriptor import Descriptor, flags
from .machine import Target
from .tasks import Part, Task, TaskGraph
from .timing import duration
from .unit_program import Kernel, Operand


def task_cycles(task: Task, graph: TaskGraph, target: Target) -> int:
    """Cycles of the task's descriptor on idle units, with the longest payload that its k allows if it is not known."""

    def address(part: Part | None) -> int:
        return target.memory[graph.buffers[part.buffer].memory].address if part else 0

    d = Descriptor(task.op, flags(task.queue), src=address(task.src), dst=address(task.dst))
    d = replace(d, **{**task.fields, "flags": d.flags | task.fields.get("flags", 0)})
    if (call := task.call) is None or task.src is None or task.dst is None:
        return duration(d, None, target, task.payload_bytes)
    operands = tuple(Operand(address(part), part.bytes) for part in call.operands)
    sizes = (call.m, call.n, call.k, task.src.bytes, task.dst.bytes)
    return duration(d, Kernel(call.symbol, call.dtype, *sizes, operands), target)
