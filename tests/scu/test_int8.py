"""Edges that travel as int8, from the calibration to the simulated unit."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import seeded
from recorded import Network, compiled, record, same_bits
from scu_networks import real
from small_networks import SMALL, concatenation, several_readers

from sparsecc.artifact import Artifact
from sparsecc.backends.onnxruntime.session import Engine, open_session, verify
from sparsecc.backends.scu.codecs import Codec, Dtype, encode
from sparsecc.backends.scu.descriptor import Op
from sparsecc.backends.scu.host import open_unit
from sparsecc.contracts import load_contracts, transmit
from sparsecc.contracts.options import ContractOptions
from sparsecc.models import data, resnet_cifar


@pytest.fixture(scope="module", params=SMALL)
def network(request: pytest.FixtureRequest, small_int8: Callable[[str], Network]) -> Network:
    return small_int8(request.param)


def sends(artifact: Artifact) -> list[Any]:
    return [d for d in open_unit(artifact).program.code if d.op == Op.SEND]


def assert_engines_agree(artifact: Artifact) -> None:
    verdicts = verify(artifact)
    assert {v.engine for v in verdicts} == {"onnxruntime", "portable", "reference", "scu"}
    assert all(v.ok and v.max_relative_error is not None and v.max_relative_error < 1e-4 for v in verdicts)


def test_every_engine_computes_the_same(network: Network) -> None:
    assert_engines_agree(network.artifact)
    assert {d.dtype for d in sends(network.artifact)} == {Dtype.INT8}
    assert any(d.k < d.tile_n for d in sends(network.artifact))


def test_edges_are_those_of_the_contract_to_the_bit(network: Network) -> None:
    """What is selected, sent and received of the int8 that the sender's kernel made; and the bytes that it takes."""
    contracts, maps = load_contracts(network.artifact.path)
    recording = record(network.artifact, {name: x[:1] for name, x in network.artifact.golden()[0].items()})
    assert recording.edges.keys() == {contract.edge for contract in contracts}
    encoded_bytes = zeros = 0
    for contract in contracts:
        edge, plain = recording.edges[contract.edge], replace(contract, scale=0.0, order="rows")
        assert edge.sent.dtype == np.int8
        assert contract.axis == 1
        arrived, sent = transmit(edge.sent[None], maps[contract.edge].gradient, plain)
        assert same_bits(edge.received, arrived[0])
        start = 0
        for chunk in edge.chunks:
            for block, row in zip(chunk.blocks, chunk.dense, strict=True):
                assert block == encode(chunk.codec, row, sent[0][start : start + row.size], Dtype.INT8)
                start += row.size
                encoded_bytes += len(block)
        zeros += int((edge.sent == contract.key.zero_point).sum())
    counters = recording.outcome.counters
    assert recording.outcome.link_bytes == counters.bytes_link == encoded_bytes
    assert counters.elems_zero == zeros  # which depends on the zero point that the unit knew
    assert encoded_bytes <= 0.15 * 4 * sum(edge.sent.size for edge in recording.edges.values())


def test_the_zero_point_is_written_where_it_changes(network: Network) -> None:
    contracts, _ = load_contracts(network.artifact.path)
    points = [0, *(contract.key.zero_point for contract in contracts)]
    changes = sum(a != b for a, b in itertools.pairwise(points))
    assert sum(d.op == Op.CFGW for d in open_unit(network.artifact).program.code) == changes > 0


def test_baselines_send_float32(network: Network) -> None:
    figures = json.loads(network.artifact.file("scu/report.json").read_text())["figures"]
    elems = sum(d.tiles * d.tile_n for d in sends(network.artifact))
    assert figures["contracts"]["link_bytes"] <= 0.15 * 4 * elems < 4 * elems < figures["dense"]["link_bytes"]


