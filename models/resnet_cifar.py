"""ResNet-20 and ResNet-56 for CIFAR-10, in the form of their published weights.

Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016, section 4.2, with the parameter-free
shortcut (option A); weights of github.com/akamaster/pytorch_resnet_cifar10 (BSD-2-Clause, Yerlan Idelbayev).
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sparsecc.diagnostics import CompileError

from . import data

PRETRAINED = {20: "resnet20-12fca82f.th", 56: "resnet56-4bfd9763.th"}  # name-<first 8 hex digits of the SHA-256>
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in 0..1, as the weights were trained


class Block(nn.Module):
    """Two 3x3 convolutions and the input added: [n, in, h, w] -> [n, out, h / stride, w / stride]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and self.new_channels == 0:
            return x
        half = self.new_channels // 2
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))


class ResNet(nn.Module):
    """float32 [n, 3, 32, 32] normalised by `images` -> logits [n, 10]."""

    def __init__(self, blocks_per_stage: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, blocks_per_stage)
        self.layer2 = _stage(16, 32, 2, blocks_per_stage)
        self.layer3 = _stage(32, 64, 2, blocks_per_stage)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def _stage(in_channels: int, out_channels: int, stride: int, blocks: int) -> nn.Sequential:
    rest = (Block(out_channels, out_channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(Block(in_channels, out_channels, stride), *rest)


def build(depth: int) -> ResNet:
    """An untrained network of 6 n + 2 weighted layers, such as 20 or 56, in training mode."""
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"a CIFAR ResNet has 6 n + 2 layers (8, 14, 20, ...), not {depth}")
    return ResNet((depth - 2) // 6)


def load_pretrained(depth: int) -> ResNet:
    """ResNet-20 or ResNet-56 with the published weights, in evaluation mode.

    Raises: CompileError SCC040 when the weights are missing or damaged, or there are none of this depth.
    """
    if depth not in PRETRAINED:
        raise CompileError.of(
            "SCC040", f"there are no pretrained weights for ResNet-{depth}", help="choose depth 20 or 56"
        )
    path = data.folder("resnet_cifar10") / PRETRAINED[depth]
    with data.reading(path):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:8] != path.stem.rpartition("-")[2]:
            raise ValueError("its SHA-256 does not begin as its name ends")
    checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    model = build(depth).eval()
    # saved from DataParallel, which prefixes every name
    model.load_state_dict({name.removeprefix("module."): value for name, value in checkpoint["state_dict"].items()})
    return model


def images(pixels: NDArray[np.uint8]) -> Tensor:
    """RGB images [n, 32, 32, 3] as the network takes them: normalised float32 [n, 3, 32, 32]."""
    scaled = torch.as_tensor(pixels.astype(np.float32)).permute(0, 3, 1, 2) / 255
    return ((scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).contiguous()


def example_inputs(batch: int = 1) -> tuple[Tensor]:
    """Inputs for capture and timing: `batch` images of noise, always the same, normalised like real ones."""
    return (images(np.random.default_rng(0).integers(0, 256, (batch, 32, 32, 3), np.uint8)),)
