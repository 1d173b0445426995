"""Where the entries lie that SENDs rank by: what a unit with little room does, and when it has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecc.backends.scu.chunks import Ranking, Sending
from sparsecc.backends.scu.codecs import FIXED, Dtype
from sparsecc.backends.scu.machine import Target, scu_v1
from sparsecc.backends.scu.map_space import MapSpace
from sparsecc.contracts import spread, uniform_map
from sparsecc.diagnostics import CompileError


def target(room: int) -> Target:
    return replace(scu_v1(), memory={**scu_v1().memory, "smap": replace(scu_v1().memory["smap"], bytes=room)})


def ramp(entries: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.arange(1, entries + 1, dtype=np.uint8)


@given(st.integers(2, 40), st.integers(1, 9), st.integers(1, 700), st.integers(1, 64), st.integers(200, 2000))
def test_every_element_of_every_send_finds_its_entry(
    entries: int, block: int, elems: int, tile_elems: int, room: int
) -> None:
    sensitivity, numbers = ramp(entries), {"share_q16": 1, "map_block": block, "key_bits": 16, "skip_zero": 0}
    tile_elems = min(tile_elems, elems)
    try:
        ranking = MapSpace(target(room), {}).ranked("relu", sensitivity, block, elems, tile_elems)
    except CompileError:
        assert -(-min(elems, entries * block + tile_elems) // (block if tile_elems % block == 0 else 1)) > room
        return
    assert ranking
    assert ranking.entries <= room
    space = MapSpace(target(room), {})
    space.ranked("relu", sensitivity, block, elems, tile_elems)
    smap, expected = np.frombuffer(bytes(space.entries), np.uint8), spread(sensitivity, block, elems)
    sending = Sending("relu", 1, elems, tile_elems, numbers, FIXED, None, ranking, Dtype.FLOAT32, 0, 0, None)
    sent = 0
    for chunk in sending.chunks(1 << 20):
        assert chunk.start == 4 * sent
        n = chunk.tiles * chunk.tile_n
        if chunk.k < chunk.tile_n:
            found = smap[chunk.more["smap"] + np.arange(n) // chunk.more["dst_st2"]]
            np.testing.assert_array_equal(found, expected[sent : sent + n])
        sent += n
    assert sent == elems


def test_maps_that_find_no_room_take_the_place_of_the_first() -> None:
    space = MapSpace(target(250), {"relu": uniform_map(50)})
    places = [space.ranked(f"edge{i}", ramp(80), 1, 80, 80) for i in range(5)]
    loaded = ramp(80).tobytes()
    assert places == [
        Ranking(50, 80, 1, 80),
        Ranking(130, 80, 1, 80),
        Ranking(50, 80, 1, 80, loaded),
        Ranking(130, 80, 1, 80, loaded),
        Ranking(50, 80, 1, 80, loaded),
    ]
    assert space.ranked("small", ramp(10), 1, 10, 10) == Ranking(130, 10, 1, 10, ramp(10).tobytes())
    assert space.ranked("same", np.full(9, 7, np.uint8), 1, 9, 9) is None
    assert bytes(space.entries) == bytes(50) + 2 * loaded


def test_maps_longer_than_the_memory() -> None:
    with pytest.raises(CompileError) as caught:
        MapSpace(target(90), {"relu": uniform_map(50), "mean": uniform_map(41)})
    assert str(caught.value) == (
        "error[SCC124]: maps to be updated take 91 B, but the map of scu-v1 holds 90 B\n"
        "  help: give a greater --map-block, or leave out --update-maps"
    )
    way_out = (
        "  help: give a greater --map-block, leave out --routing or --update-maps, or give memory.smap more bytes in "
        "the target file"
    )
    with pytest.raises(CompileError) as caught:
        MapSpace(target(90), {"relu": uniform_map(50)}).ranked("relu_1", ramp(60), 1, 60, 60)
    assert str(caught.value) == (
        "error[SCC124]: the map that relu_1 is ranked by takes 60 B, but the map of scu-v1 holds 90 B beside 50 B of "
        f"maps to be updated\n{way_out}"
    )
    with pytest.raises(CompileError) as caught:
        MapSpace(target(90), {}).ranked("relu_1", ramp(200), 1, 200, 60)
    assert str(caught.value) == (
        "error[SCC124]: the map that relu_1 is ranked by takes 200 B, but the map of scu-v1 holds 90 B\n" + way_out
    )
