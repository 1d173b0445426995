"""Vectors of what the unit does besides: operations, registers, order, copies, the map, another target."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence

from elements import (
    BFLOAT16,
    BITMASK,
    FLOAT16,
    FLOAT32,
    INDEX,
    INT8,
    RAW,
    join,
)
from programs import (
    CONFIG,
    CONFIGURATION,
    CONST,
    DRAM,
    IN,
    KERNELS,
    LINK,
    OUT,
    SCU_V1,
    SMAP,
    SPECIAL,
    TILE0,
    TILE1,
    Series,
    Vector,
    descriptor,
    halves,
    noise,
    program,
    transfer,
)
from reference import PREDICATED, REGISTER, SCORED, Op


def vectors() -> Iterator[Vector]:
    yield every_op()
    yield constant_input()
    yield from registers()
    yield from order()
    yield from moving()
    yield maps()
    yield other_target()


def every_op() -> Vector:
    kernel = {
        "symbol": "copy_add_i8",
        "dtype": INT8,
        "m": 64,
        "n": 1,
        "k": 0,
        "input_bytes": 64,
        "output_bytes": 64,
        "operands": [(CONST + 64, 64)],
    }
    shared = {"dtype": INT8, "codec": BITMASK, "k": 16, "tile_n": 64, "tiles": 1, "run_bytes": 64}
    code = program(
        descriptor(Op.CFGW, src=CONST, dst=CONFIG + 0x500, run_bytes=4, tag=1),
        descriptor(Op.SMAP_LOAD, src=CONST + 4, dst=SMAP + 8, run_bytes=4),
        descriptor(Op.CONTRACT, contract=5, k=0, rel_sem=1, rel_add=1),
        descriptor(
            Op.COPY, IN, src=DRAM, dst=TILE0, run_bytes=16, reps1=4, src_st1=32, dst_st1=16, rel_sem=2, rel_add=1
        ),
        descriptor(Op.COMPUTE, KERNELS, k=0, src=TILE0, dst=TILE0 + 64, acq_sem=2, acq_ge=1, rel_sem=3, rel_add=1),
        descriptor(Op.NOP, OUT, tag=65_535),
        descriptor(Op.WAIT, OUT, acq_sem=1, acq_ge=1),
        descriptor(
            Op.SEND,
            OUT | REGISTER | SCORED,
            **shared,
            contract=5,
            src=TILE0 + 64,
            dst=LINK,
            dst_st1=64,
            dst_st2=16,
            smap=8,
            acq_sem=3,
            acq_ge=1,
            rel_sem=4,
            rel_add=1,
            fill=7,
        ),
        descriptor(Op.RECV, IN, **shared, src=LINK, dst=TILE1, src_st1=64, acq_sem=4, acq_ge=1, fill=7),
        descriptor(Op.FENCE),
        descriptor(Op.SMAP_UPD, dtype=INT8, tile_n=64, tiles=1, src=TILE1, run_bytes=64, smap=8, dst_st2=16),
        descriptor(Op.SIGNAL, IN, rel_sem=31, rel_add=2),
        contracts=[(12, 8, 16, 16, 60_000, 64_000)],
        kernels=[kernel],
        config=[(0x510, 7)],
        const=b"\x07\0\0\0\xff\x80\x40\x01".ljust(64, b"\0") + noise("operand", 64),
        smap=b"\x01\x02",
        meta={"model": "every op", "share": 0.25, "layers": [1, None, True]},
        labels={"start": 0, "skip": 10, "done": 12},
        notes={3: "four rows; every second one", 12: "the last"},
    )
    expect = [(TILE0, 128), (LINK, 64), (TILE1, 64), (SMAP, 16), (CONFIG + 0x50, 16), (CONFIG + 0x500, 32)]
    return Vector("every-op", "every operation, three queues, META and DBG", code, {DRAM: noise("image", 128)}, expect)


def constant_input() -> Vector:
    kernel = {"symbol": "copy_add_i8", "dtype": INT8, "m": 64, "n": 1, "k": 0, "input_bytes": 64, "output_bytes": 64}
    code = program(
        descriptor(Op.COMPUTE, KERNELS, k=0, src=CONST + 32, dst=TILE1),
        kernels=[{**kernel, "operands": [(TILE1 + 64, 64)]}],
        const=noise("constants", 96),
    )
    return Vector("constant-input", "a kernel's input in const", code, {TILE1 + 64: noise("image", 64)}, [(TILE1, 64)])


def registers() -> Iterator[Vector]:
    steep, flat, zero = b"\x65" * 4 + bytes(60), b"\x65" * 64, bytes(64)

    def moving(name: str, title: str, contract: tuple[int, ...], parts: Sequence[bytes], most: int) -> Vector:
        series = Series([descriptor(Op.CONTRACT, contract=7, k=0)])
        for data in parts:
            series.add(data, (len(data) // 64, 64), most, INT8, flags=REGISTER, contract=7)
        series.expect.append((CONFIG + 112, 16))
        return series.vector(name, title, contracts=[contract], config=[(0x510, 8)])

    yield moving(
        "register-moves",
        "k falls to k_lo, then rises, inside one descriptor",
        (16, 14, 48, 2, 30_000, 60_000),
        [steep * 4 + flat * 6],
        48,
    )
    yield moving(
        "register-across",
        "periods go on across descriptors; no key mass moves nothing",
        (8, 1, 9, 4, 65_000, 65_535),
        [zero * 3, zero + flat * 3, flat * 2],
        9,
    )
    yield moving("register-margins", "a share equal to both margins", (16, 8, 32, 1, 16_384, 16_384), [flat * 3], 32)
    yield moving("register-fixed", "period 0: k does not move", (5, 5, 5, 0, 0, 0), [steep + flat + zero], 48)
    sample = Series()
    whole = steep * 3 + flat
    for data in (whole + flat[:40], flat * 2 + steep * 2 + steep[:40]):
        sample.code.append(descriptor(Op.CONTRACT, contract=7, k=0))
        sample.add(data[:256], (4, 64), 48, INT8, flags=REGISTER, contract=7)
        sample.add(data[256:], (1, 40), 30, INT8)
    sample.expect.append((CONFIG + 112, 16))
    yield sample.vector(
        "register-samples",
        "two samples: each begins with the k of the contract, and its short last tile moves nothing",
        contracts=[(32, 16, 48, 1, 30_000, 60_000)],
        config=[(0x510, 8)],
    )
    code = [
        descriptor(Op.CONTRACT, contract=0, k=0),
        descriptor(Op.CFGW, src=CONST, dst=CONFIG, run_bytes=8),
        *transfer((3, 64), 8, INT8, BITMASK, flags=REGISTER),
        *transfer((2, 64), 64, INT8, RAW, (TILE0, LINK + 0x400, TILE1 + 0x400), flags=REGISTER),
    ]
    # k_hi = 200 in the register, yet the descriptor keeps 8; RAW neither reads nor moves it
    bounded = program(
        *code, contracts=[(4, 4, 8, 1, 9, 60_000)], config=[(0x510, 8)], const=struct.pack("<4H", 100, 2, 200, 1)
    )
    yield Vector(
        "register-bounded",
        "a register that was written directly; the descriptor's k bounds it",
        bounded,
        {TILE0: flat * 3},
        [(LINK, 192), (TILE1, 192), (TILE1 + 0x400, 128), (CONFIG, 16)],
    )


def order() -> Iterator[Vector]:
    for taken in (False, True):
        name = "predicate-goes-on" if taken else "predicate-skips"
        code = program(
            descriptor(Op.NOP, IN | PREDICATED, src=TILE0 + 3, next=3, rel_sem=1, rel_add=1),
            descriptor(Op.COPY, IN, src=DRAM, dst=TILE1, run_bytes=8),
            descriptor(Op.COPY, OUT, src=DRAM + 8, dst=TILE1 + 8, run_bytes=8),
            descriptor(Op.COPY, KERNELS, src=DRAM + 16, dst=TILE1 + 16, run_bytes=8, acq_sem=1, acq_ge=1),
            labels={"after": 3},
        )
        title = "the byte is not 0: all runs" if taken else "the byte is 0: two descriptors are skipped"
        load = {DRAM: bytes(range(1, 25)), TILE0: b"\x01\x01\x01\x80" if taken else b"\x01\x01\x01\0"}
        yield Vector(name, title, code, load, [(TILE1, 24)])
    chain = [descriptor(Op.COPY, IN, src=DRAM + i, dst=TILE0 + i, run_bytes=1, rel_sem=1, rel_add=2) for i in range(12)]
    chain += [
        descriptor(
            Op.COPY, OUT, src=TILE0 + i, dst=DRAM + 64 + i, run_bytes=2, acq_sem=1, acq_ge=4, rel_sem=2, rel_add=1
        )
        for i in range(0, 12, 2)
    ]
    chain += [
        descriptor(Op.WAIT, KERNELS, acq_sem=2, acq_ge=6),
        descriptor(Op.COPY, KERNELS, src=DRAM + 64, dst=TILE1, run_bytes=12),
        descriptor(Op.SIGNAL, IN, rel_sem=31, rel_add=255),
        descriptor(Op.WAIT, CONFIGURATION, acq_sem=31, acq_ge=250),
        descriptor(Op.FENCE, OUT),
        descriptor(Op.COPY, IN, src=TILE1, dst=DRAM + 128, run_bytes=12),
    ]
    yield Vector(
        "semaphores",
        "four queues, counts above 1, more descriptors than a queue holds, a FENCE",
        program(*chain),
        {DRAM: noise("chain", 12)},
        [(TILE1, 12), (DRAM + 64, 12), (DRAM + 128, 12)],
    )


def moving() -> Iterator[Vector]:
    code = program(
        descriptor(
            Op.COPY,
            src=DRAM + 60,
            dst=TILE0,
            run_bytes=4,
            reps1=3,
            reps2=2,
            src_st1=-20,
            src_st2=4,
            dst_st1=4,
            dst_st2=16,
        ),
        descriptor(
            Op.COPY,
            src=DRAM,
            dst=TILE0 + 64,
            run_bytes=8,
            reps1=4,
            reps2=2,
            src_st1=8,
            src_st2=32,
            dst_st1=3,
            dst_st2=5,
        ),  # runs overlap: the last one stays
        descriptor(Op.COPY, src=DRAM, dst=DRAM + 4, run_bytes=64),  # reads all before it writes
        descriptor(Op.COPY, src=DRAM + 9, dst=TILE0 + 128, run_bytes=3, reps1=5, dst_st1=3),  # stride 0
        descriptor(Op.COPY, src=CONST, dst=LINK, run_bytes=5, reps1=2, dst_st1=8),
        descriptor(Op.COPY, src=LINK, dst=TILE1, run_bytes=16),
        const=b"const",
    )
    expect = [(TILE0, 32), (TILE0 + 64, 32), (TILE0 + 128, 15), (DRAM, 72), (LINK, 16), (TILE1, 16)]
    yield Vector(
        "copies", "strides of either sign, overlap, the link, constants", code, {DRAM: bytes(range(72))}, expect
    )
    shared = {"dtype": FLOAT16, "codec": BITMASK, "k": 5, "tile_n": 16, "tiles": 2, "run_bytes": 8}
    code = program(
        descriptor(
            Op.SEND,
            **shared,
            src=TILE0 + 100,
            dst=LINK,
            dst_st1=96,
            reps1=4,
            reps2=2,
            src_st1=-32,
            src_st2=8,
            fill=0x3C00,
        ),
        descriptor(Op.RECV, **shared, src=LINK, src_st1=96, dst=TILE1, reps1=8, dst_st1=24, fill=0x3C00),
        config=[(0x504, 0x3000), (0x514, 6)],
    )
    load = {TILE0: halves("strided", 64, FLOAT16), LINK: b"\xaa" * 192, TILE1: b"\xbb" * 200}
    yield Vector(
        "strided-tiles",
        "tiles gathered and scattered; what is around blocks and runs stays",
        code,
        load,
        [(LINK, 192), (TILE1, 200)],
    )


def maps() -> Vector:
    """Averages renewed twice, then a SEND whose keys see them."""
    integers = bytes([1, 3, 255, 253, 8, 8, 248, 248, 100, 156, 5])
    floats = [0x7FC0_0000, 0xFF80_0000, 0xBF80_0000, 0x3F80_0000, 0x4380_0000, 0x3B80_0000, 0x3B7F_FFFF, 0x437F_FFFF]
    update = descriptor(Op.SMAP_UPD, dtype=INT8, tile_n=11, tiles=1, src=TILE0, run_bytes=11, smap=2, dst_st2=4)
    # averages of 11, 12, 60 and 84 / 256 in steps of 1 / 8: where a half is rounded shows
    small = descriptor(Op.SMAP_UPD, dtype=FLOAT16, tile_n=4, tiles=1, src=TILE0 + 256, run_bytes=8, smap=51, dst_st2=1)
    code = program(
        descriptor(Op.SMAP_LOAD, src=CONST, dst=SMAP + 1, run_bytes=6),
        update,
        update,
        descriptor(Op.SMAP_UPD, dtype=FLOAT32, tile_n=4, tiles=2, src=TILE0 + 64, run_bytes=32, smap=8, dst_st2=2),
        descriptor(Op.SMAP_UPD, dtype=FLOAT16, tile_n=10, tiles=1, src=TILE0 + 128, run_bytes=20, smap=16, dst_st2=1),
        descriptor(Op.SMAP_UPD, dtype=BFLOAT16, tile_n=10, tiles=1, src=TILE0 + 192, run_bytes=20, smap=30, dst_st2=1),
        descriptor(
            Op.SMAP_UPD, dtype=INT8, tile_n=4, tiles=1, src=TILE0, run_bytes=4, smap=50, dst_st2=4
        ),  # no gradient
        *transfer((1, 11), 4, INT8, BITMASK, flags=SCORED, smap=2, dst_st2=4),
        small,
        descriptor(Op.COPY, src=TILE1 + 64, dst=TILE0 + 256, run_bytes=8),  # zeros: averages fall
        small,
        descriptor(Op.SMAP_LOAD, src=CONST + 1, dst=SMAP + 52, run_bytes=1),  # the average of this entry starts again
        small | {"src": TILE0 + 264},
        config=[(0x500, 1), (0x510, 7)],
        const=bytes([7, 200, 100, 9, 77, 3]),
        smap=bytes([9] * 8) + b"\xff\xff\x80\x40" + bytes([1] * 4) + noise("gradients", 24) + bytes(11) + b"\xff" * 4,
    )
    load = {
        TILE0: integers,
        TILE0 + 64: join(floats, FLOAT32),
        TILE0 + 128: join(SPECIAL[FLOAT16], FLOAT16),
        TILE0 + 192: join(SPECIAL[BFLOAT16], BFLOAT16),
        TILE0 + 256: struct.pack("<8e", *(number / 256 for number in (11, 12, 60, 84, 7, 60, 3, 90))),
    }
    return Vector(
        "map",
        "SMAP, SMAP_LOAD, SMAP_UPD of every dtype; a SEND with the new map",
        code,
        load,
        [(SMAP, 56), (LINK, 32), (TILE1, 11)],
    )


def other_target() -> Vector:
    """Other regions, tiles and queues than scu-v1."""
    target = json.loads(json.dumps(SCU_V1))
    target["name"] = "conformance-small"
    target["command"] |= {"queue_descriptors": 1, "semaphores": 4}
    target["selector"]["tile_elems"] = 200
    for name, region in (("dram", 9), ("tile0", 1), ("link", 255), ("smap", 200)):
        target["memory"][name]["region"] = region
    target["register"]["key_shift"]["offset"] = 0x600
    at = {name: memory["region"] << 56 for name, memory in target["memory"].items()}
    places = at["tile0"], at["link"], at["tile1"]
    code = program(*transfer((1, 200), 50, INT8, INDEX, places), config=[(0x600, 7)])
    code["code"][0] |= {"flags": OUT, "rel_sem": 3, "rel_add": 1}
    code["code"][1] |= {"flags": IN, "acq_sem": 3, "acq_ge": 1}
    return Vector(
        "other-target",
        "a target of its own: regions, tile length, queue depth, a register's offset",
        code,
        {at["tile0"]: noise("other", 200)},
        [(at["link"], 128), (at["tile1"], 200)],
        target,
    )
