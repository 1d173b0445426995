"""Contracts whose k moves: their range, and the margins of the key mass within which it stays where it is.

The settled share is where k starts and its most, so that what was settled for bytes holds in the worst case. k moves
down on inputs of which it keeps more of the key mass than calibration data made usual, and back up when it keeps less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch

from sparsecc import reference
from sparsecc.diagnostics import CompileError
from sparsecc.program import Program
from sparsecc.progress import track

from .calibration import Calibration, split
from .contract import MAX_MARGIN, Contract
from .int8 import quantise
from .joint import settle_again
from .keys import Array, make_keys
from .maps import SensitivityMap
from .procedure import Options
from .replay import Replay
from .settled import Settlement
from .topk import WHOLE, first_k

SPREAD = 1.0
"""Standard deviations between the mean and a margin: an assumption, nothing was tuned."""


def settle_moving(
    program: Program, settlement: Settlement, calibration: Calibration, period: int, drop: float | None = None
) -> Settlement:
    """The settlement with a k that moves every ``period`` tiles, wherever a sample has more whole tiles than that.

    k falls to half of the settled share, or to what the receiver needs. ``settled`` is measured again, on the same
    held-out samples; ``drop`` is the greatest loss of quality allowed there.

    Raises: CompileError (SCC059 the loss is greater than ``drop``; SCC123 nothing can move).
    """
    options = Options()
    fitting, checking = split(calibration, options.held_out, options.seed)
    sizes = reference.shapes(program)
    count = {c.edge: int(sizes[c.edge][c.axis :].numel()) // c.tile_elems for c in settlement.contracts}
    lowest = {record.edge: record.lo_q16 or 0 for record in settlement.log}
    moving = {c.edge: c for c in settlement.contracts if count[c.edge] > period and c.share_q16 < WHOLE}
    if not moving:
        raise CompileError.of(
            "SCC123",
            f"--period {period} could never move a k: of the edges with a contract, the greatest has "
            f"{max(count.values(), default=0)} whole tiles in a sample, and k moves after {period}",
            help="give a smaller --period, or a target file with shorter tiles (selector.tile_elems)",
        )
    contracts = {c.edge: c for c in settlement.contracts}
    shares = kept_shares(program, fitting, moving, contracts, settlement.maps, period)
    for edge, contract in moving.items():
        lo, hi = margins(shares[edge])
        share_lo = min(contract.share_q16, max(contract.share_q16 // 2, lowest[edge]))
        contracts[edge] = replace(contract, share_lo_q16=share_lo, period=period, margin_lo_q16=lo, margin_hi_q16=hi)
    cause = f"with --period {period}, k falls so far that"
    return settle_again(program, settlement, contracts, checking, drop, cause, "--period")


def kept_shares(
    program: Program,
    samples: Calibration,
    moving: Iterable[str],
    contracts: Mapping[str, Contract],
    maps: Mapping[str, SensitivityMap],
    period: int,
) -> dict[str, Array]:
    """Per edge the shares of the key mass, in 1/65536, that whole periods of tiles keep under settled contracts."""
    found = {edge: list[Array]() for edge in moving}
    for batch in track("measure-margins", samples.batches()):
        replay = Replay(program, contracts, maps)
        with torch.no_grad():
            replay.run(*batch.inputs)
        for edge, shares in found.items():
            shares.append(_shares(replay.produced[edge].numpy(), contracts[edge], maps[edge], period))
    return {edge: np.concatenate(shares) for edge, shares in found.items()}


def margins(shares: Array) -> tuple[int, int]:
    """The mean of shares in 1/65536, less and plus SPREAD standard deviations."""
    if not len(shares):
        return 0, MAX_MARGIN
    mean, deviation = float(shares.mean()), SPREAD * float(shares.std())
    lo, hi = (min(MAX_MARGIN, max(0, round(end))) for end in (mean - deviation, mean + deviation))
    return lo, hi


def _shares(x: Array, contract: Contract, measured: SensitivityMap, period: int) -> Array:
    ordered = np.moveaxis(x, contract.axis, -1) if contract.order == "channels-last" else x
    flat = ordered.reshape(int(np.prod(ordered.shape[: contract.axis])), -1)
    if contract.scale:
        flat = quantise(flat, contract.scale, contract.key.zero_point)
    keys = make_keys(flat, measured.gradient, contract.map_block, contract.key)
    periods = keys.shape[1] // contract.tile_elems // period
    tiled = keys[:, : periods * period * contract.tile_elems].reshape(-1, period, contract.tile_elems)
    kept = tiled.sum(axis=(1, 2), where=first_k(tiled, contract.k(contract.tile_elems)), dtype=np.int64)
    total = tiled.sum(axis=(1, 2), dtype=np.int64)
    shares: Array = WHOLE * kept[total > 0] // total[total > 0]
    return shares
