"""Means in place of what is dropped."""

from __future__ import annotations

import pytest
import torch

from sparsecc.contracts import Budget, Options, negotiate
from sparsecc.contracts.calibration import split
from sparsecc.contracts.contract import fill_in_16_bits
from sparsecc.contracts.fills import verify_fill, verify_update
from sparsecc.contracts.replay import Replay
from sparsecc.diagnostics import CompileError

from .nets import bytes_of, samples, small_program


def test_every_edge_is_filled_with_its_own_mean() -> None:
    data = samples(labels=True)
    settled = negotiate(small_program(), data, Budget("keep", 0.25), bytes_of, options=Options(fill="mean"))
    fitting, _ = split(data)
    dense = Replay(small_program(), {}, {})
    with torch.no_grad():
        dense.run(*fitting.inputs)
    values = {node.name: value for node, value in dense.env.items() if isinstance(value, torch.Tensor)}
    for contract in settled.contracts:
        assert contract.fill == "mean"
        assert contract.fill_value == fill_in_16_bits("float32", float(values[contract.edge].double().mean()))
        assert contract.fill_value != 0
    zero = negotiate(small_program(), data, Budget("keep", 0.25), bytes_of)
    assert {c.fill for c in zero.contracts} == {"zero"}


def test_means_need_calibration_data() -> None:
    verify_fill("zero", calibrated=False)
    verify_fill("mean", calibrated=True)
    with pytest.raises(CompileError) as caught:
        verify_fill("mean", calibrated=False)
    assert str(caught.value) == (
        "error[SCC124]: --fill mean puts the mean of an edge in place of what is dropped, which calibration data tell, "
        "and there are none\n"
        "  help: add --calibration calib.npz, samples under the names of the inputs; or leave out --fill"
    )


def test_updates_need_maps() -> None:
    verify_update(False, calibrated=False)
    verify_update(True, calibrated=True)
    with pytest.raises(CompileError) as caught:
        verify_update(True, calibrated=False)
    assert str(caught.value) == (
        "error[SCC124]: --update-maps renews maps that were measured on calibration data, and there are none\n"
        "  help: add --calibration calib.npz, samples under the names of the inputs; or leave out --update-maps"
    )
