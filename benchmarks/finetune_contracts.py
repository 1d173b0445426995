"""Fine-tune ResNet-20 under contracts: how few link bytes keep the accuracy of the dense network?

    python benchmarks/finetune_contracts.py -o finetune.json --share 0.28 --epochs 3 --seeds 0 1 2

Contracts are settled on training images, the network is trained on training images under them, and the accuracy is that
of the first 1,000 test images, before and after. Link bytes are worst-case block sizes of the SCU's codecs with headers
and padding, against the plain bytes of the dense tensors. One thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsecc import pipelines
from sparsecc.backends.scu.codecs import Dtype, smallest, worst_case_bytes
from sparsecc.capture import capture
from sparsecc.contracts import Budget, Settlement, apply, keep_elems, negotiate
from sparsecc.contracts.calibration import from_arrays
from sparsecc.contracts.measures import Estimate, estimate
from sparsecc.models import data, resnet_cifar


@dataclasses.dataclass(frozen=True)
class Row:
    """``ratio`` is dense over settled link bytes; accuracies are of the 1,000 test images, with 95 % intervals."""

    seed: int
    ratio: float
    dense: Estimate
    settled: Estimate
    trained: Estimate
    images: int
    epochs: int
    seconds: float


def block_bytes(elems: int, share_q16: int) -> int:
    kept = keep_elems(elems, share_q16)
    return worst_case_bytes(smallest(elems, kept, Dtype.FLOAT32), elems, kept, Dtype.FLOAT32)


def settle(model: nn.Module, share: float, samples: int) -> Settlement:
    program, _ = pipelines.parse(pipelines.TIDY).run(
        capture(model, resnet_cifar.example_inputs(), dynamic={"batch": 0})
    )
    pixels, labels = data.cifar10("train", samples)
    (name,) = program.input_names
    arrays = {name: resnet_cifar.images(pixels).numpy(), "labels": labels}
    return negotiate(program, from_arrays(program, arrays), Budget("bytes", share), block_bytes)


def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> Estimate:
    model.eval()
    with torch.no_grad():
        parts = [slice(start, start + 125) for start in range(0, len(inputs), 125)]
        right = [model(inputs[part]).argmax(1) == labels[part] for part in parts]
    return estimate(torch.cat(right).double())


def train(model: nn.Module, inputs: Tensor, labels: Tensor, epochs: int, rate: float, seed: int) -> None:
    """SGD with momentum, the rate falling as a cosine to 0; batches shifted by up to 4 pixels and mirrored.

    Batch normalisation learns the statistics that activations have under contracts.
    """
    random = np.random.default_rng(seed)
    batch = 64
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=1e-4, nesterov=True)
    steps = epochs * (len(inputs) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(epochs):
        order = random.permutation(len(inputs))
        for start in range(0, len(inputs) // batch * batch, batch):
            places = torch.from_numpy(order[start : start + batch])
            x = functional.pad(inputs[places], (4, 4, 4, 4))
            top, left, mirrored = random.integers(9), random.integers(9), random.integers(2)
            x = x[:, :, top : top + 32, left : left + 32]
            loss = functional.cross_entropy(model(x.flip(3) if mirrored else x), labels[places])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()


def measure(seed: int, options: argparse.Namespace) -> Row:
    start = time.perf_counter()
    model = resnet_cifar.load_pretrained(20)
    test = _tensors(*data.cifar10("test", 1000))
    dense = accuracy(model, *test)
    settlement = settle(model, options.share, options.calibration)
    contracted = apply(model, settlement.contracts, settlement.maps)
    settled = accuracy(contracted, *test)
    train(contracted, *_tensors(*data.cifar10("train", options.images)), options.epochs, options.rate, seed)
    trained = accuracy(contracted, *test)
    ratio = settlement.dense_bytes / settlement.settled_bytes
    seconds = time.perf_counter() - start
    return Row(seed, ratio, dense, settled, trained, options.images, options.epochs, seconds)


def _tensors(pixels: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    return resnet_cifar.images(pixels), torch.from_numpy(labels.astype(np.int64))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--share", type=float, default=0.28, help="link bytes allowed, as a share of the dense ones")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=50_000, help="training images")
    parser.add_argument("--calibration", type=int, default=256, help="training images that contracts are settled on")
    parser.add_argument("--rate", type=float, default=0.01, help="learning rate at the start")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = list[Row]()
    for seed in options.seeds:
        rows.append(measure(seed, options))
        row = rows[-1]
        print(
            f"seed {seed}: {row.ratio:.2f}x fewer link bytes, accuracy {row.dense.value:.3f} dense, "
            f"{row.settled.value:.3f} settled, {row.trained.value:.3f} trained ({row.epochs} x {row.images} images)",
            flush=True,
        )
        options.output.write_text(json.dumps([dataclasses.asdict(r) for r in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
