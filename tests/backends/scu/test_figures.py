"""A program beside its baselines, on machines that have no room for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from programs import seeded
from torch import nn

import sparsecc
from sparsecc.artifact import Artifact
from sparsecc.backends.scu import figures as module
from sparsecc.backends.scu.report_file import Figures, from_json
from sparsecc.contracts.options import ContractOptions
from sparsecc.diagnostics import CompileError


def compiled(folder: Path, link_bytes: int) -> Artifact:
    """An edge of 200 floats: 832 B whole, 896 B without zeros in the worst case, 448 B by contract."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 200), nn.ReLU(), nn.Linear(200, 3))
    target = folder / "small.toml"
    target.write_text(f'extends = "scu-v1"\nname = "small"\n[memory.link]\nbytes = {link_bytes}\n')
    options = ContractOptions(keep=0.5, target_file=target)
    made = sparsecc.compile(model, (seeded(1, 8),), target="scu", contracts=options)
    return made.save(folder / "m.sparsecc")


def figures_of(artifact: Artifact) -> Figures:
    return from_json(artifact.file("scu/report.json").read_bytes(), "report.json").figures


def test_contracts_fit_where_nothing_else_does(tmp_path: Path) -> None:
    found = figures_of(compiled(tmp_path, link_bytes=576))
    assert (found.contracts.link_bytes, found.dense, found.zero_compression) == (448, None, None)
    at = "at relu:send0, memory link has to hold"
    assert found.does_not_fit == {
        "dense": f"{at} 832 B at once and has 576 B for it: relu:blocks0 (832 B)",
        "zero_compression": f"{at} 896 B at once and has 576 B for it: relu:blocks0 (896 B)",
    }


def test_one_baseline_may_fit_alone(tmp_path: Path) -> None:
    artifact = compiled(tmp_path, link_bytes=832)
    found = figures_of(artifact)
    assert found.dense is not None
    assert found.dense.link_bytes == 832
    assert found.zero_compression is None
    assert list(found.does_not_fit) == ["zero_compression"]
    tree = json.loads(artifact.file("scu/report.json").read_text())
    assert tree["figures"]["zero_compression"] is None


def test_both_fit(tmp_path: Path) -> None:
    found = figures_of(compiled(tmp_path, link_bytes=896))
    assert found.dense is not None
    assert found.zero_compression is not None
    assert found.does_not_fit == {}


@pytest.mark.parametrize(("code", "fits"), [("SCC111", False), ("SCC112", False), ("SCC113", True), ("SCC110", True)])
def test_only_a_lack_of_room_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, fits: bool
) -> None:
    """``fits``: or fails for another reason."""

    def refuse(*_: object, **__: object) -> None:
        raise CompileError.of(code, "no")

    monkeypatch.setattr(module, "scheduled", refuse)
    if fits:
        with pytest.raises(CompileError, match=f"{code}.*: no"):
            compiled(tmp_path, link_bytes=896)
    else:
        assert figures_of(compiled(tmp_path, link_bytes=896)).does_not_fit == {"dense": "no", "zero_compression": "no"}
