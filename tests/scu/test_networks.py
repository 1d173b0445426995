"""Target scu on trained networks: model.onnx in onnxruntime, the program on the simulated unit, and torch agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import sparsecc
from sparsecc import reference
from sparsecc.artifact import Artifact
from sparsecc.backends.onnxruntime.session import Engine, open_session, verify
from sparsecc.backends.scu.descriptor import Op
from sparsecc.backends.scu.host import open_unit
from sparsecc.contracts.options import ContractOptions
from sparsecc.models import data, lenet5, minilm, resnet_cifar

SCHEDULE_GAP = 1.05
"""Makespans are this close to their proven lower bounds, at most."""


def real(name: str) -> None:
    if not data.available(name):
        pytest.skip(f"the data set {name} is not here")


def report(artifact: Artifact) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = json.loads(artifact.file("scu/report.json").read_text())
    return found


def unit_cycles(artifact: Artifact) -> int:
    return int(json.loads(artifact.file("scu/report.json").read_text())["schedule"]["makespan_cycles"])


def close_to_the_bound(artifact: Artifact) -> bool:
    schedule = json.loads(artifact.file("scu/report.json").read_text())["schedule"]
    return bool(schedule["makespan_cycles"] <= SCHEDULE_GAP * schedule["lower_bound_cycles"])


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """LeNet-5, half of every edge kept."""
    compiled = sparsecc.compile(
        lenet5.load_pruned(),
        lenet5.example_inputs(),
        target="scu",
        dynamic={"batch": 0},
        contracts=ContractOptions(keep=0.5),
    )
    return compiled.save(tmp_path_factory.mktemp("scu") / "lenet5.sparsecc")


def test_every_engine_computes_the_same(half: Artifact) -> None:
    verdicts = verify(half)
    assert {v.engine for v in verdicts} == {"onnxruntime", "portable", "reference", "scu"}
    assert all(v.ok and v.max_relative_error is not None and v.max_relative_error < 1e-5 for v in verdicts)


def test_half_of_the_edges_is_half_of_the_bytes_and_cycles_fall(half: Artifact) -> None:
    figures = report(half)["figures"]
    assert figures["contracts"]["link_bytes"] < 0.6 * figures["dense"]["link_bytes"]
    assert figures["contracts"]["cycles"] < figures["dense"]["cycles"]
    assert close_to_the_bound(half)


def test_the_unit_counts_the_bytes_that_it_sent(half: Artifact) -> None:
    unit, (inputs, _) = open_unit(half), half.golden()
    sent = unit.simulate(inputs)
    room = sum(d.tiles * d.dst_st1 for d in unit.program.code if d.op == Op.SEND)
    assert sent.link_bytes == sent.counters.bytes_link == room  # exact k: the payload's length is known beforehand
    assert sent.cycles >= unit_cycles(half)


def test_everything_kept_is_the_dense_model(tmp_path: Path) -> None:
    model, inputs = lenet5.load_pruned(), lenet5.example_inputs()
    compiled = sparsecc.compile(model, inputs, target="scu", contracts=ContractOptions(keep=1.0))
    artifact = compiled.save(tmp_path / "whole.sparsecc")
    (output,) = open_session(artifact, "scu").run({"input_1": inputs[0].numpy()}).values()
    with torch.no_grad():
        expected = model(*inputs).numpy()
    assert reference.relative_error(output, expected) < 1e-5


def test_resnet_answers_alike_on_all_test_images(tmp_path: Path) -> None:
    """Selections are exact, but engines round differently: an element at the edge of k may be swapped now and then."""
    real("cifar10")
    pixels, labels = data.cifar10("train", 256)
    samples = {"x": resnet_cifar.images(pixels).numpy(), "labels": labels}
    artifact = sparsecc.compile(
        resnet_cifar.load_pretrained(20),
        resnet_cifar.example_inputs(),
        target="scu",
        dynamic={"batch": 0},
        contracts=ContractOptions(calibration=samples, bytes=0.5),
    ).save(tmp_path / "resnet20.sparsecc")
    assert close_to_the_bound(artifact)
    images, truth = data.cifar10("test", 1000)
    x = {"x": resnet_cifar.images(images).numpy()}
    engines: tuple[Engine, ...] = ("onnxruntime", "scu")
    sessions = (open_session(artifact, engine, threads=2) for engine in engines)
    plain, unit = (np.asarray(session.run(x)["output"], np.float32) for session in sessions)
    assert np.array_equal(plain.argmax(1), unit.argmax(1))
    error = np.abs(plain - unit).max(1) / np.abs(plain).max()
    assert np.mean(error < 1e-4) > 0.97
    assert np.mean(plain.argmax(1) == truth) > 0.88


def test_resnet_56_is_scheduled_close_to_its_bound(tmp_path: Path) -> None:
    real("resnet_cifar10")
    model, inputs = resnet_cifar.load_pretrained(56), resnet_cifar.example_inputs()
    compiled = sparsecc.compile(model, inputs, target="scu", contracts=ContractOptions(keep=0.5))
    assert close_to_the_bound(compiled.save(tmp_path / "m.sparsecc"))


def test_minilm_embeds_alike_on_the_unit(tmp_path: Path) -> None:
    if not minilm.available():
        pytest.skip("the MiniLM weights are not here")
    target = tmp_path / "large.toml"
    tiles = "".join(f"[memory.tile{i}]\nbytes = 0x80000\n" for i in (0, 1))
    target.write_text(f'extends = "scu-v1"\nname = "scu-v1-512k"\n{tiles}')
    compiled = sparsecc.compile(
        minilm.load(),
        minilm.example_inputs(1, 32),
        target="scu",
        contracts=ContractOptions(keep=0.5, target_file=target),
    )
    assert close_to_the_bound(compiled.save(tmp_path / "m.sparsecc"))
    assert compiled.manifest.check.unit is not None
    assert compiled.manifest.check.unit < 1e-4
