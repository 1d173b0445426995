"""Cycles of single descriptors, worked out by hand from scu.toml. Each pays 4 + 1 to be fetched and issued."""

from dataclasses import replace

import pytest
from hypothesis import given
from scu_programs import EVERY_OP, LINK, OUT, RUNS, TARGET, M, programs

from sparsecc.backends.scu.codecs import Codec, Dtype, worst_case_bytes
from sparsecc.backends.scu.descriptor import NO_FLAG, Descriptor, Flag, Op, Queue, flags
from sparsecc.backends.scu.map_updates import update_fields
from sparsecc.backends.scu.simulator.energy import events
from sparsecc.backends.scu.timing import busy_cycles, duration, payload_bound, stages, tile_of, units
from sparsecc.backends.scu.unit_program import Kernel, Operand, UnitProgram

ISSUED = 4 + 1
SET_UP = ISSUED + 8


def send(codec: Codec = Codec.BITMASK, flag: Flag = NO_FLAG, tiles: int = 1, k: int = 256) -> Descriptor:
    """From tile0 to the link, int8 tiles of 1024."""
    slot = worst_case_bytes(codec, 1024, k, Dtype.INT8)
    return Descriptor(Op.SEND, flags(Queue.OUT, flag), Dtype.INT8, codec, k=k, tile_n=1024, tiles=tiles, src=M["tile0"],
                      dst=M["link"], run_bytes=1024 * tiles, **RUNS, dst_st1=slot)  # fmt: skip


def kernel(m: int, n: int, k: int, *operands: Operand) -> Kernel:
    return Kernel("f", Dtype.INT8, m, n, k, 64, 64, operands)


COMPUTE = Descriptor(Op.COMPUTE, LINK, src=M["tile0"], dst=M["tile1"])


def test_operations_that_move_nothing_cost_their_fetch() -> None:
    for op in (Op.NOP, Op.WAIT, Op.SIGNAL, Op.FENCE, Op.END):
        assert duration(Descriptor(op), None, TARGET) == ISSUED


def test_copy_waits_for_four_bursts_of_dram() -> None:
    # 16 bursts: the first takes 64 / 16 = 4 cycles, the others ceil((100 + 4) / 4) = 26 each; latencies 100 and 2
    few = replace(TARGET, dma=replace(TARGET.dma, outstanding_bursts=4))
    copy = Descriptor(Op.COPY, LINK, src=M["dram"], dst=M["tile0"], run_bytes=512, reps1=2, reps2=1, src_st1=512,
                      dst_st1=512)  # fmt: skip
    assert duration(copy, None, few) == SET_UP + 100 + 2 + 4 + 15 * 26
    assert duration(copy, None, TARGET) == SET_UP + 100 + 2 + 16 * 4  # with 32 in flight, the port's rate


def test_short_runs_are_short_bursts() -> None:
    # 8 runs of 8 B between scratchpads: one beat each
    copy = Descriptor(Op.COPY, LINK, src=M["tile0"], dst=M["tile1"], run_bytes=8, reps1=4, reps2=2, src_st1=16,
                      dst_st1=8, src_st2=64, dst_st2=32)  # fmt: skip
    assert duration(copy, None, TARGET) == SET_UP + 2 + 2 + 8


def test_send_is_as_fast_as_its_slowest_stage() -> None:
    # payload 16 + 128 + 256 = 400 B, padded 416, of 4 B a cycle; 2 digits of 64 + 16 cycles are the selector's latency
    latency = 2 + 4 + 2 * (64 + 16) + 4 + 8 + 2
    assert duration(send(), None, TARGET) == SET_UP + latency + 104
    assert duration(send(tiles=3), None, TARGET) == SET_UP + latency + 3 * 104
    assert duration(send(tiles=3), None, TARGET, 3 * 64) == SET_UP + latency + 3 * 64  # the lanes: 1024 / 16


def test_wide_keys_take_four_digits() -> None:
    # the selector: 4 * 80 = 320 cycles of which 3 tiles are in flight, 107 each
    assert duration(send(flag=Flag.WIDE_KEYS, tiles=6), None, TARGET) == SET_UP + 2 + 4 + 320 + 4 + 8 + 2 + 6 * 107


def test_raw_skips_key_and_selector() -> None:
    # 16 + 1024 B, padded 1056
    assert duration(send(Codec.RAW, k=1024), None, TARGET) == SET_UP + 2 + 4 + 8 + 2 + 264
    assert {s.unit for s in stages(send(Codec.RAW, k=1024), None, TARGET)} == {"dma", "packer", "link"}


