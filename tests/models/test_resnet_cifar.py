"""CIFAR ResNets: published weights give the published accuracy; shapes and shortcut are those of the paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sparsecc.diagnostics import CompileError
from sparsecc.models import data, resnet_cifar

needs_weights = pytest.mark.skipif(not data.available("resnet_cifar10"), reason="the pretrained ResNets are not here")
needs_images = pytest.mark.skipif(not data.available("cifar10"), reason="CIFAR-10 is not here")


@needs_weights
@needs_images
@pytest.mark.parametrize(("depth", "right"), [(20, 915), (56, 926)])
def test_pretrained_accuracy_on_the_test_images(depth: int, right: int) -> None:
    pytest.importorskip("PIL")
    pixels, labels = data.cifar10("test")
    model = resnet_cifar.load_pretrained(depth)
    with torch.no_grad():
        parts = [model(resnet_cifar.images(pixels[first : first + 250])) for first in range(0, 1000, 250)]
    assert int((torch.cat(parts).argmax(1) == torch.as_tensor(labels)).sum()) == right


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (56, 853_018)])
def test_size_is_that_of_the_published_network(depth: int, parameters: int) -> None:
    model = resnet_cifar.build(depth)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.eval()(*resnet_cifar.example_inputs(3)).shape == (3, 10)


def test_shortcut_takes_every_second_pixel_between_zero_channels() -> None:
    x = torch.arange(2 * 4 * 4, dtype=torch.float32).view(1, 2, 4, 4) + 1
    y = resnet_cifar.Block(2, 4, stride=2).shortcut(x)
    assert y.shape == (1, 4, 2, 2)
    assert y[0, 1].numpy().tolist() == [[1, 3], [9, 11]]
    assert y[0, 2].numpy().tolist() == [[17, 19], [25, 27]]
    assert not y[0, [0, 3]].any()


def test_images_are_normalised_per_channel() -> None:
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    pixels[0, 5, 7] = (255, 51, 0)
    normalised = resnet_cifar.images(pixels)
    assert normalised.dtype == torch.float32
    expected = torch.tensor([(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(normalised[0, :, 5, 7], expected)


def test_example_inputs_are_the_same_every_time() -> None:
    assert torch.equal(resnet_cifar.example_inputs(2)[0], resnet_cifar.example_inputs(2)[0])


def test_a_depth_without_weights_is_refused() -> None:
    with pytest.raises(CompileError) as caught:
        resnet_cifar.load_pretrained(32)
    assert str(caught.value) == (
        "error[SCC040]: there are no pretrained weights for ResNet-32\n  help: choose depth 20 or 56"
    )


def test_a_depth_that_is_no_resnet_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a CIFAR ResNet has 6 n \+ 2 layers \(8, 14, 20, \.\.\.\), not 18"):
        resnet_cifar.build(18)


def test_weights_with_another_digest_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSECC_DATA", str(tmp_path))
    (tmp_path / "resnet_cifar10").mkdir()
    for name in resnet_cifar.PRETRAINED.values():
        (tmp_path / "resnet_cifar10" / name).write_bytes(b"something else")
    with pytest.raises(CompileError) as caught:
        resnet_cifar.load_pretrained(20)
    path = tmp_path / "resnet_cifar10" / "resnet20-12fca82f.th"
    assert str(caught.value) == (
        f"error[SCC040]: {path} cannot be used: its SHA-256 does not begin as its name ends\n  help: get the file again"
    )
