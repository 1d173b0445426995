"""Pictures: what is drawn is as long and as bright as the numbers say, and the same numbers give the same file."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
from command_line import Cli, Result
from matplotlib.axes import Axes
from PIL import Image
from scu_artifact import report_tree, scu_artifact

from sparsecc.artifact import golden_npz, write
from sparsecc.contracts import WHOLE, Contract, Key, Settlement, save_settlement
from sparsecc.contracts.maps import SensitivityMap
from sparsecc.contracts.measures import Estimate
from sparsecc.diagnostics import CompileError
from sparsecc.manifest import Manifest
from sparsecc.plots import SUFFIXES, plot_contracts, plot_layers
from sparsecc.plots.drawing import BLUE, GREY
from sparsecc.program import Candidate, Layer

ROOT = Path(__file__).parents[1]
MOST_SENSITIVE = "#fee838"
"""The bright end of cividis."""


def edge(name: str = "relu_1", share: float = 0.25, **more: object) -> dict[str, Any]:
    sizes = {"elems": 64, "dense_bytes": 256, "settled_bytes": 1}
    return {"edge": name, "settled_q16": round(share * WHOLE), **sizes, **more}


def sensitivity(values: object, block: int = 1) -> SensitivityMap:
    entries = np.asarray(values, np.uint8)
    return SensitivityMap(block, entries, entries, np.zeros(len(entries), np.uint16), 1.0)


def contract(name: str, order: str = "rows") -> Contract:
    return replace(Contract.fixed(name, Key("float32"), WHOLE // 4), order=order)


def pixels(path: Path, color: str) -> int:
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((abs(image - wanted).max(-1) <= 2).sum())


# ---- contracts -------------------------------------------------------------------------------------------------------


def test_bars_are_as_long_as_shares(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    found = list[int]()
    for share in (0.0, 0.25, 0.5, 1.0):
        plot_contracts([edge(share=share)], path)
        found.append(pixels(path, BLUE))
    bars = np.diff(found)
    np.testing.assert_allclose(bars / bars[0], [1, 1, 2], rtol=0.02)


def test_maps_are_as_bright_as_sensitive(tmp_path: Path) -> None:
    path = tmp_path / "p.png"

    def bright(values: object) -> int:
        plot_contracts([edge()], path, maps={"relu_1": sensitivity(values)})
        return pixels(path, MOST_SENSITIVE)

    none = bright([0] * 16)  # the key has some
    one, half, every = (bright([255] * n + [0] * (16 - n)) - none for n in (1, 8, 16))
    np.testing.assert_allclose([half / one, every / one], [8, 16], rtol=0.1)
    assert bright([*[0] * 4000, 255, *[0] * 95]) > none  # one of 4096 is not lost
    assert bright(np.zeros(4096)) == none


def test_every_field_may_be_missing_but_the_share(tmp_path: Path) -> None:
    log = [edge(), {"edge": "b"}, {"settled_q16": 1}, {"edge": "c", "settled_q16": "x", "dense_bytes": None}]
    plot_contracts(log, tmp_path / "p.png", [contract("b", "channels-last")], {"b": sensitivity([1, 255])})
    assert Image.open(tmp_path / "p.png").size[0] == 1500


@pytest.mark.parametrize(
    ("log", "why"), [([], "the model has no edges"), ([{"edge": "a", "dense_bytes": 4}], "no edge has a share")]
)
def test_no_contracts(tmp_path: Path, log: list[dict[str, Any]], why: str) -> None:
    path = tmp_path / "p.svg"
    path.write_text("old")
    with pytest.raises(CompileError) as caught:
        plot_contracts(log, path)
    assert str(caught.value) == (
        f"error[SCC126]: there is nothing to plot: {why}\n"
        "  help: compile a model of at least two layers with --target scu"
    )
    assert path.read_text() == "old"


# ---- layers ----------------------------------------------------------------------------------------------------------


def layer(kernel: str, *candidates: Candidate, weight: str = "fc.weight") -> Layer:
    return Layer(weight, 2, 3, "plain zeros", 2, "csr", kernel, 24, candidates, "")


def test_bars_are_as_long_as_times(tmp_path: Path, manifest: Manifest) -> None:
    path = tmp_path / "p.png"
    times = (Candidate("csr", 2.0), Candidate("bsr4x1", 9.0), Candidate("dense", 8.0), Candidate("onnxruntime", 7.0, 3))
    plot_layers(replace(manifest, layers={"linear": layer("csr", *times)}), path)
    assert pixels(path, GREY) / pixels(path, BLUE) == pytest.approx(4, rel=0.1)  # spines are grey too


def test_an_estimate_counts_where_there_is_a_region_to_leave(tmp_path: Path, manifest: Manifest) -> None:
    within, alone = tmp_path / "within.svg", tmp_path / "alone.svg"
    layers = {"linear": layer("onnxruntime", Candidate("csr", 2.0), Candidate("onnxruntime", 1.0, 3.0))}
    plot_layers(replace(manifest, layers=layers), within)
    plot_layers(replace(manifest, layers=layers, regions=()), alone)
    assert "<pattern" in within.read_text()  # a hatch
    assert "<pattern" not in alone.read_text()


@pytest.mark.parametrize("weight", ["", "$x^{", "a.b" * 100, "<&>", "重み"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_are_no_formulas(tmp_path: Path, manifest: Manifest, weight: str) -> None:
    layers = {"linear": layer("csr", Candidate("csr", 0.0), weight=weight)}
    plot_layers(replace(manifest, layers=layers), tmp_path / "p.svg")
    assert (tmp_path / "p.svg").read_text().endswith("</svg>\n")


@pytest.mark.parametrize(
    ("layers", "why"), [({}, "the model has no layers"), ({"a": layer("csr")}, "no layer has times")]
)
def test_no_layers(tmp_path: Path, manifest: Manifest, layers: dict[str, Layer], why: str) -> None:
    with pytest.raises(CompileError) as caught:
        plot_layers(replace(manifest, layers=layers), tmp_path / "p.svg")
    assert str(caught.value) == (
        f"error[SCC126]: there is nothing to plot: {why}\n"
        "  help: compile the model with --target cpu, without a --pipeline of your own"
    )


# ---- files -----------------------------------------------------------------------------------------------------------


def draw_contracts(path: Path) -> None:
    plot_contracts([edge(), edge("b", 0.5)], path, [contract("b", "channels-last")], {"b": sensitivity(range(256))})


def traffic(path: Path, leave_out: Collection[tuple[str, int]] = ()) -> None:
    """The benchmark's picture, from the rows that are stored, without some forms on some links."""
    spec = importlib.util.spec_from_file_location("benchmark_plots", ROOT / "benchmarks" / "plots.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = json.loads((ROOT / "benchmarks" / "contracts.json").read_text())["traffic"]
    rows = [row for row in rows if (row["form"], row["link_bytes_per_cycle"]) not in leave_out]
    module.plot_traffic([SimpleNamespace(**row) for row in rows], path)


@pytest.mark.parametrize(
    ("unfit", "points"),
    [((), 6), ([("zero_compression", 4)], 5), ([("dense", 4)], 4), ([("dense", n) for n in (4, 16, 64)], 0)],
)
def test_forms_that_do_not_fit_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unfit: list[tuple[str, int]], points: int
) -> None:
    """Of 4 networks, 2 quantities. Where dense does not fit, there is nothing to compare with."""
    labels = list[str]()
    monkeypatch.setattr(Axes, "annotate", lambda _, text, *__, **___: labels.append(text))
    traffic(tmp_path / "p.svg", unfit)
    assert len(labels) == 8 * points


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("draw", [draw_contracts, traffic])
def test_the_same_data_give_the_same_bytes(tmp_path: Path, draw: Callable[[Path], None], suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    draw(path)
    first = path.read_bytes()
    assert first.startswith({".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix])
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": "another", "axes.grid": True}):
        draw(path)
        assert matplotlib.rcParams["font.size"] == 20
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


def test_the_readme_shows_the_benchmark() -> None:
    assert "](docs/contracts.svg)" in (ROOT / "README.md").read_text()
    assert "</svg>" in (ROOT / "docs" / "contracts.svg").read_text()


# ---- inspect --plot --------------------------------------------------------------------------------------------------


def test_inspect_draws_contracts_with_their_maps(cli: Cli, tmp_path: Path, manifest: Manifest) -> None:
    artifact, path = scu_artifact(tmp_path / "m.sparsecc", manifest), tmp_path / "p.png"
    table = cli("inspect", artifact.path, "--contracts").out
    assert cli("inspect", artifact.path, "--contracts", "--plot", path) == Result(0, table, "")
    without = pixels(path, MOST_SENSITIVE)
    assert without == 0 < pixels(path, BLUE)

    unsure = Estimate(1.0, 0.5, 1.0, 8)
    maps = {"relu_1": sensitivity([255, 0])}
    settlement = Settlement((contract("relu_1"),), maps, (), "cross-entropy", "agreement", unsure, unsure, maps)
    save_settlement(settlement, artifact.path / "scu" / "contracts")
    assert cli("inspect", artifact.path, "--quiet", "--plot", path) == Result(0, "", "")
    assert pixels(path, MOST_SENSITIVE) > 100


def test_inspect_draws_shares_that_were_given(cli: Cli, tmp_path: Path, manifest: Manifest) -> None:
    artifact = scu_artifact(tmp_path / "m.sparsecc", manifest, {**report_tree(), "settlement": None})
    assert cli("inspect", artifact.path, "-q", "--plot", tmp_path / "p.png") == Result(0, "", "")
    assert pixels(tmp_path / "p.png", BLUE) > 100


def test_inspect_draws_layers(cli: Cli, tmp_path: Path, manifest: Manifest) -> None:
    x = np.zeros((1, 3), np.float32)
    files = {"model.onnx": b"", "golden.npz": golden_npz({"x": x}, {"y": x[:, :2]})}
    artifact = write(tmp_path / "m.sparsecc", files, manifest).path
    assert cli("inspect", artifact, "-q", "--plot", tmp_path / "p.svg") == Result(0, "", "")
    assert (tmp_path / "p.svg").exists()


def test_a_place_or_kind_that_cannot_be(cli: Cli, tmp_path: Path, manifest: Manifest) -> None:
    artifact = scu_artifact(tmp_path / "m.sparsecc", manifest).path
    for name in ("p.jpg", "p"):
        path = tmp_path / name
        assert cli("inspect", artifact, "--plot", path) == Result(
            2,
            "",
            f"error[SCC087]: --plot {path} is no picture that can be drawn\n"
            "  help: end the name with .svg, .png or .pdf\n",
        )
    path = tmp_path / "none" / "p.svg"
    assert cli("inspect", artifact, "--plot", path) == Result(
        2,
        "",
        f"error[SCC075]: {path} cannot be written: No such file or directory\n"
        "  help: choose another path with --plot\n",
    )


def test_without_matplotlib(cli: Cli, tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = scu_artifact(tmp_path / "m.sparsecc", manifest).path
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli("inspect", artifact, "--plot", tmp_path / "p.svg") == Result(
        2,
        "",
        "error[SCC125]: pictures are drawn by matplotlib: import of matplotlib.figure halted; None in sys.modules\n"
        "  help: pip install 'sparsecc[plot]'\n",
    )
    assert cli("inspect", artifact, "--quiet") == Result(0, "", "")
