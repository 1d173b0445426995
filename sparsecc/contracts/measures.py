"""How far outputs are from the dense ones, what gradients flow from, and how good a network is.

Logits are compared as distributions, other outputs (embeddings, hidden states) by their direction. Of several outputs,
the first floating-point one counts.

Letters: n samples, C classes or features (the last axis).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from sparsecc.diagnostics import CompileError

Loss = Literal["cross-entropy", "cosine"]
LOSSES = ("auto", "cross-entropy", "cosine")
Z = 1.96  # standard deviations of a 95 % interval


@dataclass(frozen=True)
class Estimate:
    """A mean over held-out samples with its 95 % confidence interval."""

    value: float
    low: float
    high: float
    samples: int


def main_output(outputs: Sequence[Tensor]) -> Tensor:
    """Raises: CompileError SCC058 if no output is of floating point."""
    for output in outputs:
        if output.is_floating_point() and output.dim() > 1:
            return output
    raise CompileError.of(
        "SCC058",
        "no output of the model is an array of floating-point numbers with one row per sample, so nothing tells how "
        "much a contract loses",
        help="return logits or embeddings",
    )


def choose_loss(asked: str, dense: Tensor, labels: Tensor | None) -> Loss:
    """ "auto" takes [n, C] for logits unless rows have length 1, and anything else for embeddings; labels mean logits.

    Raises: CompileError SCC058 for labels that are no classes of the output, or an unknown loss.
    """
    if asked not in LOSSES:
        raise CompileError.of(
            "SCC058", f"'{asked}' is no loss: {', '.join(LOSSES)}", help="leave it out, or choose one of these"
        )
    if labels is not None and asked != "cosine":
        classes = dense.shape[-1]
        if dense.dim() != 2 or int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise CompileError.of(
                "SCC058",
                f"the labels are {int(labels.min())} to {int(labels.max())}, but the output of the model has shape "
                f"[samples, {', '.join(map(str, dense.shape[1:]))}]",
                help="labels are classes of a [samples, classes] output; leave them out for other models",
            )
        return "cross-entropy"
    if asked == "cosine":
        return "cosine"
    if asked == "cross-entropy":
        return "cross-entropy"
    directions = dense.dim() != 2 or bool(((dense.square().sum(-1) - 1).abs() < 2e-3).all())
    return "cosine" if directions else "cross-entropy"


def divergence(loss: Loss, dense: Tensor, actual: Tensor) -> Tensor:
    """Per sample, float64 [n]: the KL divergence of the softmax from the dense one in nats, or 1 - cosine."""
    dense, actual = dense.double(), actual.double()
    if loss == "cosine":
        far = 1 - functional.cosine_similarity(dense, actual, dim=-1)
    else:
        expected = dense.log_softmax(-1)
        far = (expected.exp() * (expected - actual.log_softmax(-1))).sum(-1)
    return far.flatten(1).mean(1) if far.dim() > 1 else far


def objective(loss: Loss, output: Tensor, labels: Tensor | None, random: torch.Generator) -> Tensor:
    """What sensitivities are gradients of, summed over samples.

    Cross-entropy to the labels. The divergence from the dense output itself has no gradient there, so without labels
    one is drawn from the output's own softmax; for "cosine", the output is projected on a random direction. The mean
    squares of these gradients are the curvature of the divergence (Fisher information).
    Raises: CompileError SCC058 for outputs that are not finite.
    """
    if not bool(output.isfinite().all()):
        raise CompileError.of(
            "SCC058",
            "the model's output for the calibration samples is not finite (NaN or infinity), so nothing tells how much "
            "a contract loses",
            help="leave out samples that hold NaN or infinity, and look whether the model is sound on the others",
        )
    if loss == "cosine":
        flat = output.flatten(0, -2)
        return (functional.normalize(flat, dim=-1) * torch.randn(flat.shape, generator=random)).sum()
    flat = output.flatten(0, -2)
    if labels is None:
        labels = torch.multinomial(flat.detach().softmax(-1), 1, generator=random).squeeze(1)
    return functional.cross_entropy(flat, labels, reduction="sum")


def loss_name(loss: Loss, *, labelled: bool) -> str:
    """What gradients and degradations are of, for people."""
    if loss == "cosine":
        return "cosine to the model's own output"
    return "cross-entropy to the labels" if labelled else "KL to the model's own output"


def quality_name(loss: Loss, labels: Tensor | None) -> str:
    if labels is not None:
        return "accuracy"
    return "cosine" if loss == "cosine" else "agreement with the dense model"


def quality(loss: Loss, dense: Tensor, actual: Tensor, labels: Tensor | None) -> Tensor:
    """Per sample, float64 [n]: whether the label is right; else the cosine to the dense output, or the same argmax."""
    if loss == "cosine":
        return 1 - divergence(loss, dense, actual)
    right = actual.argmax(-1) == (dense.argmax(-1) if labels is None else labels)
    return right.double().flatten(1).mean(1) if right.dim() > 1 else right.double()


def estimate(per_sample: Tensor) -> Estimate:
    """Of shares (every sample 0 or 1) the Wilson interval, else the normal one of the mean."""
    n, mean = len(per_sample), float(per_sample.mean())
    if bool(((per_sample == 0) | (per_sample == 1)).all()):
        scale = 1 + Z * Z / n
        centre = (mean + Z * Z / (2 * n)) / scale
        half = Z / scale * math.sqrt(mean * (1 - mean) / n + Z * Z / (4 * n * n))
        return Estimate(mean, max(0.0, centre - half), min(1.0, centre + half), n)
    half = Z * float(per_sample.std()) / math.sqrt(n) if n > 1 else math.inf
    return Estimate(mean, mean - half, mean + half, n)
