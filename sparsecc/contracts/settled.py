"""What edges send: contracts, maps, and a log of why; written to and read from a folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsecc.artifact import MANIFEST, Artifact, npz
from sparsecc.diagnostics import CompileError

from .contract import Contract, from_json, to_json
from .maps import SensitivityMap
from .measures import Estimate, Loss, loss_name

CONTRACTS, LOG = "contracts.json", "settlement.json"
WITHIN_ARTIFACT = "scu/contracts"


@dataclass(frozen=True)
class EdgeRecord:
    """How the share of one edge came about. Shares in 1/65536; bytes and elements of one sample.

    What sender and receiver ``proposed`` and ``adjusted``, and the bounds that they agreed on, are None where nobody
    negotiated. ``binding`` is the constraint that set the share; ``degradation`` what the settled share alone loses, as
    measured on calibration data (nats of KL divergence, or 1 - cosine), None where it was not measured.
    """

    edge: str
    elems: int
    tile_elems: int
    proposed_q16: int | None
    adjusted_q16: int | None
    lo_q16: int | None
    hi_q16: int | None
    settled_q16: int
    binding: str
    degradation: float | None
    dense_bytes: int
    settled_bytes: int
    dtype: str  # that travels; ``dense_bytes`` are of float32


@dataclass(frozen=True, eq=False)
class Settled:
    """What every edge sends: ``contracts`` in the order of the edges, ``maps`` by edge, and the reasons."""

    contracts: tuple[Contract, ...]
    maps: Mapping[str, SensitivityMap]
    log: tuple[EdgeRecord, ...]

    @property
    def dense_bytes(self) -> int:
        return sum(record.dense_bytes for record in self.log)

    @property
    def settled_bytes(self) -> int:
        return sum(record.settled_bytes for record in self.log)

    def to_tree(self) -> dict[str, Any]:
        """The log as plain JSON; contracts and maps have files of their own."""
        return {"edges": [dataclasses.asdict(record) for record in self.log]}


@dataclass(frozen=True, eq=False)
class Settlement(Settled):
    """The outcome of a negotiation: ``dense`` and ``settled`` are of held-out samples.

    ``quality`` names what they count: accuracy, agreement with the dense model, or cosine. ``measured`` are maps with
    the gradient part that was measured, even where those in ``maps`` route by magnitude.
    """

    loss: Loss
    quality: str
    dense: Estimate
    settled: Estimate
    measured: Mapping[str, SensitivityMap]

    def to_tree(self) -> dict[str, Any]:
        return {
            "loss": loss_name(self.loss, labelled=self.quality == "accuracy"),
            "quality": self.quality,
            "dense": dataclasses.asdict(self.dense),
            "settled": dataclasses.asdict(self.settled),
            **super().to_tree(),
        }


def files(settled: Settled) -> dict[str, bytes]:
    """contracts.json, settlement.json and one map per edge, ``0.npz`` being that of the first contract."""
    log = json.dumps(settled.to_tree(), indent=1, allow_nan=False) + "\n"
    maps = {f"{n}.npz": npz(settled.maps[contract.edge].arrays) for n, contract in enumerate(settled.contracts)}
    return {CONTRACTS: to_json(settled.contracts).encode(), LOG: log.encode(), **maps}


def save(settled: Settled, folder: Path) -> None:
    """Write the ``files``. Raises: CompileError SCC075."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files(settled).items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise CompileError.of(
            "SCC075", f"{folder} cannot be written: {error.strerror}", help="choose another folder"
        ) from error


def load_contracts(place: str | Path) -> tuple[tuple[Contract, ...], dict[str, SensitivityMap]]:
    """Contracts and maps that ``save`` wrote into a folder, or that an artifact keeps; untrusted.

    Raises: CompileError (SCC043, SCC045, SCC046 as from_json; SCC047 not a map; SCC076 a file cannot be read; of an
    artifact also those of Artifact.open).
    """
    folder = Path(place)
    if (folder / MANIFEST).is_file():
        folder = Artifact.open(folder).path / WITHIN_ARTIFACT
    path = folder / CONTRACTS
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CompileError.of(
            "SCC076",
            f"{path} cannot be read: {error.strerror}",
            help="name the folder that contracts were saved in, or an artifact that was compiled with --target scu",
        ) from error
    contracts = from_json(text, str(path))
    return contracts, {c.edge: SensitivityMap.load(folder / f"{n}.npz") for n, c in enumerate(contracts)}
