"""What descriptors do to the simulated memories: against contracts.contract, codecs and numbers worked out by hand."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scu_programs import CONFIG, EVERY_OP, IN, OUT, RUNS, TARGET, M

from sparsecc.backends.scu.check import check_program
from sparsecc.backends.scu.codecs import Codec, Dtype, Header, decode, encode, worst_case_bytes
from sparsecc.backends.scu.descriptor import NO_FLAG, Descriptor, Flag, Op, Queue, flags
from sparsecc.backends.scu.machine import DTYPES
from sparsecc.backends.scu.simulator import Outcome, simulate
from sparsecc.backends.scu.simulator.operations import ARRAYS
from sparsecc.backends.scu.unit_program import Contract as Register
from sparsecc.backends.scu.unit_program import Kernel, Operand, UnitProgram
from sparsecc.contracts import contract as contracts
from sparsecc.contracts.keys import Key
from sparsecc.contracts.maps import uniform_map
from sparsecc.diagnostics import CompileError

END = Descriptor(Op.END, OUT)
SPECIAL = {Dtype.INT8: [0, 0x80], Dtype.FLOAT16: [0x8000, 0x7C01, 0xFE00, 0x7C00],
           Dtype.BFLOAT16: [0x8000, 0x7F81, 0xFFC0, 0x7F80],
           Dtype.FLOAT32: [0x8000_0000, 0x7F80_0001, 0xFFC0_0000, 0x7F80_0000]}  # fmt: skip


def run(
    *code: Descriptor, load: dict[int, bytes] | None = None, read: tuple[tuple[int, int], ...] = (), **fields: Any
) -> Outcome:
    """The outcome of a program that is valid."""
    program = UnitProgram((*code, END), **fields)
    assert list(check_program(program, TARGET)) == []
    return simulate(program, TARGET, {}, load or {}, read)


def transfer(
    dtype: Dtype, codec: Codec, n: int, tiles: int, k: int, flag: Flag = NO_FLAG, **more: int
) -> list[Descriptor]:
    """Tiles at tile0, through the link, to tile1."""
    slot, run_bytes = worst_case_bytes(codec, n, k, dtype), n * tiles * dtype.width_bytes
    common = {"dtype": dtype, "codec": codec, "k": k, "tile_n": n, "tiles": tiles, "run_bytes": run_bytes}
    fill = more.pop("fill", 0)
    return [
        Descriptor(Op.SEND, flags(Queue.OUT, flag), src=M["tile0"], dst=M["link"], dst_st1=slot, fill=fill, rel_sem=1,
                   rel_add=1, **common, **RUNS, **more),
        Descriptor(Op.RECV, IN, src=M["link"], dst=M["tile1"], src_st1=slot, fill=fill, acq_sem=1, acq_ge=1, **common,
                   **RUNS),
    ]  # fmt: skip


def word(offset: int, value: int) -> tuple[int, int]:
    return offset, value & 0xFFFF_FFFF


@st.composite
def tensors(draw: st.DrawFn, dtype: Dtype, elems: int) -> npt.NDArray[Any]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = np.frombuffer(rng.bytes(elems * dtype.width_bytes), dtype.bits).copy()
    if draw(st.booleans()):
        bits = rng.choice(bits[:3], elems)  # ties
    special = rng.random(elems) < draw(st.sampled_from([0, 0.3]))
    bits[special] = rng.choice(SPECIAL[dtype], int(special.sum()))
    return bits.view(ARRAYS[dtype])


@given(st.data(), st.sampled_from(Dtype), st.sampled_from([c for c in Codec if c != Codec.HUFFMAN]))
def test_what_arrives_is_what_the_contract_says(data: st.DataObject, dtype: Dtype, codec: Codec) -> None:
    draw = data.draw
    n, tiles = draw(st.sampled_from([1, 2, 7, 16, 33, 257])), draw(st.integers(1, 4))
    x = draw(tensors(dtype, n * tiles))
    share = 65_536 if codec == Codec.RAW else draw(st.sampled_from([0, 1, 9_000, 40_000, 65_536]))
    is_int8 = dtype == Dtype.INT8
    base, shift = draw(st.integers(-128, 127) if is_int8 else st.integers(0, 0x7FFF)), draw(st.integers(0, 15))
    fill = draw(st.sampled_from([0, 5, 0x80 if is_int8 else 0x8000]))
    skip, scored, wide = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    block = draw(st.integers(1, 2 * n)) if scored else 1
    smap = draw(st.binary(min_size=-(-n * tiles // block), max_size=-(-n * tiles // block)))

    key = Key(DTYPES[dtype], 16 if wide else 8, shift, 0 if is_int8 else base, base if is_int8 else 0)
    contract = replace(contracts.Contract.fixed("e", key, share, tile_elems=n, map_block=block), skip_zero=skip)
    sensitivity = np.frombuffer(smap, np.uint8) if scored else uniform_map().sensitivity
    fills = np.array([fill << 16 if dtype == Dtype.FLOAT32 else fill], dtype.bits).view(ARRAYS[dtype])
    expected, sent = contracts.transmit(x[None], sensitivity, contract, fills)

    flag = Flag.SKIP_ZERO * skip | Flag.SCORED * scored | Flag.WIDE_KEYS * wide
    more = {"smap": 3, "dst_st2": block} if scored else {}
    outcome = run(
        *transfer(dtype, codec, n, tiles, contract.k(n), Flag(flag), fill=fill, **more),
        load={M["tile0"]: x.tobytes()},
        read=((M["tile1"], x.nbytes),),
        smap=b"\0\0\0" + smap,
        config=(word(0x500 + 4 * dtype, base), word(0x510 + 4 * dtype, shift)),
    )
    assert outcome.outputs == [expected.tobytes()]
    assert outcome.counters.elems_kept == (x.size if codec == Codec.RAW else int(sent.sum()))


def test_descriptors_of_many_tiles() -> None:
    tiles, n, block = 2500, 5, 3
    x = np.random.default_rng(0).integers(-128, 128, tiles * n, np.int8)
    smap = np.random.default_rng(1).bytes(-(-x.size // block))
    contract = contracts.Contract.fixed("e", Key("int8", 8, 7), 30_000, tile_elems=n, map_block=block)
    expected, sent = contracts.transmit(x[None], np.frombuffer(smap, np.uint8), contract)
    outcome = run(
        *(replace(d, dst=M["dram"]) if d.op == Op.SEND else replace(d, src=M["dram"]) for d in transfer(
            Dtype.INT8, Codec.BITMASK, n, tiles, contract.k(n), Flag.SCORED, dst_st2=block)),
        load={M["tile0"]: x.tobytes()}, read=((M["tile1"], x.nbytes),), smap=smap, config=((0x510, 7),),
    )  # fmt: skip
    assert outcome.outputs == [expected.tobytes()]
    assert (outcome.counters.elems_kept, outcome.link_bytes) == (sent.sum(), 0)


def test_counters_are_those_of_the_blocks() -> None:
    x = np.array([[3, -3, 0, 1, 3, 0, 0, 0], [9, 8, 7, 6, 5, 4, 3, 2]], np.int8)
    outcome = run(
        *transfer(Dtype.INT8, Codec.INDEX, 8, 2, 2),
        load={M["tile0"]: x.tobytes()},
        read=((M["link"], 64), (M["tile1"], 16), (M["config"] + 0x800, 56)),
        config=((0x510, 8),),  # key = |x| * 255 >> 8 = |x| - 1 for 1 <= |x|
    )
    blocks = [encode(Codec.INDEX, row, np.array([0, 1]), Dtype.INT8) for row in x]
    assert outcome.outputs[0] == b"".join(blocks)
    assert outcome.outputs[1] == bytes([3, 0xFD, 0, 0, 0, 0, 0, 0, 9, 8, 0, 0, 0, 0, 0, 0])
    #        dense, link, kept, zero, tied (the 3 in place 4), key mass kept, key mass of all
    expected = [16, 64, 4, 4, 1, 2 + 2 + 8 + 7, 3 * 2 + 0 + sum(range(1, 9))]
    assert list(vars(outcome.counters).values()) == expected
    assert list(struct.unpack("<7Q", outcome.outputs[2])) == expected
    assert outcome.link_bytes == sum(map(len, blocks))


def test_raw_counts_no_keys() -> None:
    outcome = run(*transfer(Dtype.FLOAT16, Codec.RAW, 4, 1, 4), load={M["tile0"]: bytes([0, 0x80, 1, 0, 0, 0, 2, 0])})
    assert list(vars(outcome.counters).values()) == [8, 32, 4, 2, 0, 0, 0]


def test_strided_copy() -> None:
    copy = Descriptor(Op.COPY, IN, src=M["dram"] + 100, dst=M["tile0"], run_bytes=2, reps1=3, reps2=2, src_st1=-10,
                      dst_st1=2, src_st2=50, dst_st2=6)  # fmt: skip
    outcome = run(copy, load={M["dram"]: bytes(range(200))}, read=((M["tile0"], 12),))
    assert outcome.outputs == [bytes([100, 101, 90, 91, 80, 81, 150, 151, 140, 141, 130, 131])]


@given(st.integers(1, 5), st.tuples(st.integers(1, 4), st.integers(1, 4)),
       st.lists(st.integers(-9, 9), min_size=4, max_size=4))  # fmt: skip
def test_copies_as_one_byte_after_the_other(run_bytes: int, reps: tuple[int, int], strides: list[int]) -> None:
    s1, d1, s2, d2 = (s if n > 1 else 0 for s, n in zip(strides, (reps[0], reps[0], reps[1], reps[1]), strict=True))
    source = bytes(range(256))
    expected = bytearray(256)
    for j in range(reps[1]):
        for i in range(reps[0]):
            for b in range(run_bytes):
                expected[128 + j * d2 + i * d1 + b] = source[128 + j * s2 + i * s1 + b]
    copy = Descriptor(Op.COPY, IN, src=M["dram"] + 128, dst=M["tile0"] + 128, run_bytes=run_bytes, reps1=reps[0],
                      reps2=reps[1], src_st1=s1, dst_st1=d1, src_st2=s2, dst_st2=d2)  # fmt: skip
    assert run(copy, load={M["dram"]: source}, read=((M["tile0"], 256),)).outputs == [bytes(expected)]


def test_kernels_see_the_memories() -> None:
    def add(src: npt.NDArray[np.uint8], dst: npt.NDArray[np.uint8], a: npt.NDArray[np.uint8], b: Any) -> None:
        assert (src.ctypes.data % 64, a.flags.writeable, b.flags.writeable) == (0, False, True)
        dst[:] = src[:4] + a + b

    kernel = Kernel("add", Dtype.INT8, 4, 1, 0, 8, 4, (Operand(M["const"] + 1, 4), Operand(M["dram"], 4)))
    compute = Descriptor(Op.COMPUTE, IN, k=0, src=M["tile0"], dst=M["tile0"] + 8)
    program = UnitProgram((compute, END), kernels=(kernel,), constants=bytes([9, 10, 20, 30, 40]))
    load = {M["tile0"]: bytes(range(8)), M["dram"]: bytes([100] * 4)}
    outcome = simulate(program, TARGET, {"add": add}, load, [(M["tile0"], 12)])
    assert outcome.outputs == [bytes([0, 1, 2, 3, 4, 5, 6, 7, 110, 121, 132, 143])]


def test_a_kernel_that_is_missing() -> None:
    with pytest.raises(CompileError) as caught:
        simulate(EVERY_OP, TARGET, {}, {}, [])
    assert str(caught.value) == (
        "error[SCC100]: the program calls kernel 'conv1', which the compute tiles' code does not have\n"
        "  help: use the program together with the code that was compiled with it"
    )


# ---- registers -------------------------------------------------------------------------------------------------------


def kept_by(register: Register, x: npt.NDArray[Any], k_most: int) -> list[int]:
    """Elements that each tile of x keeps with a register, int8 keys of |x|."""
    tiles, n = x.shape
    send = replace(
        transfer(Dtype.INT8, Codec.BITMASK, n, tiles, k_most, Flag.REGISTER, contract=7)[0], acq_sem=2, acq_ge=1
    )
    slot = send.dst_st1
    load = Descriptor(Op.CONTRACT, CONFIG, contract=7, k=0, rel_sem=2, rel_add=1)
    outcome = run(load, send, load={M["tile0"]: x.tobytes()}, read=((M["link"], slot * tiles), (M["config"] + 112, 16)),
                  contracts=(register,), config=((0x510, 8),))  # fmt: skip
    blocks = [outcome.outputs[0][i * slot : (i + 1) * slot] for i in range(tiles)]
    return [Header.parse(block).count for block in blocks]


def test_k_falls_while_the_kept_share_is_above_the_margins_and_rises_below() -> None:
    steep = np.zeros((1, 64), np.int8)
    steep[0, :4] = 101  # key 100: any k >= 4 keeps everything
    flat = np.full((1, 64), 101, np.int8)
    x = np.concatenate([steep] * 6 + [flat] * 6)
    register = Register(k=16, k_lo=14, k_hi=48, period=2, margin_lo=30_000, margin_hi=60_000)
    # steps of (48 - 14) // 16 = 2 after each pair: down to k_lo; then up, as 16 / 64 is below 30000 / 65536
    assert kept_by(register, x, 48) == [16, 16, 14, 14, 14, 14, 14, 14, 16, 16, 18, 18]


def test_a_fixed_register_does_not_move_and_the_descriptor_bounds_it() -> None:
    x = np.full((3, 64), 101, np.int8)
    assert kept_by(Register(5, 5, 5), x, 48) == [5, 5, 5]


@pytest.mark.parametrize(
    ("margin_lo", "margin_hi", "k"), [(16_384, 16_384, 16), (0, 16_383, 14), (16_385, 65_535, 18), (0, 65_535, 16)]
)
def test_a_share_on_a_margin_moves_nothing(margin_lo: int, margin_hi: int, k: int) -> None:
    x = np.full((2, 64), 101, np.int8)  # the share is 16 / 64, so 16384
    assert kept_by(Register(16, 1, 33, 1, margin_lo, margin_hi), x, 48) == [16, k]


def test_masses_go_on_across_descriptors_and_no_mass_moves_nothing() -> None:
    zeros, flat = np.zeros((2, 64), np.int8), np.full((2, 64), 101, np.int8)
    register = Register(k=8, k_lo=1, k_hi=9, period=4, margin_lo=65_000, margin_hi=65_535)
    assert kept_by(register, np.concatenate([zeros, zeros, flat, flat, flat]), 9) == [8] * 8 + [9] * 2
    code = transfer(Dtype.INT8, Codec.BITMASK, 64, 3, 9, Flag.REGISTER, contract=0)[:1]
    ready = Descriptor(Op.CONTRACT, OUT | CONFIG, contract=0, k=0, rel_sem=2, rel_add=1)
    outcome = run(ready, replace(code[0], acq_sem=2, acq_ge=1), code[0], load={M["tile0"]: b"\x65" * 192},
                  read=((M["config"], 16),), contracts=(register,), config=((0x510, 8),))  # fmt: skip
    assert struct.unpack("<6HI", outcome.outputs[0]) == (9, 1, 9, 4, 65_000, 65_535, 0)


def test_a_register_that_was_written_directly_is_still_bounded() -> None:
    send = transfer(Dtype.INT8, Codec.BITMASK, 64, 1, 8, Flag.REGISTER, contract=0)[0]
    ready = Descriptor(Op.CONTRACT, CONFIG, contract=0, k=0)
    write = Descriptor(Op.CFGW, CONFIG, src=M["const"], dst=M["config"], run_bytes=4, rel_sem=2, rel_add=1)
    outcome = run(ready, write, replace(send, acq_sem=2, acq_ge=1), constants=b"\xff\xff\xff\xff",
                  contracts=(Register(8, 8, 8),))  # fmt: skip
    assert outcome.counters.elems_kept == 8


# ---- the map ---------------------------------------------------------------------------------------------------------


def test_map_update_by_hand() -> None:
    # averages of 4 elements in 1/256: 2 * 256 and 8 * 256; a' = (512 + 4) >> 3 = 64, (2048 + 4) >> 3 = 256
    x = np.array([1, 3, -1, -3, 8, 8, -8, -8], np.int8)
    update = Descriptor(Op.SMAP_UPD, CONFIG, Dtype.INT8, tile_n=8, tiles=1, src=M["tile0"], run_bytes=8, **RUNS,
                        smap=2, dst_st2=4)  # fmt: skip
    load = Descriptor(Op.SMAP_LOAD, CONFIG, src=M["const"], dst=M["smap"] + 1, run_bytes=4)
    outcome = run(
        load, update, load={M["tile0"]: x.tobytes()}, read=((M["smap"], 6),), constants=bytes([7, 200, 100, 9])
    )
    # products 64 * 200 = 12800 and 256 * 100 = 25600: the entries are 128 (127.5 rounded) and 255
    assert outcome.outputs == [bytes([0, 7, 128, 255, 9, 0])]


def test_averages_last_until_the_map_is_loaded_again() -> None:
    x = np.array([1, 4], np.int8)
    update = Descriptor(Op.SMAP_UPD, CONFIG, Dtype.INT8, tile_n=2, tiles=1, src=M["tile0"], run_bytes=2, **RUNS,
                        dst_st2=1)  # fmt: skip
    other = replace(update, src=M["tile0"] + 2)
    load = Descriptor(Op.SMAP_LOAD, CONFIG, src=M["const"], dst=M["smap"], run_bytes=2)
    data = {M["tile0"]: x.tobytes() + x[::-1].tobytes()}

    def entries(*code: Descriptor) -> list[int]:
        outcome = run(*code, load=data, read=((M["smap"], 2),), constants=b"\xff\xff", smap=b"\xff\xff")
        return list(outcome.outputs[0])

    # averages in 1/256: 32 and 128; then 32 + (1024 - 32 + 4 >> 3) = 156 and 128 + (256 - 128 + 4 >> 3) = 144
    assert entries(update) == entries(other, load, update) == [64, 255]
    assert entries(update, other) == [255, (255 * 144 + 78) // 156]


@pytest.mark.parametrize("dtype", [Dtype.FLOAT16, Dtype.BFLOAT16, Dtype.FLOAT32])
def test_map_update_of_floats_saturates(dtype: Dtype) -> None:
    x = np.array([np.nan, -np.inf, -1.0, 1.0], np.float32).astype(ARRAYS[dtype])
    update = Descriptor(Op.SMAP_UPD, CONFIG, dtype, tile_n=4, tiles=1, src=M["tile0"], run_bytes=x.nbytes, **RUNS,
                        dst_st2=2)  # fmt: skip
    outcome = run(update, load={M["tile0"]: x.tobytes()}, read=((M["smap"], 2),), smap=b"\xff\xff")
    high, low = (65_535 + 4) >> 3, (256 + 4) >> 3
    assert outcome.outputs == [bytes([255, (255 * low * 255 + high * 255 // 2) // (high * 255)])]


# ---- errors ----------------------------------------------------------------------------------------------------------


def received(block: bytes) -> Outcome:
    receive = replace(transfer(Dtype.INT8, Codec.BITMASK, 64, 1, 8)[1], acq_sem=0, acq_ge=0)
    return run(receive, load={M["link"]: block}, read=((M["tile1"], 64),))


def test_blocks_that_no_one_vouches_for() -> None:
    values = np.arange(64, dtype=np.int8)
    good = encode(Codec.BITMASK, values, np.arange(8), Dtype.INT8)
    assert received(good).outputs == [decode(good).dense().tobytes()]
    for block, code in (
        (b"", "SCC098"),
        (good[:20] + b"\xff" + good[21:], "SCC097"),
        (encode(Codec.INDEX, values, np.arange(8), Dtype.INT8), "SCC099"),
        (good[:8] + b"\x60" + good[9:], "SCC099"),
    ):
        with pytest.raises(CompileError) as caught:
            received(block)
        assert caught.value.diagnostics[0].code == code
    small = replace(transfer(Dtype.INT8, Codec.BITMASK, 64, 1, 9)[1], acq_sem=0, acq_ge=0, src_st1=32)
    with pytest.raises(CompileError, match="by its header the block is 64 B long, and 32 B are there"):
        run(small, load={M["link"]: encode(Codec.BITMASK, values, np.arange(9), Dtype.INT8)})
    with pytest.raises(CompileError) as caught:
        received(encode(Codec.BITMASK, values, np.arange(9), Dtype.INT8))
    assert str(caught.value) == (
        "error[SCC099]: a BITMASK block holds 9 of 64 INT8 elements, and RECV expects at most 8 of 64 INT8 elements in "
        "a BITMASK block\n  help: copy the file again as a whole, or compile the model again"
    )


def test_no_access_leaves_its_memory() -> None:
    outside = Descriptor(Op.COPY, IN, src=M["dram"], dst=M["link"] + 0x7FF0, run_bytes=32, **RUNS)
    with pytest.raises(CompileError) as caught:
        simulate(UnitProgram((outside, END)), TARGET, {}, {}, [])
    assert str(caught.value) == (
        "error[SCC101]: an access reaches bytes 32752 to 32783 of link, which has 32768 B\n"
        "  help: read programs and their inputs through the checks of `sparsecc`, or compile the model again"
    )
    with pytest.raises(CompileError, match="of no memory, which has 0 B"):
        simulate(UnitProgram((END,)), TARGET, {}, {}, [(99 << 56, 1)])


def test_programs_that_would_run_for_hours() -> None:
    endless = Descriptor(Op.COPY, IN, src=M["dram"], dst=M["tile0"], run_bytes=4096, reps1=65_535, reps2=65_535)
    assert list(check_program(UnitProgram((endless, END)), TARGET)) == []
    with pytest.raises(CompileError) as caught:
        simulate(UnitProgram((endless, END)), TARGET, {}, {}, [])
    assert str(caught.value) == (
        "error[SCC100]: the program moves 17591649177600 B, and the simulator runs programs of at most 1073741824 B\n"
        "  help: compile for smaller inputs"
    )


def test_a_memory_that_this_machine_does_not_have() -> None:
    huge = replace(TARGET, memory={**TARGET.memory, "dram": replace(TARGET.memory["dram"], bytes=1 << 48)})
    with pytest.raises(CompileError) as caught:
        simulate(UnitProgram((END,)), huge, {}, {}, [])
    assert str(caught.value) == (
        "error[SCC101]: memory dram of the target has 281474976710656 B, more than this machine can simulate\n"
        "  help: give the memory in your target file only the bytes that programs use"
    )
