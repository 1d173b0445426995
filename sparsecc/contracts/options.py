"""What a person may ask of the contracts of a compile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .contract import Contract
from .maps import SensitivityMap


@dataclass(frozen=True)
class ContractOptions:
    """At most one budget; without one, accuracy = 0.01.

    ``bytes`` is the share of the dense bytes that may cross the link, ``accuracy`` the accuracy that may be lost on
    held-out samples, ``keep`` the share of every edge that is sent. ``calibration`` are samples by input name, and
    perhaps "labels", or a file of them. ``settled`` contracts are taken as they are.
    """

    calibration: Path | Mapping[str, object] | None = None
    bytes: float | None = None
    accuracy: float | None = None
    keep: float | None = None
    form: str = "taylor"
    map_block: int | None = None  # elements; None: the least for which all maps fit the unit's memory
    period: int = 0  # tiles
    fill: str = "zero"  # "mean": of each edge, over the calibration data
    update_maps: bool = False  # the program renews maps from what it moves
    codecs: tuple[str, ...] = ()  # all that the target has
    target_file: Path | None = None
    settled: tuple[Mapping[str, Contract], Mapping[str, SensitivityMap]] | None = None
