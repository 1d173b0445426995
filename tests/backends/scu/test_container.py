"""program.scu: one file per program, and nothing believed that a file says."""

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scu_programs import EVERY_OP, TARGET, M, programs, reseal

from sparsecc.backends.scu.asm import assemble, disassemble
from sparsecc.backends.scu.check import check_program
from sparsecc.backends.scu.codecs import Codec, Dtype
from sparsecc.backends.scu.container import ENTRY, HEADER, SECTIONS, read, write
from sparsecc.backends.scu.descriptor import LAYOUT, Descriptor, Flag, Op, flags
from sparsecc.backends.scu.machine import OFFSET_BITS, OFFSET_MASK, from_json, to_json
from sparsecc.backends.scu.unit_program import Contract, Kernel, Operand, UnitProgram
from sparsecc.diagnostics import CompileError

GOLDEN = Path(__file__).parent / "golden"
FILE = write(EVERY_OP, TARGET)
COPY_HELP = "copy the file again from where it was made, or compile the model again"
CODE_AT = ENTRY.unpack_from(FILE, HEADER.size + 2 * ENTRY.size)[1]


def refusal(data: bytes) -> str:
    with pytest.raises(CompileError) as caught:
        read(data, TARGET)
    return str(caught.value)


def patched(offset: int, form: str, *values: Any) -> bytes:
    """FILE with other values at an offset, its checksums left as they were."""
    file = bytearray(FILE)
    struct.pack_into(form, file, offset, *values)
    return bytes(file)


# ---- conformance -----------------------------------------------------------------------------------------------------


def hex_lines(data: bytes) -> str:
    return "".join(f"{at:06x}  {data[at : at + 32].hex()}\n" for at in range(0, len(data), 32))


def test_golden_program_byte_for_byte() -> None:
    """golden/every_op.hex is the file, golden/every_op.s its assembly."""
    assert hex_lines(FILE) == (GOLDEN / "every_op.hex").read_text()
    assert disassemble(EVERY_OP, TARGET) == (GOLDEN / "every_op.s").read_text()


def test_golden_text_makes_the_golden_file() -> None:
    lines = (GOLDEN / "every_op.hex").read_text().splitlines()
    data = bytes.fromhex("".join(line.split()[1] for line in lines))
    assert read(data, TARGET) == EVERY_OP
    assert write(assemble((GOLDEN / "every_op.s").read_text(), TARGET), TARGET) == data


@settings(max_examples=150)
@given(programs())
def test_read_returns_what_was_written(program: UnitProgram) -> None:
    data = write(program, TARGET)
    assert read(data, TARGET) == program
    assert write(program, TARGET) == data


def test_sections_are_aligned() -> None:
    table = [ENTRY.unpack_from(FILE, HEADER.size + ENTRY.size * i) for i in range(len(SECTIONS))]
    assert [name.rstrip(b"\0").decode() for name, *_ in table] == list(SECTIONS)
    assert all(offset % 64 == 0 for _, offset, _, _ in table)


# ---- the file --------------------------------------------------------------------------------------------------------


def test_truncated() -> None:
    assert refusal(FILE[:-1]) == (
        f"error[SCC090]: program.scu is not a readable program: it has {len(FILE) - 1} B, "
        f"and its header says {len(FILE)}\n  help: {COPY_HELP}"
    )
    for length in range(len(FILE)):
        assert refusal(FILE[:length]).startswith("error[SCC090]")


def test_not_a_program() -> None:
    assert refusal(b"") == (
        "error[SCC090]: program.scu is not a readable program: its 0 bytes do not begin with a header "
        f"of 64 B and 'SCUP'\n  help: {COPY_HELP}"
    )


def test_unknown_major_version() -> None:
    assert refusal(reseal(patched(4, "<H", 2))) == (
        "error[SCC091]: program.scu has format version 2.0; this sparsecc reads version 1\n"
        "  help: use the sparsecc that wrote it, or compile the model again with this one"
    )


def test_newer_minor_version_may_add_a_section() -> None:
    assert read(reseal(patched(6, "<H", 9)), TARGET) == EVERY_OP
    assert "a table of 9 sections, expected 8" in refusal(reseal(patched(40, "<I", 9)))


def test_other_target() -> None:
    text = to_json(TARGET).replace('"clock_mhz": 1000', '"clock_mhz": 1001')
    with pytest.raises(CompileError) as caught:
        read(FILE, from_json(text))
    assert str(caught.value) == (
        f"error[SCC092]: program.scu was compiled for a target with digest {TARGET.digest.hex()[:16]}, "
        f"and scu-v1 has {from_json(text).digest.hex()[:16]}\n"
        "  help: use the target.json that lies beside it, or compile the model again for this target"
    )


