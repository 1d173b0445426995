"""Losses, qualities and intervals, against their definitions."""

import math

import numpy as np
import pytest
import torch
from programs import seeded

from sparsecc.contracts.measures import choose_loss, divergence, estimate, main_output, objective, quality
from sparsecc.diagnostics import CompileError

LOGITS = seeded(50, 6) * 2
UNIT = torch.nn.functional.normalize(LOGITS, dim=1)


def test_the_loss_suits_the_output() -> None:
    assert choose_loss("auto", LOGITS, None) == "cross-entropy"
    assert choose_loss("auto", UNIT, None) == "cosine"
    assert choose_loss("auto", LOGITS.reshape(5, 10, 6), None) == "cosine"
    assert choose_loss("cross-entropy", LOGITS.reshape(5, 10, 6), None) == "cross-entropy"
    assert choose_loss("auto", UNIT, torch.arange(50) % 6) == "cross-entropy"


def test_refused() -> None:
    with pytest.raises(CompileError) as caught:
        choose_loss("auto", LOGITS, torch.arange(50) % 7)
    assert str(caught.value) == (
        "error[SCC058]: the labels are 0 to 6, but the output of the model has shape [samples, 6]\n"
        "  help: labels are classes of a [samples, classes] output; leave them out for other models"
    )
    with pytest.raises(CompileError, match="'kl' is no loss: auto, cross-entropy, cosine"):
        choose_loss("kl", LOGITS, None)
    with pytest.raises(CompileError, match="no output of the model is an array of floating-point numbers"):
        main_output([torch.arange(3)])


def test_divergences() -> None:
    other = LOGITS + seeded(50, 6, seed=1)
    p, q = (np.exp(x.double().numpy()) for x in (LOGITS, other))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    np.testing.assert_allclose(divergence("cross-entropy", LOGITS, other), (p * np.log(p / q)).sum(1), rtol=1e-10)
    np.testing.assert_allclose(divergence("cosine", LOGITS, 3 * LOGITS), 0, atol=1e-12)
    np.testing.assert_allclose(divergence("cosine", LOGITS, -LOGITS), 2, atol=1e-12)


@pytest.mark.parametrize("loss", ["cross-entropy", "cosine"])
def test_gradients_at_the_dense_output_are_not_zero(loss: str) -> None:
    y = LOGITS.clone().requires_grad_()
    total = objective(choose_loss(loss, y, None), y, None, torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(total, y)
    assert bool((gradient.abs().sum(1) > 1e-4).all())


def test_quality() -> None:
    flipped = LOGITS.clone()
    flipped[:10] *= -1
    labels = LOGITS.argmax(1)
    assert float(quality("cross-entropy", LOGITS, flipped, None).mean()) == 0.8
    assert float(quality("cross-entropy", flipped, LOGITS, labels).mean()) == 1.0
    assert float(quality("cosine", LOGITS, flipped, None).mean()) == pytest.approx(0.6)


def test_wilson_interval() -> None:
    """Source of the numbers: Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662, 0 of 20 gives 0 to 0.1611."""
    some = estimate(torch.tensor([1.0] * 81 + [0.0] * 182))
    assert (round(some.low, 4), round(some.high, 4)) == (0.2553, 0.3662)
    none = estimate(torch.zeros(20))
    assert (none.low, round(none.high, 4)) == (0.0, 0.1611)


def test_interval_of_a_mean() -> None:
    values = torch.tensor([0.5, 0.7, 0.9])
    assert estimate(values).high - 0.7 == pytest.approx(1.96 * 0.2 / math.sqrt(3), rel=1e-5)


def test_outputs_that_are_not_finite() -> None:
    for loss in ("cross-entropy", "cosine"):
        with pytest.raises(CompileError) as caught:
            objective(loss, torch.tensor([[1.0, math.nan]]), None, torch.Generator())
    assert str(caught.value) == (
        "error[SCC058]: the model's output for the calibration samples is not finite (NaN or infinity), so nothing "
        "tells how much a contract loses\n"
        "  help: leave out samples that hold NaN or infinity, and look whether the model is sound on the others"
    )
