"""What is in a compiled object."""

from __future__ import annotations

import struct

import pytest
from kernel_calls import SPECS

from sparsecc.backends.tvm.codegen import compile_kernels
from sparsecc.backends.tvm.kernels.spec import Epilogue, Gemv, Isa, Spmm, symbol


def elf_symbols(image: bytes) -> tuple[set[str], set[str]]:
    """(defined, undefined) global symbols of a 64-bit little-endian ELF object."""
    (sections_at,) = struct.unpack_from("<Q", image, 0x28)
    entry, count = struct.unpack_from("<HH", image, 0x3A)
    sections = [struct.unpack_from("<IIQQQQII", image, sections_at + i * entry) for i in range(count)]
    table = next(s for s in sections if s[1] == 2)
    names_at = sections[table[6]][4]
    found: tuple[set[str], set[str]] = (set(), set())
    for at in range(table[4], table[4] + table[5], 24):
        name, info, _, section = struct.unpack_from("<IBBH", image, at)
        if info >> 4 != 0:
            start = names_at + name
            found[section == 0].add(image[start : image.index(b"\0", start)].decode())
    return found


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_objects_export_the_kernels_and_need_only_memory_functions(isa: Isa) -> None:
    defined, undefined = elf_symbols(compile_kernels(SPECS, isa))
    assert {symbol(spec, isa) for spec in SPECS} <= defined
    assert undefined <= {"memcpy", "memset"}


def test_the_same_kernels_give_the_same_bytes() -> None:
    first, second = Spmm(4, 1, 4), Gemv(Epilogue("gelu"))
    assert compile_kernels([first, second], "avx2") == compile_kernels([second, first, second], "avx2")


def test_symbols_tell_kernels_apart() -> None:
    assert len({spec.symbol for spec in SPECS}) == len(set(SPECS))
    assert symbol(Spmm(4, 1, 4, "int32", Epilogue("relu", add=True)), "avx512") == "spmm_4x1_v4_int32_add_relu_avx512"
