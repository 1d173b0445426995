"""Sensitivity maps that a program renews from the activations it moves, for the next negotiation.

Each edge has entries of its own for it, loaded with the gradient part of its map; SENDs rank by others, which stay.
After a run an entry is the sensitivity that chapter 9 of docs/scu.md makes of what arrived, from averages of 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from sparsecc.contracts import SensitivityMap
from sparsecc.diagnostics import CompileError

from .codecs import Dtype
from .unit_program import UnitProgram

AVERAGE_UNIT = 1 / 256
"""Of an average of the unit's map: chapter 9."""
NAME = re.compile(r"[A-Za-z0-9_]{1,200}")


@dataclass(frozen=True)
class Renewed:
    """Entries [first, first + entries) of the map belong to an edge; ``block`` elements share one. Section META."""

    edge: str
    first: int
    entries: int
    block: int


def update_fields(elems: int, entries: int, block: int, most_tile_elems: int) -> dict[str, int]:
    """The fields of an SMAP_UPD over a sample of ``elems`` in traversal order.

    A map that is shorter than the sample repeats. Then the stream has entry after entry: all elements of the first,
    then all of the next. (The unit reads neighbouring entries together: timing.)
    """
    tile_n = next(n for n in range(min(most_tile_elems, elems), 0, -1) if elems % n == 0)
    fields = {"dtype": int(Dtype.FLOAT32), "tile_n": tile_n, "tiles": elems // tile_n}
    width, repeats = Dtype.FLOAT32.width_bytes, max(1, elems // (entries * block))
    if 1 in (repeats, entries):
        return fields | {"run_bytes": width * elems, "reps1": 1, "reps2": 1, "dst_st2": block * repeats}
    runs = {"run_bytes": width * block, "reps1": repeats, "reps2": entries, "dst_st2": block * repeats}
    return fields | runs | {"src_st1": width * block * entries, "src_st2": width * block}


def renewed(program: UnitProgram) -> tuple[Renewed, ...]:
    """What META says of maps; nothing if the program renews none. Untrusted.

    Raises: CompileError SCC114.
    """
    try:
        found = tuple(_renewed(entry) for entry in cast("Sequence[Mapping[str, Any]]", program.meta.get("maps", [])))
    except (KeyError, TypeError) as error:
        raise _unusable(f"does not describe its maps: {error}") from error
    for one in found:
        numbers = (one.first, one.entries, one.block)
        whole = all(type(n) is int for n in numbers) and one.first >= 0 and one.entries > 0 and one.block > 0
        if not (whole and one.first + one.entries <= len(program.smap) and NAME.fullmatch(one.edge)):
            raise _unusable(f"has a map that cannot be: {one.edge!a}, {numbers}")
    return found


def updated_map(one: Renewed, program: UnitProgram, entries: bytes, averages: bytes) -> SensitivityMap:
    """``entries`` of the map after a run, and the ``averages`` of all its entries."""
    span = slice(one.first, one.first + one.entries)
    gradient, average = np.frombuffer(program.smap, np.uint8)[span], np.frombuffer(averages, "<u2")[span]
    return SensitivityMap(one.block, np.frombuffer(entries, np.uint8), gradient, average, AVERAGE_UNIT)


def _renewed(entry: Mapping[str, Any]) -> Renewed:
    return Renewed(str(entry["edge"]), entry["first"], entry["entries"], entry["block"])


def _unusable(what: str) -> CompileError:
    return CompileError.of("SCC114", f"section META of the program {what}", help="compile the model again")
