"""How much the outputs degrade when one edge carries less, measured on calibration data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sparsecc.program import Program
from sparsecc.progress import track

from .calibration import Calibration
from .contract import Contract
from .curves import Curve, isotonic
from .maps import SensitivityMap
from .measures import Loss, divergence, main_output
from .replay import Replay, followers, outputs
from .stages import Edge
from .topk import WHOLE

GRID = tuple(round(WHOLE * share) for share in (1 / 32, 1 / 16, 3 / 32, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4))
"""Shares that are measured, denser where curves are steep; at WHOLE nothing is lost."""


def measure_degradation(
    program: Program,
    edges: Sequence[Edge],
    calibration: Calibration,
    contracts: Mapping[str, Contract],
    maps: Mapping[str, SensitivityMap],
    loss: Loss,
    shares: Sequence[int] = GRID,
) -> dict[str, Curve]:
    """The mean divergence from the dense outputs over an edge's share, less that at share 1, made monotone.

    The other edges carry what ``contracts`` say, so the curves are those around an operating point. What lies before
    an edge is computed once for all its shares.
    """
    sums = {edge.name: torch.zeros(len(shares) + 1, dtype=torch.float64) for edge in edges}
    with torch.no_grad():
        for batch in calibration.batches():
            dense = main_output(outputs(program, batch.inputs, {}, maps))
            before = Replay(program, contracts, maps)
            usual = main_output(before.run(*batch.inputs))
            for edge in track("measure-degradation", edges):
                after = followers(edge.node)
                known = {node: value for node, value in before.env.items() if node not in after}
                for i, share in enumerate((*shares, WHOLE)):
                    contract = replace(contracts[edge.name], share_q16=share, share_lo_q16=share, share_hi_q16=share)
                    actual = usual
                    if contract != contracts[edge.name]:
                        rest = Replay(program, {**contracts, edge.name: contract}, maps)
                        sent = rest.send(edge.name, before.produced[edge.name])
                        actual = main_output(rest.run(*batch.inputs, initial_env={**known, edge.node: sent}))
                    sums[edge.name][i] += divergence(loss, dense, actual).sum()
    return {name: _curve(shares, total / len(calibration)) for name, total in sums.items()}


def _curve(shares: Sequence[int], losses: Tensor) -> Curve:
    monotone = isotonic([float(loss) for loss in losses])
    return Curve((*shares, WHOLE), tuple(value - monotone[-1] for value in monotone))
