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
import math
import time
from collections.abc import Callable, Iterator, Sequence

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
from sparsecc.contracts.procedure import Options
from sparsecc.models import data, lenet5, minilm, resnet_cifar

TEST_BATCH, TOKENS, WARM_UP_STEPS = 125, 32, 20
Samples = tuple[Tensor, ...]
"""Inputs of the network, and last the labels."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Each of ``shares`` of the dense bytes, settled on ``calibration`` samples, is trained by itself; those of
    ``int8_shares`` with payloads of int8.

    ``rate`` at its peak, falling to 0 as a cosine. SGD with momentum, or AdamW if ``adaptive``.
    """

    load: Callable[[], nn.Module]
    samples: Callable[[str], Samples]
    shares: tuple[float, ...]
    epochs: int
    rate: float
    int8_shares: tuple[float, ...] = ()
    batch: int = 64
    calibration: int = 256
    adaptive: bool = False
    augment: bool = False


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """``ratio`` is dense over settled link bytes; accuracies are of test samples, with 95 % intervals."""

    network: str
    ratio: float
    dense: Estimate
    settled: Estimate
    trained: Estimate
    training_samples: int
    epochs: int
    seconds: float
    payloads: str = "float32"


# ---- networks and their data -----------------------------------------------------------------------------------------


def digits(split: str) -> Samples:
    pixels, labels = data.mnist("train" if split == "train" else "test")
    return lenet5.images(pixels), torch.from_numpy(labels.astype(np.int64))


def pictures(split: str) -> Samples:
    """All 50,000 training images; the 1,000 test images that are there."""
    pixels, labels = data.cifar10("train") if split == "train" else data.cifar10("test", 1000)
    return resnet_cifar.images(pixels), torch.from_numpy(labels.astype(np.int64))


def sentences(split: str) -> Samples:
    """20,000 training sentences, or the 872 of the development set: TOKENS tokens, cut or padded; and their mood."""
    texts, labels = data.sst2("train" if split == "train" else "dev")
    places = np.random.default_rng(0).permutation(len(texts))[:20_000]
    tokens = minilm.tokenize([texts[i] for i in places])
    room = max(0, TOKENS - tokens[0].shape[1])
    inputs = (functional.pad(t, (0, room))[:, :TOKENS].contiguous() for t in tokens)
    return *inputs, torch.from_numpy(labels[places].astype(np.int64))


