"""Target scu where contracts adapt to the input, on LeNet-5: k that moves, means as fill, maps that are renewed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Cli
from programs import program, run
from torch import fx

import sparsecc
from sparsecc import pipelines
from sparsecc.artifact import Artifact
from sparsecc.backends.onnxruntime.session import Engine, open_session, verify
from sparsecc.backends.scu.descriptor import Flag, Op
from sparsecc.backends.scu.host import open_unit
from sparsecc.contracts import SensitivityMap, Settled, Settlement, load_contracts
from sparsecc.contracts.op import KEEP_TOPS
from sparsecc.contracts.options import ContractOptions
from sparsecc.models import lenet5

DIGITS, LABELS = lenet5.test_digits()


def compiled(folder: Path, **options: Any) -> Artifact:
    """On a machine whose tiles are so short that the edges of LeNet-5 have many."""
    target = folder / "short.toml"
    target.write_text('extends = "scu-v1"\nname = "scu-v1-short"\n[selector]\ntile_elems = 64\n')
    if "settled" not in options:
        options |= {"calibration": {"input_1": DIGITS.numpy(), "labels": LABELS.numpy()}}
    asked = ContractOptions(target_file=target, **options)
    artifact = sparsecc.compile(
        lenet5.load_pruned(), lenet5.example_inputs(), target="scu", dynamic={"batch": 0}, contracts=asked
    )
    return artifact.save(folder / "m.sparsecc")


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """k of a whole tile is 27, one more than fits 128 B."""
    return compiled(tmp_path_factory.mktemp("moving"), keep=0.43, period=1)


def test_every_engine_moves_k_alike(moving: Artifact) -> None:
    verdicts = verify(moving)
    assert {v.engine for v in verdicts} == {"onnxruntime", "portable", "reference", "scu"}
    assert all(v.ok and v.max_relative_error is not None and v.max_relative_error < 1e-5 for v in verdicts)


def test_bytes_vary_with_the_input_and_keep_their_bound(moving: Artifact) -> None:
    unit = open_unit(moving)
    assert {(c.k, c.k_lo, c.k_hi, c.period) for c in unit.program.contracts} == {(27, 13, 27, 1)}
    assert sum(d.op == Op.CONTRACT for d in unit.program.code) == len(unit.program.contracts) == 2
    room = sum(d.tiles * d.dst_st1 for d in unit.program.code if d.op == Op.SEND)
    sent = {unit.simulate({"input_1": x[None].numpy()}, timing=False).link_bytes for x in DIGITS[:12]}
    assert len(sent) > 3
    assert max(sent) <= room


def test_a_short_last_tile_does_not_move(moving: Artifact) -> None:
    sends = [d for d in open_unit(moving).program.code if d.op == Op.SEND]
    assert {d.tile_n for d in sends if d.has(Flag.REGISTER)} == {64}
    assert all(d.tile_n < 64 or d.has(Flag.REGISTER) or d.k == d.tile_n or d.tiles == 1 for d in sends)


def test_a_sample_does_not_depend_on_the_one_before(moving: Artifact) -> None:
    """onnxruntime takes both at once, the unit one after the other."""
    engines: tuple[Engine, ...] = ("onnxruntime", "scu")
    plain, unit = (
        np.asarray(open_session(moving, engine, threads=1).run({"input_1": DIGITS[:16].numpy()})["output"], np.float32)
        for engine in engines
    )
    np.testing.assert_allclose(plain, unit, rtol=1e-5, atol=1e-5)


def test_dropped_elements_become_the_mean(tmp_path: Path) -> None:
    artifact = compiled(tmp_path, keep=0.25, fill="mean")
    verdicts = verify(artifact)
    assert all(v.ok and v.max_relative_error is not None and v.max_relative_error < 1e-5 for v in verdicts)
    unit = open_unit(artifact)
    const = unit.target.the("const").address
    for op in (Op.SEND, Op.RECV):
        edges = [d for d in unit.program.code if d.op == op and d.src < const]
        assert len({d.fill for d in edges if d.k < d.tile_n}) == 4  # each edge has its own


def test_contracts_that_move_and_fill_are_taken_up_again(tmp_path: Path) -> None:
    first = compiled(tmp_path, keep=0.43, period=1, fill="mean")
    contracts, _ = load_contracts(first.path)
    assert {c.fill for c in contracts} == {"mean"}
    assert {c.period for c in contracts} == {0, 1}
    (tmp_path / "again").mkdir()
    again = compiled(tmp_path / "again", settled=first.path)
    for name in ("model.onnx", "scu/program.scu", "scu/contracts/contracts.json"):
        assert again.file(name).read_bytes() == first.file(name).read_bytes()


def test_maps_are_renewed_from_what_arrives(cli: Cli, tmp_path: Path) -> None:
    """As SensitivityMap.updated does with the averages of what keep_top gives in torch, from averages of 0."""
    asked = ContractOptions(
        calibration={"input_1": DIGITS.numpy(), "labels": LABELS.numpy()}, keep=0.5, update_maps=True
    )
    model, example = lenet5.load_pruned(), lenet5.example_inputs()
    made = sparsecc.compile(model, example, target="scu", dynamic={"batch": 0}, contracts=asked)
    artifact = made.save(tmp_path / "m.sparsecc")
    captured = program(model, *example, dynamic={"batch": 0})
    captured.facts[ContractOptions] = asked
    bound, _ = run(f"{pipelines.TIDY},bind-contracts", captured)
    unit = open_unit(artifact)
    x = DIGITS[3:4]
    found = unit.updated_maps(unit.simulate({"input_1": x.numpy()}, timing=False))
    settlement = bound.facts[Settled]
    assert isinstance(settlement, Settlement)
    assert len(found) == len(settlement.contracts) == 4
    replay = fx.Interpreter(bound.module, garbage_collect_values=False)
    with torch.no_grad():
        replay.run(x)
    arrived = {node: value for node, value in replay.env.items() if node.target in KEEP_TOPS}
    for (edge, renewed), value in zip(found.items(), arrived.values(), strict=True):
        measured = settlement.measured[edge]
        rows = value.numpy().reshape(-1, len(measured.gradient) * measured.block)
        counts = np.floor(np.abs(rows.astype(np.float64)) * 256).astype(np.int64)
        by_entry = counts.reshape(len(rows), -1, measured.block).transpose(1, 0, 2).reshape(len(measured.gradient), -1)
        start = replace(measured, activation=np.zeros(len(by_entry), np.uint16), activation_unit=1 / 256)
        expected = start.updated((by_entry.sum(1) // by_entry.shape[1]).astype(np.uint16))
        np.testing.assert_array_equal(renewed.sensitivity, expected.sensitivity)
        np.testing.assert_array_equal(renewed.activation, expected.activation)
        np.testing.assert_array_equal(renewed.gradient, measured.gradient)
        assert len(set(renewed.sensitivity.tolist())) > 2
    assert all(v.ok for v in verify(artifact))
    assert cli("simulate", artifact.path, "--maps", tmp_path / "maps", "--quiet").status == 0
    assert {path.stem for path in (tmp_path / "maps").iterdir()} == set(found)
    assert all(SensitivityMap.load(path).sensitivity.max() == 255 for path in (tmp_path / "maps").iterdir())