@pytest.mark.parametrize(
    ("offset", "what"),
    [
        (8, "the CRC32 of its header does not match"),
        (HEADER.size + 24, "the CRC32 of its header does not match"),
        (CODE_AT, "the CRC32 of section CODE does not match"),
        (len(FILE) - 1, "its SHA-256 does not match"),
    ],
)
def test_changed_after_it_was_written(offset: int, what: str) -> None:
    damaged = patched(offset, "B", FILE[offset] ^ 1)
    assert refusal(damaged) == (
        f"error[SCC093]: program.scu was changed after it was written: {what}\n  help: {COPY_HELP}"
    )


def test_every_single_bit_counts() -> None:
    for offset in range(len(FILE)):
        with pytest.raises(CompileError, match=r"SCC09[0123]"):
            read(patched(offset, "B", FILE[offset] ^ 1 << offset % 8), TARGET)


def section(name: str, index: int) -> int:
    """Offset of a field of the section table: 0 name, 1 offset, 2 bytes."""
    return HEADER.size + ENTRY.size * SECTIONS.index(name) + 8 * index


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (patched(section("CODE", 1), "<Q", 2**63), "section 2 has 832 B at 9223372036854775808, expected 448"),
        (patched(section("CODE", 2), "<Q", 2**63), "section 2 has 9223372036854775808 B at 448"),
        (patched(section("CODE", 1), "<Q", CODE_AT - 64), "section 2 has 832 B at 384, expected 448"),
        (patched(section("CODE", 2), "<Q", 831), "section CODE has 831 B, expected a multiple of 64"),
        (patched(section("CFG", 0), "4s", b"CODE"), "section 1 is called b'CODE\\x00\\x00\\x00\\x00', expected CFG"),
        (patched(40, "<I", 7), "it has a table of 7 sections, expected 8"),
        (patched(40, "<I", 2**32 - 1), "it has a table of 4294967295 sections, expected 8"),
        (patched(60, "B", 1), "reserved bytes of its header are not zero"),
        (patched(section("CFG", 0) + 28, "B", 1), "reserved bytes of section 1 are not zero"),
        (patched(section("CFG", 2), "<Q", 15), "the padding before section 2 is not zero"),
        (patched(FILE.index(b'{"model"'), "B", ord("[")), "Expecting"),
        (patched(FILE.index(b'"model"') + 8, "B", ord(" ")), "Expecting"),
        (patched(FILE.index(b"conv1") + 6, "B", 1), "'conv1\\x00\\x01' is not a C identifier"),
    ],
)  # fmt: skip
def test_malformed_and_sealed_again(data: bytes, what: str) -> None:
    found = refusal(reseal_quietly(data))
    assert what in found
    assert found.startswith(("error[SCC090]: program.scu", "error[SCC100]: program.scu"))


def reseal_quietly(data: bytes) -> bytes:
    try:
        return reseal(data)
    except (OverflowError, struct.error):
        return data


def test_meta_that_is_not_json() -> None:
    metas: tuple[Any, ...] = ({"a": float("nan")}, {"a": {1, 2}}, {1: 2}, {"a": (1,)})
    for meta in metas:
        with pytest.raises(CompileError, match="SCC090"):
            write(replace(EVERY_OP, meta=meta), TARGET)


# ---- what a program asks for -----------------------------------------------------------------------------------------


def with_fields(place: int, **fields: int) -> UnitProgram:
    code = list(EVERY_OP.code)
    code[place] = replace(code[place], **fields)
    return replace(EVERY_OP, code=tuple(code))


