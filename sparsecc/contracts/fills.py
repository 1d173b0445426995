"""What stands for dropped elements, where that is not zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from sparsecc.program import Program
from sparsecc.progress import track

from .calibration import Calibration, split
from .contract import Contract, fill_in_16_bits, transmit
from .int8 import quantise
from .joint import settle_again
from .maps import SensitivityMap
from .procedure import Options
from .replay import Replay
from .settled import Settlement


def settle_means(
    program: Program, settlement: Settlement, calibration: Calibration, drop: float | None = None
) -> Settlement:
    """The settlement with the mean of what every edge drops, rounded to 16 bits, in its place.

    ``settled`` is measured again, on the same held-out samples; ``drop`` is the greatest loss of quality allowed there.

    Raises: CompileError SCC059, the loss is greater than ``drop``.
    """
    options = Options()
    fitting, checking = split(calibration, options.held_out, options.seed)
    contracts = {c.edge: c for c in settlement.contracts}
    for edge, mean in dropped_means(program, fitting, contracts, settlement.maps).items():
        contract = contracts[edge]
        contracts[edge] = replace(contract, fill="mean", fill_value=_as_sent(contract, mean))
    return settle_again(program, settlement, contracts, checking, drop, "with --fill mean,", "--fill")


def dropped_means(
    program: Program, samples: Calibration, contracts: Mapping[str, Contract], maps: Mapping[str, SensitivityMap]
) -> dict[str, float]:
    """Per edge that drops anything, the mean of it under these contracts."""
    lossy = {edge: contract for edge, contract in contracts.items() if not contract.keeps_everything}
    sums, counts = dict.fromkeys(lossy, 0.0), dict.fromkeys(lossy, 0)
    for batch in track("measure-fills", samples.batches()):
        replay = Replay(program, contracts, maps)
        with torch.no_grad():
            replay.run(*batch.inputs)
        for edge, contract in lossy.items():
            value = replay.produced[edge].numpy()
            dropped = value[~transmit(value, maps[edge].gradient, contract)[1]]
            sums[edge] += float(dropped.sum(dtype=np.float64))
            counts[edge] += dropped.size
    return {edge: sums[edge] / counts[edge] for edge in lossy if counts[edge]}


def _as_sent(contract: Contract, mean: float) -> float:
    """The number of the dtype that travels which is nearest to a mean, and which a descriptor can tell."""
    if contract.scale:
        return float(quantise(np.array(mean, np.float32), contract.scale, contract.key.zero_point))
    return fill_in_16_bits(contract.key.dtype, mean)
