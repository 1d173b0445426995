"""Another package's pass and target, found through its entry points and used like the built-in ones."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from sparsecc import api, pipelines
from sparsecc.backend import BACKENDS
from sparsecc.backends.onnxruntime.session import bench, verify
from sparsecc.capture import capture
from sparsecc.diagnostics import CompileError
from sparsecc.pipelines import PASSES

PLUGIN = Path(__file__).parent


class TwiceActivated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 32)
        self.linear.weight.data[:, 8:] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.relu(self.linear(x)))


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder into which pip installed the package; it is on the path meanwhile."""
    site = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "plugin"
    copy_package(source)
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation")
    subprocess.run((*pip, "--target", str(site), str(source)), check=True)
    sys.path.insert(0, str(site))
    forget_entry_points()
    yield site
    sys.path.remove(str(site))
    forget_entry_points()


def copy_package(target: Path) -> None:
    for file in (PLUGIN / "pyproject.toml", *(PLUGIN / "sparsecc_example").iterdir()):
        if file.is_file():
            copy = target / file.relative_to(PLUGIN)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())


def forget_entry_points() -> None:
    """The registries look for packages once; a test that installs one has to make them look again."""
    for registry in (PASSES, BACKENDS):
        registry.__dict__.pop("_table", None)


@pytest.mark.usefixtures("plugin")
def test_pass_is_found_by_name_and_works() -> None:
    assert PASSES.names()[-1] == "drop-repeated-relu"
    program = capture(TwiceActivated(), (torch.ones(1, 64),))
    program, records = pipelines.parse("canonicalize,drop-repeated-relu").run(program)
    assert [note.text for note in records[1].notes] == ["relu twice"]
    assert len(program.graph.find_nodes(op="call_function", target=torch.ops.aten.relu.default)) == 1


@pytest.mark.usefixtures("plugin")
def test_target_is_found_by_name_and_compiles(tmp_path: Path) -> None:
    assert "plain-onnx" in BACKENDS.names()
    artifact = api.compile(TwiceActivated(), (torch.ones(1, 64),), target="plain-onnx").save(tmp_path / "m.sparsecc")
    assert sorted(artifact.manifest.files) == ["golden.npz", "model.onnx"]
    assert "drop-repeated-relu" in [record.name for record in artifact.manifest.passes]
    assert all(verdict.ok for verdict in verify(artifact))
    with pytest.raises(CompileError, match="SCC078"):
        bench(artifact)  # the target keeps no original


def test_command_line_offers_both(plugin: Path) -> None:
    def names(command: str, *path: str) -> set[str]:
        environment = {**os.environ, "PYTHONPATH": str(plugin)}
        line = (sys.executable, "-m", "sparsecc", command, "--json")
        facts = json.loads(subprocess.run(line, env=environment, check=True, stdout=subprocess.PIPE).stdout)
        for key in path:
            facts = facts[key]
        return {fact["name"] for fact in facts}

    assert "plain-onnx" in names("targets")
    assert "drop-repeated-relu" in names("passes", "passes")
