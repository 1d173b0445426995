"""fold-constants: what does not depend on the inputs is computed once, unless that bloats the file."""

from __future__ import annotations

from collections.abc import Callable

import torch
from programs import Model, before_and_after, called, error, notes, program, run, seeded

X = seeded(2, 6)


def test_golden(golden: Callable[[str, str], None]) -> None:
    model = Model(lambda m, x: x + (m.a * 2 + m.b).exp(), a=torch.ones(6), b=torch.zeros(6))
    golden("fold_constants", before_and_after("fold-constants", model, X))


def test_only_the_last_value_is_stored() -> None:
    before = program(Model(lambda m, x: x + m.a.exp().neg().sin(), a=seeded(6)), X)
    after, records = run("fold-constants", before)
    assert called(after) == ["aten.add.Tensor"]
    assert notes(records, "fold-constants", done=True) == ["computed at compile time"]
    assert error(after, before) == 0


def test_a_value_much_larger_than_its_inputs_is_kept() -> None:
    after, records = run("fold-constants", program(Model(lambda m, x: x @ m.a.repeat(6, 9), a=seeded(1)), X))
    assert notes(records, "fold-constants", done=False) == ["kept: its value takes 216 B, its inputs 4 B"]
    assert "aten.repeat.default" in called(after)


def test_randomness_is_not_folded() -> None:
    after, _ = run("fold-constants", program(Model(lambda m, x: x + 0 * torch.bernoulli(m.a), a=torch.ones(6)), X))
    assert "aten.bernoulli.default" in called(after)


def test_a_value_used_inside_and_outside() -> None:
    before = program(Model(lambda m, x: (x + (y := m.a.exp()), x * y.sin()), a=seeded(6)), X)
    after, _ = run("fold-constants", before)
    assert sorted(called(after)) == ["aten.add.Tensor", "aten.mul.Tensor"]
    assert error(after, before) == 0


def test_a_constant_output() -> None:
    before = program(Model(lambda m, x: (x, m.a.exp()), a=seeded(6)), X)
    after, _ = run("fold-constants", before)
    assert called(after) == []
    assert error(after, before) == 0
