"""Maps that programs renew: what META says of them, how they are read, and where they do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparsecc.backends.scu.map_updates import Renewed, renewed, update_fields
from sparsecc.backends.scu.unit_program import UnitProgram
from sparsecc.diagnostics import CompileError


@pytest.mark.parametrize(("elems", "entries", "block"), [(864, 864, 1), (10, 3, 4), (48, 6, 1), (48, 3, 2), (48, 1, 4)])
def test_the_stream_has_entry_after_entry(elems: int, entries: int, block: int) -> None:
    f = update_fields(elems, entries, block, 64)
    x = np.arange(elems, dtype=np.int32)
    runs = [
        x[(i * f.get("src_st1", 0) + j * f.get("src_st2", 0)) // 4 :][: f["run_bytes"] // 4]
        for j in range(f["reps2"])
        for i in range(f["reps1"])
    ]
    stream = np.concatenate(runs)
    assert f["tile_n"] <= 64
    assert f["tile_n"] * f["tiles"] == len(stream) == elems
    assert -(-elems // f["dst_st2"]) == entries
    for entry in range(entries):
        own = stream[entry * f["dst_st2"] : (entry + 1) * f["dst_st2"]]
        assert sorted(own.tolist()) == [j for j in range(elems) if j // block % entries == entry]


GOOD = {"edge": "relu_1", "first": 2, "entries": 3, "block": 4}


def described(*maps: object) -> UnitProgram:
    return UnitProgram((), smap=bytes(5), meta={"maps": list(maps)})


def test_what_meta_says_of_maps() -> None:
    assert renewed(UnitProgram(())) == ()
    assert renewed(described(GOOD)) == (Renewed("relu_1", 2, 3, 4),)


@pytest.mark.parametrize(
    "change", [{"edge": "../x"}, {"first": -1}, {"first": 3}, {"entries": 0}, {"entries": 1.5}, {"block": 0}]
)
def test_maps_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(CompileError, match="SCC114"):
        renewed(described(GOOD | change))


@pytest.mark.parametrize("entry", [3, {"edge": "x"}])
def test_maps_that_are_none(entry: object) -> None:
    with pytest.raises(CompileError, match="SCC114"):
        renewed(described(entry))
