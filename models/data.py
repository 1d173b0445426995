"""Where the public data sets of the reference networks lie, and how to read them into numpy.

A data set is a folder of files in their published form. The folder's parent is `SPARSECC_DATA` where that is set;
otherwise the first of `~/.cache/sparsecc/data` and, in a checkout, `../shared/data` that holds every file of the set.
Nothing is downloaded: a missing set is an error that says where to get it.

Shapes: n images; images are uint8, labels uint8 of length n.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sparsecc.diagnostics import CompileError

Bytes = NDArray[np.uint8]
Split = Literal["train", "test"]


@dataclass(frozen=True)
class DataSet:
    """The files that must be present under `folder`, and how a person gets them."""

    folder: str
    title: str
    files: tuple[str, ...]
    source: str


DATA_SETS = {
    data_set.folder: data_set
    for data_set in (
        DataSet(
            "mnist",
            "MNIST",
            tuple(f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")),
            "download the files from https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        DataSet(
            "cifar10",
            "CIFAR-10",
            ("labels_train.npy", "labels_test.npy", "test_00.webp"),  # and train_00 to train_49, as many as wanted
            "tile every 1,000 images of https://www.cs.toronto.edu/~kriz/cifar.html, in order, as 25 rows of 40 in one "
            "lossless WebP, and save the labels as uint8",
        ),
        DataSet(
            "sst2",
            "SST-2",
            ("train.tsv", "dev.tsv", "test.tsv"),
            "copy the files of SST-2/ in https://github.com/awake020/pytorch_Bert_sst2",
        ),
        DataSet(
            "resnet_cifar10",
            "the weight set of the CIFAR-10 ResNets",
            ("resnet20-12fca82f.th", "resnet56-4bfd9763.th"),
            "copy the files of pretrained_models/ in https://github.com/akamaster/pytorch_resnet_cifar10",
        ),
    )
}


def roots() -> tuple[Path, ...]:
    """Folders that may hold data sets, in the order they are tried."""
    if chosen := os.environ.get("SPARSECC_DATA"):
        return (Path(chosen).expanduser(),)
    checkout = Path(__file__).resolve().parents[1]
    return Path("~/.cache/sparsecc/data").expanduser(), checkout.parent / "shared" / "data"


def missing(name: str) -> tuple[Path, list[str]]:
    """The folder a data set is read from and the files it lacks: the first complete one, else the first tried."""
    wanted = DATA_SETS[name]
    candidates = [root / wanted.folder for root in roots()]
    lacking = [[file for file in wanted.files if not (folder / file).is_file()] for folder in candidates]
    return next((pair for pair in zip(candidates, lacking, strict=True) if not pair[1]), (candidates[0], lacking[0]))


def available(name: str) -> bool:
    """Whether every file of the data set `name` (a key of `DATA_SETS`) is present."""
    return not missing(name)[1]


def folder(name: str) -> Path:
    """The folder that holds the data set `name`, complete.

    Raises: CompileError SCC040 when a file of it is missing.
    """
    wanted = DATA_SETS[name]
    path, lacking = missing(name)
    if not lacking:
        return path
    shown = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
    raise CompileError.of(
        "SCC040",
        f"{wanted.title} is not here: {path} lacks {shown}",
        help=f"{wanted.source}; put them in that folder, or set SPARSECC_DATA to a folder that holds {wanted.folder}/",
    )


def mnist(split: Split) -> tuple[Bytes, Bytes]:
    """Images [n, 28, 28] (0 is background) and labels of the 60,000 training or 10,000 test digits.

    Raises: CompileError SCC040 when MNIST is missing or a file is damaged.
    """
    stem = folder("mnist") / ("train" if split == "train" else "t10k")
    count = 60_000 if split == "train" else 10_000
    images = _read_idx(Path(f"{stem}-images-idx3-ubyte.gz"), (count, 28, 28))
    return images, _read_idx(Path(f"{stem}-labels-idx1-ubyte.gz"), (count,))


def cifar10(split: Split, count: int | None = None) -> tuple[Bytes, Bytes]:
    """The first `count` images [n, 32, 32, 3] (RGB) and labels of the 50,000 training or first 1,000 test images.

    Raises: CompileError SCC040 when CIFAR-10 or the pillow package is missing, or a file is damaged.
    """
    path = folder("cifar10")
    with reading(path / f"labels_{split}.npy"):
        labels: Bytes = np.load(path / f"labels_{split}.npy")[:count]
    parts = [_read_mosaic(path / f"{split}_{part:02}.webp") for part in range(-(-len(labels) // 1000))]
    return np.concatenate([*parts, np.empty((0, 32, 32, 3), np.uint8)])[: len(labels)], labels


def sst2(split: Literal["train", "dev", "test"]) -> tuple[list[str], Bytes]:
    """Film-review sentences, lower case and tokenised as published, and labels (1 is positive).

    Raises: CompileError SCC040 when SST-2 is missing or the file is damaged.
    """
    path = folder("sst2") / f"{split}.tsv"
    with reading(path), path.open(encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t", 1) for line in lines][1:]  # the first names the columns
        labels = np.array([int(label) for label, _ in rows], np.uint8)
    return [sentence for _, sentence in rows], labels


def damaged(path: Path, why: str) -> CompileError:
    """The error for a file that is there but is not what was published."""
    return CompileError.of("SCC040", f"{path} is damaged: {why}", help="get the file again")


@contextmanager
def reading(path: Path) -> Generator[None, None, None]:
    """Turn what a damaged file makes its reader raise into CompileError SCC040."""
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CompileError.of("SCC040", f"{path} cannot be used: {why}", help="get the file again") from error


def _read_idx(path: Path, shape: tuple[int, ...]) -> Bytes:
    """IDX: two zero bytes, 8 for uint8, the rank, the big-endian extents, the elements in C order."""
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    with reading(path):
        content = gzip.decompress(path.read_bytes())
        if not content.startswith(header) or len(content) != len(header) + math.prod(shape):
            raise ValueError(f"it does not hold uint8 {_times(shape)}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _read_mosaic(path: Path) -> Bytes:
    """1,000 images as 25 rows of 40 tiles, row-major."""
    try:
        from PIL import Image
    except ImportError as error:
        raise CompileError.of(
            "SCC040", "reading CIFAR-10 needs the package pillow", help="pip install pillow"
        ) from error
    with reading(path), Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
        if pixels.shape != (800, 1280, 3):
            raise ValueError(f"it holds {_times(pixels.shape)} values, not 800 x 1280 x 3")
    return pixels.reshape(25, 32, 40, 32, 3).transpose(0, 2, 1, 3, 4).reshape(1000, 32, 32, 3)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
