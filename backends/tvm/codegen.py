"""S-TIR functions to object files: plain C functions that need no TVM, and of libc at most memcpy and memset."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from .kernels.script import RegisterFile, tvm
from .kernels.source import source
from .kernels.spec import Isa, KernelSpec, symbol


class Machine(NamedTuple):
    features: tuple[str, ...]  # LLVM's names of what runtime.c asks of the CPU
    registers: RegisterFile


AVX2 = ("+avx2", "+fma", "+f16c", "+bmi", "+bmi2", "+lzcnt", "+movbe")
AVX512 = (*AVX2, "+avx512f", "+avx512bw", "+avx512cd", "+avx512dq", "+avx512vl")
MACHINES: dict[Isa, Machine] = {
    "avx2": Machine(AVX2, RegisterFile(16, per_vector=2)),
    "avx512": Machine(AVX512, RegisterFile(32, per_vector=1)),
}
CPU = "x86-64"
"""For named CPUs LLVM doubles the loop over a row's non-zeros. Whether their number is odd is one more branch that no
CPU foresees: networks with 90 % zeros take 1 to 3 % longer so ("skylake-avx512", on an EPYC)."""


def compile_kernels(specs: Iterable[KernelSpec], isa: Isa) -> bytes:
    """One relocatable x86-64 object with every kernel of ``specs``, named by `symbol`; the same bytes every time."""
    machine = MACHINES[isa]
    functions = {
        symbol(spec, isa): source(spec, machine.registers).with_attr("global_symbol", symbol(spec, isa))
        for spec in sorted(set(specs), key=lambda spec: spec.symbol)
    }
    processor = {"mcpu": CPU, "mattr": list(machine.features), "mtriple": "x86_64-linux-gnu"}
    target = tvm.target.Target({"kind": "llvm", **processor})
    module = lower(tvm.tirx.transform.BindTarget(target)(tvm.IRModule(functions)), target)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.o"
        tvm.get_global_func("target.build.llvm")(module, target).write_to_file(str(path), "o")
        return path.read_bytes()


def lower(module: Any, target: Any) -> Any:
    """The passes of ``tvm.s_tir.pipeline`` without those that wrap a function for TVM's own runtime.

    A function keeps its parameters, of which buffers become pointers.
    """
    tirx, s_tir = tvm.tirx.transform, tvm.s_tir.transform
    passes = [
        s_tir.CanonicalizeLoop(),
        s_tir.LowerInitBlock(),
        s_tir.PlanAndUpdateBufferAllocationLocation(),
        s_tir.ConvertBlocksToOpaque(),
        s_tir.CompactBufferAllocation(),
        s_tir.LowerMatchBuffer(),
        s_tir.StmtSimplify(),
        s_tir.LowerOpaqueBlock(),
        _take_pointers,
        tirx.FlattenBuffer(),
        tirx.NarrowDataType(32),
        s_tir.LoopPartition(),
        tirx.VectorizeLoop(True),
        tirx.StorageRewrite(),
        tirx.UnrollLoop(),
        tirx.StmtSimplify(),
        tirx.RemoveNoOp(),
        tirx.CommonSubexprElim(),
        tirx.LowerIntrin(),
    ]
    with target:
        return tvm.ir.transform.Sequential(passes)(module)


@tvm.tirx.transform.prim_func_pass(opt_level=0)  # type: ignore[untyped-decorator]
def _take_pointers(function: Any, _module: Any, _context: Any) -> Any:
    """What wrapping for TVM's runtime does: generators of code know pointers and numbers as parameters only."""
    parameters, declarations = list[Any](), list[Any]()
    for parameter in function.params:
        if not tvm.tirx.buffer.is_buffer_var(parameter):
            parameters.append(parameter)
            continue
        pointer = tvm.tirx.Var(parameter.name, tvm.ir.PointerType(tvm.ir.PrimType(str(parameter.dtype))))
        parameters.append(pointer)
        declarations.append(tvm.tirx.DeclBuffer(parameter, data=pointer))
    if not declarations:
        return function
    body = tvm.tirx.SeqStmt([*declarations, function.body])
    return tvm.tirx.PrimFunc(parameters, body, function.ret_type, function.attrs)
