"""The unit's map as a program fills it: entries that SMAP_UPDs renew, then entries that SENDs rank by.

The maps to rank by lie one after the other, in section SMAP. Where the unit has no room left, the next one takes the
place of the first again: the program loads it once nobody ranks by what was there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsecc.contracts import SensitivityMap, spread
from sparsecc.contracts.keys import Bytes
from sparsecc.diagnostics import CompileError

from .chunks import Ranking, Sending
from .machine import Target
from .map_updates import update_fields

MAPS_AT_ONCE = 4
"""A map that repeats is stored so often that this many find room, so that one is loaded while others are in use."""
MOST_ENTRIES = 1 << 16
"""What field ``smap`` of a descriptor can tell."""


@dataclass
class MapSpace:
    """``maps``: those to be renewed, by edge. ``renewed``: where, for section META. ``entries``: section SMAP.

    Raises: CompileError SCC124 if maps to be renewed do not fit.
    """

    target: Target
    maps: Mapping[str, SensitivityMap]
    entries: bytearray = field(default_factory=bytearray)
    renewed: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def __post_init__(self) -> None:
        self._room = min(self.target.the("smap").bytes, MOST_ENTRIES)
        self._renewed_entries = sum(len(measured.gradient) for measured in self.maps.values())
        if self._renewed_entries > self._room:
            raise CompileError.of(
                "SCC124",
                f"maps to be updated take {self._renewed_entries} B, but the map of {self.target.name} holds "
                f"{self._room} B",
                help="give a greater --map-block, or leave out --update-maps",
            )
        self.entries += bytes(self._renewed_entries)
        self._again: int | None = None  # where the next map is loaded, once there is no room for all

    def ranked(self, name: str, sensitivity: Bytes, block: int, elems: int, tile_elems: int) -> Ranking | None:
        """What SENDs of an edge rank by; None if all entries are the same and change no order.

        Raises: CompileError SCC124 if the unit's map cannot hold it.
        """
        if (sensitivity == sensitivity[0]).all() and sensitivity[0]:
            return None
        per_entry, repeat = spread(sensitivity, block, elems), len(sensitivity)
        if elems > tile_elems and tile_elems % block:  # a tile may begin within a block
            block, repeat = 1, repeat * block
        enough = repeat + -(-tile_elems // block)  # for a tile from any entry on
        most = max(enough, (self._room - self._renewed_entries) // MAPS_AT_ONCE)
        stored = per_entry[::block][:most].astype(np.uint8).tobytes()
        return self._placed(name, stored, block, repeat)

    def update(self, sending: Sending) -> dict[str, int]:
        """The fields of an SMAP_UPD of a sample, with entries of its own, loaded with the gradient part."""
        gradient, block = self.maps[sending.name].gradient, self.maps[sending.name].block
        first = sum(entry["entries"] for entry in self.renewed)
        self.renewed.append({"edge": sending.name, "first": first, "entries": len(gradient), "block": block})
        self.entries[first : first + len(gradient)] = gradient.tobytes()
        return update_fields(sending.elems, len(gradient), block, self.target.selector.tile_elems) | {"smap": first}

    def _placed(self, name: str, stored: bytes, block: int, repeat: int) -> Ranking:
        if self._again is None and len(self.entries) + len(stored) <= self._room:
            first = len(self.entries)
            self.entries += stored
            return Ranking(first, len(stored), block, repeat)
        if self._renewed_entries + len(stored) > self._room:
            beside = f" beside {self._renewed_entries} B of maps to be updated" if self._renewed_entries else ""
            raise CompileError.of(
                "SCC124",
                f"the map that {name} is ranked by takes {len(stored)} B, but the map of {self.target.name} holds "
                f"{self._room} B{beside}",
                help="give a greater --map-block, leave out --routing or --update-maps, or give memory.smap more "
                "bytes in the target file",
            )
        first = self._renewed_entries if self._again is None else self._again
        if first + len(stored) > self._room:
            first = self._renewed_entries
        self._again = first + len(stored)
        return Ranking(first, len(stored), block, repeat, stored)
