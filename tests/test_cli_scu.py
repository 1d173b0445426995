"""The command line of target scu, on an artifact and on programs made by hand."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Cli, Result
from scu_artifact import BLOCK_BYTES, ELEMS, MACHINE, UNIT_PROGRAM, report_tree, sample, scu_artifact

from sparsecc.artifact import Artifact, golden_npz, write
from sparsecc.backends.scu import container, host
from sparsecc.backends.scu.asm import assemble, disassemble
from sparsecc.backends.scu.descriptor import Descriptor, Flag, Queue, flags
from sparsecc.backends.scu.machine import to_json
from sparsecc.backends.scu.report_file import from_json
from sparsecc.backends.scu.unit_program import UnitProgram
from sparsecc.contracts.options import ContractOptions
from sparsecc.manifest import Distance, Manifest
from sparsecc.report.scu import original_rows, summary_rows
from sparsecc.report.text import energy


@pytest.fixture
def artifact(tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No kernel, so no C compiler either."""

    def none(*_: object) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(host, "load_kernels", none)
    return scu_artifact(tmp_path / "m.sparsecc", manifest).path


@pytest.fixture
def plain(tmp_path: Path, manifest: Manifest) -> Path:
    """For target cpu."""
    files = {"model.onnx": b"", "golden.npz": golden_npz({"x": sample()}, {"y": sample()})}
    return write(tmp_path / "plain.sparsecc", files, manifest).path


FROM_ORIGINAL = (
    "2.5e-01 of the largest value, the same argmax in 1 of 2 rows; what contracts change of the example's outputs"
)


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("picojoules", "text"),
    [(0, "0 pJ"), (3.84, "3.84 pJ"), (999.6, "1 nJ"), (20_480, "20.5 nJ"), (3.49e6, "3.49 µJ"), (2.5e12, "2.5 J")],
)
def test_energy_has_the_unit_that_fits(picojoules: float, text: str) -> None:
    assert energy(picojoules) == text


# ---- compile ---------------------------------------------------------------------------------------------------------


@dataclass
class Asked:
    """What `compile` handed to sparsecc.api.compile."""

    contracts: ContractOptions | None = None
    called: bool = False


