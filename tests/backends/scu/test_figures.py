"""A program beside its baselines, on machines that have little room for them."""

from __future__ import annotations

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


def test_baselines_take_tiles_whose_blocks_fit(tmp_path: Path) -> None:
    """Without a contract 200 elements are one tile, whose block of 832 B (896 B without zeros) has no room here."""
    found = figures_of(compiled(tmp_path, link_bytes=576))
    assert found.does_not_fit == {}
    assert found.dense is not None
    assert found.zero_compression is not None
    assert found.contracts.link_bytes == 448
    assert found.dense.link_bytes == 544 + 320  # RAW of 128 and 72 elements
    assert 0 < found.zero_compression.link_bytes <= 576 + 352  # BITMASK of them, at most


def test_what_fits_in_no_tile_spills(tmp_path: Path) -> None:
    """RAW of 64 elements has 288 B: half of them fit the link, the baselines go through DRAM."""
    found, roomy = (figures_of(compiled(tmp_path, link_bytes)) for link_bytes in (256, 832))
    assert found.dense is not None
    assert roomy.dense is not None
    assert found.zero_compression is not None
    assert (found.contracts.link_bytes, found.dense.link_bytes, found.zero_compression.link_bytes) == (544, 0, 0)
    assert found.dense.dram_bytes - roomy.dense.dram_bytes == 2 * 832  # written and read


def test_a_roomy_link(tmp_path: Path) -> None:
    found = figures_of(compiled(tmp_path, link_bytes=896))
    assert found.dense is not None
    assert found.dense.link_bytes == 832
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
