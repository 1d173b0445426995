"""The command line as people meet it: what it prints where, its exit status, what it leaves on disk."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Cli, Result
from rich.console import Console
from torch import nn

import sparsecc
from sparsecc import artifact as artifacts
from sparsecc.backends.onnxruntime.native import own_isa
from sparsecc.backends.onnxruntime.session import Verdict
from sparsecc.cli_options import parse_axes
from sparsecc.demo import outcome
from sparsecc.diagnostics import CompileError, PassBug
from sparsecc.manifest import Check, Pruned
from sparsecc.report import summary_facts, verify_table
from sparsecc.report.text import duration


def small_model() -> nn.Module:
    """A perceptron with nine of ten weights zero."""
    torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]  torch does not say what a seed is
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))
    for layer in (model[0], model[2]):
        assert isinstance(layer, nn.Linear)
        layer.weight.data[torch.rand(layer.weight.shape) < 0.9] = 0
    return model.eval()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    sparsecc.save(small_model(), (torch.randn(4, 64),), path, dynamic={"batch": 0})
    return path


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled from a module, with the cost model, which needs no quiet machine."""
    compiled = sparsecc.compile(small_model(), (torch.randn(4, 64),), dynamic={"batch": 0}, tune=False)
    return compiled.save(tmp_path_factory.mktemp("artifact") / "small.sparsecc").path


@pytest.fixture
def x(tmp_path: Path) -> Path:
    """Three samples under the name of the model's input."""
    path = tmp_path / "x.npz"
    np.savez(path, input_1=np.random.default_rng(0).standard_normal((3, 64), np.float32))
    return path


