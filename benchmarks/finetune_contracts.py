"""Fine-tune networks under contracts: how many link bytes can they save, and keep what they are good at?

    python benchmarks/finetune_contracts.py lenet5 resnet20 minilm -o benchmarks/finetune_contracts.json

Contracts are settled on a few training samples under a budget of bytes; the network is trained on training samples
under them; quality is that of test samples it has not seen, before and after. Weights that were zero stay zero. Link
bytes are worst-case block sizes of the SCU's codecs with headers and padding, against the plain bytes of the dense
tensors. One thread; the seed is the only thing that differs between the runs of a network.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsecc import pipelines
from sparsecc.backends.scu.unit import UNIT
from sparsecc.capture import capture
from sparsecc.contracts import Budget, Settlement, apply, negotiate
from sparsecc.contracts.calibration import from_arrays
from sparsecc.contracts.measures import Estimate, estimate
from sparsecc.models import data, lenet5, minilm, resnet_cifar

CALIBRATION, BATCH, TEST_BATCH, TOKENS = 256, 64, 125, 32
Samples = tuple[Tensor, ...]
"""Inputs of the network, and last the labels; of the embedder, whose teacher is its dense self, none."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """``share`` of the dense bytes; ``rate`` at the start, falling to 0 as a cosine."""

    load: Callable[[], nn.Module]
    samples: Callable[[str], Samples]
    share: float
    epochs: int
    rate: float
    labels: bool = True
    augment: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """``ratio`` is dense over settled link bytes; qualities are of test samples, with 95 % intervals."""

    network: str
    seed: int
    quality: str
    ratio: float
    dense: Estimate
    settled: Estimate
    trained: Estimate
    training_samples: int
    epochs: int
    seconds: float


# ---- networks and their data -----------------------------------------------------------------------------------------


def digits(split: str) -> Samples:
    pixels, labels = data.mnist("train" if split == "train" else "test")
    return lenet5.images(pixels), torch.from_numpy(labels.astype(np.int64))


def pictures(split: str) -> Samples:
    """All 50,000 training images; the 1,000 test images that are there."""
    pixels, labels = data.cifar10("train") if split == "train" else data.cifar10("test", 1000)
    return resnet_cifar.images(pixels), torch.from_numpy(labels.astype(np.int64))


def sentences(split: str) -> Samples:
    """10,000 training sentences, or the 872 of the development set: TOKENS tokens, cut or padded."""
    texts, _ = data.sst2("train" if split == "train" else "dev")
    chosen = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:10_000]]
    tokens = minilm.tokenize(chosen)
    room = max(0, TOKENS - tokens[0].shape[1])
    return tuple(functional.pad(t, (0, room))[:, :TOKENS].contiguous() for t in tokens)


RECIPES = {
    "lenet5": Recipe(lenet5.load_pruned, digits, share=0.28, epochs=4, rate=0.02),
    "resnet20": Recipe(
        lambda: resnet_cifar.load_pretrained(20), pictures, share=0.28, epochs=10, rate=0.04, augment=True
    ),
    "minilm": Recipe(minilm.load, sentences, share=0.8, epochs=1, rate=0.01, labels=False),
}


# ---- contracts and training ------------------------------------------------------------------------------------------


def settle(model: nn.Module, recipe: Recipe, train: Samples) -> Settlement:
    inputs = train[:-1] if recipe.labels else train
    program, _ = pipelines.parse(pipelines.TIDY).run(capture(model, tuple(x[:2] for x in inputs), dynamic={"batch": 0}))
    arrays = {name: x[:CALIBRATION].numpy() for name, x in zip(program.input_names, inputs, strict=True)}
    if recipe.labels:
        arrays["labels"] = train[-1][:CALIBRATION].numpy()
    calibration = from_arrays(program, arrays)
    return negotiate(program, calibration, Budget("bytes", recipe.share), UNIT.block_bytes(program))


def train(model: nn.Module, dense: nn.Module, samples: Samples, recipe: Recipe, seed: int) -> None:
    """SGD with momentum on the labels and the dense network's outputs (distillation), or on the cosine to the latter.

    Batch normalisation learns the statistics that activations have under contracts.
    """
    random = np.random.default_rng(seed)
    optimizer = torch.optim.SGD(model.parameters(), recipe.rate, momentum=0.9, weight_decay=1e-4, nesterov=True)
    masks = [(p, p.detach() != 0) for p in model.parameters() if p.dim() > 1]
    steps = len(samples[0]) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * steps)
    model.train(recipe.labels)  # the embedder has nothing but dropout that would know
    for _ in range(recipe.epochs):
        for places in torch.from_numpy(random.permutation(len(samples[0]))[: steps * BATCH]).split(BATCH):
            batch = tuple(x[places] for x in samples)
            inputs, labels = (batch[:-1], batch[-1]) if recipe.labels else (batch, None)
            if recipe.augment:
                inputs = (shifted(inputs[0], random),)
            with torch.no_grad():
                wanted = dense(*inputs)
            optimizer.zero_grad()
            torch.autograd.backward(loss(model(*inputs), wanted, labels))
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for weight, kept in masks:
                    weight *= kept
    model.eval()


def loss(outputs: Tensor, wanted: Tensor, labels: Tensor | None) -> Tensor:
    """Without labels 1 - cosine; with them cross-entropy and, at a temperature of 2, the dense network's answers."""
    if labels is None:
        return 1 - functional.cosine_similarity(outputs, wanted).mean()
    soft = functional.kl_div((outputs / 2).log_softmax(1), (wanted / 2).softmax(1), reduction="batchmean")
    return functional.cross_entropy(outputs, labels) + 2 * soft


