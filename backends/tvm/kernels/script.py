"""A thin layer over TVM's IR builder: S-TIR functions written as ordinary Python, with whole vectors as values.

TVM has no type information, so this file is where it enters the project: everything of TVM is ``Any`` from here on.
Python's own ``for`` and ``if`` are decided while a kernel is written; ``loop`` and ``when`` are part of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

from .parameters import Parameters
from .spec import VECTOR_LANES

tvm: Any = import_module("tvm")
T: Any = import_module("tvm.tirx.script.builder")
IRBuilder: Any = import_module("tvm.script.ir_builder").IRBuilder

Expr = Any  # a TVM expression, or a Python number where one is accepted
UNBOUNDED = 1 << 30  # TVM wants a shape; nothing reads it

Sizes = TypeVar("Sizes", bound=Parameters)


class RegisterFile(NamedTuple):
    """The vector registers of an instruction set."""

    size: int  # registers
    per_vector: int  # registers that 16 lanes take


class Array:
    """Elements of one type behind a pointer, or in registers."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def __getitem__(self, index: Expr) -> Expr:
        return self.buffer[index]

    def __setitem__(self, index: Expr, value: Expr) -> None:
        T.buffer_store(self.buffer, value, [index])

    def load(self, index: Expr, lanes: int = VECTOR_LANES) -> Expr:
        return self.buffer[T.Ramp(index, 1, lanes) if lanes > 1 else index]

    def store(self, index: Expr, value: Expr, lanes: int = VECTOR_LANES) -> None:
        T.buffer_store(self.buffer, value, [T.Ramp(index, 1, lanes) if lanes > 1 else index])


class Arguments(NamedTuple):
    """The parameters of every kernel, see spec.py. ``begin .. end`` are the units of this call."""

    x: Array
    y: Array
    z: Array
    rows: Array
    cols: Array
    values: Array
    bias: Array
    begin: Expr
    end: Expr


def function(symbol: str, sizes: type[Sizes], body: Callable[[Arguments, Sizes], None], index: str = "int32") -> Any:
    """The PrimFunc that ``body`` writes. It gets the arguments and the table of sizes, already loaded.

    Pointers may alias: kernels work in place, and what the loops need is in registers before anything is stored.
    """
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name(symbol)
            T.func_attr({"global_symbol": symbol})
            types = {"x": "float32", "y": "float32", "z": "float32", "rows": "int32", "cols": index}
            types |= {"values": "float32", "bias": "float32", "p": "int32"}
            pointers = {name: T.arg(name, T.handle(dtype)) for name, dtype in types.items()}
            begin, end = T.arg("begin", T.int32()), T.arg("end", T.int32())
            arrays = {
                name: Array(T.decl_buffer((UNBOUNDED,), types[name], data=pointer, align=4))
                for name, pointer in pointers.items()
            }
            table = arrays.pop("p")
            loaded: Any = sizes._make(let(table[i]) for i in range(len(sizes._fields)))
            body(Arguments(**arrays, begin=begin, end=end), loaded)
        return builder.get()


def let(value: Expr) -> Expr:
    """Compute once, use many times."""
    return T.Bind(value)


def loop(begin: Expr, end: Expr) -> AbstractContextManager[Expr]:
    """``with loop(begin, end) as i``: nothing happens where end <= begin."""
    frame: AbstractContextManager[Expr] = T.serial(begin, end)
    return frame


@contextmanager
def when(condition: Expr) -> Generator[None]:
    with T.If(condition), T.Then():
        yield


def registers(vectors: int, lanes: int = VECTOR_LANES) -> Array:
    """Room for vectors that stay in registers as long as every index is a Python number."""
    return Array(T.alloc_buffer((vectors * lanes,), "float32", scope="local"))


def divide(a: Expr, b: Expr) -> Expr:
    """a / b rounded towards zero (rounding down would cost a check of the sign)."""
    return _opaque(T.truncdiv(a, b)) if not isinstance(b, int) else T.truncdiv(a, b)


def _opaque(value: Expr) -> Expr:
    """Compute once, hidden from TVM's simplifier: it inlines `let` and then takes seconds over nested divisions."""
    variable = T.alloc_buffer((1,), "int32", scope="local")
    T.buffer_store(variable, value, [0])
    return variable[0]


def broadcast(value: Expr, lanes: int = VECTOR_LANES) -> Expr:
    return T.Broadcast(value, lanes) if lanes > 1 else value


def permute(table: Sequence[Expr], indices: Expr, lanes: int) -> Expr:
    """Lane i is element ``indices[i]`` of the registers of ``table`` laid end to end: 2 of 16 lanes, or 4 of 8."""
    if lanes == VECTOR_LANES:
        low, high = table
        return T.call_llvm_pure_intrin("float32x16", "llvm.x86.avx512.vpermi2var.ps.512", low, indices, high)
    parts = [T.call_llvm_pure_intrin("float32x8", "llvm.x86.avx2.permps", part, indices) for part in table]

    def either(bit: int, if_zero: Expr, if_set: Expr) -> Expr:
        return T.Select(indices & broadcast(T.int32(bit), lanes) != broadcast(T.int32(0), lanes), if_set, if_zero)

    return either(16, either(8, *parts[:2]), either(8, *parts[2:]))


def prefetch(array: Array, index: Expr) -> None:
    """Ask for the cache line of an element, which need not exist."""
    read, all_levels, data = 0, 3, 1  # of LLVM's llvm.prefetch
    T.evaluate(T.call_intrin("void", "tirx.prefetch", T.address_of(array.buffer[index]), read, all_levels, data))


def reduce_lanes(array: Array, index: int) -> Expr:
    """The sum of the vector at ``index``, pairwise; overwrites it."""
    lanes = VECTOR_LANES // 2
    while lanes > 1:
        array.store(index, array.load(index, lanes) + array.load(index + lanes, lanes), lanes)
        lanes //= 2
    return array[index] + array[index + 1]