CFGW, LOAD, CONTRACT, COPY, COMPUTE, NOP, WAIT, SEND, RECV, UPD, SIGNAL, FENCE, END = range(13)
FAULTS: list[tuple[UnitProgram, str, str]] = [
    (with_fields(FENCE, op=13), "SCC100", "descriptor 11 (?): unknown operation 13"),
    (with_fields(END, op=Op.NOP), "SCC100", "the program does not end with END"),
    (with_fields(FENCE, op=Op.END), "SCC100", "descriptor 11 (END): descriptors follow"),
    (with_fields(FENCE, k=1), "SCC100", "descriptor 11 (FENCE): k is 1, and FENCE does not use it"),
    (with_fields(FENCE, flags=32), "SCC100", "descriptor 11 (FENCE): flags 0x20 do not apply"),
    (with_fields(CFGW, flags=0), "SCC100", "descriptor 0 (CFGW): in queue IN, expected CONFIG"),
    (with_fields(NOP, next=5), "SCC100", "descriptor 5 (NOP): next is 5, expected 6 to 12: only forward"),
    (with_fields(NOP, next=13), "SCC100", "descriptor 5 (NOP): next is 13, expected 6 to 12: only forward"),
    (with_fields(NOP, flags=0), "SCC100", "descriptor 5 (NOP): PREDICATED and next belong together"),
    (with_fields(COPY, reps1=0), "SCC100", "descriptor 3 (COPY): repeats 0 times"),
    (with_fields(COPY, run_bytes=0), "SCC100", "descriptor 3 (COPY): moves no bytes"),
    (with_fields(COPY, reps1=1), "SCC100", "descriptor 3 (COPY): src_st1 is 64, and reps1 is 1"),
    (with_fields(SEND, dtype=4), "SCC100", "descriptor 7 (SEND): scu-v1 has no dtype 4"),
    (with_fields(SEND, codec=5), "SCC100", "descriptor 7 (SEND): scu-v1 has no codec 5"),
    (with_fields(SEND, codec=Codec.HUFFMAN), "SCC100",
     "descriptor 7 (SEND): HUFFMAN is for constants: it is received only"),
    (with_fields(SEND, tiles=3), "SCC100", "descriptor 7 (SEND): moves 1024 B, and its tiles have 768 B"),
    (with_fields(SEND, dst_st2=0), "SCC100", "descriptor 7 (SEND): 0 elements share a map entry"),
    (with_fields(RECV, fill=256), "SCC100", "descriptor 8 (RECV): fill is 256, and an int8 has 8 bits"),
    (with_fields(COMPUTE, k=1), "SCC100", "descriptor 4 (COMPUTE): kernel 1 of 1 in section KTAB"),
    (replace(EVERY_OP, config=((0x500, 1 << 32),)), "SCC100",
     "section CFG writes 4294967296, and a register word has 32 bits"),
    (replace(EVERY_OP, labels={"a b": 0}), "SCC100", "label 'a b' does not name one of the 13 descriptors"),
    (replace(EVERY_OP, labels={"a": 13}), "SCC100", "label 'a' does not name one of the 13 descriptors"),
    (replace(EVERY_OP, notes={0: "a\nb"}), "SCC100",
     "note 0 is not one line of at most 200 characters on a descriptor"),
    (replace(EVERY_OP, kernels=(Kernel("a b", 0, 1, 1, 1, 256, 1024),)), "SCC100",
     "kernel 0: 'a b' is not a C identifier of at most 31 characters"),
    (with_fields(COPY, src=M["dram"] + 2**30 - 479), "SCC101",
     "descriptor 3 (COPY): src reaches bytes 1073741345 to 1073741824 of dram, which has 1073741824 B"),
    (with_fields(COPY, dst_st1=-1), "SCC101",
     "descriptor 3 (COPY): dst reaches bytes -3 to 159 of tile0, which has 262144 B"),
    (with_fields(COPY, src=9 << OFFSET_BITS), "SCC101",
     "descriptor 3 (COPY): src is 0x900000000000000, and scu-v1 has no region 9"),
    (with_fields(COPY, dst=0), "SCC101", "descriptor 3 (COPY): dst is 0x0, and scu-v1 has no region 0"),
    (with_fields(COPY, dst=M["config"]), "SCC101",
     "descriptor 3 (COPY): dst is in config, expected dram or scratchpad or link"),
    (with_fields(SEND, dst=M["link"] + 0x8000 - 511), "SCC101",
     "descriptor 7 (SEND): dst reaches bytes 32257 to 32768 of link, which has 32768 B"),
    (with_fields(SEND, smap=16381), "SCC101", "descriptor 7 (SEND): map entries 16381 to 16384 of 16384"),
    (with_fields(RECV, src=M["link"] + 0x8000), "SCC101",
     "descriptor 8 (RECV): src reaches bytes 32768 to 33279 of link, which has 32768 B"),
    (with_fields(UPD, smap=16381), "SCC101", "descriptor 9 (SMAP_UPD): map entries 16381 to 16384 of 16384"),
    (with_fields(LOAD, src=M["const"] + 37), "SCC101",
     "descriptor 1 (SMAP_LOAD): src reaches bytes 37 to 40 of const, which has 40 B"),
    (with_fields(COMPUTE, dst=M["tile0"] + 2**18 - 1023), "SCC101",
     "descriptor 4 (COMPUTE): dst reaches bytes 261121 to 262144 of tile0, which has 262144 B"),
    (with_fields(NOP, src=M["tile0"] + 2**18), "SCC101",
     "descriptor 5 (NOP): src reaches bytes 262144 to 262144 of tile0, which has 262144 B"),
    (with_fields(CFGW, dst=M["config"] + 0x400), "SCC101",
     "descriptor 0 (CFGW): offset 0x400, 16 B: not words of registers to write"),
    (replace(EVERY_OP, config=((0x800, 1),)), "SCC101",
     "section CFG writes offset 0x800, where scu-v1 has no register to write"),
    (replace(EVERY_OP, smap=bytes(16385)), "SCC101",
     "section SMAP has 16385 B, and its memory in scu-v1 16384 B"),
    (replace(EVERY_OP, kernels=(Kernel("f", 0, 1, 1, 1, 256, 1024, (Operand(M["const"] + 30, 11),)),)), "SCC101",
     "kernel 0: operand 0 reaches bytes 30 to 40 of const, which has 40 B"),
    (with_fields(SEND, k=257), "SCC102", "descriptor 7 (SEND): keeps 257 of 256 elements with codec BITMASK"),
    (with_fields(SEND, codec=Codec.RAW), "SCC102", "descriptor 7 (SEND): keeps 64 of 256 elements with codec RAW"),
    (with_fields(SEND, tile_n=2048), "SCC102",
     "descriptor 7 (SEND): 4 tiles of 2048 elements; a tile of scu-v1 has 1 to 1024"),
    (with_fields(SEND, k=63), "SCC102",
     "descriptor 7 (SEND): k is 63, and contract register 5 is loaded with a k_hi of 64"),
    (with_fields(SEND, contract=6), "SCC102", "descriptor 7 (SEND): k is 64, and contract register 6 is never loaded"),
    (with_fields(CONTRACT, contract=64), "SCC102", "descriptor 2 (CONTRACT): contract register 64 of 64"),
    (with_fields(CONTRACT, k=1), "SCC102", "descriptor 2 (CONTRACT): contract 1 of 1 in section CNTR"),
    (replace(EVERY_OP, contracts=(Contract(65, 32, 64, 1),)), "SCC102",
     "contract 0: k_lo 32 <= k 65 <= k_hi 64 <= 1024 elements of a tile does not hold"),
    (replace(EVERY_OP, contracts=(Contract(48, 32, 64),)), "SCC102",
     "contract 0: a period of 0 fixes k, so k_lo = k = k_hi and no margins"),
    (with_fields(WAIT, acq_sem=32), "SCC103", "descriptor 6 (WAIT): acquires semaphore 32 of 32"),
    (with_fields(SIGNAL, rel_sem=255), "SCC103", "descriptor 10 (SIGNAL): releases semaphore 255 of 32"),
    (with_fields(COPY, rel_add=0), "SCC103", "descriptor 3 (COPY): releases nothing of semaphore 2"),
    (with_fields(WAIT, acq_sem=0, acq_ge=0), "SCC103", "descriptor 6 (WAIT): names no semaphore"),
    (with_fields(SEND, dst_st1=96), "SCC104",
     "descriptor 7 (SEND): reserves 96 B for a block, expected a multiple of 32 from 128 B"),
    (with_fields(RECV, src_st1=-32), "SCC104",
     "descriptor 8 (RECV): reserves -32 B for a block, expected a multiple of 32 from 32 B"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "code", "message"), FAULTS, ids=[f"{c} {m}" for _, c, m in FAULTS])
