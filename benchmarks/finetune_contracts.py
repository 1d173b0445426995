"""Fine-tune networks under contracts: how many link bytes can they save, and keep what they are good at?

contracts.py runs this as its part "fine-tuning".

Contracts are settled on a few training samples under a budget of bytes; the network is trained on training samples
under them; quality is that of test samples it has not seen, before and after. Weights that were zero stay zero. Link
bytes are worst-case block sizes of the SCU's codecs with headers and padding, against the plain bytes of the dense
tensors.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Sequence

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
class FineTuned:
    """``ratio`` is dense over settled link bytes; qualities are of test samples, with 95 % intervals."""

    network: str
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
    "LeNet-5": Recipe(lenet5.load_pruned, digits, share=0.28, epochs=4, rate=0.02),
    "ResNet-20": Recipe(
        lambda: resnet_cifar.load_pretrained(20), pictures, share=0.28, epochs=10, rate=0.04, augment=True
    ),
    "MiniLM, 32 tokens": Recipe(minilm.load, sentences, share=0.8, epochs=1, rate=0.01, labels=False),
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


def train(model: nn.Module, dense: nn.Module, samples: Samples, recipe: Recipe) -> None:
    """SGD with momentum on the labels and the dense network's outputs (distillation), or on the cosine to the latter.

    Batch normalisation learns the statistics that activations have under contracts.
    """
    random = np.random.default_rng(0)
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


def fine_tune(name: str, recipe: Recipe) -> FineTuned:
    start = time.perf_counter()
    model = recipe.load().eval().to(memory_format=torch.channels_last)  # trains a tenth faster
    known, unknown = recipe.samples("train"), recipe.samples("test")
    dense = copy.deepcopy(model)
    settlement = settle(model, recipe, known)
    contracted = apply(model, settlement.contracts, settlement.maps)
    before, settled = (quality(m, dense, unknown, recipe) for m in (dense, contracted))
    train(contracted, dense, known, recipe)
    return FineTuned(
        name,
        "accuracy" if recipe.labels else "cosine",
        settlement.dense_bytes / settlement.settled_bytes,
        before,
        settled,
        quality(contracted, dense, unknown, recipe),
        len(known[0]),
        recipe.epochs,
        time.perf_counter() - start,
    )


def table(rows: Sequence[FineTuned]) -> str:
    def text(e: Estimate) -> str:
        return f"{100 * e.value:.1f} ({100 * e.low:.1f} to {100 * e.high:.1f})"

    lines = [
        "| network | fewer link bytes | quality | dense | settled | fine-tuned | samples x epochs |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        values = " | ".join(map(text, (r.dense, r.settled, r.trained)))
        work = f"{r.training_samples} x {r.epochs}"
        lines.append(f"| {r.network} | {r.ratio:.2f}x | {r.quality} | {values} | {work} |")
    return "\n".join(lines)
