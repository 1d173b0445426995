"""Small networks with known edges, and calibration data for them."""

from __future__ import annotations

import functools

import torch
from programs import filled, program, run, seeded
from torch import Tensor, nn

from sparsecc import pipelines
from sparsecc.contracts.calibration import Calibration, from_arrays
from sparsecc.program import Program


class Small(nn.Module):
    """[n, 3, 8, 8] -> logits [n, 5]; three edges: two images, one of which two stages read, and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = (self.bn2(self.conv2(x)) + x).relu()
        x = self.conv3(x).relu().mean((2, 3))
        logits: Tensor = self.head(self.drop(x))
        return logits


def small() -> Small:
    torch.manual_seed(0)
    model = filled(Small(), density=1)
    with torch.no_grad():
        for layer in (model.conv1, model.conv2, model.conv3, model.head):
            layer.weight.mul_(0.3)
    return model


@functools.cache
def small_program() -> Program:
    tidied, _ = run(pipelines.TIDY, program(small(), seeded(2, 3, 8, 8), dynamic={"batch": 0}))
    return tidied


def samples(count: int = 24, seed: int = 3, labels: bool = False) -> Calibration:
    x = seeded(count, 3, 8, 8, seed=seed)
    arrays = {"x": x.numpy()}
    if labels:
        with torch.no_grad():
            arrays["labels"] = small()(x).argmax(1).numpy()
    return from_arrays(small_program(), arrays)


def bytes_of(elems: int, share_q16: int, dtype: str = "float32") -> int:
    """A plain codec: a header of 16 bytes, a bit per element, 4 bytes per kept one, or 1 of int8."""
    kept = max(elems * share_q16 >> 16, min(share_q16, elems, 1))
    return 16 + -(-elems // 8) + (1 if dtype == "int8" else 4) * kept
