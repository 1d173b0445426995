"""What the unit tells the negotiation: bytes and cycles of blocks, limits, contracts that it cannot carry out."""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from programs import Model, seeded
from torch import nn

import sparsecc
from sparsecc.backends.scu.block_costs import block_bytes, block_cycles
from sparsecc.backends.scu.codecs import FIXED, Codec, Dtype, worst_case_bytes
from sparsecc.backends.scu.descriptor import Op
from sparsecc.backends.scu.machine import Target, scu_v1
from sparsecc.backends.scu.target import PASSES
from sparsecc.backends.scu.unit import lower_with_code
from sparsecc.capture import capture
from sparsecc.contracts import WHOLE, Contract, Key, load_contracts, uniform_map
from sparsecc.contracts.binding import insert_contracts
from sparsecc.contracts.negotiation import edge_cost
from sparsecc.contracts.options import ContractOptions
from sparsecc.diagnostics import CompileError

HALF = WHOLE // 2
SHARES = range(0, WHOLE + 1, 512)


def wide(target: Target) -> Target:
    """A link and a buffer behind it that are faster than the scratchpads."""
    memory = {**target.memory, "link": replace(target.the("link"), bytes_per_cycle=64)}
    return replace(target, link=replace(target.link, bytes_per_cycle=64), memory=memory)


@pytest.mark.parametrize("elems", [1, 7, 33, 400, 1000, 1024])
@pytest.mark.parametrize("dtype", [Dtype.FLOAT32, Dtype.INT8])
def test_block_bytes(elems: int, dtype: Dtype) -> None:
    costs = [block_bytes(FIXED, elems, share, dtype.name.lower()) for share in SHARES]
    assert costs[:-1] == sorted(costs[:-1])
    assert costs[-1] <= worst_case_bytes(Codec.RAW, elems, elems, dtype)
    only_raw = {block_bytes([Codec.RAW], elems, share, dtype.name.lower()) for share in SHARES if share}
    assert only_raw == {worst_case_bytes(Codec.RAW, elems, elems, dtype)}


@pytest.mark.parametrize("elems", [33, 1024, 3000])
@pytest.mark.parametrize("target", [scu_v1(), wide(scu_v1())])
def test_cycles_of_an_edge_never_fall_as_its_share_rises(target: Target, elems: int) -> None:
    costs = [edge_cost(functools.partial(block_cycles, target, FIXED), elems, 1024, share) for share in SHARES]
    assert all(a <= b for a, b in itertools.pairwise(costs))


def test_half_of_a_tile_pays_on_a_narrow_link_and_not_on_a_wide_one() -> None:
    """scu-v1's key unit and selector take 16 elements a cycle, so beyond 16 lanes a faster link gains nothing."""
    narrow, fast = (
        [block_cycles(target, FIXED, 1024, share, "float32") for share in (HALF, WHOLE)]
        for target in (scu_v1(), wide(scu_v1()))
    )
    assert narrow[0] < 0.7 * narrow[1]
    assert fast[0] >= fast[1]


def test_edges_keep_their_names_when_they_are_sent_in_another_order() -> None:
    """As `inspect` needs to find what the program sends of the edges in the log."""
    program = capture(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), [seeded(1, 1, 8, 8)])
    contract = replace(Contract.fixed("relu", Key("float32"), HALF), order="channels-last")
    insert_contracts(program, {"relu": contract}, {"relu": uniform_map()})
    graph, _ = lower_with_code(program, scu_v1())
    assert graph.meta["edges"] == ["relu"]
    assert {task.edge for task in graph.tasks if task.op in (Op.SEND, Op.RECV)} == {"relu"}


def test_an_edge_may_itself_be_a_permutation() -> None:
    def forward(m: Model, x: torch.Tensor) -> object:
        turned = m.first(x).permute(0, 2, 3, 1)
        return m.third(m.second(turned).relu()) + turned

    layers = (nn.Conv2d(1, 4, 3), nn.Linear(4, 4), nn.Linear(4, 4))
    model = Model(forward, **dict(zip(("first", "second", "third"), layers, strict=True)))
    program = capture(model, [seeded(1, 1, 8, 8)])
    insert_contracts(program, {"permute": Contract.fixed("permute", Key("float32"), HALF)}, {"permute": uniform_map()})
    graph, _ = lower_with_code(program, scu_v1())
    assert graph.meta["edges"] == ["permute", "relu"]


