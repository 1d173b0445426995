"""Engines may differ by what rounding does to the outputs, and by no more."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from programs import Model, seeded
from torch import nn

import sparsecc
from sparsecc import reference
from sparsecc.backends.scu.host import Unit
from sparsecc.backends.scu.rounding import TOLERANCE, tolerance
from sparsecc.capture import capture
from sparsecc.contracts import WHOLE, Contract, Key, uniform_map
from sparsecc.contracts.binding import insert_contracts
from sparsecc.contracts.options import ContractOptions
from sparsecc.diagnostics import PassBug
from sparsecc.program import Program


def rivals(first: float, second: float, *, as_class: bool = False) -> Program:
    """Two values, of which a contract keeps the greater; the output says which one it was."""
    layers = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
    layers[0].weight, layers[1].weight = nn.Parameter(torch.eye(2)), nn.Parameter(torch.tensor([[1.0, -1.0]]))

    def forward(m: Model, x: torch.Tensor) -> torch.Tensor:
        y = m.last(m.first(x).relu())
        return (y > 0).int() if as_class else cast(torch.Tensor, y)

    program = capture(Model(forward, first=layers[0], last=layers[1]), [torch.tensor([[first, second]])])
    contract = Contract.fixed("relu", Key("float32"), WHOLE // 2)
    insert_contracts(program, {"relu": contract}, {"relu": uniform_map()})
    return program


def test_what_rounding_may_swap() -> None:
    """1.0 is where keys change: what is a little less has the smaller one."""
    program = rivals(1.0, 1.0)
    expected = reference.run(program)
    np.testing.assert_array_equal(expected[0], [[1.0]])
    assert tolerance(program, expected, [0.0, 0.3]) == pytest.approx(4, rel=1e-4)  # -1 for 1, twice
    assert tolerance(program, expected, [0.0, TOLERANCE]) == TOLERANCE


def test_what_rounding_cannot_swap() -> None:
    program = rivals(1.0, 0.9)
    assert tolerance(program, reference.run(program), [0.3]) == TOLERANCE


def test_no_engine_may_answer_another_class() -> None:
    """Though rounding would: no number says how far apart classes are."""
    program = rivals(1.0, 1.0, as_class=True)
    assert tolerance(program, reference.run(program), [float("inf")]) == TOLERANCE


def test_an_engine_that_computes_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Unit.run
    monkeypatch.setattr(Unit, "run", lambda *args: [np.multiply(2, y) for y in right(*args)])
    model = nn.Sequential(nn.Linear(8, 200), nn.ReLU(), nn.Linear(200, 3))
    with pytest.raises(PassBug) as caught:
        sparsecc.compile(model, (seeded(1, 8),), target="scu", contracts=ContractOptions(keep=0.5))
    (diagnostic,) = caught.value.diagnostics
    assert str(diagnostic) == (
        "error[SCC009]: the outputs of engine unit differ from the contracts' meaning in torch by 1, and rounding "
        "explains 0.05"
    )
