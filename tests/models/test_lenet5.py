"""LeNet-5: the bundled weights are as sparse and as accurate as documented, and the script's training keeps masks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsecc.models import data, lenet5, pruning, train_lenet5


def test_bundled_weights_are_nine_tenths_zero_in_every_layer() -> None:
    weights = pruning.prunable_weights(lenet5.load_pruned())
    zeros = {name: (int((weight == 0).sum()), weight.numel()) for name, weight in weights.items()}
    assert zeros == {
        "0.weight": (135, 150),
        "3.weight": (2160, 2400),
        "7.weight": (43200, 48000),
        "9.weight": (9072, 10080),
        "11.weight": (756, 840),
    }
    assert all(weight.dtype == torch.float32 for weight in weights.values())


def test_bundled_weights_read_the_bundled_digits() -> None:
    images, labels = lenet5.test_digits()
    assert images.shape == (200, 1, 28, 28)
    assert float(images.min()) == 0.0
    assert float(images.max()) == 1.0
    assert labels[:10].numpy().tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert train_lenet5.accuracy(lenet5.load_pruned(), images, labels) >= 0.99


@pytest.mark.skipif(not data.available("mnist"), reason="MNIST is not here")
def test_documented_accuracy_is_the_measured_one() -> None:
    # two digits of slack: sums of another CPU's kernels may round a near tie the other way
    measured = train_lenet5.accuracy(lenet5.load_pruned(), *train_lenet5.load("test"))
    assert measured == pytest.approx(lenet5.TEST_ACCURACY, abs=2e-4)
    assert measured >= 0.985


@pytest.mark.skipif(not data.available("mnist"), reason="MNIST is not here")
def test_bundled_digits_are_the_first_of_the_test_set() -> None:
    images, labels = lenet5.test_digits()
    all_images, all_labels = train_lenet5.load("test")
    assert torch.equal(images, all_images[:200])
    assert torch.equal(labels, all_labels[:200])


def test_example_inputs_fit_the_network() -> None:
    assert lenet5.build()(*lenet5.example_inputs()).shape == (1, 10)
    (digits,) = lenet5.example_inputs(207)
    assert digits.shape == (207, 1, 28, 28)
    assert torch.equal(digits[200:], digits[:7])


def test_training_keeps_pruned_weights_at_zero_and_moves_the_others() -> None:
    torch.default_generator.manual_seed(0)
    model = lenet5.build()
    before = {name: weight.clone() for name, weight in pruning.prunable_weights(model).items()}
    images, labels = lenet5.test_digits()
    train_lenet5.train(model, images, labels, 3, lambda _: 0.9)
    assert train_lenet5.zeros(model) == 0.9
    for name, weight in pruning.prunable_weights(model).items():
        assert not torch.equal(weight[weight != 0], before[name][weight != 0])


def test_sparsity_grows_by_the_cube_law_and_then_stays() -> None:
    shares = [train_lenet5.cube_law(done) for done in (0.0, train_lenet5.GROWTH / 2, train_lenet5.GROWTH, 1.0)]
    assert shares == pytest.approx([0.0, 0.9 * 7 / 8, 0.9, 0.9])
    assert shares[2:] == [0.9, 0.9]


def test_batches_hold_every_image_once_an_epoch() -> None:
    labels: Tensor = torch.arange(300)
    images = torch.zeros(300, 1, 28, 28)
    seen = [y for _, y in train_lenet5.batches(images, labels, 2)]
    assert [len(y) for y in seen] == [128, 128, 44] * 2
    assert torch.equal(torch.cat(seen[:3]).sort().values, labels)
    assert torch.equal(torch.cat(seen[3:]).sort().values, labels)
