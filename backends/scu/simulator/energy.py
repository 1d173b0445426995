"""Energy by component: how often each event happens times its entry in a table made from the target.

Absolute energy is good to about a factor of 2 (scu.toml mixes processes): quote ratios.

Assumptions, beside those of scu.toml: a kernel reads its input and its operands once and writes its output once; a GEMM
is m * n * k multiplications and additions, the additions at 32 bits; an element-wise kernel is m * n additions; the key
of an element is an 8-bit addition and multiplication for int8, a 32-bit addition for floats; the selector spends one
8-bit addition per element and digit, packer and unpacker one per element; SMAP_UPD a 32-bit addition per element, and
a 32-bit multiplication and two accesses per map entry; descriptors are read from where const is. Leakage and clock are
left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparsecc.backends.scu.codecs import Codec, Dtype
from sparsecc.backends.scu.descriptor import DESCRIPTOR_BYTES, Descriptor, Flag, Op
from sparsecc.backends.scu.machine import DTYPES, Target
from sparsecc.backends.scu.timing import CONTRACT_BYTES, digits, kernel_reads, memory_at
from sparsecc.backends.scu.unit_program import Kernel


def prices(target: Target) -> Mapping[str, float]:
    """pJ of every event that ``events`` may count."""
    e = target.energy
    table = {"link": target.link.pj_per_byte, "descriptors": target.the("const").read_pj_per_byte}
    for name, memory in target.memory.items():
        table[f"{name} read"], table[f"{name} write"] = memory.read_pj_per_byte, memory.write_pj_per_byte
    macs = (e.i8_mul_pj + e.i32_add_pj, *(e.f16_mul_pj + e.f32_add_pj,) * 2, e.f32_mul_pj + e.f32_add_pj)
    adds = (e.i8_add_pj, e.f16_add_pj, e.f16_add_pj, e.f32_add_pj)
    for dtype, mac, add in zip(DTYPES, macs, adds, strict=True):
        table[f"{dtype} mac"], table[f"{dtype} element-wise"] = mac, add
        table[f"{dtype} key"] = e.i8_add_pj + e.i8_mul_pj if dtype == "int8" else e.i32_add_pj
    return table | {"select": e.i8_add_pj, "pack": e.i8_add_pj, "map add": e.i32_add_pj, "map mul": e.i32_mul_pj}


def events(d: Descriptor, kernel: Kernel | None, target: Target, payload_bytes: int) -> Iterator[tuple[str, int]]:
    """What one run of a descriptor counts: names of ``prices``; of memories and link the bytes."""
    yield "descriptors", DESCRIPTOR_BYTES
    op = Op(d.op)
    if op == Op.COMPUTE and kernel is not None:
        yield from _kernel_events(d, kernel, target)
    elif op in (Op.COPY, Op.SEND, Op.RECV, Op.CFGW, Op.SMAP_LOAD):
        plain = d.dense_bytes if op == Op.COPY else d.run_bytes
        dense = d.dense_bytes if op in (Op.SEND, Op.RECV) else plain
        written = payload_bytes if op == Op.SEND else dense
        yield _read(d.src, target, payload_bytes if op == Op.RECV else dense)
        yield _write(d.dst, target, written)
        if memory_at(d.dst, target).kind == "link":
            yield "link", written
        if op in (Op.SEND, Op.RECV):
            yield from _codec_events(d, target)
    elif op == Op.SMAP_UPD:
        smap, entries = target.the("smap"), -(-d.tiles * d.tile_n // d.dst_st2)
        yield _read(d.src, target, d.dense_bytes)
        yield "map add", d.tiles * d.tile_n
        yield "map mul", entries
        yield _read(smap.address, target, entries)
        yield _write(smap.address, target, entries)
    elif op == Op.CONTRACT:
        yield _write(target.the("config").address, target, CONTRACT_BYTES)
    elif d.has(Flag.PREDICATED) and op == Op.NOP:
        yield _read(d.src, target, 1)


def _kernel_events(d: Descriptor, kernel: Kernel, target: Target) -> Iterator[tuple[str, int]]:
    yield _write(d.dst, target, kernel.output_bytes)
    for memory, read_bytes in kernel_reads(d, kernel, target):
        yield _read(memory.address, target, read_bytes)
    what = "mac" if kernel.k else "element-wise"
    yield f"{DTYPES[kernel.dtype]} {what}", kernel.m * kernel.n * max(kernel.k, 1)


def _codec_events(d: Descriptor, target: Target) -> Iterator[tuple[str, int]]:
    elems = d.tiles * d.tile_n
    yield "pack", elems
    if d.op == Op.SEND and d.codec != Codec.RAW:
        yield f"{DTYPES[Dtype(d.dtype)]} key", elems
        yield "select", elems * digits(d, target)
        if d.has(Flag.SCORED):
            yield _read(target.the("smap").address, target, -(-elems // d.dst_st2))


def _read(address: int, target: Target, size_bytes: int) -> tuple[str, int]:
    return f"{target.regions[memory_at(address, target).region]} read", size_bytes


def _write(address: int, target: Target, size_bytes: int) -> tuple[str, int]:
    return f"{target.regions[memory_at(address, target).region]} write", size_bytes
