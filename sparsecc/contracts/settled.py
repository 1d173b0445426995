"""The outcome of a negotiation: contracts, maps, and a log of why; written to and read from a folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sparsecc.diagnostics import CompileError

from .contract import Contract, from_json, to_json
from .maps import SensitivityMap
from .measures import Estimate

CONTRACTS, LOG = "contracts.json", "settlement.json"


@dataclass(frozen=True)
class EdgeRecord:
    """How the share of one edge came about. Shares in 1/65536; bytes and elements of one sample.

    ``binding`` is the constraint that set the share; ``degradation`` what the settled share alone loses, as measured on
    calibration data (nats of KL divergence, or 1 - cosine), None where it was not measured.
    """

    edge: str
    elems: int
    tile_elems: int
    proposed_q16: int
    adjusted_q16: int
    lo_q16: int
    hi_q16: int
    settled_q16: int
    binding: str
    degradation: float | None
    dense_bytes: int
    settled_bytes: int


@dataclass(frozen=True, eq=False)
class Settlement:
    """``contracts`` in the order of the edges, ``maps`` by edge; ``dense`` and ``settled`` are of held-out samples.

    ``measured`` are maps with the gradient part that was measured, even where those in ``maps`` route by magnitude.
    ``quality`` names what they count: accuracy, agreement with the dense model, or cosine.
    """

    contracts: tuple[Contract, ...]
    maps: Mapping[str, SensitivityMap]
    log: tuple[EdgeRecord, ...]
    loss: str
    quality: str
    dense: Estimate
    settled: Estimate
    measured: Mapping[str, SensitivityMap] = field(default_factory=dict[str, SensitivityMap])

    @property
    def dense_bytes(self) -> int:
        return sum(record.dense_bytes for record in self.log)

    @property
    def settled_bytes(self) -> int:
        return sum(record.settled_bytes for record in self.log)

    def to_json(self) -> str:
        """The log and the held-out qualities; contracts and maps have files of their own."""
        tree = {
            "loss": self.loss,
            "quality": self.quality,
            "dense": dataclasses.asdict(self.dense),
            "settled": dataclasses.asdict(self.settled),
            "edges": [dataclasses.asdict(record) for record in self.log],
        }
        return json.dumps(tree, indent=1, allow_nan=False) + "\n"


def save(settlement: Settlement, folder: Path) -> None:
    """Write contracts.json, settlement.json and one map per edge, ``0.npz`` being that of the first contract.

    Raises: CompileError SCC075.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONTRACTS).write_text(to_json(settlement.contracts), encoding="utf-8")
        (folder / LOG).write_text(settlement.to_json(), encoding="utf-8")
    except OSError as error:
        raise CompileError.of(
            "SCC075", f"{folder} cannot be written: {error.strerror}", help="choose another folder"
        ) from error
    for n, contract in enumerate(settlement.contracts):
        settlement.maps[contract.edge].save(folder / f"{n}.npz")


def load_contracts(folder: Path) -> tuple[tuple[Contract, ...], dict[str, SensitivityMap]]:
    """Contracts and maps that ``save`` wrote; untrusted.

    Raises: CompileError (SCC043, SCC045, SCC046 as from_json; SCC047 not a map; SCC076 a file cannot be read).
    """
    path = folder / CONTRACTS
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CompileError.of(
            "SCC076", f"{path} cannot be read: {error.strerror}", help="name the folder that contracts were saved in"
        ) from error
    contracts = from_json(text, str(path))
    return contracts, {c.edge: SensitivityMap.load(folder / f"{n}.npz") for n, c in enumerate(contracts)}
