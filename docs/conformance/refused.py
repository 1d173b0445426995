"""What must be refused, and the class of the reason: one fault per case, everything else in order."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from elements import BITMASK, FLOAT16, HUFFMAN, INDEX, INT8, RAW, RUN, WIDTH, coded_plane, encode, seal
from files import SECTIONS, bodies, container, digest, frame, reseal
from programs import (
    CONFIG,
    CONST,
    DRAM,
    IN,
    KERNELS,
    LINK,
    OUT,
    SCU_V1,
    TILE0,
    TILE1,
    Fields,
    descriptor,
    program,
    transfer,
)
from reference import PREDICATED, REGISTER, SCORED, Op


@dataclass(frozen=True)
class Case:
    name: str
    data: bytes
    code: str
    why: str
    by: str = ""


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def files_refused() -> Iterator[Case]:
    for case in (*frames(), *programs()):
        yield Case(case.name, case.data, case.code, case.why, "reader")
    for case in proofs():
        yield Case(case.name, case.data, case.code, case.why, "verifier")


def frames() -> Iterator[Case]:
    good = container(program(const=b"abc"), SCU_V1)
    sections = list(zip(SECTIONS, bodies(program(const=b"abc")), strict=True))
    other = json.loads(json.dumps(SCU_V1)) | {"clock_mhz": 999}
    (const_at,) = struct.unpack_from("<Q", good, 64 + 3 * 32 + 8)

    def changed(section: int, body: bytes) -> bytes:
        return frame([(n, body if i == section else b) for i, (n, b) in enumerate(sections)], digest(SCU_V1))

    yield Case("empty", b"", "SCC090", "no header")
    yield Case("magic", reseal(b"SCUQ" + good[4:]), "SCC090", "the magic is not SCUP")
    yield Case("truncated", good[:-1], "SCC090", "the file is shorter than the header says")
    yield Case("longer", good + b"\0", "SCC090", "the file is longer than the header says")
    yield Case("major", frame(sections, digest(SCU_V1), major=2), "SCC091", "major version 2")
    yield Case("target", frame(sections, digest(other)), "SCC092", "compiled for another target")
    yield Case("header-crc", patched(good, 44, bytes(4)), "SCC093", "CRC32 of header and table")
    yield Case("section-crc", patched(good, const_at, b"x"), "SCC093", "CRC32 of a section")
    yield Case("sha256", good[:-1] + bytes([good[-1] ^ 1]), "SCC093", "SHA-256 of the file")
    yield Case("reserved-header", reseal(patched(good, 56, b"\1")), "SCC090", "reserved bytes of the header")
    yield Case("reserved-entry", reseal(patched(good, 64 + 28, b"\1")), "SCC090", "reserved bytes of a table entry")
    yield Case("padding", reseal(patched(good, const_at + 3, b"\1")), "SCC090", "padding after a section is not zero")
    yield Case("few-sections", frame(sections[:-1], digest(SCU_V1)), "SCC090", "a section is missing")
    more = [*sections, ("MORE", b"")]
    yield Case("many-sections", frame(more, digest(SCU_V1)), "SCC090", "nine sections in minor version 0")
    yield Case("section-order", frame([*sections[1::-1], *sections[2:]], digest(SCU_V1)), "SCC090", "CFG before META")
    yield Case("meta-spaces", changed(0, b"{ }"), "SCC090", "META is not canonical")
    yield Case("meta-list", changed(0, b"[]"), "SCC090", "META is not an object")
    yield Case("code-length", changed(2, bytes(65)), "SCC090", "CODE is not a multiple of 64 B")
    yield Case("contract-reserved", changed(5, bytes(12) + b"\1\0\0\0"), "SCC090", "reserved bytes in CNTR")
    yield Case("contract-length", changed(5, bytes(15)), "SCC090", "CNTR is not a multiple of 16 B")
    yield Case("debug", changed(7, b'{"labels":{}}'), "SCC090", "DBG without notes")


def programs() -> Iterator[Case]:
    """Fields, addresses, contracts, semaphores and room for payloads, as chapter 11 checks them."""

    def case(code: str, name: str, why: str, *descriptors: Fields, **tables: Any) -> Case:
        return Case(name, container(program(*descriptors, **tables), SCU_V1), code, why)

    copy = descriptor(Op.COPY, src=DRAM, dst=TILE0, run_bytes=8)
    send, receive = transfer((1, 64), 16, INT8, BITMASK)
    update = descriptor(Op.SMAP_UPD, dtype=INT8, tile_n=64, tiles=1, src=TILE0, run_bytes=64, dst_st2=1)
    load = descriptor(Op.CONTRACT, contract=0, k=0)
    nop = descriptor(Op.NOP)
    fixed = (16, 16, 16, 0, 0, 0)
    kernel = {"symbol": "f", "dtype": 0, "m": 1, "n": 1, "k": 0, "input_bytes": 1, "output_bytes": 1, "operands": []}
    compute = descriptor(Op.COMPUTE, src=TILE0, dst=TILE0)

    no_end = program()
    no_end["code"] = [nop]
    yield Case("no-end", container(no_end, SCU_V1), "SCC100", "the last descriptor is not END")
    yield case("SCC100", "end-inside", "END before the last descriptor", descriptor(Op.END), nop)
    yield case("SCC100", "op", "operation 13", nop | {"op": 13})
    yield case("SCC100", "unused-field", "NOP does not use run_bytes", nop | {"run_bytes": 1})
    yield case("SCC100", "flag", "SCORED of a COPY", copy | {"flags": copy["flags"] | SCORED})
    yield case("SCC100", "flag-32", "bit 5 of flags means nothing", send | {"flags": send["flags"] | 32})
    yield case("SCC100", "queue", "CONTRACT outside CONFIG", load | {"flags": IN}, contracts=[fixed])
    yield case("SCC100", "backward", "next goes back", nop, descriptor(Op.NOP, IN | PREDICATED, src=TILE0, next=1))
    yield case(
        "SCC100", "beyond", "next is beyond the last descriptor", descriptor(Op.NOP, IN | PREDICATED, src=TILE0, next=2)
    )
    jump = descriptor(Op.NOP, IN | PREDICATED, src=TILE0)
    yield case("SCC100", "predicate-next", "PREDICATED without next", jump)
    yield case("SCC100", "next", "next without PREDICATED", nop | {"next": 1})
    yield case("SCC100", "predicate-source", "src without PREDICATED", nop | {"src": TILE0})
    yield case("SCC100", "no-bytes", "run_bytes is 0", copy | {"run_bytes": 0})
    yield case("SCC100", "no-repetition", "reps1 is 0", copy | {"reps1": 0})
    yield case("SCC100", "stride", "a stride, and reps1 is 1", copy | {"src_st1": 8})
    yield case("SCC100", "dtype", "dtype 4", receive | {"dtype": 4})
    yield case("SCC100", "codec", "codec 5", receive | {"codec": 5})
    yield case("SCC100", "send-huffman", "HUFFMAN is received only", send | {"codec": HUFFMAN, "dst_st1": 96})
    yield case("SCC100", "contract-unused", "a contract without REGISTER", send | {"contract": 1})
    yield case("SCC100", "map-unused", "a map entry without SCORED", send | {"smap": 1})
    yield case("SCC100", "map-block", "no elements share a map entry", update | {"dst_st2": 0})
    yield case("SCC100", "fill", "a fill of 9 bits for int8", send | {"fill": 256})
    yield case("SCC100", "tile-bytes", "run_bytes is not that of the tiles", send | {"run_bytes": 63})
    yield case("SCC100", "kernel-number", "kernel 1 of 1", compute | {"k": 1}, kernels=[kernel])
    yield case("SCC100", "symbol", "a symbol that is no C identifier", kernels=[kernel | {"symbol": "f-g"}])
    yield case("SCC100", "label", "a label beyond the code", labels={"x": 1})
    yield case("SCC100", "note", "a note of two lines", notes={0: "a\nb"})
    yield case("SCC101", "region", "no memory has region 8", copy | {"src": 8 << 56})
    yield case("SCC101", "outside", "one byte beyond the memory", copy | {"dst": TILE0 + 0x4_0000 - 7})
    yield case(
        "SCC101", "before", "a negative stride leaves the memory", copy | {"reps1": 2, "src_st1": -1, "dst_st1": 8}
    )
    yield case("SCC101", "kind", "COPY into const", copy | {"dst": CONST}, const=bytes(8))
    yield case("SCC101", "input", "a kernel's input in dram", compute | {"src": DRAM}, kernels=[kernel])
    yield case("SCC101", "constants", "beyond section CONST", copy | {"src": CONST + 1}, const=bytes(8))
    yield case("SCC101", "map-range", "map entries beyond the map", update | {"smap": 16384 - 63})
    configure = descriptor(Op.CFGW, src=CONST, dst=CONFIG + 0x500, run_bytes=4)
    yield case("SCC101", "read-only", "CFGW to a counter", configure | {"dst": CONFIG + 0x800}, const=bytes(8))
    yield case("SCC101", "half-register", "CFGW of half a word", configure | {"run_bytes": 2}, const=bytes(8))
    yield case(
        "SCC101",
        "two-arrays",
        "CFGW over the end of key_base",
        configure | {"dst": CONFIG + 0x50C, "run_bytes": 8},
        const=bytes(8),
    )
    yield case("SCC101", "cfg", "CFG writes where no register is", config=[(0x700, 0)])
    yield case("SCC101", "operand", "an operand in link", kernels=[kernel | {"operands": [(LINK, 1)]}])
    yield case("SCC102", "k", "k is greater than the tile", receive | {"k": 65})
    yield case("SCC102", "raw-k", "RAW keeps everything", send | {"codec": RAW, "dst_st1": 96})
    yield case("SCC102", "tile", "tiles of 1025 elements", update | {"tile_n": 1025, "run_bytes": 1025})
    yield case("SCC102", "no-tiles", "no tiles", update | {"tiles": 0})
    named = send | {"flags": send["flags"] | REGISTER}
    yield case("SCC102", "not-loaded", "a register that no CONTRACT loads", named)
    yield case(
        "SCC102", "k-hi", "k_hi is greater than the descriptor's k", load, named, contracts=[(16, 1, 17, 1, 0, 9)]
    )
    yield case("SCC102", "register", "contract register 64", load | {"contract": 64}, contracts=[fixed])
    yield case("SCC102", "entry", "contract 1 of 1", load | {"k": 1}, contracts=[fixed])
    yield case("SCC102", "k-order", "k_lo is greater than k", contracts=[(16, 17, 18, 1, 0, 0)])
    yield case("SCC102", "margins", "margin_lo is greater than margin_hi", contracts=[(16, 1, 18, 1, 9, 8)])
    yield case("SCC102", "fixed", "period 0, and k_lo is less than k", contracts=[(16, 1, 16, 0, 0, 0)])
    yield case("SCC103", "semaphore", "semaphore 32", nop | {"acq_sem": 32, "acq_ge": 1})
    yield case("SCC103", "nothing", "a semaphore and no count", nop | {"rel_sem": 1})
    yield case("SCC103", "wait", "WAIT for nothing", descriptor(Op.WAIT))
    yield case("SCC104", "room", "one unit of 32 B too few", send | {"dst_st1": 32}, receive)
    yield case("SCC104", "room-32", "not a multiple of 32 B", send | {"dst_st1": 65}, receive)


def proofs() -> Iterator[Case]:
    def case(code: str, name: str, why: str, *descriptors: Fields) -> Case:
        return Case(name, container(program(*descriptors), SCU_V1), code, why)

    send, receive = transfer((1, 64), 16, INT8, BITMASK)
    wait = descriptor(Op.WAIT, IN, acq_sem=1, acq_ge=1)
    signal = descriptor(Op.SIGNAL, OUT, rel_sem=1, rel_add=1)
    copy = descriptor(Op.COPY, OUT, src=DRAM, dst=TILE0, run_bytes=8)
    skip = descriptor(Op.NOP, OUT | PREDICATED, src=TILE1, next=2)
    yield case("SCC105", "deadlock", "nothing releases what is waited for", wait)
    yield case(
        "SCC105",
        "cycle",
        "two queues wait for each other",
        wait | {"rel_sem": 2, "rel_add": 1},
        signal | {"acq_sem": 2, "acq_ge": 1},
    )
    yield case(
        "SCC105", "full-queue", "the release stands behind a full queue", *[wait | {"acq_sem": 1}] * 9, *[signal] * 9
    )
    yield case(
        "SCC105",
        "two-acquirers",
        "two queues acquire one semaphore",
        wait,
        wait | {"flags": KERNELS},
        signal | {"rel_add": 2},
    )
    yield case("SCC105", "skipped-release", "a release that may be skipped", skip, signal, wait)
    yield case(
        "SCC106",
        "race",
        "a read that does not wait for the write",
        copy,
        descriptor(Op.COPY, IN, src=TILE0 + 7, dst=TILE1, run_bytes=1),
    )
    read = descriptor(Op.COPY, IN, src=TILE0, dst=TILE1, run_bytes=8)
    yield case("SCC128", "overlap", "two writes of one byte in any order", copy, copy | {"flags": IN, "dst": TILE0 + 7})
    yield case("SCC128", "used-again", "a write over what may not have been read yet", read, copy)
    first = copy | {"flags": IN, "rel_sem": 1, "rel_add": 1}
    yield case(
        "SCC128",
        "second-buffer",
        "a second write over the first, which a read that waits for the first may still need",
        first,
        copy | {"flags": IN, "dst": TILE0 + 7},
        read | {"flags": OUT, "acq_sem": 1, "acq_ge": 1},
    )
    yield case("SCC107", "unsent", "nothing has sent the blocks", receive)
    yield case("SCC107", "other-k", "the receiver expects another k", send, receive | {"k": 15})
    yield case("SCC107", "other-fill", "the receiver fills with another value", send, receive | {"fill": 1})
    yield case("SCC107", "lost", "blocks are overwritten before they are received", send, send, receive)
    yield case(
        "SCC107",
        "skipped-send",
        "the blocks may not have been sent",
        skip,
        send | {"flags": OUT},
        receive | {"flags": OUT},
    )
    yield case("SCC108", "overflow", "a semaphore may count to 256", *[signal | {"rel_add": 128}] * 2)


def runs_refused() -> Iterator[Case]:
    """Blocks in section CONST that a RECV of a valid program meets, and a semaphore that counts too far."""
    x, kept = list(range(64)), list(range(0, 64, 4))
    mask, index, runs = (encode(codec, x, kept, INT8) for codec in (BITMASK, INDEX, RUN))

    def case(
        code: str, name: str, why: str, block: bytes, codec: int = BITMASK, n: int = 64, k: int = 16, dtype: int = INT8
    ) -> Case:
        receive = descriptor(
            Op.RECV,
            dtype=dtype,
            codec=codec,
            k=k,
            tile_n=n,
            tiles=1,
            src=CONST,
            dst=TILE0,
            run_bytes=n * WIDTH[dtype],
            src_st1=len(block),
        )
        return Case(name, container(program(receive, const=block), SCU_V1), code, why)

    def resealed(block: bytes, at: int, new: bytes, codec: int) -> bytes:
        count, size = struct.unpack_from("<HI", block, 6)
        return seal(codec, INT8, block[3], 64, count, patched(block[16 : 16 + size], at, new))

    yield case("SCC096", "block-room", "the block is longer than what is reserved", mask[:32])
    yield case("SCC097", "block-crc", "a value was changed", patched(mask, 30, b"\xff"))
    yield case("SCC098", "block-version", "block version 2", patched(mask, 0, b"\2"))
    yield case("SCC098", "block-codec", "codec 5", patched(mask, 1, b"\5"))
    yield case("SCC098", "block-flags", "a flag of a BITMASK block", patched(mask, 3, b"\1"))
    yield case("SCC099", "other-codec", "INDEX where BITMASK is expected", index)
    yield case("SCC099", "other-dtype", "float16 where int8 is expected", encode(BITMASK, x, kept, FLOAT16))
    yield case("SCC099", "other-length", "64 elements where 63 are expected", mask, n=63)
    yield case("SCC099", "many", "16 elements where 15 are expected", mask, k=15)
    yield case("SCC099", "block-padding", "padding is not zero", patched(mask, 41, b"\1"))
    yield case("SCC099", "body-length", "one value too many", seal(BITMASK, INT8, 0, 64, 16, mask[16:40] + b"\0"))
    yield case("SCC099", "mask-count", "the mask marks 15 of 16", resealed(mask, 0, b"\x01", BITMASK))
    mask_60 = seal(BITMASK, INT8, 0, 60, 1, bytes(7) + b"\x80\x01")
    yield case("SCC099", "mask-beyond", "the mask marks element 63 of 60", mask_60, n=60)
    yield case("SCC099", "index-order", "positions that do not ascend", resealed(index, 0, b"\xff", INDEX), INDEX)
    index_60 = seal(INDEX, INT8, 0, 60, 1, b"\x3f\x01")
    yield case("SCC099", "index-beyond", "position 63 of 60", index_60, INDEX, 60)
    index_bits = seal(INDEX, INT8, 0, 64, 1, b"\xc0\x01")
    yield case("SCC099", "index-bits", "unused bits of the positions are not zero", index_bits, INDEX)
    yield case("SCC099", "run-count", "runs that lead to too few elements", resealed(runs, 0, b"\xff", RUN), RUN)
    yield case(
        "SCC099", "run-beyond", "a run that leads beyond the tile", seal(RUN, INT8, 0, 4, 1, b"\xf4\1"), RUN, 4, 4
    )
    yield case("SCC099", "run-longer", "nibbles after the last value", seal(RUN, INT8, 0, 64, 1, b"\xf0\xff\1"), RUN)
    plane = coded_plane(bytes(160), {0: 1})
    yield case(
        "SCC099",
        "huffman-code",
        "lengths that make no complete code",
        seal(HUFFMAN, INT8, 1, 160, 160, coded_plane(bytes(160), {0: 1, 1: 2})),
        HUFFMAN,
        160,
        160,
    )
    yield case(
        "SCC099",
        "huffman-early",
        "codes that end early",
        seal(HUFFMAN, INT8, 1, 160, 160, plane[:-1]),
        HUFFMAN,
        160,
        160,
    )
    yield case(
        "SCC099",
        "huffman-longer",
        "bytes after the last code",
        seal(HUFFMAN, INT8, 1, 160, 160, plane + b"\0"),
        HUFFMAN,
        160,
        160,
    )
    yield case(
        "SCC099",
        "huffman-bits",
        "unused bits after the last code are not zero",
        seal(HUFFMAN, INT8, 1, 160, 160, plane[:-1] + b"\x80"),
        HUFFMAN,
        160,
        160,
    )
    yield case(
        "SCC099",
        "huffman-unused",
        "the one code that a single symbol leaves unused",
        seal(HUFFMAN, INT8, 1, 160, 160, patched(plane, 128, b"\1")),
        HUFFMAN,
        160,
        160,
    )
    yield case(
        "SCC099",
        "huffman-plain",
        "a coded plane that is no shorter than a plain one",
        seal(HUFFMAN, INT8, 1, 130, 130, coded_plane(bytes(130), {0: 1})),
        HUFFMAN,
        130,
        130,
    )
    half = coded_plane(bytes(170), {0: 1}) + coded_plane(bytes(4) + b"\1" * 166, {0: 1, 1: 2, 2: 2})  # 150 and 170 B
    yield case(
        "SCC099",
        "huffman-plain-half",
        "the second of two coded planes is as long as a plain one",
        seal(HUFFMAN, FLOAT16, 3, 170, 170, half),
        HUFFMAN,
        170,
        170,
        FLOAT16,
    )
    overflow = program(*[descriptor(Op.SIGNAL, IN, rel_sem=1, rel_add=200)] * 2)
    yield Case("run-overflow", container(overflow, SCU_V1), "SCC103", "a semaphore counts to 400")


def assembly_refused() -> Iterator[Case]:
    for name, line, why in (
        ("operation", "move.in", "unknown operation"),
        ("queue", "nop.side", "unknown queue"),
        ("field", "nop.in size=3", "unknown field"),
        ("raw-semaphore", "nop.in acq_sem=3", "semaphores are written acq= and rel="),
        ("flag", "nop.in fast", "unknown flag"),
        ("twice", "nop.in tag=1 tag=1", "a field is given twice"),
        ("number", "nop.in tag=1e3", "not a number"),
        ("memory", "copy.in src=sram+0x0", "unknown memory"),
        ("label", "nop.in predicated src=tile0+0x0 next=nowhere", "no such label"),
        ("directive", ".text", "unknown directive"),
        ("contract", ".contract k=1", "k_lo and k_hi are missing"),
        ("bytes", ".const 0g", "not hexadecimal"),
    ):
        yield Case(f"asm-{name}", f"{line}\nend.in\n".encode(), "SCC094", why)
    other = f".target {SCU_V1['name']} {'0' * 64}\nend.in\n"
    yield Case("asm-target", other.encode(), "SCC092", "written for another target")
    yield Case("asm-labels", b"a:\nnop.in\na:\nend.in\n", "SCC094", "a label is defined twice")