# ---- compiled --------------------------------------------------------------------------------------------------------


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 200), nn.ReLU(), nn.Linear(200, 72), nn.ReLU(), nn.Linear(72, 3))


def toml(folder: Path, text: str) -> Path:
    path = folder / "my.toml"
    path.write_text(f'extends = "scu-v1"\nname = "mine"\n{text}\n')
    return path


def compiled(**asked: object) -> sparsecc.Compiled:
    options = ContractOptions(**asked)  # type: ignore[arg-type]
    return sparsecc.compile(model(), (seeded(1, 8),), target="scu", contracts=options)


def reasons(result: sparsecc.Compiled) -> dict[str, str]:
    (record,) = (record for record in result.manifest.passes if record.name == "bind-contracts")
    return {note.node: note.text for note in record.notes}


def test_raw_alone_sends_everything_and_says_so() -> None:
    result = compiled(keep=0.5, codecs=("raw",))
    assert set(reasons(result).values()) == {
        "100.0% of 200 elements, 800 B -> 832 B: RAW: no codec makes it smaller",
        "100.0% of 72 elements, 288 B -> 320 B: RAW: no codec makes it smaller",
    }


def test_a_short_last_tile_is_never_raw_with_less_than_everything(tmp_path: Path) -> None:
    """192 + 8 elements, of the last of which 7 are kept: the least block would be RAW, which has all 8."""
    result = compiled(keep=0.9, target_file=toml(tmp_path, "[selector]\ntile_elems = 192"))
    sent = worst_case_bytes(Codec.BITMASK, 192, 172, Dtype.FLOAT32) + worst_case_bytes(
        Codec.BITMASK, 8, 7, Dtype.FLOAT32
    )
    assert f"90.0% of 200 elements, 800 B -> {sent} B: share to keep" in reasons(result).values()


def test_a_wide_link_leaves_edges_whole_under_an_accuracy_budget(tmp_path: Path) -> None:
    samples = {"input_1": seeded(16, 8).numpy()}
    fast = toml(tmp_path, "[link]\nbytes_per_cycle = 64\n[memory.link]\nbytes_per_cycle = 64")
    notes = reasons(compiled(accuracy=0.5, calibration=samples, target_file=fast))
    assert all(text.endswith("RAW: a contract saves no cycles") for text in notes.values())


def test_a_cycles_budget_is_about_the_whole_schedule(tmp_path: Path) -> None:
    """With a link so slow that it decides."""
    slow = toml(tmp_path, "[link]\nbytes_per_cycle = 1")
    result = compiled(cycles=0.9, calibration={"input_1": seeded(16, 8).numpy()}, target_file=slow)
    assert any(text.endswith("budget of cycles") for text in reasons(result).values())
    report = json.loads(result.files["scu/report.json"])
    within = report["schedule"]["makespan_cycles"] / report["figures"]["dense"]["cycles"]
    assert 0.85 < within <= 0.9


def test_blocks_spill_where_the_link_holds_none(tmp_path: Path) -> None:
    """The same contracts as on a large link, through DRAM; given ones likewise."""
    tiny = toml(tmp_path, "[memory.link]\nbytes = 16")
    result = compiled(keep=0.5, target_file=tiny)
    assert set(reasons(result).values()) == {
        "50.0% of 200 elements, 800 B -> 448 B: share to keep; spill: a block is longer than its buffer",
        "50.0% of 72 elements, 288 B -> 192 B: share to keep; spill: a block is longer than its buffer",
    }
    (lowered,) = (record for record in result.manifest.passes if record.name == "lower-transfers")
    assert {note.node: note.text for note in lowered.notes if note.node != "output"} == dict.fromkeys(
        ("relu", "relu_1"), "its blocks go through DRAM: the link's buffer holds 16 B, too few for one"
    )
    roomy = compiled(keep=0.5)
    assert result.files["model.onnx"] == roomy.files["model.onnx"]
    found, usual = (json.loads(r.files["scu/report.json"])["figures"]["contracts"] for r in (result, roomy))
    assert (found["link_bytes"], usual["link_bytes"]) == (0, 448 + 192)
    assert found["dram_bytes"] - usual["dram_bytes"] == 2 * (448 + 192)  # written, and read once

    path = compiled(keep=0.5).save(tmp_path / "roomy.sparsecc").path
    again = compiled(settled=path, target_file=tiny)
    assert all(text.endswith("given; spill: a block is longer than its buffer") for text in reasons(again).values())
    assert again.files["scu/program.scu"] == result.files["scu/program.scu"]


