"""Attention outside regions: what onnxruntime makes of it is what torch does, masked queries included."""

from __future__ import annotations

import pytest
import torch
from programs import Model, program, seeded
from torch.nn import functional

from sparsecc.backends.onnxruntime.emit import emit
from sparsecc.backends.onnxruntime.timing import new_session
from sparsecc.reference import largest_error

INF = float("inf")
SEEN = torch.tensor([[True, False, True], [False, False, False], [True, True, True], [False, False, True]])
MASKS = {
    "none": None,
    "bool": SEEN,
    "float": torch.where(SEEN, 0.5, -INF),
    "least": torch.where(SEEN, 0.0, torch.finfo(torch.float32).min),
    "one for all queries": SEEN[:1],
    "of heads": torch.stack([SEEN, ~SEEN]),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=[*MASKS])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention(mask: torch.Tensor | None, scale: float | None) -> None:
    masks = [] if mask is None else [mask]

    def forward(_: Model, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *masks: torch.Tensor) -> torch.Tensor:
        y = functional.scaled_dot_product_attention(q, k, v, masks[0] if masks else None, scale=scale)
        return y.transpose(1, 2).flatten(2)

    inputs = [seeded(2, 2, 4, 8), seeded(2, 2, 3, 8, seed=1), seeded(2, 2, 3, 8, seed=2), *masks]
    p = program(Model(forward), *inputs)
    model = emit(p)
    assert "IsNaN" not in {node.op_type for node in model.graph.node}
    feeds = {name: x.numpy() for name, x in zip(p.input_names, inputs, strict=True)}
    actual = new_session(model.SerializeToString(), None).run(None, feeds)
    expected = forward(Model(forward), *inputs)
    assert expected.isfinite().all()
    assert largest_error(actual, [expected.numpy()]) < 1e-6