class Stop(Exception):
    """Nothing is compiled here."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked()

    def compile_(*_: object, contracts: ContractOptions | None, **__: object) -> None:
        found.contracts, found.called = contracts, True
        raise Stop

    monkeypatch.setattr("sparsecc.api.compile", compile_)
    return found


def options(cli: Cli, asked: Asked, *arguments: object) -> ContractOptions | None:
    with pytest.raises(Stop):
        cli("compile", "model.pt", *arguments)
    return asked.contracts


def test_options_of_contracts(cli: Cli, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert options(cli, asked) is None
    assert options(cli, asked, "--target", "scu") == ContractOptions()
    assert options(cli, asked, "--target", "scu", "--bytes-budget", "0.3") == ContractOptions(bytes=0.3)
    assert options(cli, asked, "--target", "scu", "--cycles-budget", "0.8") == ContractOptions(cycles=0.8)
    assert options(cli, asked, "--contracts", "m.sparsecc") == ContractOptions(settled=Path("m.sparsecc"))
    assert options(cli, asked, "--target", "scu", "--accuracy-budget", "0") == ContractOptions(accuracy=0)
    assert options(cli, asked, "--keep", "0.5") == ContractOptions(keep=0.5)  # the api refuses it for target cpu
    everything = (
        "--calibration",
        "c.npz",
        "--target-file",
        "my.toml",
        "--map-block",
        "8",
        "--period",
        "16",
        "--fill",
        "mean",
        "--payload-dtype",
        "int8",
    )
    assert options(cli, asked, "--target", "scu", "--update-maps") == ContractOptions(update_maps=True)
    names = ("--codecs", "raw, index,raw", "--sensitivity", "product", "--routing", "sensitivity")
    assert options(cli, asked, *everything, *names) == ContractOptions(
        calibration=Path("c.npz"),
        form="product",
        routing="sensitivity",
        map_block=8,
        period=16,
        fill="mean",
        payload_dtype="int8",
        codecs=("raw", "index"),
        target_file=Path("my.toml"),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bytes-budget", "0.3", "--cycles-budget", "0.5"],
         "a bytes budget and a cycles budget exclude each other\n  help: choose one of them"),
        (["--codecs", "bitmask, run"],
         "blocks of codec 'run' have a length that depends on the data, and schedules need to know it\n"
         "  help: choose among raw, bitmask, index"),
        (["--contracts", "m.sparsecc", "--keep", "0.5"],
         "contracts that are given are taken as they are, and a share to keep is for negotiating new ones\n"
         "  help: leave out one of the two"),
        (["--routing", "magnet"],
         "there is no routing 'magnet'\n  help: did you mean 'magnitude'? known: magnitude, sensitivity"),
        (["--fill", "men"], "there is no fill 'men'\n  help: did you mean 'mean'? known: zero, mean"),
    ],
)  # fmt: skip
def test_options_that_mean_nothing(cli: Cli, asked: Asked, arguments: list[str], message: str) -> None:
    """The sentences are those of ContractOptions, tests/contracts/test_options.py."""
    result = cli("compile", "model.pt", "--target", "scu", *arguments)
    assert result == Result(2, "", f"error[SCC119]: {message}\n")
    assert not asked.called


ALL_CODECS = (
    "name those to choose from, --codecs raw,bitmask,index; without the option they are all that the target has"
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--codecs", ""], f"--codecs '' names no codec\n  help: {ALL_CODECS}"),
        (["--codecs", " ,"], f"--codecs ' ,' names no codec\n  help: {ALL_CODECS}"),
        *[
            ([option, "50%"], f"{option} '50%' is no number\n  help: {option} is a share from 0 to 1: 0.5 is 50 %")
            for option in ("--bytes-budget", "--cycles-budget", "--accuracy-budget", "--keep")
        ],
    ],
)
def test_options_of_no_known_form(cli: Cli, asked: Asked, arguments: list[str], message: str) -> None:
    result = cli("compile", "model.pt", "--target", "scu", *arguments)
    assert result == Result(2, "", f"error[SCC087]: {message}\n")
    assert not asked.called


def test_the_summary_of_a_compile(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sparsecc import report
    from sparsecc.cli_options import show

    opened = Artifact.open(artifact)
    show(report.summary_facts(opened), lambda: report.summary(opened), as_json=False)
    text = capsys.readouterr().out
    lines = {" ".join(line[:1]): " ".join(line[1:]) for line in words(text)}
    assert lines["contracts"] == "less than everything on 1 of 1 edge"
    assert lines["accuracy"] == "91.0% -> 90.4% (95 % interval 88.4% to 92.1%) on 1,000 held-out samples"
    sizes = f"{4 * BLOCK_BYTES} B dense -> {BLOCK_BYTES} B, 4.00x (zero compression {2 * BLOCK_BYTES} B, 2.00x)"
    assert lines["link"] == f"{sizes}; with headers"
    assert lines["cycles"] == (
        "4,000 dense -> 1,000, 4.00x (zero compression 2,000, 2.00x); schedule 25.0% above its lower bound"
    )
    assert lines["energy"].startswith("160 nJ dense -> 40 nJ, 4.00x (zero compression 80 nJ, 2.00x); ratios only")
    assert lines["difference"] == "2.0e-07 of the largest output, from what contracts mean (at most 5e-02)"
    assert lines["from"] == f"original {FROM_ORIGINAL}"
    original = {"y": {"max_relative_error": 0.25, "rows": 2, "same_argmax": 1}}
    assert report.summary_facts(opened)["original"] == original
    assert f"sparsecc simulate {artifact}\n" in text
    assert f"sparsecc inspect --contracts {artifact}\n" in text
    facts = report.summary_facts(opened)["scu"]
    assert (facts["edges"], facts["edges_cut"], facts["negotiated"]["settled"]["value"]) == (1, 1, 0.904)
    assert facts["figures"] == report_tree()["figures"]
    assert "zeros" not in report.summary_facts(opened)


# ---- run and verify --------------------------------------------------------------------------------------------------


def test_run_on_the_unit(cli: Cli, artifact: Path, tmp_path: Path) -> None:
    x = sample(seed=7, count=3)
    np.savez(tmp_path / "x.npz", x=x)
    result = cli("run", artifact, "--engine", "scu", "--inputs", tmp_path / "x.npz", "-o", tmp_path / "y.npz")
    assert result.status == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["y"], x)


def test_verify_compares_the_unit_too(cli: Cli, artifact: Path) -> None:
    result = cli("verify", artifact, "--json")
    assert result.status == 0
    verdicts = {v["engine"]: (v["ok"], v["max_relative_error"]) for v in result.json}
    no_reference = (True, None)
    assert verdicts == {"onnxruntime": (True, 0), "portable": (True, 0), "reference": no_reference, "scu": (True, 0)}


def test_verify_tells_engines_from_contracts(cli: Cli, artifact: Path) -> None:
    no_graph = "holds no graph for torch (reference.zip)"
    lines = [line.rstrip() for line in cli("verify", artifact).out.splitlines()]
    assert [line for line in lines if line and not set(line) <= {" ", "─"}] == [
        "against what the contracts mean",
        " engine        output   difference   allowed   verdict",
        " onnxruntime   y           0.0e+00     5e-02   equal",
        " portable      y           0.0e+00     5e-02   equal",
        f" reference     y                 -     5e-02   not compared: {artifact} {no_graph}",
        " scu           y           0.0e+00     5e-02   equal",
        "what contracts mean, against the original",
        " output   difference   rows of the same argmax",
        " y           2.5e-01                    1 of 2",
    ]
    original = {"max_relative_error": 0.25, "rows": 2, "same_argmax": 1}
    assert [v["original"] for v in cli("verify", artifact, "--json").json] == [original] * 4


def test_an_artifact_that_does_not_know_the_distance_to_the_original(cli: Cli, artifact: Path, tmp_path: Path) -> None:
    """Nothing is claimed of the original then."""
    whole = Artifact.open(artifact)
    files = {name: whole.file(name).read_bytes() for name in whole.manifest.files}
    manifest = replace(whole.manifest, check=replace(whole.manifest.check, original=None))
    old = write(tmp_path / "old.sparsecc", files, manifest).path
    text = cli("verify", old).out
    assert "against what the contracts mean" in text
    assert "original" not in text + cli("inspect", old).out
    assert "original" not in cli("verify", old, "--json").json[0]


@pytest.mark.parametrize(
    ("distances", "text"),
    [
        ({"y": Distance(0.0, 1, 1)}, "0.0e+00 of the largest value, the same argmax in 1 of 1 row; "),
        ({"y": Distance(3.2e-7)}, "3.2e-07 of the largest value; "),
        ({"y": Distance(0.5, 9, 3), "z": Distance(0.6, 9, 9)},
         "6.0e-01 of the largest value in z, the same argmax in 9 of 9 rows; "),
        ({"y": Distance(0.5), "classes": Distance(None)}, "differs in classes; "),
    ],
)  # fmt: skip
def test_the_output_that_contracts_change_most(distances: dict[str, Distance], text: str) -> None:
    assert list(original_rows(distances)) == [
        ("from original", f"{text}what contracts change of the example's outputs")
    ]


@pytest.mark.parametrize(
    "command", [["simulate"], ["inspect", "--contracts"], ["inspect", "--schedule"], ["inspect", "--disasm"]]
)
def test_an_artifact_without_a_program(cli: Cli, plain: Path, command: list[str]) -> None:
    assert cli(*command, plain) == Result(
        2,
        "",
        f"error[SCC117]: {plain} was compiled for target 'cpu', and holds no program for the SCU\n"
        "  help: compile the model with --target scu; `sparsecc compile --help` shows its options\n",
    )


def test_no_program_to_run(cli: Cli, plain: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 3), np.float32))
    result = cli("run", plain, "--engine", "scu", "--inputs", tmp_path / "x.npz")
    assert result.status == 2
    assert result.err.startswith("error[SCC117]: ")


# ---- simulate --------------------------------------------------------------------------------------------------------


def test_simulate_json(cli: Cli, artifact: Path) -> None:
    result = cli("simulate", artifact, "--json", "--quiet")
    assert (result.status, result.err) == (0, "")
    facts = result.json
    run = facts["run"]
    assert (run["link_bytes"], run["dram_bytes"], run["descriptor_bytes"]) == (BLOCK_BYTES, 2 * 4 * ELEMS, 5 * 64)
    assert run["cycles"] > 0
    assert run["lower_bound_cycles"] == 800
    assert run["energy_pj"] == pytest.approx(sum(run["energy_by_component_pj"].values()))
    assert run["overlap"] * run["cycles"] == pytest.approx(sum(u["busy_cycles"] for u in facts["units"].values()))
    assert facts["baselines"] == {name: report_tree()["figures"][name] for name in ("dense", "zero_compression")}
    assert facts["trace"] is None
    assert cli("simulate", artifact, "--quiet") == Result(0, "", "")


def test_simulate_shows_ratios(cli: Cli, artifact: Path) -> None:
    cycles = cli("simulate", artifact, "--json", "--quiet").json["run"]["cycles"]
    result = cli("simulate", artifact)
    assert result.err == "compiling the tiles' code\nsimulating\n"
    lines = words(result.out)
    assert ["cycles", f"{cycles:,}", "4,000", "2,000", f"{4000 / cycles:.2f}x", f"{2000 / cycles:.2f}x"] in lines
    sizes = [f"{n * BLOCK_BYTES} B".split() for n in (1, 4, 2)]
    assert ["over", "the", "link,", "with", "headers", *sizes[0], *sizes[1], *sizes[2], "4.00x", "2.00x"] in lines
    assert any(line[:1] == ["tile0"] for line in lines)
    assert ["lower", "bound,", "cycles", "-", "3,200", "-", "-", "-"] in lines  # this run's cycles are below 800
    assert ["above", "the", "bound", "-", "+25.0%", "-"] in lines
    assert any(line[:2] == ["dram", "read"] for line in lines)
    assert "good to about 2x: quote ratios" in result.out


@pytest.fixture
def without_dense(artifact: Path, manifest: Manifest) -> Path:
    tree = report_tree()
    tree["figures"] |= {"dense": None, "does_not_fit": {"dense": "memory link has to hold 832 B at once and has 576 B"}}
    return scu_artifact(artifact, manifest, tree).path


def test_simulate_beside_a_baseline_that_does_not_fit(cli: Cli, without_dense: Path) -> None:
    why = "memory link has to hold 832 B at once and has 576 B"
    facts = cli("simulate", without_dense, "--json", "--quiet").json
    assert facts["baselines"] == {"dense": None, "zero_compression": report_tree()["figures"]["zero_compression"]}
    assert (facts["does_not_fit"], facts["lower_bound_holds"]) == ({"dense": why}, [])
    cycles = facts["run"]["cycles"]
    text = cli("simulate", without_dense).out
    lines = words(text)
    assert ["cycles", f"{cycles:,}", "-", "2,000", "-", f"{2000 / cycles:.2f}x"] in lines
    assert ["units", "at", "work,", "on", "average", f"{facts['run']['overlap']:.2f}", "-", "1.50"] in lines
    assert any(line[0] == "link" and line[-3:] == ["-", "20", "nJ"] for line in lines if line)  # of the energy
    assert text.endswith(f"quote ratios.\ndense does not fit: {why}\n")


def test_inspect_beside_baselines_that_do_not_fit(cli: Cli, without_dense: Path) -> None:
    lines = words(cli("inspect", without_dense).out)
    zeros = f"{BLOCK_BYTES} B (dense does not fit, zero compression {2 * BLOCK_BYTES} B); with headers"
    assert ["link", *zeros.split()] in lines
    why = "does not fit dense: memory link has to hold 832 B at once and has 576 B"
    assert why in (" ".join(line) for line in lines)


def test_the_summary_of_baselines_that_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """Each alone, and both."""
    why = {"dense": "too many bytes", "zero_compression": "too few semaphores"}
    for unfit in (["dense"], ["zero_compression"], ["dense", "zero_compression"]):
        tree = report_tree()
        tree["figures"] |= {**dict.fromkeys(unfit), "does_not_fit": {name: why[name] for name in unfit}}
        for title, text in summary_rows(from_json(json.dumps(tree).encode(), "report.json")):
            if title in ("cycles", "does not fit"):
                print(f"{title}: {text}")
    assert capsys.readouterr().out == (
        "cycles: 1,000 (dense does not fit, zero compression 2,000); schedule 25.0% above its lower bound\n"
        "does not fit: dense: too many bytes\n"
        "cycles: 4,000 dense -> 1,000, 4.00x (zero compression does not fit); schedule 25.0% above its lower bound\n"
        "does not fit: zero compression: too few semaphores\n"
        "cycles: 1,000 (dense does not fit, zero compression does not fit); schedule 25.0% above its lower bound\n"
        "does not fit: dense: too many bytes\n"
        "does not fit: zero compression: too few semaphores\n"
    )


@pytest.mark.parametrize(("flag", "holds"), [(Flag(0), ["run", "dense"]), (Flag.SKIP_ZERO, ["dense"])])
@pytest.mark.usefixtures("artifact")  # loads no kernels
def test_no_lower_bound_where_payloads_may_be_shorter(
    cli: Cli, tmp_path: Path, manifest: Manifest, flag: Flag, holds: list[str]
) -> None:
    """The schedule counts on the longest: a run that takes longer than its bound proves nothing."""
    copy, send, *rest = UNIT_PROGRAM.code
    program = replace(UNIT_PROGRAM, code=(copy, replace(send, flags=flags(Queue.OUT, flag)), *rest))
    tree = report_tree()
    tree["schedule"]["lower_bound_cycles"] = 100
    path = scu_artifact(tmp_path / "other", manifest, tree, program).path
    assert cli("simulate", path, "--json", "--quiet").json["lower_bound_holds"] == holds
    bound = "100" if "run" in holds else "-"
    assert ["lower", "bound,", "cycles", bound, "3,200", "-"] in [w[:6] for w in words(cli("simulate", path).out)]


def test_simulate_takes_the_first_of_what_it_is_given(cli: Cli, artifact: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, ELEMS), np.float32))
    result = cli("simulate", artifact, "--inputs", tmp_path / "x.npz", "--json")
    assert result.json["counters"]["elems_zero"] == ELEMS
    assert f"{tmp_path / 'x.npz'} holds 2 samples; the first is simulated\n" in result.err
    assert cli("simulate", artifact, "--inputs", tmp_path / "x.npz", "--quiet") == Result(0, "", "")
    np.savez(tmp_path / "x.npz", x=np.zeros((1, ELEMS), np.float32))
    assert "the first is simulated" not in cli("simulate", artifact, "--inputs", tmp_path / "x.npz").err
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 5), np.float32))
    assert cli("simulate", artifact, "--inputs", tmp_path / "x.npz").err.startswith(
        "error[SCC071]: input 'x' has shape"
    )


def test_maps_of_a_program_that_renews_none(cli: Cli, artifact: Path, tmp_path: Path) -> None:
    """Known before anything is compiled or simulated."""
    assert cli("simulate", artifact, "--maps", tmp_path / "maps") == Result(
        2,
        "",
        f"error[SCC124]: the program of {artifact} renews no maps\n"
        "  help: compile the model with --update-maps, or leave out --maps\n",
    )


def test_maps_that_cannot_be_written(cli: Cli, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")

    def refused(folder: Path, why: str) -> None:
        assert cli("simulate", artifact, "--maps", folder) == Result(
            2, "", f"error[SCC075]: {folder} cannot be written: {why}\n  help: choose another path with --maps\n"
        )

    refused(tmp_path / "file", "Not a directory")
    refused(tmp_path / "file" / "maps", "Not a directory")
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    refused(tmp_path / "new" / "maps", "Permission denied")
    assert not (tmp_path / "new").exists()


def test_a_trace(cli: Cli, artifact: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    result = cli("simulate", artifact, "--trace", trace)
    assert f"trace: {trace}, which ui.perfetto.dev opens\n" in result.out
    rows = json.loads(trace.read_text())["traceEvents"]
    assert {row["name"] for row in rows if row["ph"] == "X"} >= {"COPY", "SEND", "RECV"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.sparsecc", "trace.json"]


@pytest.mark.parametrize(("name", "why"), [("", "Is a directory"), ("no/trace.json", "No such file or directory")])
def test_a_trace_that_cannot_be_written(cli: Cli, artifact: Path, tmp_path: Path, name: str, why: str) -> None:
    trace = tmp_path / name
    assert cli("simulate", artifact, "--trace", trace) == Result(
        2, "", f"error[SCC075]: {trace} cannot be written: {why}\n  help: choose another path with --trace\n"
    )


def test_ctrl_c_leaves_what_was_there(
    cli: Cli, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trace.json").write_text("old")

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", press)
    assert cli("simulate", artifact, "--trace", tmp_path / "trace.json", "--quiet") == Result(130, "", "")
    assert (tmp_path / "trace.json").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.sparsecc", "trace.json"]


# ---- inspect ---------------------------------------------------------------------------------------------------------


def test_inspect_has_a_section_on_the_unit(cli: Cli, artifact: Path) -> None:
    text = cli("inspect", artifact).out
    assert ["Sparse", "Communication", "Unit"] in words(text)
    assert "--contracts, --schedule, --disasm; sparsecc simulate" in text
    assert "scu/program.scu" in text
    assert ["from", "original", *FROM_ORIGINAL.split()] in words(text)
    agreement = "portable 1.0e-07, reference 0.0e+00, unit 2.0e-07 of the largest output, from what contracts mean"
    assert ["difference", *agreement.split(), "(at", "most", "5e-02)"] in words(text)
    for word in ("regions", "layers", "not measured"):  # which are choices of target cpu
        assert word not in text


def test_inspect_contracts(cli: Cli, artifact: Path) -> None:
    lines = words(cli("inspect", artifact, "--contracts").out)
    shares = ["50.0%", "75.0%", "6.2%", "100.0%", "25.0%"]
    sent = ["256", "B", str(BLOCK_BYTES), "B", "bitmask"]
    assert ["relu_1", "64", "64", *shares, "receive", "buffer", "0.00125", *sent] in lines
    sizes = f"bytes of a sample 256 B of values, without headers -> {BLOCK_BYTES} B with headers"
    sizes += f", {256 / BLOCK_BYTES:.2f}x"
    accuracy = ["91.0%", "->", "90.4%", "(95", "%", "interval", "88.4%", "to", "92.1%)", "on", "1,000", "held-out"]
    assert ["accuracy", *accuracy, "samples"] in lines
    assert sizes.split() in lines
    assert ["loss", "cross-entropy", "to", "the", "labels"] in lines
    assert "Settled is what the budget chose.\n" in cli("inspect", artifact, "--contracts").out
    facts = cli("inspect", artifact, "--contracts", "--json").json
    log = report_tree()["settlement"]
    assert facts == {**log, "negotiated": True, "edges": [{**log["edges"][0], "codec": "bitmask"}]}


def test_inspect_contracts_shows_what_is_there(cli: Cli, tmp_path: Path, manifest: Manifest) -> None:
    log = {"edges": [{"edge": "a", "rank": 1.25}, {"edge": "b", "why": None}], "settled": {"value": 0.5}, "rounds": 3}
    path = scu_artifact(tmp_path / "m", manifest, {**report_tree(), "settlement": log}).path
    lines = words(cli("inspect", path, "--contracts").out)
    assert ["edge", "codec", "rank", "why"] in lines
    assert ["a", "-", "1.25", "-"] in lines
    assert ["quality", "50.0%"] in lines
    assert ["rounds", "3"] in lines


def test_inspect_contracts_without_a_negotiation(cli: Cli, tmp_path: Path, manifest: Manifest) -> None:
    """--keep without calibration data: no column tells of proposals."""
    edge = report_tree()["settlement"]["edges"][0]
    edge |= dict.fromkeys(("proposed_q16", "adjusted_q16", "lo_q16", "hi_q16", "degradation"))
    path = scu_artifact(tmp_path / "m", manifest, {**report_tree(), "settlement": {"edges": [edge]}}).path
    result = cli("inspect", path, "--contracts")
    assert [
        "edge",
        "elements",
        "per",
        "tile",
        "settled",
        "binding",
        "constraint",
        "values",
        "alone",
        "sent,",
        "with",
        "headers",
        "codec",
    ] in words(result.out)
    assert ["relu_1", "64", "64", "25.0%", "receive", "buffer", "256", "B", str(BLOCK_BYTES), "B", "bitmask"] in words(
        result.out
    )
    assert "nothing was negotiated\n" in result.out
    assert "proposed" not in result.out


def test_inspect_contracts_that_were_given(cli: Cli, tmp_path: Path, manifest: Manifest) -> None:
    path = scu_artifact(tmp_path / "m", manifest, {**report_tree(), "settlement": None}).path
    result = cli("inspect", path, "--contracts")
    assert ["relu_1", "64", "25.0%", "256", "B", str(BLOCK_BYTES), "B", "bitmask"] in words(result.out)
    assert "(--contracts, or --keep without --calibration): nothing was negotiated\n" in result.out
    facts = cli("inspect", path, "--contracts", "--json").json
    edge = {"edge": "relu_1", "elems": ELEMS, "settled_q16": 1 << 14, "dense_bytes": 256, "settled_bytes": BLOCK_BYTES}
    assert facts == {"negotiated": False, "edges": [{**edge, "dtype": "float32", "codec": "bitmask"}]}


def test_inspect_contracts_that_travel_as_int8(cli: Cli, tmp_path: Path, manifest: Manifest) -> None:
    tree = report_tree()
    edge = tree["settlement"]["edges"][0]
    edge |= {"dtype": "int8", "binding": "budget of bytes; int8 for the block buffer"}
    path = scu_artifact(tmp_path / "m", manifest, tree).path
    lines = words(cli("inspect", path, "--contracts").out)
    assert any(line[:5] == ["edge", "elements", "sent", "as", "per"] for line in lines)
    assert any(line[:3] == ["relu_1", "64", "int8"] for line in lines)
    assert "budget of bytes; int8 for the block buffer" in " ".join(cli("inspect", path, "--contracts").out.split())
    text = " ".join(cli("inspect", path).out.split())
    assert "less than everything on 1 of 1 edge, as int8 on 1" in text


def test_inspect_schedule(cli: Cli, artifact: Path) -> None:
    facts = cli("inspect", artifact, "--schedule", "--json").json
    assert (facts["makespan_cycles"], facts["lower_bound_cycles"], facts["method"]) == (1000, 800, "CP-SAT")
    assert {name: queue["descriptors"] for name, queue in facts["queues"].items()} == {
        "IN": 3, "OUT": 2, "LINK": 0, "CONFIG": 0,
    }  # fmt: skip
    (edge,) = facts["edges"]
    assert (edge["edge"], edge["sends"], edge["receives"], edge["payload_bytes"]) == ("relu_1", 1, 1, BLOCK_BYTES)
    simulated = {
        s.place: s.end - s.start for s in host.open_unit(Artifact.open(artifact)).simulate(sample_feed()).spans
    }
    assert (edge["send_cycles"], edge["receive_cycles"]) == (simulated[1], simulated[2])
    assert facts["queues"]["OUT"]["busy_cycles"] == simulated[1] + simulated[3]
    lines = words(cli("inspect", artifact, "--schedule").out)
    assert ["lower", "bound", "800", "cycles;", "the", "schedule", "is", "25.0%", "above", "it"] in lines
    assert any(line[:2] == ["relu_1", "1"] for line in lines)


def sample_feed() -> dict[str, Any]:
    return {"x": sample()[:1]}


def test_inspect_disasm(cli: Cli, tmp_path: Path, manifest: Manifest) -> None:
    """The program, without what would fill screens before it; still assembly."""
    program = replace(UNIT_PROGRAM, constants=bytes(1000), smap=bytes(8))
    path = scu_artifact(tmp_path / "m", manifest, program=program).path
    text = "# 1000 B of .const and 8 B of .smap: see `sparsecc scu disasm`\n" + disassemble(UNIT_PROGRAM, MACHINE)
    assert cli("inspect", path, "--disasm") == Result(0, text, "")
    facts = cli("inspect", path, "--disasm", "--json").json
    assert facts == {"program": str(path / "scu" / "program.scu"), "lines": text.splitlines()}
    assert assemble(text, MACHINE) == UNIT_PROGRAM


def test_one_part_at_a_time(cli: Cli, artifact: Path) -> None:
    assert cli("inspect", artifact, "--contracts", "--disasm") == Result(
        2,
        "",
        "error[SCC087]: --contracts and --disasm exclude each other\n  help: show one after the other\n",
    )


def test_names_in_a_program_reach_no_terminal(cli: Cli, tmp_path: Path, manifest: Manifest) -> None:
    evil = type(UNIT_PROGRAM)(UNIT_PROGRAM.code, meta={**UNIT_PROGRAM.meta, "edges": ["\x1b[2J"]})
    path = scu_artifact(tmp_path / "m", manifest, program=evil).path
    for part in ("--contracts", "--schedule", "--disasm"):
        assert "\x1b" not in cli("inspect", path, part).out
    assert "edge 0" in cli("inspect", path, "--schedule").out


def test_a_report_that_is_none(cli: Cli, tmp_path: Path, manifest: Manifest) -> None:
    path = scu_artifact(tmp_path / "m", manifest, b"{}").path
    for command in (["inspect"], ["inspect", "--contracts"], ["inspect", "--schedule"], ["simulate"]):
        assert cli(*command, path) == Result(
            2,
            "",
            f"error[SCC118]: {path / 'scu' / 'report.json'} is not a readable report: "
            "its schema is null; this sparsecc reads schema 1\n"
            "  help: copy the artifact again, or compile the model again\n",
        )


# ---- scu asm, disasm, verify -----------------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "p.scu"
    path.write_bytes(container.write(UNIT_PROGRAM, MACHINE))
    return path


def test_disassembled_and_assembled_again(cli: Cli, program: Path, tmp_path: Path) -> None:
    text = disassemble(UNIT_PROGRAM, MACHINE)
    assert cli("scu", "disasm", program) == Result(0, text, "")
    assert cli("scu", "disasm", program, "-o", tmp_path / "p.s") == Result(0, "", "")
    assert (tmp_path / "p.s").read_text() == text
    assert cli("scu", "asm", tmp_path / "p.s", "-o", tmp_path / "q.scu") == Result(0, "", "")
    assert (tmp_path / "q.scu").read_bytes() == program.read_bytes()


def test_the_machine_of_a_program(cli: Cli, program: Path, tmp_path: Path) -> None:
    toml = tmp_path / "other.toml"
    toml.write_text('extends = "scu-v1"\nname = "other"\nclock_mhz = 500\n')
    assert cli("scu", "disasm", program, "--target-file", toml).err.startswith("error[SCC092]: ")
    other = json.loads(to_json(MACHINE)) | {"name": "other", "clock_mhz": 500}
    (tmp_path / "target.json").write_text(json.dumps(other))
    assert cli("scu", "disasm", program).err.startswith("error[SCC092]: ")
    (tmp_path / "p.s").write_text("end.in\n")
    assert cli("scu", "asm", tmp_path / "p.s", "-o", program).status == 0
    assert cli("scu", "verify", program).out == f"{program}: nothing to find fault with, on other\n"
    assert cli("scu", "verify", program, "--target-file", tmp_path / "target.json").out == (
        f"{program}: nothing to find fault with, on other\n"
    )
    (tmp_path / "target.json").write_text("{")
    assert cli("scu", "verify", program).err.startswith("error[SCC089]: ")


def test_what_cannot_be_assembled(cli: Cli, tmp_path: Path) -> None:
    source, out = tmp_path / "p.s", tmp_path / "p.scu"
    assert cli("scu", "asm", source, "-o", out) == Result(
        2,
        "",
        f"error[SCC094]: {source} cannot be read: No such file or directory\n"
        "  help: give a file that `sparsecc scu disasm` wrote\n",
    )
    source.write_bytes(b"\xff")
    assert f"{source} cannot be read: it is not text in UTF-8\n" in cli("scu", "asm", source, "-o", out).err
    source.write_text("halt.in\n")
    assert cli("scu", "asm", source, "-o", out).err.startswith(f"error[SCC094]: {source}:1: unknown operation 'halt'")
    source.write_text("signal.in\n")
    assert cli("scu", "asm", source, "-o", out).err.startswith("error[SCC100]: the program: ")
    source.write_text("end.in\n")
    assert cli("scu", "asm", source, "-o", tmp_path).err.startswith(f"error[SCC075]: {tmp_path} cannot be written: ")
    assert [path.name for path in tmp_path.iterdir()] == ["p.s"]


def test_verify_a_program(cli: Cli, program: Path) -> None:
    assert cli("scu", "verify", program) == Result(0, f"{program}: nothing to find fault with, on scu-v1\n", "")
    assert cli("scu", "verify", program, "--quiet") == Result(0, "", "")
    assert cli("scu", "verify", program, "--json").json == {
        "program": str(program), "target": "scu-v1", "ok": True, "findings": [],
    }  # fmt: skip


def test_verify_the_program_of_an_artifact(cli: Cli, artifact: Path) -> None:
    assert cli("scu", "verify", artifact) == Result(0, f"{artifact}: nothing to find fault with, on scu-v1\n", "")


COPY_IN, SEND, RECV, COPY_OUT, END = UNIT_PROGRAM.code
SECOND_SAMPLE = replace(COPY_IN, src=COPY_IN.src + 4 * ELEMS, rel_sem=0, rel_add=0)
"""Fetched while the first is sent."""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ((COPY_IN, replace(SECOND_SAMPLE, dst=COPY_IN.dst + 4 * ELEMS - 4), SEND, RECV, COPY_OUT, END),
         "SCC128  descriptor 1 (COPY, queue IN) writes bytes 252 to 255 of tile0, and does not wait until descriptor 2 "
         "(SEND, queue OUT) has read there: buffers overlap that are alive at once"),
        ((COPY_IN, SEND, RECV, replace(COPY_OUT, acq_sem=0, acq_ge=0), END),
         "SCC106  descriptor 3 (COPY, queue OUT) reads bytes 0 to 255 of tile1, and does not wait until descriptor 2 "
         "(RECV, queue IN) has written there"),
        ((COPY_IN, replace(SEND, dst_st1=BLOCK_BYTES - 32), RECV, COPY_OUT, END),
         "SCC104  {program}: descriptor 1 (SEND): reserves 64 B for a block, expected a multiple of 32 from 96 B"),
    ],
    ids=["overlapping buffers", "missing semaphore", "payload over its bound"],
)  # fmt: skip
def test_verify_finds_a_planted_fault(
    cli: Cli, program: Path, monkeypatch: pytest.MonkeyPatch, code: tuple[Descriptor, ...], message: str
) -> None:
    """A second sample that has its own place is no fault; each of these is, and the only one."""
    apart = replace(SECOND_SAMPLE, dst=COPY_IN.dst + 4 * ELEMS)
    plant(program, (COPY_IN, apart, SEND, RECV, COPY_OUT, END), monkeypatch)
    assert cli("scu", "verify", program).status == 0
    plant(program, code, monkeypatch)
    assert cli("scu", "verify", program) == Result(2, message.format(program=program) + "\n", "")
    facts = cli("scu", "verify", program, "--json").json
    assert not facts["ok"]
    assert [f"{f['code']}  {f['message']}" for f in facts["findings"]] == [message.format(program=program)]
    assert all(f["help"] for f in facts["findings"])


def plant(program: Path, code: tuple[Descriptor, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a program that sparsecc itself would not."""
    with monkeypatch.context() as unchecked:
        unchecked.setattr(container, "_verify", lambda *_: None)
        program.write_bytes(container.write(UnitProgram(code), MACHINE))


