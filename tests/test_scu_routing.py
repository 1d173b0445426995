"""Target scu where elements are ranked by |a| times the gradient part of a map: all engines select the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from contracts.nets import small
from programs import seeded

import sparsecc
from sparsecc.artifact import Artifact
from sparsecc.backends.onnxruntime.session import Engine, open_session, verify
from sparsecc.backends.scu.descriptor import Flag, Op
from sparsecc.backends.scu.host import open_unit
from sparsecc.contracts import load_contracts
from sparsecc.contracts.options import ContractOptions
from sparsecc.contracts.procedure import Routing


def compiled(folder: Path, routing: Routing, map_bytes: int, map_block: int | None) -> Artifact:
    """Edges of 512, 512 and 8 elements in tiles of 64."""
    target = folder / "short.toml"
    target.write_text(
        f'extends = "scu-v1"\nname = "scu-v1-short"\n[selector]\ntile_elems = 64\n[memory.smap]\nbytes = {map_bytes}\n'
    )
    asked = ContractOptions(
        calibration={"x": seeded(24, 3, 8, 8, seed=3).numpy()},
        keep=0.25,
        routing=routing,
        map_block=map_block,
        target_file=target,
    )
    made = sparsecc.compile(small(), (seeded(2, 3, 8, 8),), target="scu", dynamic={"batch": 0}, contracts=asked)
    return made.save(folder / "m.sparsecc")


@pytest.mark.parametrize(
    ("map_bytes", "map_block", "loads"),
    [(16384, None, 0), (128, None, 2), (16384, 3, 0), (704, 3, 2)],
    ids=["a map per channel", "one after the other", "blocks across tiles", "such blocks, one after the other"],
)
def test_onnxruntime_and_the_unit_select_alike(
    tmp_path: Path, map_bytes: int, map_block: int | None, loads: int
) -> None:
    artifact = compiled(tmp_path, "sensitivity", map_bytes, map_block)
    assert all(v.ok and v.max_relative_error is not None and v.max_relative_error < 1e-5 for v in verify(artifact))
    code = open_unit(artifact).program.code
    assert all(d.has(Flag.SCORED) for d in code if d.op == Op.SEND and d.k < d.tile_n)
    assert sum(d.op == Op.SMAP_LOAD for d in code) == loads
    x = {"x": seeded(8, 3, 8, 8, seed=9).numpy()}
    engines: tuple[Engine, ...] = ("onnxruntime", "scu")
    plain, unit = (
        np.asarray(open_session(artifact, engine, threads=1).run(x)["output"], np.float32) for engine in engines
    )
    np.testing.assert_allclose(plain, unit, rtol=1e-5, atol=1e-5)
    maps = load_contracts(artifact.path)[1]
    assert all(len(set(measured.gradient.tolist())) > 1 for measured in maps.values())


def test_by_magnitude_no_map_takes_part(tmp_path: Path) -> None:
    artifact = compiled(tmp_path, "magnitude", 128, None)
    program = open_unit(artifact).program
    assert not any(d.has(Flag.SCORED) for d in program.code)
    assert not program.smap
    maps = load_contracts(artifact.path)[1]
    assert all(set(measured.gradient.tolist()) == {255} for measured in maps.values())