def test_everything_kept_is_raw_and_close_to_dense(tmp_path: Path) -> None:
    model, x = concatenation()
    samples = {"inputs_0": seeded(32, *x.shape[1:], seed=5).numpy()}
    asked = ContractOptions(calibration=samples, keep=1.0, payload_dtype="int8")
    artifact = compiled(model, [x], tmp_path / "m.sparsecc", asked, batch=True).artifact
    assert_engines_agree(artifact)
    assert {(d.dtype, d.codec, d.k == d.tile_n) for d in sends(artifact)} == {(Dtype.INT8, Codec.RAW, True)}
    distances = artifact.manifest.check.original
    assert distances is not None
    (changed,) = distances.values()  # three edges, each off by 1/510 of its range at most
    assert changed.max_relative_error is not None
    assert 0 < changed.max_relative_error < 0.03


def test_means_and_contracts_that_move_are_taken_up_again(tmp_path: Path) -> None:
    target = tmp_path / "short.toml"
    target.write_text('extends = "scu-v1"\nname = "scu-v1-short"\n[selector]\ntile_elems = 64\n')
    model, x = several_readers()
    samples = {"inputs_0": seeded(32, *x.shape[1:], seed=5).numpy()}
    asked = ContractOptions(
        calibration=samples, keep=0.3, period=1, fill="mean", payload_dtype="int8", target_file=target
    )
    first = compiled(model, [x], tmp_path / "first.sparsecc", asked, batch=True).artifact
    assert_engines_agree(first)
    contracts, _ = load_contracts(first.path)
    assert {(c.fill, c.period, c.key.dtype) for c in contracts} >= {("mean", 1, "int8")}
    asked = ContractOptions(settled=first.path, target_file=target)
    again = compiled(model, [x], tmp_path / "again.sparsecc", asked, batch=True).artifact
    for name in ("model.onnx", "scu/program.scu", "scu/contracts/contracts.json"):
        assert again.file(name).read_bytes() == first.file(name).read_bytes()


def test_a_receiver_with_little_room_asks_for_int8(tmp_path: Path) -> None:
    """64 elements take 288 B with RAW as float32, and 96 B as int8."""
    target = tmp_path / "tiny.toml"
    target.write_text('extends = "scu-v1"\nname = "tiny"\ncodecs = ["raw"]\n[memory.link]\nbytes = 128\n')
    model, x = several_readers()
    samples = {"inputs_0": seeded(32, *x.shape[1:], seed=5).numpy()}
    asked = ContractOptions(calibration=samples, bytes=0.5, target_file=target)
    artifact = compiled(model, [x], tmp_path / "m.sparsecc", asked, batch=True).artifact
    assert_engines_agree(artifact)
    report = json.loads(artifact.file("scu/report.json").read_text())
    assert {(e["dtype"], e["tile_elems"], e["binding"]) for e in report["settlement"]["edges"]} == {
        ("int8", 64, "RAW: no codec makes it smaller; int8 for the block buffer")
    }


def test_resnet_answers_as_onnxruntime_does(tmp_path: Path) -> None:
    """A value halfway between two steps may go either way, as engines round sums differently."""
    real("cifar10")
    pixels, labels = data.cifar10("train", 64)
    samples = {"x": resnet_cifar.images(pixels).numpy(), "labels": labels}
    asked = ContractOptions(calibration=samples, keep=0.5, payload_dtype="int8")
    model, example = resnet_cifar.load_pretrained(20), resnet_cifar.example_inputs()
    artifact = compiled(model, example, tmp_path / "m.sparsecc", asked, batch=True).artifact
    x = {"x": resnet_cifar.images(data.cifar10("test", 12)[0]).numpy()}
    engines: tuple[Engine, ...] = ("onnxruntime", "scu")
    sessions = (open_session(artifact, engine, threads=2) for engine in engines)
    plain, unit = (np.asarray(session.run(x)["output"], np.float32) for session in sessions)
    assert np.array_equal(plain.argmax(1), unit.argmax(1))
    assert np.abs(plain - unit).max() < 0.02 * np.abs(plain).max()