def test_contracts_of_an_artifact_are_taken_up_again(tmp_path: Path) -> None:
    first = compiled(keep=0.4).save(tmp_path / "first.sparsecc")
    contracts, maps = load_contracts(first.path)
    assert [contract.share_q16 for contract in contracts] == [round(0.4 * WHOLE)] * 2
    again = compiled(settled=first.path)
    assert again.files["model.onnx"] == first.file("model.onnx").read_bytes()
    assert {text.split(": ")[1] for text in reasons(again).values()} == {"given"}
    assert compiled(settled=(contracts, maps)).files["scu/program.scu"] == again.files["scu/program.scu"]
    first.file("scu/contracts/0.npz").write_bytes(b"other")
    with pytest.raises(CompileError, match="SCC064"):
        compiled(settled=first.path)
    with pytest.raises(CompileError, match=r"SCC076.*contracts\.json cannot be read: No such file"):
        compiled(settled=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile_elems": 2048}, "has tiles of 2048 elements, and scu-v1 takes 1024"),
        ({"key": Key("float32", base=3)}, "has keys of base 3 and shift 0, and only 0 can be compiled"),
    ],
)
def test_contracts_that_the_unit_cannot_carry_out(changes: dict[str, object], message: str) -> None:
    contracts = [Contract.fixed(edge, Key("float32"), HALF) for edge in ("relu", "relu_1")]
    wrong = replace(contracts[0], **changes)  # type: ignore[arg-type]
    maps = dict.fromkeys(("relu", "relu_1"), uniform_map())
    with pytest.raises(CompileError) as caught:
        compiled(settled=([wrong, contracts[1]], maps))
    assert str(caught.value) == (
        f"error[SCC121]: the contract on relu {message}\n  help: give contracts that were settled for this target"
    )


def test_given_contracts_of_int8_need_a_machine_that_ranks_it(tmp_path: Path) -> None:
    path = tmp_path / "floats.toml"
    path.write_text('extends = "scu-v1"\nname = "floats"\ndtypes = ["float32"]\n')
    contracts = [replace(Contract.fixed(edge, Key("int8"), HALF), scale=0.5) for edge in ("relu", "relu_1")]
    with pytest.raises(CompileError) as caught:
        compiled(settled=(contracts, dict.fromkeys(("relu", "relu_1"), uniform_map())), target_file=path)
    assert str(caught.value).startswith(
        "error[SCC121]: the contract on relu travels as int8, which floats cannot rank (it needs the dtype and "
        "register key_base)\n  help: give contracts that were settled for this target\n"
    )


def test_given_contracts_need_a_codec() -> None:
    contracts = [Contract.fixed(edge, Key("float32"), HALF) for edge in ("relu", "relu_1")]
    maps = dict.fromkeys(("relu", "relu_1"), uniform_map())
    with pytest.raises(CompileError) as caught:
        compiled(settled=(contracts, maps), codecs=("raw",))
    assert "keeps 100 of 200 elements, and no codec allowed (raw) leaves elements out\n" in str(caught.value)
    assert str(caught.value).endswith("help: allow bitmask or index (--codecs), on a target that has them")


def test_codecs_that_the_target_lacks(tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        compiled(keep=0.5, codecs=("index",), target_file=toml(tmp_path, 'codecs = ["raw", "bitmask"]'))
    assert str(caught.value) == (
        "error[SCC120]: mine has no codec 'index', only raw, bitmask\n"
        "  help: allow other codecs, or add it to `codecs` in the target file; raw is always needed"
    )


def test_a_pipeline_that_makes_no_program() -> None:
    with pytest.raises(CompileError) as caught:
        sparsecc.compile(torch.nn.Linear(4, 2), (torch.ones(1, 4),), target="scu", pipeline="fold-masks")
    assert str(caught.value) == (
        "error[SCC083]: target scu finds no program in what the passes made\n"
        f"  help: let the pipeline end with lower-transfers,schedule-dma; the whole is {PASSES}"
    )