class Mood(nn.Module):
    """A sentence embedder with a linear head: [n, TOKENS] tokens and mask -> logits [n, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedder, self.head = minilm.load(), nn.Linear(384, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.head(8 * self.embedder(input_ids, attention_mask))  # embeddings have length 1
        return logits


def mood() -> nn.Module:
    """The dense network, trained on SST-2 as its contracted form will be."""
    torch.manual_seed(0)
    model = Mood().eval()
    train(model, None, sentences("train"), RECIPES["MiniLM, SST-2"])
    return model


RECIPES = {
    "LeNet-5": Recipe(lenet5.load_pruned, digits, shares=(0.28,), epochs=4, rate=0.02),
    "ResNet-20": Recipe(
        lambda: resnet_cifar.load_pretrained(20), pictures, shares=(0.285,), epochs=15, rate=0.04, augment=True
    ),
    "MiniLM, SST-2": Recipe(
        mood,
        sentences,
        shares=(0.28, 0.4),
        int8_shares=(0.27,),
        epochs=1,
        rate=1e-4,
        batch=32,
        calibration=64,
        adaptive=True,
    ),
}


# ---- contracts and training ------------------------------------------------------------------------------------------


def settle(model: nn.Module, recipe: Recipe, share: float, payloads: str, samples: Samples) -> Settlement:
    *inputs, labels = (x[: recipe.calibration] for x in samples)
    program, _ = pipelines.parse(pipelines.TIDY).run(capture(model, tuple(x[:2] for x in inputs), dynamic={"batch": 0}))
    arrays = {name: x.numpy() for name, x in zip(program.input_names, inputs, strict=True)}
    calibration = from_arrays(program, {**arrays, "labels": labels.numpy()})
    options = Options(dtypes=(payloads,))
    return negotiate(program, calibration, Budget("bytes", share), UNIT.block_bytes(program), options=options)


def train(model: nn.Module, teacher: nn.Module | None, samples: Samples, recipe: Recipe) -> None:
    """On the labels and, if there is one, the teacher's answers (distillation).

    Batch normalisation learns the statistics that activations have under contracts; nothing is dropped out.
    """
    random = np.random.default_rng(0)
    optimizer: torch.optim.Optimizer
    if recipe.adaptive:
        optimizer = torch.optim.AdamW(model.parameters(), recipe.rate)
    else:
        optimizer = torch.optim.SGD(model.parameters(), recipe.rate, momentum=0.9, weight_decay=1e-4, nesterov=True)
    masks = [(p, p.detach() != 0) for p in model.parameters() if p.dim() > 1]
    steps = len(samples[0]) // recipe.batch
    total = recipe.epochs * steps

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / WARM_UP_STEPS) * (1 + math.cos(math.pi * step / total)) / 2

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train(any(isinstance(part, nn.BatchNorm2d) for part in model.modules()))
    for _ in range(recipe.epochs):
        order = torch.from_numpy(random.permutation(len(samples[0]))[: steps * recipe.batch])
        for places in order.split(recipe.batch):
            *inputs, labels = (x[places] for x in samples)
            if recipe.augment:
                inputs = [shifted(inputs[0], random)]
            optimizer.zero_grad()
            outputs = model(*inputs)
            loss = functional.cross_entropy(outputs, labels)
            if teacher is not None:
                with torch.no_grad():
                    wanted = teacher(*inputs)
                soft = (outputs / 2).log_softmax(1), (wanted / 2).softmax(1)  # at a temperature of 2
                loss = loss + 2 * functional.kl_div(*soft, reduction="batchmean")
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for weight, kept in masks:
                    weight *= kept
    model.eval()


def shifted(images: Tensor, random: np.random.Generator) -> Tensor:
    """Each by up to 4 pixels, and every other one mirrored."""
    count, _, height, width = images.shape
    tops, lefts = torch.from_numpy(random.integers(9, size=(2, count, 1)))
    mirrored = torch.from_numpy(random.integers(2, size=(count, 1))) == 1
    rows, columns = tops + torch.arange(height), lefts + torch.arange(width)
    columns = torch.where(mirrored, columns.flip(1), columns)
    pixels = functional.pad(images, (4, 4, 4, 4)).permute(0, 2, 3, 1)
    picked = pixels[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)  # in memory channels are last


def accuracy(model: nn.Module, samples: Samples) -> Estimate:
    right = list[Tensor]()
    with torch.no_grad():
        for *inputs, labels in zip(*(x.split(TEST_BATCH) for x in samples), strict=True):
            right.append(model(*inputs).argmax(1) == labels)
    return estimate(torch.cat(right).double())


def fine_tune(name: str, recipe: Recipe) -> Iterator[FineTuned]:
    dense = recipe.load().eval().to(memory_format=torch.channels_last)  # trains a tenth faster
    known, unknown = recipe.samples("train"), recipe.samples("test")
    before = accuracy(dense, unknown)
    budgets = [(share, "float32") for share in recipe.shares] + [(share, "int8") for share in recipe.int8_shares]
    for share, payloads in budgets:
        start = time.perf_counter()
        model = copy.deepcopy(dense)
        settlement = settle(model, recipe, share, payloads, known)
        contracted = apply(model, settlement.contracts, settlement.maps)
        settled = accuracy(contracted, unknown)
        train(contracted, dense, known, recipe)
        yield FineTuned(
            name,
            settlement.dense_bytes / settlement.settled_bytes,
            before,
            settled,
            accuracy(contracted, unknown),
            len(known[0]),
            recipe.epochs,
            time.perf_counter() - start,
            payloads,
        )


def table(rows: Sequence[FineTuned]) -> str:
    def text(e: Estimate) -> str:
        return f"{100 * e.value:.1f} ({100 * e.low:.1f} to {100 * e.high:.1f})"

    lines = [
        "| network | payloads | fewer link bytes | accuracy: dense | settled | fine-tuned | samples x epochs |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        values = " | ".join(map(text, (r.dense, r.settled, r.trained)))
        work = f"{r.training_samples} x {r.epochs}"
        lines.append(f"| {r.network} | {r.payloads} | {r.ratio:.2f}x | {values} | {work} |")
    return "\n".join(lines)
