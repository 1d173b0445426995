"""What stands for dropped elements, where that is not zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from sparsecc.diagnostics import CompileError
from sparsecc.program import Program
from sparsecc.progress import track

from .calibration import Calibration
from .contract import Contract, fill_in_16_bits
from .maps import SensitivityMap
from .replay import Replay


def verify_fill(fill: str, *, calibrated: bool) -> None:
    """Raises: CompileError SCC124 for means of nothing."""
    if fill == "mean" and not calibrated:
        raise CompileError.of(
            "SCC124",
            "--fill mean puts the mean of an edge in place of what is dropped, which calibration data tell, and there "
            "are none",
            help="add --calibration calib.npz, samples under the names of the inputs; or leave out --fill",
        )


def verify_update(update_maps: bool, *, calibrated: bool) -> None:
    """Raises: CompileError SCC124 for maps that were never measured."""
    if update_maps and not calibrated:
        raise CompileError.of(
            "SCC124",
            "--update-maps renews maps that were measured on calibration data, and there are none",
            help="add --calibration calib.npz, samples under the names of the inputs; or leave out --update-maps",
        )


def with_mean_fills(
    program: Program, samples: Calibration, contracts: Mapping[str, Contract], maps: Mapping[str, SensitivityMap]
) -> dict[str, Contract]:
    """The contracts, which keep everything, with the mean of what their edge carries, rounded to 16 bits."""
    sums, counts = dict.fromkeys(contracts, 0.0), dict.fromkeys(contracts, 0)
    for batch in track("measure-fills", samples.batches()):
        replay = Replay(program, contracts, maps)
        with torch.no_grad():
            replay.run(*batch.inputs)
        for edge, value in replay.produced.items():
            sums[edge] += float(value.double().sum())
            counts[edge] += value.numel()
    return {
        edge: replace(c, fill="mean", fill_value=fill_in_16_bits(c.key.dtype, sums[edge] / max(1, counts[edge])))
        for edge, c in contracts.items()
    }
