"""Lay the network out on compute tiles, and its edges on the link."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from sparsecc.backends.scu.lower import KernelCode, lower
from sparsecc.backends.scu.machine import Target, scu_v1
from sparsecc.backends.scu.tasks import TaskGraph
from sparsecc.backends.scu.tile_code import TileCode
from sparsecc.backends.tvm.c_source import TileKernel, c_library_source, tile_kernel, tvm_target
from sparsecc.invariants import WEIGHTS_CONSTANT, WELL_FORMED
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Program
from sparsecc.progress import step


@dataclass(frozen=True)
class LowerTransfers:
    """Program -> TaskGraph and the C code of its kernels, both facts of the Program; the graph stays as it is."""

    name = "lower-transfers"
    effects = Effects(requires=frozenset({WELL_FORMED, WEIGHTS_CONSTANT}))

    def run(self, program: Program) -> Sequence[Note]:
        target = program.fact(Target) or scu_v1()
        graph, code = lower_with_code(program, target)
        program.facts[TaskGraph], program.facts[TileCode] = graph, code
        counts = Counter(task.op.name for task in graph.tasks)
        did = ", ".join(f"{count} {op}" for op, count in counts.items())
        return [Note("output", f"{len(graph.tasks)} tasks for {target.name}: {did}")]


def lower_with_code(program: Program, target: Target, *, lossless: bool = False) -> tuple[TaskGraph, TileCode]:
    """The tasks of a Program, and the C file of all their kernels."""
    kernels, tvm = dict[str, TileKernel](), tvm_target(target)

    def generate(node: fx.Node) -> KernelCode:
        values = {n: n.meta["val"] for n in (*node.all_input_nodes, node)}
        kernel = tile_kernel(node, values, tvm)
        if kernel.symbol not in kernels:
            kernels[kernel.symbol] = kernel
            step("generating kernels", len(kernels), len(kernels))
        return KernelCode(kernel.symbol, kernel.m, kernel.n, kernel.k, kernel.scratch_bytes)

    graph = lower(program, target, generate, lossless=lossless)
    return graph, TileCode(c_library_source(kernels.values()), tuple(sorted(kernels)))
