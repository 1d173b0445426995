"""The programs that must run: each a Vector, whose expected bytes reference.py works out."""

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
    RUN,
    WIDTH,
    encode,
    huffman_block,
    join,
    split,
)
from files import DTYPES
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
    Fields,
    Series,
    Vector,
    descriptor,
    halves,
    noise,
    program,
    tensor,
    transfer,
)
from reference import PREDICATED, REGISTER, SCORED, SKIP_ZERO, WIDE_KEYS, Op

KEYS = [(0x500, 0), (0x504, 0x3000), (0x508, 0x3D00), (0x50C, 0x3D00), (0x510, 7), (0x514, 6), (0x518, 3), (0x51C, 3)]
"""Bases and shifts for values around 1: a window of 8 bits over some octaves."""


def vectors() -> Iterator[Vector]:
    yield every_op()
    yield from codecs()
    yield constants()
    yield from keys()
    yield from selection()
    yield from zeros()
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


def codecs() -> Iterator[Vector]:
    for codec, name in ((RAW, "raw"), (BITMASK, "bitmask"), (INDEX, "index"), (RUN, "run")):
        series = Series()
        for dtype in (INT8, FLOAT16, BFLOAT16, FLOAT32):
            data = tensor(f"{name} {DTYPES[dtype]}", 50, dtype)
            series.add(data, (2, 25), 25 if codec == RAW else 6, dtype, codec, flags=SKIP_ZERO * (codec == RUN))
            if codec != RAW:
                few = data[: 17 * WIDTH[dtype]]
                series.add(few, (1, 17), 17, dtype, codec)
        if codec != RAW:
            series.add(bytes(17), (1, 17), 0, INT8, codec)
        yield series.vector(f"codec-{name}", f"{name.upper()}, every dtype; all, some and none kept", config=KEYS)
    series = Series()
    for gap in (0, 14, 15, 30):  # the nibbles 14 and 15, and chains of 15
        series.add(bytes(gap) + b"\x40" + bytes(60 - gap), (1, 61), 1, INT8, RUN)
        series.add(b"\x40" + bytes(gap) + b"\x40" + bytes(59 - gap), (1, 61), 2, INT8, RUN)
    yield series.vector("codec-run-gaps", "RUN with gaps around multiples of 15", config=[(0x510, 6)])
    series = Series()
    for n in (1, 2, 3, 5, 8, 257):
        series.add(noise(f"index {n}", n), (1, n), -(-n // 3), INT8, INDEX)
    yield series.vector("codec-widths", "INDEX positions of 0 to 9 bits", config=[(0x510, 7)])


def constants() -> Vector:
    skewed = bytes((0, 0, 0, 0, 1, 1, 2, 3)[byte & 7] for byte in noise("weights", 340))
    floats = [0x3F80_0000 | word % 0x40_0000 for word in struct.unpack("<160I", noise("floats", 640))]
    half = list(range(0, 340, 2))
    deep = {symbol: min(symbol + 1, 15) for symbol in range(16)}
    ladder = [symbol for symbol in range(16) for _ in range(1 if symbol else 300)]
    cases = [
        (INT8, huffman_block(list(skewed), range(340), INT8, {0: {0: 1, 1: 2, 2: 3, 3: 3}}), 340, 340),
        (INT8, huffman_block(list(skewed), half, INT8, {0: {0: 1, 1: 2, 2: 3, 3: 3}}), 340, len(half)),
        (INT8, huffman_block([9] * 160, range(160), INT8, {0: {9: 1}}), 160, 160),
        (INT8, huffman_block(ladder, range(315), INT8, {0: deep}), 315, 315),
        (INT8, huffman_block([1, 2, 3], [0, 2], INT8, {}), 3, 2),
        (INT8, huffman_block([1, 2, 3], [], INT8, {}), 3, 0),
        (FLOAT32, huffman_block(floats, range(160), FLOAT32, {3: {0x3F: 1}}), 160, 160),
        (
            FLOAT16,
            huffman_block([b * 257 for b in skewed[:340]], half, FLOAT16, {1: {0: 1, 1: 2, 2: 3, 3: 3}}),
            340,
            len(half),
        ),
        (INT8, encode(BITMASK, list(skewed[:80]), list(range(0, 80, 5)), INT8), 80, 16),
        (BFLOAT16, encode(RAW, split(noise("raw constant", 20), BFLOAT16), (), BFLOAT16), 10, 10),
    ]
    code, const, expect, at = list[Fields](), b"", list[tuple[int, int]](), TILE0
    for dtype, block, n, count in cases:
        size = n * WIDTH[dtype]
        code.append(
            descriptor(
                Op.RECV,
                dtype=dtype,
                codec=block[1],
                k=count,
                tile_n=n,
                tiles=1,
                src=CONST + len(const),
                dst=at,
                run_bytes=size,
                src_st1=len(block),
                fill=5,
            )
        )
        const += block
        expect.append((at, size))
        at += -(-size // 64) * 64
    return Vector("constants", "HUFFMAN and other blocks in section CONST", program(*code, const=const), {}, expect)


def keys() -> Iterator[Vector]:
    for dtype, name in enumerate(DTYPES):
        series = Series()
        for flags in (0, WIDE_KEYS, SCORED, SCORED | WIDE_KEYS):
            more = {"smap": 3, "dst_st2": 7} if flags & SCORED else {}
            series.add(tensor(f"keys {name} {flags}", 80, dtype), (2, 40), 14, dtype, flags=flags, **more)
        if dtype != INT8:
            data = join(SPECIAL[dtype], dtype)
            for k in (1, 5):
                series.add(data, (1, 10), k, dtype, flags=WIDE_KEYS)
        base = -3 & 0xFFFF_FFFF if dtype == INT8 else (0x3000, 0x3D00, 0x3D00)[dtype - 1]
        config = [(0x500 + 4 * dtype, base), (0x510 + 4 * dtype, 0xFFF5 if dtype == INT8 else 3)]
        smap = b"\xff\xff\xff" + noise("map", 10) + b"\0\x01"
        title = f"keys of {name}: 8 and 16 bits, with and without the map"
        yield series.vector(f"keys-{name}", title, config=config, smap=smap)


def selection() -> Iterator[Vector]:
    cases = [
        ("ties", bytes(b"\x05\xfb\x05\x04"[b & 3] for b in noise("ties", 48))),
        ("all equal", b"\x05" * 48),
        ("all zero", bytes(48)),
    ]
    series = Series()
    for _, data in cases:
        for k in (0, 1, 31, 48):
            series.add(data, (1, 48), k, INT8)
    yield series.vector("select-ties", "ties, all equal, all zero; k of 0, 1, 31 and all", config=[(0x510, 2)])
    series = Series()
    series.add(b"\x11", (1, 1), 1, INT8)
    series.add(b"\x11", (1, 1), 0, INT8)
    series.add(noise("1023", 1023), (1, 1023), 255, INT8)
    # 1276 elements at a share of 0.25: a whole tile with k = 256, and a last one of 252 with k = 63
    long = noise("short last tile", 1276)
    series.add(long[:1024], (1, 1024), 256, INT8)
    series.add(long[1024:], (1, 252), 63, INT8)
    yield series.vector("select-lengths", "tiles of 1, 1023 and 1024 elements, a last short tile", config=[(0x510, 7)])


def zeros() -> Iterator[Vector]:
    series = Series()
    sparse = bytes(b if b & 0x60 == 0 else 7 for b in noise("sparse", 64))
    for codec in (BITMASK, INDEX, RUN, RAW):
        series.add(sparse, (2, 32), 32 if codec == RAW else 20, INT8, codec, flags=SKIP_ZERO, fill=7)
    series.add(b"\x07" * 64, (1, 64), 16, INT8, flags=SKIP_ZERO, fill=7)
    series.add(sparse, (1, 64), 40, INT8, flags=SKIP_ZERO)  # a fill that is not the zero point
    yield series.vector("skip-zero-int8", "SKIP_ZERO with the zero point as fill", config=[(0x500, 7), (0x510, 7)])
    series = Series()
    for dtype in (FLOAT16, BFLOAT16, FLOAT32):
        nan = {FLOAT16: 0x7E00, BFLOAT16: 0x7FC0, FLOAT32: 0x7FC0}[dtype]
        data = join(SPECIAL[dtype], dtype)
        for fill in (0, 0x8000, nan):
            series.add(data, (1, 10), 10, dtype, flags=SKIP_ZERO, fill=fill)
        series.add(data, (1, 10), 10, dtype, RAW, flags=SKIP_ZERO, fill=0x8000)
        series.add(data, (1, 10), 4, dtype, fill=0x3C00)
    yield series.vector("skip-zero-floats", "-0 equals 0, NaN equals nothing, not even itself", config=KEYS)


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
    yield moving("register-fixed", "period 0: k does not move", (5, 5, 5, 0, 0, 0), [steep + flat + zero], 48)
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
        descriptor(Op.SEND, **shared, src=TILE0 + 100, dst=LINK, dst_st1=96, reps1=4, reps2=2, src_st1=-32, src_st2=8),
        descriptor(Op.RECV, **shared, src=LINK, src_st1=96, dst=TILE1, reps1=8, dst_st1=24, fill=0x3C00),
        config=KEYS,
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
        config=[(0x500, 1), (0x510, 7)],
        const=bytes([7, 200, 100, 9, 77, 3]),
        smap=bytes([9] * 8) + b"\xff\xff\x80\x40" + bytes([1] * 4) + noise("gradients", 24),
    )
    load = {
        TILE0: integers,
        TILE0 + 64: join(floats, FLOAT32),
        TILE0 + 128: join(SPECIAL[FLOAT16], FLOAT16),
        TILE0 + 192: join(SPECIAL[BFLOAT16], BFLOAT16),
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
    target["selector"]["tile_elems"] = 300
    for name, region in (("dram", 9), ("tile0", 1), ("link", 255), ("smap", 200)):
        target["memory"][name]["region"] = region
    target["register"]["key_shift"]["offset"] = 0x600
    at = {name: memory["region"] << 56 for name, memory in target["memory"].items()}
    places = at["tile0"], at["link"], at["tile1"]
    code = program(*transfer((1, 300), 75, INT8, INDEX, places), config=[(0x600, 7)])
    code["code"][0] |= {"flags": OUT, "rel_sem": 3, "rel_add": 1}
    code["code"][1] |= {"flags": IN, "acq_sem": 3, "acq_ge": 1}
    return Vector(
        "other-target",
        "a target of its own: regions, tile length, queue depth, a register's offset",
        code,
        {at["tile0"]: noise("other", 300)},
        [(at["link"], 192), (at["tile1"], 300)],
        target,
    )
