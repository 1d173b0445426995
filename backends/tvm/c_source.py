"""The compute tiles' code: one C function per operation, written by TVM's C generator, without TVM's runtime.

A function is of one op on fixed shapes::

    void conv2d_9f3a1c20(const float *restrict src, float *restrict dst, const float *restrict in1, ...);

src is the op's first tensor, dst the result, then come its other tensors in order of first appearance; a tensor that
is used twice has one parameter. An op without tensors (arange) has dst only. All are dense row-major arrays, bool one
byte; dst overlaps none of the others. Temporaries lie on the C stack, so any number of threads may call. Of libc only
<math.h> is used.

Order of accumulation: tile_kernels.py says it of convolution, linear and attention; sums of other ops start from zero
and add in row-major order of the axes summed over. NaN: maximum, minimum and what is made of them (relu, clamp, max
pooling) may drop it, as TVM defines them. Indices of embedding out of range read the nearest row; those of gather and
index are trusted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from sparsecc.backends.scu.machine import Target
from sparsecc.diagnostics import CompileError
from sparsecc.program import where

from .codegen import lower
from .kernels.script import tvm
from .relax_function import Lowered
from .tile_call import Call, call_of, gemm
from .tile_function import tile_function

HEADER = "#include <math.h>\n#include <stdbool.h>\n#include <stdint.h>\n"
SYMBOL_CHARACTERS = 31  # of an external name that every C99 compiler tells apart; C99 5.2.4.1
DIGEST_CHARACTERS = 8
C_TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bool: "bool",
    torch.int8: "int8_t",
    torch.uint8: "uint8_t",
    torch.int32: "int32_t",
    torch.int64: "int64_t",
}
ELEMENT_BYTES = {name: dtype.itemsize for dtype, name in C_TYPES.items()}
FUNCTION = re.compile(r"^TVM_DLL void kernel\((?P<parameters>[^)]*)\) (?P<body>\{.*^\})", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class TileKernel:
    """``source`` is a C function that needs HEADER before it; m, n, k as `gemm` says."""

    symbol: str
    source: str
    m: int
    n: int
    k: int
    scratch_bytes: int  # of temporaries beside the parameters


def tvm_target(target: Target) -> Any:
    """The ``tvm.target.Target`` of an SCU's compute tiles: C, with the name, the array and the burst of the machine.

    TVM 0.27 refuses attributes of our own: the array stands in ``mcpu``, the version of the ISA in ``march``.
    """
    return tvm.target.Target(
        {
            "kind": "c",
            "keys": ["scu", "cpu"],
            "device": "scu",
            "model": target.name,
            "mcpu": f"systolic-{target.tile.rows}x{target.tile.cols}",
            "march": f"scu-v{target.isa}",
            "constants-byte-alignment": target.dma.burst_bytes,
        }
    )


def tile_kernel(node: fx.Node, values: Mapping[fx.Node, Any], target: Any) -> TileKernel:
    """The kernel of a call_function node of a Program; of a getitem node that of the call it takes a result from.

    ``values``: the tensor of every argument and of the node itself, of which shape and type are read (fake and meta
    tensors serve), or its number where an argument is an int. ``target``: from `tvm_target`. The same op on the same
    shapes is the same kernel; kernels are remembered for the life of the process.
    Raises: CompileError SCC110 where TVM has no code for the op.
    """
    call = call_of(node, values)
    key = f"{target} {call!r}"
    if key not in _kernels:
        try:
            _kernels[key] = _kernel(call, tuple(map(int, values[node].shape)), target)
        except Exception as error:  # TVM's refusals are of many classes
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
            raise CompileError.of(
                "SCC110",
                f"TVM writes no C code for {call.target} of {', '.join(map(str, call.operands)) or 'no tensor'}: "
                f"{reason}",
                where=where(node),
                help="write it with other operations in the model, or compile for --target cpu",
            ) from error
    return _kernels[key]


def c_library_source(kernels: Iterable[TileKernel]) -> str:
    """One C file of all kernels, each once, by symbol: the same kernels give the same bytes."""
    sources = {kernel.symbol: kernel.source for kernel in kernels}
    return HEADER + "".join(f"\n{sources[symbol]}" for symbol in sorted(sources))


_kernels: dict[str, TileKernel] = {}


@tvm.tirx.register_intrin_lowering("tirx.fabs", target="c")  # type: ignore[untyped-decorator]
def _absolute(call: Any) -> Any:
    """TVM has no rule of its own for the absolute value in C."""
    name = "fabsf" if call.ty.dtype == "float32" else "fabs"
    return tvm.tirx.call_pure_extern(call.ty, name, *call.args)


def _kernel(call: Call, result: tuple[int, ...], target: Any) -> TileKernel:
    lowered = tile_function(call)
    m, n, k = gemm(call, result, reduces=lowered.reduces)
    text = _c_function(call, lowered, target)
    digest = hashlib.sha256(f"{m} {n} {k}\n{text}".encode()).hexdigest()[:DIGEST_CHARACTERS]
    symbol = f"{call.op[: SYMBOL_CHARACTERS - DIGEST_CHARACTERS - 1]}_{digest}"
    source = text.replace("kernel(", f"{symbol}(", 1)
    return TileKernel(symbol, source, m, n, k, sum(_scratch_bytes(source)))


def _c_function(call: Call, lowered: Lowered, target: Any) -> str:
    """``void kernel(...) {...}`` with the parameters that the head of this file promises."""
    function = lowered.function.with_attrs({"global_symbol": "kernel", "target": target})
    module = lower(tvm.IRModule({"kernel": function}), target)
    text = tvm.get_global_func("target.build.c")(module, target).inspect_source()
    found = FUNCTION.search(text)
    if found is None:
        raise ValueError("the C generator wrote no plain function")
    types, names = zip(*(parameter.rsplit(None, 1) for parameter in found["parameters"].split(", ")), strict=True)
    body = _exact_constants(found["body"], module["kernel"])
    for name, number in zip(names, (*lowered.inputs, -1), strict=True):
        body = re.sub(rf"\b{name}\b", _parameter_name(number), body)
    operands = [f"const {C_TYPES[o.dtype]} *restrict {_parameter_name(o.number)}" for o in call.operands]
    parameters = [*operands[:1], f"{types[-1][:-1]} *restrict dst", *operands[1:]]
    return f"void kernel({', '.join(parameters)}) {body}\n"


def _parameter_name(number: int) -> str:
    return {-1: "dst", 0: "src"}.get(number, f"in{number}")


def _exact_constants(body: str, function: Any) -> str:
    """The generator writes 7 digits of a constant, which may be another number, and an infinity that C lacks."""
    constants = dict[str, set[str]]()
    for text in re.findall(r"T\.float(?:32|64)\((-?\d[^)]*)\)", function.script()):
        constants.setdefault(f"{float(text):.6e}", set()).add(f"{float(text):.16e}")  # exact for a double
    if ambiguous := [written for written, exact in constants.items() if len(exact) > 1]:
        raise ValueError(f"two constants are both written {ambiguous[0]}")
    body = re.sub(r"-?\b\d\.\d{6}e[+-]\d+", lambda m: next(iter(constants.get(m[0], {m[0]}))), body)
    return re.sub(r"\binff?\b", "INFINITY", body)


def _scratch_bytes(source: str) -> Iterator[int]:
    for dtype, elems in re.findall(r"^ +(\w+) \w+\[(\d+)\];$", source, re.MULTILINE):
        yield ELEMENT_BYTES[dtype] * int(elems)