def test_receive_unpacks_without_the_link() -> None:
    receive = Descriptor(Op.RECV, LINK, Dtype.INT8, Codec.BITMASK, k=256, tile_n=1024, tiles=2, src=M["link"],
                         dst=M["tile1"], run_bytes=2048, **RUNS, src_st1=416)  # fmt: skip
    # blocks: 2 * ceil(416 / 64) bursts of 8 cycles; unpacker and scratchpad: 128 cycles
    assert duration(receive, None, TARGET) == SET_UP + 2 + 4 + 2 + 128
    assert busy_cycles(stages(receive, None, TARGET)) == {"dma": 128, "unpacker": 128}


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (64, 16, 27), (1024, 32, 288)])
def test_gemm_follows_the_formula(m: int, n: int, k: int) -> None:
    cycles = -(-k // 16) * -(-n // 16) * (2 * 16 + 16 + m - 2)
    assert duration(COMPUTE, kernel(m, n, k), TARGET) == ISSUED + cycles


def test_operands_in_dram_are_streamed_while_the_tile_computes() -> None:
    weights = Operand(M["const"], 6400)  # 100 bursts of 4 cycles, more than 2 * 47
    assert duration(COMPUTE, kernel(1, 32, 16, weights), TARGET) == SET_UP + 100 + 100 * 4
    few = Operand(M["const"], 64)
    assert duration(COMPUTE, kernel(1024, 32, 16, few), TARGET) == SET_UP + 100 + 2 * 1070
    near = Operand(M["tile0"], 6400)
    assert duration(COMPUTE, kernel(1, 32, 16, near), TARGET) == ISSUED + 2 * 47


def test_element_wise_kernels_read_one_element_of_an_operand_each() -> None:
    table = Operand(M["const"], 6400)
    assert duration(COMPUTE, kernel(1, 64, 0, table), TARGET) == SET_UP + 100 + 4
    assert duration(COMPUTE, kernel(100, 64, 0), TARGET) == ISSUED + 400


def test_a_kernel_streams_an_input_in_const_as_an_operand() -> None:
    gather = replace(kernel(1, 64, 0), input_bytes=6400)  # 64 of the bytes of a table
    assert duration(replace(COMPUTE, src=M["const"]), gather, TARGET) == SET_UP + 100 + 4
    assert duration(COMPUTE, gather, TARGET) == ISSUED + 4
    compute = replace(COMPUTE, src=M["const"])
    assert ("const read", 64) in list(events(compute, gather, TARGET, 0))
    assert ("tile0 read", 6400) in list(events(COMPUTE, gather, TARGET, 0))


def test_a_kernel_runs_on_the_tile_of_its_destination() -> None:
    assert tile_of(M["tile1"], TARGET) == 1
    assert [s.unit for s in stages(COMPUTE, kernel(1, 1, 1), TARGET)] == ["tile1"]
    assert units(TARGET)[-2:] == ("tile0", "tile1")


def test_configuration_costs_what_it_moves() -> None:
    cfgw, smap_load, contract = (duration(d, None, TARGET) for d in EVERY_OP.code[:3])
    assert cfgw == SET_UP + 100 + 1 + 4  # 16 B at 4 B a cycle; const gives them in one beat
    assert smap_load == SET_UP + 100 + 1 + 1
    assert contract == SET_UP + 1 + 4
    predicated = Descriptor(Op.NOP, flags(Queue.IN, Flag.PREDICATED), src=M["tile0"], next=1)
    assert duration(predicated, None, TARGET) == SET_UP + 2 + 1


def test_a_map_is_read_for_its_scores_and_read_and_written_for_an_update() -> None:
    update = Descriptor(Op.SMAP_UPD, OUT, Dtype.INT8, tile_n=512, tiles=2, src=M["tile0"], run_bytes=1024, **RUNS,
                        dst_st2=4)  # fmt: skip
    # 1024 elements: 64 cycles each of memory, key unit and, for 2 * 256 B of the map, 8 bursts of 4
    assert duration(update, None, TARGET) == SET_UP + 2 + 4 + 1 + 64
    scored = replace(send(flag=Flag.SCORED), dst_st2=1)
    assert duration(scored, None, TARGET) == duration(send(), None, TARGET) + 1  # 1024 B in 64 cycles, latency 1


@pytest.mark.parametrize(("entries", "cycles"), [(64, 4096), (16, 4096), (20, 6552), (4, 4096), (1, 4096)])
def test_an_update_reads_the_runs_of_neighbouring_entries_as_one(entries: int, cycles: int) -> None:
    """16,384 floats of pixels, entry after entry. Groups of 16 entries are bursts of 4 cycles, the last may be shorter;
    of 20 entries the group of 4 costs as much as a whole one.
    """
    fields = update_fields(16384 // entries * entries, entries, 1, 1024)
    update = Descriptor(Op.SMAP_UPD, OUT, src=M["tile0"], **fields)
    read = stages(update, None, TARGET)[0]
    assert read.cycles == pytest.approx(cycles, abs=4)
    if entries > 1:
        apart = replace(update, src_st2=8)  # runs that have others between them are read one by one
        assert stages(apart, None, TARGET)[0].cycles == update.tiles * update.tile_n


@given(programs())
def test_no_payload_is_later_than_the_bound(program: UnitProgram) -> None:
    for d in program.code:
        if d.op == Op.SEND:
            least, most = (duration(d, None, TARGET, n) for n in (d.tiles, payload_bound(d)))
            assert least <= most == duration(d, None, TARGET)
