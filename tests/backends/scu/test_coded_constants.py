"""Constants that travel as blocks: the same bytes arrive, fewer move, nothing takes longer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from programs import seeded
from torch import Tensor, nn

from sparsecc.backends.scu import unit as unit_module
from sparsecc.backends.scu.check import check_program
from sparsecc.backends.scu.codecs import Codec, Header, decode
from sparsecc.backends.scu.coded_constants import code_constants
from sparsecc.backends.scu.constant_blocks import MOST_TILES, constant_blocks
from sparsecc.backends.scu.constant_loads import with_loads
from sparsecc.backends.scu.descriptor import Descriptor, Op
from sparsecc.backends.scu.host import Unit, load_kernels
from sparsecc.backends.scu.machine import OFFSET_MASK, Target, scu_v1
from sparsecc.backends.scu.schedule import schedule_dma
from sparsecc.backends.scu.simulator import Outcome
from sparsecc.backends.scu.tasks import TaskGraph
from sparsecc.backends.scu.tile_code import TileCode
from sparsecc.backends.scu.unit import lower_with_code, scheduled
from sparsecc.backends.scu.unit_program import UnitProgram
from sparsecc.backends.scu.verify import verify_program
from sparsecc.capture import capture
from sparsecc.diagnostics import CompileError
from sparsecc.models import lenet5

TARGET = scu_v1()
CODECS = tuple(Codec)


def narrow() -> Target:
    """Constants come at a quarter of the scratchpads' width."""
    const = replace(TARGET.the("const"), bytes_per_cycle=4)
    return replace(TARGET, memory={**TARGET.memory, "const": const})


