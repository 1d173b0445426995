"""All contracts at once, on samples that nothing was measured with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from sparsecc.diagnostics import CompileError
from sparsecc.program import Program

from .calibration import Calibration
from .contract import Contract
from .maps import SensitivityMap
from .measures import Estimate, Loss, estimate, main_output, quality
from .replay import outputs
from .settled import Settlement


def with_shares(contracts: Mapping[str, Contract], shares: Mapping[str, int]) -> dict[str, Contract]:
    """The contracts with shares that never move, in the order of ``contracts``."""
    return {
        edge: replace(contract, share_q16=shares[edge], share_lo_q16=shares[edge], share_hi_q16=shares[edge])
        for edge, contract in contracts.items()
    }


class Joint:
    """The quality of a Program on held-out samples under contracts, such as ``whole`` with other shares."""

    def __init__(
        self,
        program: Program,
        held_out: Calibration,
        loss: Loss,
        maps: Mapping[str, SensitivityMap],
        whole: Mapping[str, Contract],
    ) -> None:
        self.program, self.held_out, self.maps, self.whole = program, held_out, maps, whole
        self.loss: Loss = loss
        batches = held_out.batches()
        self.references = [main_output(outputs(program, batch.inputs, {}, maps)) for batch in batches]
        self.dense = estimate(self._qualities(self.references))

    def estimate(self, shares: Mapping[str, int]) -> Estimate:
        return self.under(with_shares(self.whole, shares))

    def under(self, contracts: Mapping[str, Contract]) -> Estimate:
        batches = self.held_out.batches()
        actual = [main_output(outputs(self.program, batch.inputs, contracts, self.maps)) for batch in batches]
        return estimate(self._qualities(actual))

    def drop(self, shares: Mapping[str, int]) -> float:
        return self.dense.value - self.estimate(shares).value

    def _qualities(self, actual: list[Tensor]) -> Tensor:
        batches = zip(self.held_out.batches(), self.references, actual, strict=True)
        return torch.cat([quality(self.loss, dense, got, batch.labels) for batch, dense, got in batches])


def settle_again(
    program: Program,
    settlement: Settlement,
    contracts: Mapping[str, Contract],
    held_out: Calibration,
    drop: float | None,
    cause: str,
    option: str,
) -> Settlement:
    """The settlement with these contracts on its edges; ``settled`` is measured again.

    ``held_out`` are the samples that it was settled on; ``drop`` is the greatest loss of quality allowed there.

    Raises: CompileError SCC059, the loss is greater than ``drop``: ``cause`` begins the sentence, ``option`` is what to
    leave out.
    """
    joint = Joint(program, held_out, settlement.loss, settlement.maps, contracts)
    reached = joint.under(contracts)
    lost = joint.dense.value - reached.value
    if drop is not None and lost > drop:
        raise CompileError.of(
            "SCC059",
            f"{cause} held-out data lose {lost:.4f} of {joint.dense.value:.4f}, more than the {drop:.4f} allowed",
            help=f"allow a greater drop, or leave out {option}",
        )
    return replace(settlement, contracts=tuple(contracts.values()), settled=reached)