def shifted(images: Tensor, random: np.random.Generator) -> Tensor:
    """By up to 4 pixels, and mirrored every other time."""
    top, left, mirrored = random.integers(9), random.integers(9), random.integers(2)
    height, width = images.shape[2:]
    crop = functional.pad(images, (4, 4, 4, 4))[:, :, top : top + height, left : left + width]
    return (crop.flip(3) if mirrored else crop).contiguous(memory_format=torch.channels_last)


def quality(model: nn.Module, dense: nn.Module, samples: Samples, recipe: Recipe) -> Estimate:
    """Accuracy, or the cosine of embeddings to those of the dense network."""
    found = list[Tensor]()
    with torch.no_grad():
        for batch in zip(*(x.split(TEST_BATCH) for x in samples), strict=True):
            if recipe.labels:
                found.append(model(*batch[:-1]).argmax(1) == batch[-1])
            else:
                found.append(functional.cosine_similarity(model(*batch), dense(*batch)))
    return estimate(torch.cat(found).double())


def measure(name: str, recipe: Recipe, seed: int) -> Row:
    start = time.perf_counter()
    model = recipe.load().eval().to(memory_format=torch.channels_last)  # trains a tenth faster
    known, unknown = recipe.samples("train"), recipe.samples("test")
    dense = copy.deepcopy(model)
    settlement = settle(model, recipe, known)
    contracted = apply(model, settlement.contracts, settlement.maps)
    before, settled = (quality(m, dense, unknown, recipe) for m in (dense, contracted))
    train(contracted, dense, known, recipe, seed)
    return Row(
        name,
        seed,
        "accuracy" if recipe.labels else "cosine",
        settlement.dense_bytes / settlement.settled_bytes,
        before,
        settled,
        quality(contracted, dense, unknown, recipe),
        len(known[0]),
        recipe.epochs,
        time.perf_counter() - start,
    )


def table(rows: Sequence[Row]) -> str:
    def text(e: Estimate) -> str:
        return f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})"

    lines = [
        "| network | seed | fewer link bytes | quality | dense | settled | trained |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        values = " | ".join(map(text, (r.dense, r.settled, r.trained)))
        lines.append(f"| {r.network} | {r.seed} | {r.ratio:.2f}x | {r.quality} | {values} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", choices=list(RECIPES))
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file; rows of other runs are kept")
    parser.add_argument("--share", type=float, help="link bytes allowed, as a share of the dense ones")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rate", type=float, help="learning rate at the start")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    stored = json.loads(options.output.read_text()) if options.output.exists() else []
    rows = list[Row]()
    for name in options.networks:
        asked = {key: value for key in ("share", "epochs", "rate") if (value := getattr(options, key)) is not None}
        for seed in options.seeds:
            rows.append(measure(name, dataclasses.replace(RECIPES[name], **asked), seed))
            print(f"{name}, seed {seed}: {rows[-1].seconds:.0f} s", file=sys.stderr, flush=True)
            tree = stored + [dataclasses.asdict(r) for r in rows]
            options.output.write_text(json.dumps(tree, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
