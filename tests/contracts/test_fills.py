"""Means in place of what is dropped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparsecc.contracts import Budget, Settlement, negotiate
from sparsecc.contracts.calibration import split
from sparsecc.contracts.contract import fill_in_16_bits
from sparsecc.contracts.fills import settle_means
from sparsecc.contracts.replay import Replay
from sparsecc.diagnostics import CompileError

from .nets import bytes_of, samples, small_program

DATA = samples(labels=True)


def settled(share: float) -> Settlement:
    return negotiate(small_program(), DATA, Budget("keep", share), bytes_of)


def test_every_edge_is_filled_with_the_mean_of_what_it_drops() -> None:
    zeros = settled(0.25)
    assert {c.fill for c in zeros.contracts} == {"zero"}
    means = settle_means(small_program(), zeros, DATA)
    fitting, _ = split(DATA)
    replay = Replay(small_program(), {c.edge: c for c in zeros.contracts}, zeros.maps)
    with torch.no_grad():
        replay.run(*fitting.inputs)
    for before, after in zip(zeros.contracts, means.contracts, strict=True):
        sizes = np.sort(np.abs(replay.produced[after.edge].flatten(1).double().numpy()), axis=1)  # of ReLUs: x = |x|
        dropped = sizes[:, : sizes.shape[1] - before.k(sizes.shape[1])]  # a sample is one tile
        assert after == replace(before, fill="mean", fill_value=fill_in_16_bits("float32", float(dropped.mean())))
        assert after.fill_value > 0


def test_an_accuracy_budget_holds_for_means(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settled(0.25)
    worse = replace(before.settled, value=before.dense.value - 0.5)
    monkeypatch.setattr("sparsecc.contracts.joint.Joint.under", lambda *_: worse)
    with pytest.raises(CompileError) as caught:
        settle_means(small_program(), before, DATA, 0.01)
    assert str(caught.value) == (
        "error[SCC059]: with --fill mean, held-out data lose 0.5000 of 1.0000, more than the 0.0100 allowed\n"
        "  help: allow a greater drop, or leave out --fill"
    )
