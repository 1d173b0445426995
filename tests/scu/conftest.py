"""Networks compiled for target scu, once for all tests that look at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from programs import seeded
from recorded import Network, compiled
from scu_networks import large_tiles, real
from small_networks import SMALL

from sparsecc.contracts.options import ContractOptions
from sparsecc.models import data, lenet5, minilm, resnet_cifar


@pytest.fixture(scope="session")
def lenet5_half(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Half of every edge kept."""
    path = tmp_path_factory.mktemp("scu") / "lenet5.sparsecc"
    return compiled(lenet5.load_pruned(), lenet5.example_inputs(), path, ContractOptions(keep=0.5), batch=True)


@pytest.fixture(scope="session")
def resnet20(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Negotiated on training images, at half of the bytes."""
    real("cifar10")
    pixels, labels = data.cifar10("train", 64)
    samples = {"x": resnet_cifar.images(pixels).numpy(), "labels": labels}
    options = ContractOptions(calibration=samples, bytes=0.5)
    path = tmp_path_factory.mktemp("scu") / "resnet20.sparsecc"
    return compiled(resnet_cifar.load_pretrained(20), resnet_cifar.example_inputs(), path, options, batch=True)


@pytest.fixture(scope="session")
def minilm_half(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """32 tokens, half of every edge kept, on tiles of 512 KiB."""
    if not minilm.available():
        pytest.skip("the MiniLM weights are not here")
    folder = tmp_path_factory.mktemp("scu")
    options = ContractOptions(keep=0.5, target_file=large_tiles(folder))
    return compiled(minilm.load(), minilm.example_inputs(1, 32), folder / "minilm.sparsecc", options)


def small(name: str, factory: pytest.TempPathFactory, **options: Any) -> Network:
    """Negotiated on random samples without labels, at 40 % of the bytes unless there are options."""
    model, x = SMALL[name]()
    calibration = {"inputs_0": seeded(32, *x.shape[1:], seed=5).numpy()}
    path = factory.mktemp("scu") / f"{name}.sparsecc"
    asked = ContractOptions(calibration=calibration, **(options or {"bytes": 0.4}))
    return compiled(model, [x], path, asked, batch=True)


@pytest.fixture(scope="session")
def small_int8(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Network]:
    """The small networks by name, at 15 % of the float32 bytes as int8."""
    made = dict[str, Network]()

    def of(name: str) -> Network:
        if name not in made:
            made[name] = small(name, tmp_path_factory, bytes=0.15, payload_dtype="int8")
        return made[name]

    return of


@pytest.fixture(scope="session")
def concatenation(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return small("concatenation", tmp_path_factory)


@pytest.fixture(scope="session")
def several_readers(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return small("several_readers", tmp_path_factory)


@pytest.fixture(scope="session")
def transformer_block(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return small("transformer_block", tmp_path_factory)