def test_verify_finds_what_the_machine_cannot_do(cli: Cli, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(program, UNIT_PROGRAM.code[:-1], monkeypatch)
    assert cli("scu", "verify", program) == Result(2, f"SCC100  {program}: the program does not end with END\n", "")


REFUSED = Path(__file__).parents[1] / "docs" / "conformance" / "refuse"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("truncated",
         "error[SCC090]: {path} is not a readable program: it has 607 B, and its header says 608\n"
         "  help: copy the file again from where it was made, or compile the model again\n"),
        ("sha256",
         "error[SCC093]: {path} was changed after it was written: its SHA-256 does not match\n"
         "  help: copy the file again from where it was made, or compile the model again\n"),
        ("major",
         "error[SCC091]: {path} has format version 2.0; this sparsecc reads version 1\n"
         "  help: use the sparsecc that wrote it, or compile the model again with this one\n"),
    ],
)  # fmt: skip
def test_verify_refuses_a_damaged_file(cli: Cli, name: str, error: str) -> None:
    path = REFUSED / f"{name}.scu"
    said = error.format(path=path)
    assert cli("scu", "verify", path) == Result(2, "", said)
    result = cli("scu", "verify", path, "--json")
    assert (result.status, result.err) == (2, "")
    ((finding,), facts) = result.json["findings"], result.json
    assert (facts["program"], facts["target"], facts["ok"]) == (str(path), "scu-v1", False)
    assert f"error[{finding['code']}]: {finding['message']}\n  help: {finding['help']}\n" == said


def test_verify_refuses_what_is_no_program(cli: Cli, program: Path, tmp_path: Path) -> None:
    data = bytearray(program.read_bytes())
    data[700] ^= 1
    program.write_bytes(data)
    result = cli("scu", "verify", program)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("error[SCC093]: ")
    missing = tmp_path / "no.scu"
    assert cli("scu", "verify", missing) == Result(
        2,
        "",
        f"error[SCC090]: {missing} cannot be read: No such file or directory\n"
        "  help: give the scu/program.scu of an artifact, or what `sparsecc scu asm` wrote\n",
    )
