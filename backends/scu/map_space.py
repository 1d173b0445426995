"""The unit's map as a program fills it: entries that SENDs rank by, and entries that SMAP_UPDs renew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsecc.contracts import SensitivityMap, spread
from sparsecc.contracts.keys import Bytes
from sparsecc.diagnostics import CompileError

from .chunks import Sending
from .machine import Target
from .map_updates import update_fields


@dataclass
class MapSpace:
    """``maps``: those to be renewed, by edge. ``renewed``: where, for section META."""

    target: Target
    maps: Mapping[str, SensitivityMap]
    entries: bytearray = field(default_factory=bytearray)
    renewed: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def ranked(self, sensitivity: Bytes, block: int, elems: int) -> int | None:
        """The first of new entries that SENDs use; None if they are all the same and change no order."""
        if (sensitivity == sensitivity[0]).all() and sensitivity[0]:
            return None
        first = len(self.entries)
        self.entries += spread(sensitivity, block, elems)[::block].astype(np.uint8).tobytes()
        return first

    def update(self, sending: Sending) -> dict[str, int]:
        """The fields of an SMAP_UPD of a sample, with new entries for it, loaded with the gradient part."""
        gradient, block = self.maps[sending.name].gradient, self.maps[sending.name].block
        first = len(self.entries)
        self.renewed.append({"edge": sending.name, "first": first, "entries": len(gradient), "block": block})
        self.entries += gradient.tobytes()
        return update_fields(sending.elems, len(gradient), block, self.target.selector.tile_elems) | {"smap": first}

    def verify(self) -> None:
        """Raises: CompileError SCC124 if maps to be renewed do not fit beside the others."""
        room, second = self.target.the("smap").bytes, sum(entry["entries"] for entry in self.renewed)
        if second and len(self.entries) > room:
            raise CompileError.of(
                "SCC124",
                f"maps to rank by take {len(self.entries) - second} B and maps to be updated {second} B, but the map "
                f"of {self.target.name} holds {room} B",
                help="give a greater --map-block, or leave out --update-maps",
            )
