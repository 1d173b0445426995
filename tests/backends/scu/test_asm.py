"""Assembly: exact both ways, forgiving in form, precise in its complaints."""

import pytest
from hypothesis import given, settings
from scu_programs import EVERY_OP, TARGET, M, programs

from sparsecc.backends.scu import container
from sparsecc.backends.scu.asm import assemble, descriptor_line, disassemble
from sparsecc.backends.scu.descriptor import Descriptor, Flag, Op, Queue, flags, unpack
from sparsecc.backends.scu.unit_program import UnitProgram
from sparsecc.diagnostics import CompileError


@settings(max_examples=150)
@given(programs())
def test_any_valid_program_round_trips_both_ways(program: UnitProgram) -> None:
    data = container.write(program, TARGET)
    text = disassemble(container.read(data, TARGET), TARGET)
    again = assemble(text, TARGET)
    assert container.write(again, TARGET) == data
    assert disassemble(again, TARGET) == text


@pytest.mark.parametrize("op", Op)
@pytest.mark.parametrize("fill", [0x00, 0x01, 0x7F, 0x80, 0xFF])
def test_lines_hold_every_bit_even_of_invalid_descriptors(op: Op, fill: int) -> None:
    """All but bit 5 of the flags, which has no name: check_program refuses it."""
    (d,) = unpack(bytes([op, fill & 0xDF]) + bytes([fill]) * 62)
    assert assemble(descriptor_line(d, TARGET), TARGET).code == (d,)


def test_hand_written_form() -> None:
    text = """
    # a comment
    .const 00 01 02
    again: first:
      nop.in   predicated src=tile0+16 next=last ;   maybe
    last: end.out tag=0x10
    """
    program = assemble(text, TARGET)
    assert program.code == (
        Descriptor(Op.NOP, flags(Queue.IN, Flag.PREDICATED), src=M["tile0"] + 16, next=1),
        Descriptor(Op.END, flags(Queue.OUT), tag=16),
    )
    assert program.constants == bytes(range(3))
    assert program.labels == {"again": 0, "first": 0, "last": 1}
    assert program.notes == {0: "maybe"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("move.in", "unknown operation 'move'; there are " + ", ".join(op.name.lower() for op in Op)),
        ("copy", "unknown queue ''; there are in, out, link, config"),
        ("copy.in fast", "unknown flag 'fast'; there are predicated, skip_zero, scored, register, wide_keys"),
        ("copy.in src=moon+0", f"scu-v1 has no memory 'moon'; it has {', '.join(TARGET.memory)}"),
        ("copy.in src=tile0+x", "'x' is not a number"),
        ("copy.in src=tile0+0x100000000000000", "offset 0x100000000000000 is beyond 56 bits"),
        ("copy.in run=3", "unknown field 'run'"),
        ("copy.in op=3", "unknown field 'op'"),
        ("copy.in tag=1 tag=2", "'tag' is given twice"),
        ("copy.in acq=3", "'3' is not of the form acq=semaphore>=count"),
        ("nop.in next=nowhere", "there is no label 'nowhere'"),
        ("a: a:", "label a is already taken"),
        ("; alone", "a note stands behind a descriptor; a line of its own begins with '#'"),
        (".section x", "unknown directive '.section'"),
        (".const 0g", ".const is followed by hexadecimal bytes, not '0g'"),
        (".contract k=1", "a contract is k, k_lo, k_hi and perhaps period, margin_lo, margin_hi"),
        (".kernel", "a kernel is a symbol, dtype, m, n, k, input_bytes, output_bytes and perhaps operands"),
        (".meta [1]", ".meta is not a JSON object"),
        (".cfg 3", "'' is not a number"),
    ],
)
def test_complaints_name_the_line(line: str, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        assemble(f"# one\n{line}\n", TARGET, "my.s")
    help_text = "`sparsecc scu disasm` of a program shows every form"
    assert str(caught.value) == f"error[SCC094]: my.s:2: {message}\n  help: {help_text}"


def test_text_of_another_target() -> None:
    with pytest.raises(CompileError) as caught:
        assemble(".target scu-v1 00ff", TARGET, "my.s")
    assert str(caught.value) == (
        f"error[SCC092]: my.s:1: written for a target with digest 00ff, and scu-v1 has {TARGET.digest.hex()[:16]}\n"
        "  help: give the target it was written for, or remove the line"
    )


def test_what_fields_cannot_hold_is_refused_when_written() -> None:
    with pytest.raises(CompileError, match=r"SCC100.*descriptor 0 \(END\): tag is 65536, which its field cannot hold"):
        container.write(assemble("end.in tag=65536", TARGET), TARGET)


def test_notes_are_text() -> None:
    assert assemble(disassemble(EVERY_OP, TARGET), TARGET) == EVERY_OP
