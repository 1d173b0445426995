"""The networks in scope by name, from real data where they need it."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_networks import SMALL
from torch import Tensor, nn

from sparsecc.models import data, lenet5, minilm, resnet_cifar


def real(name: str) -> None:
    if not data.available(name):
        pytest.skip(f"the data set {name} is not here")


def large_tiles(folder: Path) -> Path:
    """A target file: scu-v1 with scratchpads of 512 KiB."""
    path = folder / "large.toml"
    tiles = "".join(f"[memory.tile{i}]\nbytes = 0x80000\n" for i in (0, 1))
    path.write_text(f'extends = "scu-v1"\nname = "scu-v1-512k"\n{tiles}')
    return path


def network_of(name: str, folder: Path) -> tuple[nn.Module, tuple[Tensor, ...], Path | None]:
    match name:
        case "lenet5":
            return lenet5.load_pruned(), lenet5.example_inputs(), None
        case "resnet20" | "resnet56":
            real("resnet_cifar10")
            depth = int(name.removeprefix("resnet"))
            return resnet_cifar.load_pretrained(depth), resnet_cifar.example_inputs(), None
        case "minilm":
            if not minilm.available():
                pytest.skip("the MiniLM weights are not here")
            return minilm.load(), minilm.example_inputs(1, 16), large_tiles(folder)
        case _:
            model, x = SMALL[name]()
            return model, (x[:1],), None