# ---- help and lists --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["compile", "--help"], ["explain", "SCC012"]])
def test_what_needs_no_compiler_waits_for_none(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['sparsecc', *{arguments}]\n"
        "from sparsecc.cli import main\n"
        "try: main()\n"
        "except SystemExit as exit: status = exit.code\n"
        "heavy = {'torch', 'tvm', 'onnx'} & sys.modules.keys()\n"
        "sys.exit(f'status {status}, imported {heavy}' if status or heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_every_command_is_in_the_help(cli: Cli) -> None:
    text = cli("--help").out
    for name in (
        "compile",
        "run",
        "verify",
        "simulate",
        "inspect",
        "bench",
        "demo",
        "passes",
        "targets",
        "formats",
        "explain",
        "scu",
    ):
        assert f" {name} " in text


def test_lists(cli: Cli) -> None:
    assert [form["name"] for form in cli("formats", "--json").json][:2] == ["dense", "csr"]
    assert "cpu" in [target["name"] for target in cli("targets", "--json").json]
    passes = cli("passes", "--json").json
    names = [fact["name"] for fact in passes["passes"]]
    assert all(name in names for name in passes["pipelines"]["cpu"].split(","))
    assert "compressed sparse rows" in cli("formats").out
    assert "weights-constant" in cli("passes").out


def test_explain(cli: Cli) -> None:
    assert cli("explain", "SCC013").out.startswith("SCC013: model in training mode\n\n")
    assert "SCC013  model in training mode\n" in cli("explain").out
    listed = cli("explain", "--json").json
    assert all(fact.keys() == {"code", "title", "why", "fix"} for fact in listed)
    assert cli("explain", "scc013", "--json").json in listed
    assert max(map(len, cli("explain").out.splitlines())) <= 100
    assert cli("explain", "SCC999") == Result(
        2, "", "error[SCC088]: there is no code 'SCC999'\n  help: `sparsecc explain` lists them all\n"
    )


@pytest.mark.parametrize("arguments", [["compile"], ["compil"], ["inspect", "--jsn"], ["bench", "m", "--runs", "0"]])
def test_a_command_that_cannot_be_understood(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert (result.status, result.out) == (2, "")
    assert "Usage: " in result.err
    assert "Traceback" not in result.err


# ---- compile ---------------------------------------------------------------------------------------------------------


def test_compile_writes_an_artifact_and_says_where_to_go(cli: Cli, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.sparsecc"
    result = cli("compile", model_file, "-o", out, "--no-tune")
    assert result.status == 0
    assert f"sparsecc inspect {out}" in result.out
    assert "not measured (--no-tune)" in result.out
    assert "pass pack-weights\n" in result.err
    assert sparsecc.Artifact.open(out).manifest.inputs[0].shape == ("batch", 64)


def test_compile_json_and_quiet(cli: Cli, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.sparsecc"
    result = cli("compile", model_file, "-o", out, "--no-tune", "--json", "--quiet")
    assert (result.status, result.err) == (0, "")
    assert result.json["artifact"] == str(out)
    assert result.json["weights_bytes"]["dense"] == 4 * (64 * 96 + 96 * 10)
    assert result.json["weights_bytes"]["stored"] < result.json["weights_bytes"]["dense"] / 4
    assert cli("compile", model_file, "-o", out, "--no-tune", "--quiet") == Result(0, "", "")


def test_pruning_on_the_way_in_is_said_loudly(cli: Cli, model_file: Path, tmp_path: Path) -> None:
    result = cli("compile", model_file, "-o", tmp_path / "m.sparsecc", "--no-tune", "--sparsity", "0.95", "--quiet")
    assert result.err == (
        "WARNING: --sparsity 0.95 cut weights off by magnitude, and nothing was retrained. Speed and size are real; "
        "the accuracy is not the model's any more. Measure it, or prune while training.\n"
    )


def test_missing_model(cli: Cli, tmp_path: Path) -> None:
    result = cli("compile", tmp_path / "nothing.pt", "-o", tmp_path / "m.sparsecc", "--quiet")
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"error[SCC010]: {tmp_path / 'nothing.pt'}")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_artifact_is_not_replaced(cli: Cli, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = cli("compile", model_file, "-o", tmp_path / "thesis.txt", "--no-tune", "--quiet")
    assert result.status == 2
    assert result.err.startswith("error[SCC063]")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["years of work"]


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ("batch", {"batch": 0}),
        ("batch,sequence", {"batch": 0, "sequence": 1}),
        ("n=0, frames=2", {"n": 0, "frames": 2}),
    ],
)
def test_dynamic_axes(text: str, axes: dict[str, int]) -> None:
    assert parse_axes(text) == axes


@pytest.mark.parametrize(("text", "culprit"), [("frames", "frames"), ("batch,", ""), ("a=-1", "a=-1"), ("2=2", "2=2")])
def test_axes_that_mean_nothing(text: str, culprit: str) -> None:
    with pytest.raises(CompileError) as caught:
        parse_axes(text)
    assert str(caught.value) == (
        f"error[SCC087]: --dynamic '{text}' names no axis at '{culprit}'\n"
        "  help: use batch (axis 0), sequence (axis 1) or NAME=AXIS: --dynamic batch,frames=2"
    )


def test_a_bug_is_not_the_users_fault(cli: Cli, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise PassBug("fold-masks", [])

    monkeypatch.setattr("sparsecc.api.compile", broken)
    with pytest.raises(PassBug):
        cli("compile", model_file)


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sparsecc", "demo", "-o", str(tmp_path / "m.sparsecc")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("pass choose-formats"):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "stopping after this step; press again to stop at once\n" in err
    assert err.endswith("interrupted; nothing was written\n")
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


# ---- run, verify, inspect, bench -------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["onnxruntime", "portable", "reference"])
def test_run_writes_what_torch_computes(cli: Cli, artifact: Path, x: Path, tmp_path: Path, engine: str) -> None:
    out = tmp_path / "results"  # exactly this name: numpy would add a suffix
    result = cli("run", artifact, "--inputs", x, "-o", out, "--engine", engine)
    assert result.status == 0
    assert f"written to {out}" in result.out
    with torch.inference_mode():
        expected = small_model()(torch.as_tensor(np.load(x)["input_1"]))
    with np.load(out) as outputs:
        np.testing.assert_allclose(outputs["output"], expected.numpy(), atol=1e-5)


def test_unnamed_arrays_are_taken_in_order(cli: Cli, artifact: Path, x: Path, tmp_path: Path) -> None:
    array = np.load(x)["input_1"]
    np.savez(tmp_path / "unnamed.npz", array)
    np.save(tmp_path / "one.npy", array)
    results = [
        cli("run", artifact, "--inputs", f, "--json").json for f in (x, tmp_path / "unnamed.npz", tmp_path / "one.npy")
    ]
    assert results[0] == results[1] == results[2]
    assert np.shape(results[0]["outputs"]["output"]["values"]) == (3, 10)


def test_run_refuses(cli: Cli, artifact: Path, x: Path, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.npz"
    garbage.write_bytes(b"PK\x03\x04 and no more")
    np.savez(tmp_path / "pickle.npz", input_1=np.array([{}], dtype=object))
    (tmp_path / "junk.npz").write_bytes(b"junk")
    np.savez_compressed(tmp_path / "damaged.npz", input_1=np.arange(1000))
    damaged = bytearray((tmp_path / "damaged.npz").read_bytes())
    damaged[100:200] = bytes(100)
    (tmp_path / "damaged.npz").write_bytes(damaged)
    no_arrays = "it is damaged, or holds something else than arrays of numbers"
    reasons = dict.fromkeys(("garbage.npz", "pickle.npz", "junk.npz", "damaged.npz"), no_arrays)
    for name, reason in {**reasons, "missing.npz": "No such file or directory"}.items():
        assert cli("run", artifact, "--inputs", tmp_path / name) == Result(
            2,
            "",
            f"error[SCC076]: {tmp_path / name} cannot be read: {reason}\n"
            "  help: write it with numpy: np.savez('x.npz', name=array)\n",
        )
    assert cli("run", artifact, "--inputs", x, "--engine", "portabel") == Result(
        2,
        "",
        "error[SCC087]: there is no engine 'portabel'\n"
        "  help: did you mean 'portable'? known: onnxruntime, portable, reference, scu\n",
    )
    assert cli("run", artifact, "--inputs", x, "-o", tmp_path / "no" / "y.npz").err == (
        f"error[SCC075]: {tmp_path / 'no' / 'y.npz'} cannot be written: No such file or directory\n"
        "  help: choose another path with -o\n"
    )


def test_verify(cli: Cli, artifact: Path) -> None:
    result = cli("verify", artifact, "--json")
    assert result.status == 0
    assert {(v["engine"], v["ok"]) for v in result.json} == {
        (e, True) for e in ("onnxruntime", "portable", "reference")
    }
    assert "equal" in cli("verify", artifact).out
    assert cli("verify", artifact, "--quiet") == Result(0, "", "")


def test_verify_tells_a_model_that_differs(cli: Cli, artifact: Path, tmp_path: Path) -> None:
    good = sparsecc.Artifact.open(artifact)
    inputs, outputs = good.golden()
    files = {name: good.file(name).read_bytes() for name in good.manifest.files}
    files["golden.npz"] = artifacts.golden_npz(inputs, {"output": np.multiply(outputs["output"], np.float32(1.01))})
    result = cli("verify", artifacts.write(tmp_path / "bad.sparsecc", files, good.manifest).path)
    assert result.status == 1
    assert "DIFFERENT" in result.out


def test_an_engine_that_could_not_compare_is_not_called_equal() -> None:
    verdicts = [Verdict("reference", "y", None, 1e-4, True, "lacks Foo"), Verdict("portable", "y", 2e-5, 1e-4, True)]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(verify_table(verdicts, Check(1e-4, None, 2e-5, None)))
    lines = [line.split() for line in console.export_text().splitlines() if "y" in line.split()]
    assert lines == [
        ["reference", "y", "-", "1e-04", "not", "compared:", "lacks", "Foo"],
        ["portable", "y", "2.0e-05", "1e-04", "equal"],
    ]


def test_inspect(cli: Cli, artifact: Path) -> None:
    manifest = sparsecc.Artifact.open(artifact).manifest
    assert cli("inspect", artifact, "--json").json == json.loads((artifact / "manifest.json").read_text())
    text = cli("inspect", artifact).out
    assert "input_1: float32[batch, 64]" in text
    for layer in manifest.layers.values():
        assert layer.weight in text
        assert layer.reason[:40] in text
    assert cli("inspect", artifact, "--quiet") == Result(0, "", "")


def test_inspect_names_the_file_and_no_folder(cli: Cli, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.sparsecc"
    cli("compile", model_file, "-o", out, "--no-tune", "--quiet")
    assert "file model.pt, SHA-256 " in cli("inspect", out).out
    assert str(model_file.parent) not in (out / "manifest.json").read_text()


def test_inspect_says_why_there_are_no_regions(cli: Cli, artifact: Path, tmp_path: Path) -> None:
    good = sparsecc.Artifact.open(artifact)
    files = {name: good.file(name).read_bytes() for name in good.manifest.files}
    path = artifacts.write(tmp_path / "plain.sparsecc", files, replace(good.manifest, regions=())).path
    text = cli("inspect", path).out
    assert "no regions: onnxruntime computes every layer by itself; the reasons are below\n" in text
    assert "memory" not in text  # a column of the table of regions


def test_inspect_tells_what_is_estimated(cli: Cli, artifact: Path) -> None:
    (layer, *_) = sparsecc.Artifact.open(artifact).manifest.layers.values()
    (plain,) = (c for c in layer.candidates if c.kernel == "onnxruntime")
    assert f"onnxruntime {duration(plain.microseconds * 1e-6)} + 3 µs estimated" in cli("inspect", artifact).out


def test_a_shared_weight_is_counted_once(tmp_path: Path) -> None:
    layer = nn.Linear(64, 64)
    layer.weight.data[torch.arange(64 * 64).reshape(64, 64) % 10 > 0] = 0
    compiled = sparsecc.compile(nn.Sequential(layer, nn.ReLU(), layer), (torch.randn(4, 64),), tune=False)
    facts = summary_facts(compiled.save(tmp_path / "m.sparsecc"))
    (stored,) = {layer.stored_bytes for layer in compiled.manifest.layers.values()}
    assert facts["layers"] == {"sparse": 2, "dense": 0}
    assert facts["weights_bytes"] == {"dense": 4 * 64 * 64, "stored": stored}


def test_inspect_repeats_that_nothing_was_retrained(cli: Cli, artifact: Path, tmp_path: Path) -> None:
    good = sparsecc.Artifact.open(artifact)
    files = {name: good.file(name).read_bytes() for name in good.manifest.files}
    pruned = replace(good.manifest, pruned=Pruned(0.5, "by magnitude"))
    path = artifacts.write(tmp_path / "pruned.sparsecc", files, pruned).path
    assert cli("inspect", path).out.startswith("WARNING: --sparsity 0.5 cut weights off by magnitude")


def test_what_is_no_artifact_is_refused(cli: Cli, tmp_path: Path) -> None:
    for command in (["verify"], ["inspect"], ["bench"], ["run", "--inputs", "x.npz"]):
        result = cli(*command, tmp_path / "nothing")
        assert (result.status, result.out) == (2, "")
        assert result.err.startswith(f"error[SCC060]: {tmp_path / 'nothing'} does not exist\n")


def test_bench(cli: Cli, artifact: Path, x: Path) -> None:
    facts = cli("bench", artifact, "--runs", "3", "--inputs", x, "--json").json
    assert facts["runs"] == 3
    assert facts["shapes"] == {"input_1": [3, 64]}
    assert facts["dense"]["min_ms"] <= facts["dense"]["median_ms"]
    result = cli("bench", artifact, "--runs", "3")
    assert "3 pairs of calls in turn, 1 thread, input_1[4, 64]" in result.out
    assert f"{facts['compiled_bytes'] / facts['dense_bytes']:.2f} of dense " in result.out
    assert result.err == "restoring the dense original\nmeasuring against the dense original\n"
    assert cli("bench", artifact, "--runs", "3", "--quiet") == Result(0, "", "")
    assert cli("bench", artifact, "--runs", "3", "--quiet", "--json").json["dense_bytes"] > 4 * (64 * 96 + 96 * 10)


def test_bench_profile(cli: Cli, artifact: Path, x: Path) -> None:
    facts = cli("bench", artifact, "--profile", "--runs", "3", "--inputs", x, "--json").json
    assert (facts["runs"], facts["threads"]) == (3, 1)
    (region,) = (node for node in facts["nodes"] if node["region"])
    assert sum(node["share"] for node in facts["nodes"]) == pytest.approx(1)
    assert {kernel["region"] for kernel in facts["kernels"]} == {region["name"]}
    assert sum(kernel["share"] for kernel in facts["kernels"]) == pytest.approx(1)
    products = [kernel for kernel in facts["kernels"] if kernel["flops"]]
    layers = sparsecc.Artifact.open(artifact).manifest.layers
    samples = 3  # one by one
    assert [k["flops"] for k in products] == [2 * layer.nonzeros * samples for layer in layers.values()]
    for kernel in products:
        assert kernel["gflops"] == pytest.approx(kernel["flops"] / kernel["ms"] / 1e6)
        assert kernel["peak_share"] == pytest.approx(kernel["gflops"] / facts["peak_gflops"])
        assert kernel["bound_ms"] >= kernel["flops"] / facts["peak_gflops"] / 1e6 * 0.999
    result = cli("bench", artifact, "--profile", "--runs", "3")
    assert "nodes, 1 thread" in result.out
    assert all(kernel["kernel"] in result.out for kernel in facts["kernels"])
    assert result.err == "measuring nodes\nmeasuring kernels\n"


def test_inspect_profile_shows_what_was_expected(cli: Cli, artifact: Path) -> None:
    manifest = sparsecc.Artifact.open(artifact).manifest
    facts = cli("inspect", artifact, "--profile", "--json").json
    profile = facts.pop("profile")
    assert facts == json.loads((artifact / "manifest.json").read_text())
    assert profile.keys() > cli("bench", artifact, "--profile", "--runs", "3", "--json").json.keys()
    assert [layer["layer"] for layer in profile["layers"]] == list(manifest.layers)
    samples = 4  # of the artifact
    for found, layer in zip(profile["layers"], manifest.layers.values(), strict=True):
        (expected,) = (c.microseconds for c in layer.candidates if c.kernel == layer.kernel)
        assert found["expected_ms"] == expected * 1e-3
        steps = [k for k in profile["kernels"] if f"{k['step']}.".startswith(f"{found['layer']}.")]
        assert found["measured_ms"] == pytest.approx(sum(k["ms"] for k in steps))
        assert found["gflops"] == pytest.approx(2 * layer.nonzeros * samples / found["measured_ms"] / 1e6)
        assert found["peak_share"] == pytest.approx(found["gflops"] / profile["peak_gflops"])
        assert found["bound_ms"] == pytest.approx(sum(k["bound_ms"] for k in steps))

    result = cli("inspect", artifact, "--profile")
    titles = ("reasons", "layers, as compile expected them and as measured now, 1 thread", "kernels, 1 thread")
    assert [result.out.index(title) for title in titles] == sorted(result.out.index(title) for title in titles)
    assert result.err == "measuring nodes\nmeasuring kernels\n"


def test_inspect_shows_a_profile_or_a_part(cli: Cli, artifact: Path) -> None:
    result = cli("inspect", artifact, "--profile", "--contracts")
    assert (result.status, result.out) == (2, "")
    assert result.err == (
        "error[SCC087]: --profile and --contracts exclude each other\n  help: show one after the other\n"
    )


def test_a_profile_needs_kernels(cli: Cli, tmp_path: Path) -> None:
    path = sparsecc.compile(torch.nn.Linear(4, 4), (torch.randn(2, 4),), tune=False).save(tmp_path / "dense").path
    result = cli("bench", path, "--profile")
    assert (result.status, result.out) == (2, "")
    assert result.err == (
        f"error[SCC127]: {path} has no kernels.so, so there are no kernels to profile\n"
        "  help: sparsecc inspect says why every layer stayed dense; bench without --profile measures the whole\n"
    )


def test_demo_classifies_digits(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "lenet5.sparsecc"
    result = cli("demo", "-o", path, "--json", "--quiet")
    assert (result.status, result.err) == (0, "")
    assert result.json["same_class_as_torch"] == result.json["digits"] == 200
    assert result.json["correct"] >= 190
    layers = json.loads((path / "manifest.json").read_text())["layers"].values()
    assert sum(layer["stored_bytes"] for layer in layers) == result.json["weights_bytes"]["stored"]
    for layer in layers:  # which of them gain depends on the machine: without AVX-512, small linear layers do not
        assert layer["format"] == "dense" or layer["stored_bytes"] <= 0.25 * 4 * layer["rows"] * layer["cols"]
    assert any(layer["format"] != "dense" for layer in layers)
    if own_isa() == "avx512":
        assert result.json["weights_bytes"]["stored"] <= 0.25 * result.json["weights_bytes"]["dense"]
    for regions in (0, 1):
        console = Console(width=400, record=True, file=io.StringIO())
        console.print(outcome({**result.json, "regions": regions}))
        assert (f'library("{path}/kernels.so")' in console.export_text(clear=False)) == (regions > 0)
        assert f'  session = ort.InferenceSession("{path}/model.onnx"' in console.export_text()
