"""Data sets: the published files decode as documented, and what is missing or damaged is said in full."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from sparsecc.diagnostics import CompileError
from sparsecc.models import data


@pytest.fixture
def empty_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSECC_DATA", str(tmp_path))
    return tmp_path


def write_mnist_test(root: Path, images: bytes) -> None:
    (root / "mnist").mkdir()
    for file in data.DATA_SETS["mnist"].files:
        (root / "mnist" / file).write_bytes(b"")
    (root / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(images)
    labels = bytes(value % 10 for value in range(10_000))
    (root / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">2I", 2049, 10_000) + labels))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "mnist",
            "error[SCC040]: MNIST is not here: {root}/mnist lacks train-images-idx3-ubyte.gz, "
            "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and 1 more\n"
            "  help: download the files from https://ossci-datasets.s3.amazonaws.com/mnist/; put them in that folder, "
            "or set SPARSECC_DATA to a folder that holds mnist/",
        ),
        (
            "cifar10",
            "error[SCC040]: CIFAR-10 is not here: {root}/cifar10 lacks labels_train.npy, labels_test.npy, "
            "test_00.webp\n"
            "  help: tile every 1,000 images of https://www.cs.toronto.edu/~kriz/cifar.html, in order, as 25 rows of "
            "40 in one lossless WebP, and save the labels as uint8; put them in that folder, or set SPARSECC_DATA to a "
            "folder that holds cifar10/",
        ),
        (
            "sst2",
            "error[SCC040]: SST-2 is not here: {root}/sst2 lacks train.tsv, dev.tsv, test.tsv\n"
            "  help: copy the files of SST-2/ in https://github.com/awake020/pytorch_Bert_sst2; put them in that "
            "folder, or set SPARSECC_DATA to a folder that holds sst2/",
        ),
        (
            "resnet_cifar10",
            "error[SCC040]: the weight set of the CIFAR-10 ResNets is not here: {root}/resnet_cifar10 lacks "
            "resnet20-12fca82f.th, resnet56-4bfd9763.th\n"
            "  help: copy the files of pretrained_models/ in https://github.com/akamaster/pytorch_resnet_cifar10; put "
            "them in that folder, or set SPARSECC_DATA to a folder that holds resnet_cifar10/",
        ),
    ],
)
def test_a_missing_set_says_what_is_missing_and_how_to_get_it(name: str, text: str, empty_root: Path) -> None:
    assert not data.available(name)
    with pytest.raises(CompileError) as caught:
        data.folder(name)
    assert str(caught.value) == text.format(root=empty_root)


def test_a_set_that_lacks_one_file_is_missing(empty_root: Path) -> None:
    (empty_root / "sst2").mkdir()
    for split in ("train", "dev"):
        (empty_root / "sst2" / f"{split}.tsv").write_text("label\tsentence\n")
    assert data.missing("sst2") == (empty_root / "sst2", ["test.tsv"])


def test_the_first_complete_root_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = (tmp_path / "empty", tmp_path / "full", tmp_path / "late")
    for root in roots[1:]:
        (root / "sst2").mkdir(parents=True)
        for file in data.DATA_SETS["sst2"].files:
            (root / "sst2" / file).write_text("")
    monkeypatch.setattr(data, "roots", lambda: roots)
    assert data.folder("sst2") == tmp_path / "full" / "sst2"


def test_idx_decodes_to_the_values_encoded(empty_root: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 28, 28), np.uint8)
    content = struct.pack(">4I", 2051, *pixels.shape) + pixels.tobytes()
    write_mnist_test(empty_root, gzip.compress(content, 1))
    images, labels = data.mnist("test")
    np.testing.assert_array_equal(images, pixels)
    np.testing.assert_array_equal(labels, np.arange(10_000) % 10)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not gzip", "Not a gzipped file (b'no')"),
        (gzip.compress(bytes(100))[:-12], "Compressed file ended before the end-of-stream marker was reached"),
        (gzip.compress(struct.pack(">4I", 2051, 10_000, 28, 28) + bytes(9)), "it does not hold uint8 10000 x 28 x 28"),
    ],
    ids=["no gzip", "cut off", "too few images"],  # gzip writes the time of day: no name of a test
)
def test_a_damaged_file_is_named(content: bytes, why: str, empty_root: Path) -> None:
    write_mnist_test(empty_root, content)
    with pytest.raises(CompileError) as caught:
        data.mnist("test")
    path = empty_root / "mnist" / "t10k-images-idx3-ubyte.gz"
    assert str(caught.value) == f"error[SCC040]: {path} cannot be used: {why}\n  help: get the file again"


def test_sentences_keep_their_text_and_labels(empty_root: Path) -> None:
    (empty_root / "sst2").mkdir()
    for split in ("train", "dev", "test"):
        content = f'label\tsentence\r\n1\ta "fine" {split} .\r\n0\tdull\u2028, no\r\n'
        (empty_root / "sst2" / f"{split}.tsv").write_bytes(content.encode())
    sentences, labels = data.sst2("dev")
    assert sentences == ['a "fine" dev .', "dull\u2028, no"]
    assert labels.tolist() == [1, 0]


def test_mosaic_tiles_are_row_major(empty_root: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    (empty_root / "cifar10").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 32, 32, 3), np.uint8)
    mosaic = np.empty((800, 1280, 3), np.uint8)
    for index, tile in enumerate(pixels):
        top, left = 32 * (index // 40), 32 * (index % 40)
        mosaic[top : top + 32, left : left + 32] = tile
    for part in ("test_00", "train_00"):
        image.fromarray(mosaic).save(empty_root / "cifar10" / f"{part}.webp", lossless=True)
    np.save(empty_root / "cifar10" / "labels_test.npy", np.zeros(1000, np.uint8))
    np.save(empty_root / "cifar10" / "labels_train.npy", np.arange(2000).astype(np.uint8))
    images, labels = data.cifar10("test", 81)
    np.testing.assert_array_equal(images, pixels[:81])
    assert labels.shape == (81,)
    assert data.cifar10("train", 0)[0].shape == (0, 32, 32, 3)
    with pytest.raises(CompileError, match=r"train_01\.webp cannot be used: No such file or directory"):
        data.cifar10("train", 1001)


@pytest.mark.skipif(not data.available("mnist"), reason="MNIST is not here")
def test_published_mnist() -> None:
    images, labels = data.mnist("test")
    assert images.shape == (10_000, 28, 28)
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.skipif(not data.available("sst2"), reason="SST-2 is not here")
def test_published_sst2() -> None:
    sentences, labels = data.sst2("dev")
    assert len(sentences) == len(labels) == 872
    assert int(labels.sum()) == 444