def test_planted_fault(program: UnitProgram, code: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused when written, and when read from a file whose writer did not check."""
    with pytest.raises(CompileError) as caught:
        write(program, TARGET)
    first = caught.value.diagnostics[0]
    assert (first.code, first.message) == (code, f"the program: {message}")
    assert first.help == f"`scu-v1` cannot run it; {COPY_HELP}"
    if "4294967296" in message:
        return  # no file can say it
    with monkeypatch.context() as patch:
        patch.setattr("sparsecc.backends.scu.container.check_program", lambda *_: iter(()))
        data = write(program, TARGET)
    assert refusal(data).startswith(f"error[{code}]: program.scu: {message}\n")


def test_every_finding_is_reported_up_to_twenty() -> None:
    code = (*(Descriptor(Op.WAIT, acq_sem=40, acq_ge=1) for _ in range(30)), Descriptor(Op.END))
    with pytest.raises(CompileError) as caught:
        write(UnitProgram(code), TARGET)
    assert len(caught.value.diagnostics) == 20


# ---- mutations -------------------------------------------------------------------------------------------------------


def byte_ranges(program: UnitProgram) -> Iterator[tuple[int, int, int]]:
    """Region, first byte and end of everything a program touches, found by walking every run: no code of check.py."""
    for d in program.code:
        dense_source, dense_target = d.op in (Op.COPY, Op.SEND, Op.SMAP_UPD), d.op in (Op.COPY, Op.RECV)
        for used, base, st1, st2 in (
            (dense_source, d.src, d.src_st1, d.src_st2),
            (dense_target, d.dst, d.dst_st1, d.dst_st2),
        ):
            corners = [(i, j) for i in (0, d.reps1 - 1) for j in (0, d.reps2 - 1)] if used else []
            for i, j in corners:
                first = (base & OFFSET_MASK) + i * st1 + j * st2
                yield base >> OFFSET_BITS, first, first + d.run_bytes
        if d.op in (Op.SEND, Op.RECV):
            base, slot = (d.dst, d.dst_st1) if d.op == Op.SEND else (d.src, d.src_st1)
            yield base >> OFFSET_BITS, base & OFFSET_MASK, (base & OFFSET_MASK) + slot * d.tiles
        if d.op in (Op.CFGW, Op.SMAP_LOAD):
            for base in (d.src, d.dst):
                yield base >> OFFSET_BITS, base & OFFSET_MASK, (base & OFFSET_MASK) + d.run_bytes
        if d.op == Op.NOP and d.flags & Flag.PREDICATED:
            yield d.src >> OFFSET_BITS, d.src & OFFSET_MASK, (d.src & OFFSET_MASK) + 1
        if d.op == Op.COMPUTE:
            kernel = program.kernels[d.k]
            for base, size in ((d.src, kernel.input_bytes), (d.dst, kernel.output_bytes)):
                yield base >> OFFSET_BITS, base & OFFSET_MASK, (base & OFFSET_MASK) + size
        if d.op == Op.SMAP_UPD or (d.op == Op.SEND and d.flags & Flag.SCORED):
            yield 5, d.smap, d.smap + (d.tiles * d.tile_n + d.dst_st2 - 1) // d.dst_st2
    for kernel in program.kernels:
        for operand in kernel.operands:
            first = operand.address & OFFSET_MASK
            yield operand.address >> OFFSET_BITS, first, first + operand.bytes


def assert_harmless(program: UnitProgram) -> None:
    sizes = {memory.region: memory.bytes for memory in TARGET.memory.values()} | {6: len(program.constants)}
    for region, first, end in byte_ranges(program):
        assert 0 <= first < end <= sizes[region]
    for d in program.code:
        assert d.acq_sem < 32
        assert d.rel_sem < 32
        if d.op in (Op.SEND, Op.RECV):
            assert d.k <= d.tile_n <= 1024


def flip(r: random.Random, file: bytearray) -> None:
    file[r.randrange(len(file))] ^= 1 << r.randrange(8)


def overwrite(r: random.Random, file: bytearray) -> None:
    at = r.randrange(len(file) - 8)
    file[at : at + 8] = r.choice([bytes(8), b"\xff" * 8, struct.pack("<Q", r.getrandbits(64)), b"\x7f" + bytes(7)])


def field(r: random.Random, file: bytearray) -> None:
    """A word of CODE, CNTR or KTAB, to a small or extreme value."""
    _, offset, size, _ = ENTRY.unpack_from(FILE, HEADER.size + ENTRY.size * r.choice([2, 2, 2, 5, 6]))
    form = r.choice(["<B", "<H", "<I", "<Q"])
    at = offset + r.randrange(0, size - 8, struct.calcsize(form))
    top = 1 << 8 * struct.calcsize(form)
    value = r.choice(
        [r.randrange(16), r.randrange(top), top - 1, top >> 1, int.from_bytes(file[at : at + 8], "little") + 1]
    )
    if at + 8 <= len(file):
        struct.pack_into(form, file, at, value % top)


def edge(r: random.Random, file: bytearray) -> None:
    """A field of a descriptor, to a value at or next to a limit of the target or of the program."""
    place, name = (
        r.randrange(13),
        r.choice(["src", "dst", "k", "acq_sem", "rel_sem", "smap", "tile_n", "contract", "next"]),
    )
    old = getattr(EVERY_OP.code[place], name)
    limits = [old, 32, 64, 256, 1024, 16_384 - 4]
    if name in ("src", "dst") and old:
        memory = TARGET.memory[TARGET.regions[old >> OFFSET_BITS]]
        size = len(EVERY_OP.constants) if memory.kind == "const" else memory.bytes
        limits = [memory.address + size - n for n in (0, 1, 4, 16, 160, 256, 480, 512, 1024)]
    form, at = {field: found[:2] for field, found in (LAYOUT.fields or {}).items()}[name]
    value = (r.choice(limits) + r.choice([-1, 0, 1])) % (1 << 8 * form.itemsize)
    at += CODE_AT + 64 * place
    file[at : at + form.itemsize] = value.to_bytes(form.itemsize, "little")


def truncate(r: random.Random, file: bytearray) -> None:
    del file[r.randrange(len(file)) :]


def splice(r: random.Random, file: bytearray) -> None:
    at, other = r.randrange(len(file)), r.randrange(len(file))
    file[at:at] = file[other : other + r.randrange(80)]


def swap(r: random.Random, file: bytearray) -> None:
    """Two descriptors."""
    a, b = (CODE_AT + 64 * r.randrange(13) for _ in range(2))
    file[a : a + 64], file[b : b + 64] = file[b : b + 64], file[a : a + 64]


MUTATIONS: list[Callable[[random.Random, bytearray], None]] = [
    flip,
    overwrite,
    edge,
    edge,
    edge,
    field,
    field,
    field,
    truncate,
    splice,
    swap,
]


def test_ten_thousand_mutated_files() -> None:
    """None crashes or hangs; those that are read touch nothing out of range, and are the one file of their program."""
    r = random.Random(0)
    accepted = changed = 0
    for i in range(10_000):
        file = bytearray(FILE)
        for _ in range(r.choice([1, 1, 1, 2, 4])):
            if len(file) > 16:
                r.choice(MUTATIONS)(r, file)
        data = bytes(file)
        if i % 4 and len(data) >= len(FILE):  # three of four with checksums that are right again
            data = reseal_quietly(data)
        try:
            program = read(data, TARGET)
        except CompileError as error:
            assert all(d.code in KNOWN for d in error.diagnostics)  # noqa: PT017  most are refused, not all
            continue
        assert_harmless(program)
        assert read(write(program, TARGET), TARGET) == program
        accepted += 1
        changed += program != EVERY_OP
    assert changed > 100, (accepted, changed)  # the test reaches the checks behind the checksums


KNOWN = {"SCC090", "SCC091", "SCC092", "SCC093", "SCC100", "SCC101", "SCC102", "SCC103", "SCC104"}


@settings(max_examples=300)
@given(st.binary(min_size=64, max_size=64), st.sampled_from(Op))
def test_a_descriptor_of_random_bytes_is_refused_or_harmless(noise: bytes, op: Op) -> None:
    start = CODE_AT + 64 * FENCE
    data = reseal(FILE[:start] + bytes([op]) + noise[1:] + FILE[start + 64 :])
    try:
        program = read(data, TARGET)
    except CompileError as error:
        assert error.diagnostics[0].code in KNOWN  # noqa: PT017
    else:
        assert_harmless(program)


def test_large_program_is_read_in_seconds() -> None:
    """As many descriptors as `next` can name."""
    copy = Descriptor(Op.COPY, src=M["dram"], dst=M["tile0"], run_bytes=64, reps1=1, reps2=1)
    program = UnitProgram((*[copy] * 65_535, Descriptor(Op.END)))
    assert read(write(program, TARGET), TARGET) == program
    too_long = UnitProgram((copy, *program.code))
    first = next(check_program(too_long, TARGET))
    assert first.message == "the program has 65537 descriptors, and at most 65536 can be named"


def test_float_payload_room_follows_the_dtype() -> None:
    fields = {"dtype": int(Dtype.FLOAT32), "tile_n": 64, "run_bytes": 1024, "k": 64, "codec": int(Codec.RAW)}
    assert write(with_fields(SEND, **fields, dst_st1=288), TARGET)
    with pytest.raises(CompileError, match="reserves 256 B for a block, expected a multiple of 32 from 288 B"):
        write(with_fields(SEND, **fields, dst_st1=256), TARGET)


def test_flags_of_queue() -> None:
    assert flags(EVERY_OP.code[SEND].queue, Flag.REGISTER | Flag.SCORED) == EVERY_OP.code[SEND].flags
