"""Target scu on whole networks: model.onnx in onnxruntime, the program on the simulated unit, and torch agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from programs import seeded
from recorded import Network, compiled, scheduled
from scu_networks import network_of, real
from small_networks import SMALL

from sparsecc import reference
from sparsecc.artifact import Artifact
from sparsecc.backends.onnxruntime.session import Engine, open_session, verify
from sparsecc.backends.scu.descriptor import Op
from sparsecc.backends.scu.host import open_unit
from sparsecc.contracts.options import ContractOptions
from sparsecc.models import data, resnet_cifar

SCHEDULE_GAP = 1.05
"""Makespans are this close to their proven lower bounds, at most."""


def report(artifact: Artifact) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = json.loads(artifact.file("scu/report.json").read_text())
    return found


def unit_cycles(artifact: Artifact) -> int:
    return int(json.loads(artifact.file("scu/report.json").read_text())["schedule"]["makespan_cycles"])


def close_to_the_bound(artifact: Artifact) -> bool:
    schedule = json.loads(artifact.file("scu/report.json").read_text())["schedule"]
    return bool(schedule["makespan_cycles"] <= SCHEDULE_GAP * schedule["lower_bound_cycles"])


# ---- half of every edge ----------------------------------------------------------------------------------------------


def test_every_engine_computes_the_same(lenet5_half: Network) -> None:
    verdicts = verify(lenet5_half.artifact)
    assert {v.engine for v in verdicts} == {"onnxruntime", "portable", "reference", "scu"}
    assert all(v.ok and v.max_relative_error is not None and v.max_relative_error < 1e-5 for v in verdicts)


def test_half_of_the_edges_is_half_of_the_bytes_and_cycles_fall(lenet5_half: Network) -> None:
    figures = report(lenet5_half.artifact)["figures"]
    assert figures["contracts"]["link_bytes"] < 0.6 * figures["dense"]["link_bytes"]
    assert figures["contracts"]["cycles"] < figures["dense"]["cycles"]
    assert close_to_the_bound(lenet5_half.artifact)


def test_the_unit_counts_the_bytes_that_it_sent(lenet5_half: Network) -> None:
    unit, (inputs, _) = open_unit(lenet5_half.artifact), lenet5_half.artifact.golden()
    sent = unit.simulate(inputs)
    room = sum(d.tiles * d.dst_st1 for d in unit.program.code if d.op == Op.SEND)
    assert sent.link_bytes == sent.counters.bytes_link == room  # exact k: the payload's length is known beforehand
    assert sent.cycles >= unit_cycles(lenet5_half.artifact)


def test_minilm_embeds_alike_on_the_unit(minilm_half: Network) -> None:
    assert close_to_the_bound(minilm_half.artifact)
    unit = minilm_half.artifact.manifest.check.unit
    assert unit is not None
    assert unit < 1e-4


def test_resnet_56_is_scheduled_close_to_its_bound() -> None:
    real("resnet_cifar10")
    model, inputs = resnet_cifar.load_pretrained(56), resnet_cifar.example_inputs()
    _, schedule = scheduled(model, inputs, ContractOptions(keep=0.5))
    assert schedule.makespan <= SCHEDULE_GAP * schedule.lower_bound


# ---- negotiated ------------------------------------------------------------------------------------------------------


def test_resnet_answers_alike_on_all_test_images(resnet20: Network) -> None:
    """Selections are exact, but engines round differently: an element at the edge of k may be swapped now and then."""
    assert close_to_the_bound(resnet20.artifact)
    images, truth = data.cifar10("test", 1000)
    x = {"x": resnet_cifar.images(images).numpy()}
    engines: tuple[Engine, ...] = ("onnxruntime", "scu")
    sessions = (open_session(resnet20.artifact, engine, threads=2) for engine in engines)
    plain, unit = (np.asarray(session.run(x)["output"], np.float32) for session in sessions)
    assert np.array_equal(plain.argmax(1), unit.argmax(1))
    error = np.abs(plain - unit).max(1) / np.abs(plain).max()
    assert np.mean(error < 1e-4) > 0.97
    assert np.mean(plain.argmax(1) == truth) > 0.88


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_on_every_engine(name: str, request: pytest.FixtureRequest) -> None:
    network: Network = request.getfixturevalue(name)
    assert all(v.ok and v.max_relative_error is not None and v.max_relative_error < 1e-4
               for v in verify(network.artifact))  # fmt: skip
    assert close_to_the_bound(network.artifact)


@pytest.mark.parametrize("name", SMALL)
def test_dense_bytes_are_those_of_the_edges(name: str, request: pytest.FixtureRequest) -> None:
    """Every edge once, as blocks of 1,024 elements with a header of 16 B, padded to 32 B."""
    network: Network = request.getfixturevalue(name)
    tree = report(network.artifact)
    whole = [int(edge["elems"]) for edge in tree["settlement"]["edges"]]  # type: ignore[index]
    blocks = [min(1024, elems - start) for elems in whole for start in range(0, elems, 1024)]
    assert tree["figures"]["dense"]["link_bytes"] == sum(-(-(16 + 4 * n) // 32) * 32 for n in blocks)


def test_a_network_whose_blocks_spill(tmp_path: Path) -> None:
    """The link holds no block at all, so all of them go through DRAM; on a usual link the same contracts."""
    model, x = SMALL["concatenation"]()
    calibration = {"inputs_0": seeded(32, *x.shape[1:], seed=5).numpy()}
    found = dict[str, Artifact]()
    for name, link_bytes in (("tiny", 48), ("usual", 0x8000)):
        target = tmp_path / f"{name}.toml"
        target.write_text(f'extends = "scu-v1"\nname = "{name}"\n[memory.link]\nbytes = {link_bytes}\n')
        options = ContractOptions(calibration=calibration, bytes=0.4, target_file=target)
        found[name] = compiled(model, [x[:1]], tmp_path / f"{name}.sparsecc", options).artifact
    assert all(v.ok and v.max_relative_error is not None and v.max_relative_error < 1e-4 for v in verify(found["tiny"]))
    assert close_to_the_bound(found["tiny"])
    tiny, usual = (report(artifact) for artifact in found.values())
    log: Any = tiny["settlement"]["edges"]
    assert all(edge["binding"].endswith("; spill: a block is longer than its buffer") for edge in log)
    for form in ("contracts", "dense"):
        spilled, sent = tiny["figures"][form], usual["figures"][form]
        assert spilled["link_bytes"] == 0 < sent["link_bytes"]
        assert spilled["dram_bytes"] - sent["dram_bytes"] >= 2 * sent["link_bytes"]  # written, and read by each reader
        assert spilled["energy_pj"] > sent["energy_pj"]


# ---- everything kept -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "resnet56", "minilm", *SMALL])
def test_everything_kept_is_the_dense_model(name: str, tmp_path: Path) -> None:
    model, inputs, target = network_of(name, tmp_path)
    unit, schedule = scheduled(model, inputs, ContractOptions(keep=1.0, target_file=target))
    assert not any(d.op == Op.SEND and d.k < d.tile_n for d in unit.program.code)
    feeds = {port.name: x.numpy() for port, x in zip(unit.ports("inputs"), inputs, strict=True)}
    (output,) = unit.run([port.name for port in unit.ports("outputs")], feeds)
    with torch.no_grad():
        expected = model(*inputs).numpy()
    assert reference.relative_error(output, expected) < 1e-5
    assert schedule.makespan <= SCHEDULE_GAP * schedule.lower_bound
