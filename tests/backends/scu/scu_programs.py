"""A small program that uses every operation, and random valid ones."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from sparsecc.backends.scu.codecs import Codec, Dtype, worst_case_bytes
from sparsecc.backends.scu.container import ENTRY, HEADER, SECTIONS
from sparsecc.backends.scu.descriptor import Descriptor, Flag, Op, Queue, flags
from sparsecc.backends.scu.machine import Memory, scu_v1
from sparsecc.backends.scu.unit_program import Contract, Kernel, Operand, UnitProgram

TARGET = scu_v1()
M = {name: memory.address for name, memory in TARGET.memory.items()}
LINK, CONFIG, IN, OUT = flags(Queue.LINK), flags(Queue.CONFIG), flags(Queue.IN), flags(Queue.OUT)
RUNS = {"reps1": 1, "reps2": 1}

EVERY_OP = UnitProgram(
    code=(
        Descriptor(Op.CFGW, CONFIG, src=M["const"], dst=M["config"] + 0x510, run_bytes=16),
        Descriptor(Op.SMAP_LOAD, CONFIG, src=M["const"] + 16, dst=M["smap"], run_bytes=4),
        Descriptor(Op.CONTRACT, CONFIG, contract=5, k=0, rel_sem=1, rel_add=1),
        Descriptor(Op.COPY, IN, src=M["dram"], dst=M["tile0"], run_bytes=32, reps1=4, reps2=2, src_st1=64,
                   dst_st1=32, src_st2=256, dst_st2=128, rel_sem=2, rel_add=1, tag=7),
        Descriptor(Op.COMPUTE, IN, k=0, src=M["tile0"], dst=M["tile0"] + 0x100, acq_sem=2, acq_ge=1),
        Descriptor(Op.NOP, flags(Queue.IN, Flag.PREDICATED), src=M["tile0"] + 0x500, next=10),
        Descriptor(Op.WAIT, LINK, acq_sem=1, acq_ge=1),
        Descriptor(Op.SEND, flags(Queue.LINK, Flag.REGISTER | Flag.SCORED), Dtype.INT8, Codec.BITMASK, 5, 64,
                   tile_n=256, tiles=4, src=M["tile0"] + 0x100, dst=M["link"], run_bytes=1024, **RUNS,
                   dst_st1=128, dst_st2=256, smap=0),
        Descriptor(Op.RECV, OUT, Dtype.INT8, Codec.BITMASK, k=64, tile_n=256, tiles=4, src=M["link"],
                   dst=M["tile1"], run_bytes=1024, **RUNS, src_st1=128, fill=3),
        Descriptor(Op.SMAP_UPD, CONFIG, Dtype.INT8, tile_n=256, tiles=4, src=M["tile1"], run_bytes=1024, **RUNS,
                   dst_st2=256),
        Descriptor(Op.SIGNAL, OUT, rel_sem=3, rel_add=2),
        Descriptor(Op.FENCE, OUT),
        Descriptor(Op.END),
    ),
    contracts=(Contract(48, 32, 64, 16, 60_000, 64_000),),
    kernels=(Kernel("conv1", Dtype.INT8, 64, 16, 27, 256, 1024, (Operand(M["const"] + 20, 12),)),),
    config=((0x500, 16), (0x504, 0xFFFF_FFFF)),
    constants=bytes(range(40)),
    smap=b"\xff\x80\x01",
    meta={"model": "every op", "share": 0.25},
    labels={"skip": 10, "start": 0},
    notes={3: "load the image; two planes", 12: "done"},
)  # fmt: skip


def reseal(data: bytes) -> bytes:
    """Make every checksum and digest of a changed file right again, as an attacker would."""
    file = bytearray(data)
    count = min(struct.unpack_from("<I", file, 40)[0], len(SECTIONS), (len(file) - HEADER.size) // ENTRY.size)
    for i in range(count):
        at = HEADER.size + ENTRY.size * i
        _, offset, size, _ = ENTRY.unpack_from(file, at)
        struct.pack_into("<I", file, at + 24, zlib.crc32(file[offset : offset + size]))
    file[44:48] = bytes(4)
    struct.pack_into("<I", file, 44, zlib.crc32(file[: HEADER.size + ENTRY.size * count]))
    file[-32:] = hashlib.sha256(file[:-32]).digest()
    return bytes(file)


# ---- random programs -------------------------------------------------------------------------------------------------

U16 = st.integers(0, 0xFFFF)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True)
NOTES = st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _place(draw: st.DrawFn, memory: Memory, extent_bytes: int) -> int:
    return memory.address + draw(st.integers(0, memory.bytes - extent_bytes))


def _semaphores(draw: st.DrawFn, acquires: bool, releases: bool) -> dict[str, int]:
    fields = dict[str, int]()
    for wanted, names in ((acquires, ("acq_sem", "acq_ge")), (releases, ("rel_sem", "rel_add"))):
        if wanted or draw(st.booleans()):
            fields |= zip(names, (draw(st.integers(0, 31)), draw(st.integers(1, 255))), strict=True)
    return fields


@st.composite
def _strided(draw: st.DrawFn, name: str, side: str, shape: tuple[int, int, int]) -> dict[str, int]:
    """The address and strides of one dense side, some strides negative."""
    run, *reps = shape
    memory = TARGET.memory[name]
    strides = [draw(st.integers(-64, 64)) if n > 1 else 0 for n in reps]
    spans = [(n - 1) * s for n, s in zip(reps, strides, strict=True)]
    low = -sum(min(s, 0) for s in spans)
    start = draw(st.integers(low, memory.bytes - run - sum(max(s, 0) for s in spans)))
    return {side: memory.address + start, f"{side}_st1": strides[0], f"{side}_st2": strides[1]}


@st.composite
def _transfer(draw: st.DrawFn, op: Op) -> dict[str, int]:
    """SEND, RECV or SMAP_UPD without registers."""
    dtype = Dtype(draw(st.integers(0, 3)))
    tile_n, tiles = draw(st.integers(1, 1024)), draw(st.integers(1, 3))
    fields = {"dtype": int(dtype), "tile_n": tile_n, "tiles": tiles, "reps1": tiles, "reps2": 1}
    fields["run_bytes"] = tile_n * dtype.width_bytes
    dense = draw(st.sampled_from(["tile0", "tile1", "dram"]))
    side = "dst" if op == Op.RECV else "src"
    fields |= draw(_strided(dense, side, (fields["run_bytes"], tiles, 1)))
    if op == Op.SMAP_UPD:
        return fields | {"dst_st2": tile_n, "smap": draw(st.integers(0, 16384 - tiles))}
    codec = Codec(draw(st.integers(0, 4 if op == Op.RECV else 3)))
    k = tile_n if codec == Codec.RAW else draw(st.integers(0, tile_n))
    slot = worst_case_bytes(codec, tile_n, k, dtype) + 32 * draw(st.integers(0, 2))
    fields |= {"codec": int(codec), "k": k, "fill": draw(st.integers(0, 255))}
    payload = "src" if op == Op.RECV else "dst"
    fields |= {payload: _place(draw, TARGET.memory["link"], slot * tiles), f"{payload}_st1": slot}
    if op == Op.SEND and draw(st.booleans()):
        fields |= {
            "flags": Flag.SCORED | Flag.SKIP_ZERO,
            "dst_st2": tile_n,
            "smap": draw(st.integers(0, 16384 - tiles)),
        }
    return fields


@st.composite
def descriptors(draw: st.DrawFn, place: int, count: int, contracts: int, kernels: int) -> Descriptor:
    """A valid descriptor that is not the last."""
    ops = [op for op in Op if op not in (Op.END, Op.CFGW, Op.SMAP_LOAD)]
    op = draw(st.sampled_from([o for o in ops if (o != Op.CONTRACT or contracts) and (o != Op.COMPUTE or kernels)]))
    queue = Queue.CONFIG if op in (Op.SMAP_UPD, Op.CONTRACT) else draw(st.sampled_from(Queue))
    fields: dict[str, Any] = _semaphores(draw, op == Op.WAIT, op == Op.SIGNAL) | {"tag": draw(U16)}
    if op in (Op.SEND, Op.RECV, Op.SMAP_UPD):
        fields |= draw(_transfer(op))
    elif op == Op.COPY:
        run, reps1, reps2 = draw(st.tuples(st.integers(1, 64), st.integers(1, 5), st.integers(1, 5)))
        fields |= {"run_bytes": run, "reps1": reps1, "reps2": reps2}
        fields |= draw(_strided(draw(st.sampled_from(["dram", "tile0", "link"])), "src", (run, reps1, reps2)))
        fields |= draw(_strided(draw(st.sampled_from(["dram", "tile1", "link"])), "dst", (run, reps1, reps2)))
    elif op == Op.NOP and draw(st.booleans()):
        fields |= {"flags": Flag.PREDICATED, "src": _place(draw, TARGET.memory["tile0"], 1)}
        fields["next"] = draw(st.integers(place + 1, count))
    elif op == Op.CONTRACT:
        fields |= {"contract": draw(st.integers(0, 63)), "k": draw(st.integers(0, contracts - 1))}
    elif op == Op.COMPUTE:
        fields |= {"k": draw(st.integers(0, kernels - 1))}
        fields |= {side: _place(draw, TARGET.memory["tile1"], 64) for side in ("src", "dst")}
    own = Flag(fields.pop("flags", 0))
    return Descriptor(int(op), flags(queue, own), **fields)


@st.composite
def programs(draw: st.DrawFn) -> UnitProgram:
    """Valid programs of up to nine descriptors."""
    kernels = tuple(
        Kernel(draw(NAMES), draw(st.integers(0, 3)), draw(U16), 1, 2, 64, 8, (Operand(M["dram"] + draw(U16), 9),) * n)
        for n in draw(st.lists(st.integers(0, 4), max_size=2))
    )
    contracts = tuple(
        Contract(k, k // 2, min(2 * k, 1024), *draw(st.tuples(st.integers(1, 9), st.integers(0, 5), st.integers(5, 9))))
        for k in draw(st.lists(st.integers(0, 1024), max_size=2))
    )
    count = draw(st.integers(0, 8))
    code = [draw(descriptors(i, count, len(contracts), len(kernels))) for i in range(count)]
    places = st.integers(0, count)
    return replace(
        UnitProgram((*code, Descriptor(Op.END))),
        contracts=contracts,
        kernels=kernels,
        config=tuple(draw(st.lists(st.tuples(st.sampled_from([0x500, 0x51C]), st.integers(0, 2**32 - 1)), max_size=2))),
        constants=draw(st.binary(max_size=70)),
        smap=draw(st.binary(max_size=40)),
        meta=draw(st.dictionaries(st.text(max_size=5), JSON, max_size=3)),
        labels=draw(st.dictionaries(NAMES, places, max_size=3)),
        notes=draw(st.dictionaries(places, NOTES, max_size=3)),
    )
