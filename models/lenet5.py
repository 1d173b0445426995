"""LeNet-5 for 28x28 MNIST digits, with weights trained and pruned to 90 % that come with the package.

Bundled: lenet5.npz (float32, nine of ten weights of every layer exactly zero) and mnist_digits.npz (the first 200 test
digits). `python -m sparsecc.models.train_lenet5` made both; it reads the full MNIST and says how it trained.

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998, with ReLU and
max pooling. MNIST: LeCun, Cortes, Burges, usually given as CC BY-SA 3.0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "lenet5.npz"
DIGITS = Path(__file__).parent / "mnist_digits.npz"
TEST_ACCURACY = 0.989  # of WEIGHTS on the 10,000 MNIST test images; printed by train_lenet5


def build() -> nn.Module:
    """Untrained LeNet-5: float32 [n, 1, 28, 28] in 0..1 -> logits [n, 10]; 61,470 weights and 236 biases."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def load_pruned() -> nn.Module:
    """LeNet-5 with the bundled weights, in evaluation mode."""
    model = build().eval()
    with np.load(WEIGHTS) as stored:
        model.load_state_dict({name: torch.as_tensor(stored[name]) for name in stored.files})
    return model


def images(pixels: NDArray[np.uint8]) -> Tensor:
    """Digits [n, 28, 28] as the network takes them: float32 [n, 1, 28, 28] in 0..1."""
    return torch.as_tensor(pixels.astype(np.float32)[:, None] / 255)


def test_digits() -> tuple[Tensor, Tensor]:
    """The bundled digits as input (float32 [200, 1, 28, 28]) and their labels (int64 [200])."""
    with np.load(DIGITS) as stored:
        return images(stored["images"]), torch.as_tensor(stored["labels"].astype(np.int64))


def example_inputs(batch: int = 1) -> tuple[Tensor]:
    """Inputs for capture and timing: `batch` bundled digits, from the first again after the last."""
    digits, _ = test_digits()
    return (digits[torch.arange(batch) % len(digits)],)