# ---- blocks ----------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 200),
    st.sampled_from([1, 7, 8, 33, 64]),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
    st.sets(st.sampled_from(CODECS), min_size=1),
)
def test_blocks_hold_the_constants(words: int, tile_elems: int, density: float, seed: int, codecs: set[Codec]) -> None:
    """Any bits, NaNs and -0 among them."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**32, words, np.uint32) * (rng.random(words) < density)
    bits[rng.random(words) < 0.1] = 1 << 31
    data = bits.astype("<u4").tobytes()
    found = constant_blocks(data, tile_elems, codecs)
    arrived = list[bytes]()
    for blocks in found:
        assert blocks.codec in codecs
        assert blocks.room_bytes % 32 == 0
        assert blocks.tiles <= MOST_TILES
        rooms = [blocks.data[i : i + blocks.room_bytes] for i in range(0, len(blocks.data), blocks.room_bytes)]
        headers = [Header.parse(room) for room in rooms]
        assert max(header.block_bytes for header in headers) == blocks.room_bytes
        assert sum(header.block_bytes for header in headers) == blocks.sent_bytes
        assert max(header.count for header in headers) == blocks.k
        tiles = [decode(room[: header.block_bytes]) for room, header in zip(rooms, headers, strict=True)]
        assert [(tile.n, len(tiles)) for tile in tiles] == [(blocks.tile_n, blocks.tiles)] * len(tiles)
        arrived += [tile.dense(0).tobytes() for tile in tiles]
    assert b"".join(arrived) == data


def test_the_shortest_codec() -> None:
    sparse = np.zeros(1024, np.float32)
    sparse[::20] = 1.5
    (few,) = constant_blocks(sparse.tobytes(), 1024, CODECS)
    (without,) = constant_blocks(sparse.tobytes(), 1024, [Codec.RAW, Codec.BITMASK])
    assert (few.codec, without.codec) == (Codec.RUN, Codec.BITMASK)
    assert few.sent_bytes < without.sent_bytes
    (random,) = constant_blocks(np.random.default_rng(0).bytes(4096), 1024, CODECS)
    assert (random.codec, random.k, random.sent_bytes) == (Codec.RAW, 1024, 4096 + 32)  # header and padding


# ---- programs --------------------------------------------------------------------------------------------------------


def lowered(model: nn.Module, x: Tensor, target: Target = TARGET) -> tuple[TaskGraph, TileCode]:
    return lower_with_code(capture(model.eval(), [x]), target)


def run(program: UnitProgram, code: TileCode, x: Tensor, target: Target = TARGET) -> Outcome:
    assert list(check_program(program, target)) == []
    assert list(verify_program(program, target)) == []
    name = program.meta["inputs"][0]["name"]
    return Unit(program, target, load_kernels(code)).simulate({name: x.numpy()})


def loads(program: UnitProgram, target: Target = TARGET) -> list[Descriptor]:
    const = target.the("const").address
    return [d for d in program.code if d.op == Op.RECV and d.src & ~OFFSET_MASK == const]


def saved_bytes(program: UnitProgram, received: Sequence[Descriptor]) -> int:
    blocks = [(d.src & OFFSET_MASK) + i * d.src_st1 for d in received for i in range(d.tiles)]
    sent = sum(Header.parse(program.constants[at : at + 16]).block_bytes for at in blocks)
    return sum(d.dense_bytes for d in received) - sent


def pruned(*widths: int, keep: float = 0.1) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    for layer in layers:
        if isinstance(layer, nn.Linear):
            layer.weight.data *= torch.rand(layer.weight.shape) < keep
    return nn.Sequential(*layers)


@pytest.mark.parametrize("target", [TARGET, narrow()], ids=["scu-v1", "narrow const"])
def test_lenet5_computes_the_same_with_fewer_bytes(target: Target) -> None:
    (x,) = lenet5.example_inputs()
    graph, code = lowered(lenet5.load_pruned(), x, target)
    (plain, before), (coded, after) = (scheduled(graph, target, coded=coded) for coded in (False, True))
    received = loads(coded, target)
    dense, ours = run(plain, code, x, target), run(coded, code, x, target)
    assert loads(plain, target) == []
    assert ours.outputs == dense.outputs
    assert received
    assert dense.dram_bytes - ours.dram_bytes == saved_bytes(coded, received) > 30_000
    assert after.makespan <= before.makespan
    assert ours.cycles <= dense.cycles
    assert ours.total_pj < dense.total_pj
    assert len(coded.constants) < len(plain.constants)


def test_a_narrow_memory_sends_every_weight_as_blocks() -> None:
    x = seeded(1, 64)
    graph, _ = lowered(pruned(64, 128, 96, 10), x, narrow())
    coded, _ = scheduled(graph, narrow(), coded=True)
    assert sum(d.dense_bytes for d in loads(coded, narrow())) >= 4 * (64 * 128 + 128 * 96 + 96 * 10)


def test_dense_weights_travel_as_blocks_only_where_these_are_shorter() -> None:
    """Random bits: no codec makes them smaller. Trained or drawn weights have exponents that HUFFMAN shortens."""
    model = pruned(64, 128, 10, keep=1)
    x = seeded(1, 64)
    graph, _ = lowered(model, x)
    assert {Codec(d.codec) for d in loads(scheduled(graph, TARGET, coded=True)[0])} <= {Codec.HUFFMAN}
    for parameter in model.parameters():
        bits = np.random.default_rng(parameter.numel()).integers(0, 2**32, parameter.shape, np.uint32)
        parameter.data = torch.from_numpy((bits & ~np.uint32(1 << 30)).view(np.float32))  # finite
    graph, _ = lowered(model, x)
    assert code_constants(graph, TARGET) is graph


def test_a_target_with_raw_alone_has_no_blocks() -> None:
    graph, _ = lowered(pruned(64, 128, 10), seeded(1, 64))
    assert code_constants(graph, replace(TARGET, codecs=("raw",))) is graph


def test_equal_constants_are_stored_once() -> None:
    """A layer that is used three times: its blocks are there once, and received for each use."""
    torch.manual_seed(0)
    layer = pruned(96, 96)[0]
    x = seeded(1, 96)
    graph, code = lowered(nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), layer), x, narrow())
    coded, _ = scheduled(graph, narrow(), coded=True)
    weights = [d for d in loads(coded, narrow()) if d.tile_n == 1024]
    assert len(weights) > len({d.src for d in weights})
    assert run(coded, code, x, narrow()).outputs == run(scheduled(graph, narrow(), coded=False)[0], code, x).outputs


def test_what_the_scratchpad_has_no_room_for_is_streamed() -> None:
    graph, _ = lowered(pruned(300, 300, 10), seeded(1, 300), narrow())
    memory = {n: replace(m, bytes=400_000 if m.kind == "scratchpad" else m.bytes) for n, m in narrow().memory.items()}
    small, large = (
        sum(d.dense_bytes for d in loads(scheduled(graph, target, coded=True)[0], target))
        for target in (narrow(), replace(narrow(), memory=memory))
    )
    assert small < 4 * 300 * 300 <= large


def test_without_places_for_blocks_constants_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places are found last: where there are none with blocks, there may be some without."""
    graph, _ = lowered(pruned(64, 128, 10), seeded(1, 64), narrow())
    calls = list[TaskGraph]()

    def refuse(tasks: TaskGraph, *rest: object) -> object:
        calls.append(tasks)
        if tasks is not graph:
            raise CompileError.of("SCC111", "no")
        return schedule_dma(tasks, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(unit_module, "schedule_dma", refuse)
    program, _ = scheduled(graph, narrow(), coded=True)
    assert (len(calls), loads(program, narrow())) == (2, [])


def test_no_loads_change_nothing_but_places() -> None:
    graph, _ = lowered(pruned(16, 8), seeded(1, 16))
    same = with_loads(graph, TARGET, {})
    assert [task.name for task in same.tasks] == [task.name for task in graph.tasks]
    assert same.constants == graph.constants
