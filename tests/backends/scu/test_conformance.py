"""The conformance vectors of docs/: reader, assembler, verifier and simulator do what an independent reference says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sparsecc.backends.scu import container
from sparsecc.backends.scu.asm import assemble, disassemble
from sparsecc.backends.scu.machine import Target, from_json, scu_v1, to_json
from sparsecc.backends.scu.simulator import simulate
from sparsecc.backends.scu.verify import verify_program
from sparsecc.diagnostics import CompileError

ROOT = Path(__file__).parents[3] / "docs" / "conformance"
VECTORS = sorted(path.parent for path in ROOT.glob("run/*/vector.json"))
REFUSED: list[dict[str, str]] = json.loads((ROOT / "refuse" / "refused.json").read_text())
MOST_BYTES = 300_000
"""What the folder may grow to: an implementer clones it."""


def copy_add_i8(
    source: npt.NDArray[np.uint8], destination: npt.NDArray[np.uint8], operand: npt.NDArray[np.uint8]
) -> None:
    destination[:] = source + operand


def target_of(vector: Mapping[str, Any], folder: Path) -> Target:
    own = vector["target"] == "target.json"
    return from_json((folder / "target.json").read_bytes()) if own else scu_v1()


def pieces(listing: list[tuple[str, int]], path: Path, target: Target) -> list[tuple[int, bytes]]:
    """(address, bytes) of the pieces of memory that lie one after the other in a file."""
    data, found = path.read_bytes(), list[tuple[int, bytes]]()
    for place, size in listing:
        memory, offset = place.split("+")
        found.append((target.memory[memory].address + int(offset, 16), data[:size]))
        data = data[size:]
    assert data == b""
    return found


@pytest.mark.parametrize("folder", VECTORS, ids=lambda folder: folder.name)
def test_what_programs_do(folder: Path) -> None:
    vector = json.loads((folder / "vector.json").read_text())
    target = target_of(vector, folder)
    program = container.read((folder / "program.scu").read_bytes(), target)
    load = dict(pieces(vector["load"], folder / "load.bin", target))
    expected = pieces(vector["expect"], folder / "expect.bin", target)
    semaphores = target.memory["config"].address + target.register["semaphores"].offset
    ranges = [(address, len(data)) for address, data in expected]
    for timing in (True, False):
        outcome = simulate(
            program, target, {"copy_add_i8": copy_add_i8}, load,
            [*ranges, (semaphores, 4 * target.command.semaphores)], timing,
        )  # fmt: skip
        *found, counts = outcome.outputs
        for (address, wanted), got in zip(expected, found, strict=True):
            assert got == wanted, f"at {address:#x}"
        assert asdict(outcome.counters) == vector["counters"]
        assert outcome.link_bytes == vector["counters"]["bytes_link"]
        left = {str(i): count for i, count in enumerate(np.frombuffer(counts, "<u4").tolist()) if count}
        assert left == vector["semaphores"]
        assert len(outcome.spans) == vector["descriptors"]


@pytest.mark.parametrize("folder", VECTORS, ids=lambda folder: folder.name)
def test_text_and_bytes_of_programs(folder: Path) -> None:
    target = target_of(json.loads((folder / "vector.json").read_text()), folder)
    text, data = (folder / "program.s").read_text(), (folder / "program.scu").read_bytes()
    program = container.read(data, target)
    assert container.write(assemble(text, target), target) == data
    assert disassemble(program, target) == text
    assert list(verify_program(program, target)) == []


def use(data: bytes, by: str, target: Target) -> None:
    """What ``by`` does with a file."""
    if by == "assembler":
        assemble(data.decode(), target)
        return
    program = container.read(data, target)
    if by == "verifier" and (findings := list(verify_program(program, target))):
        raise CompileError(findings)
    if by == "run":
        simulate(program, target, {}, {}, [])


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["file"])
def test_what_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(CompileError) as caught:
        use((ROOT / "refuse" / case["file"]).read_bytes(), case["by"], scu_v1())
    assert caught.value.diagnostics[0].code == case["code"]


def test_vectors_are_what_the_generator_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-B", str(ROOT / "make_vectors.py"), str(tmp_path)], check=True, env={})
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    kept = {path.relative_to(ROOT): path.read_bytes() for f in ("run", "refuse") for path in (ROOT / f).rglob("*.*")}
    assert {path: data for path, data in kept.items() if made.get(path) != data} == {}
    assert made.keys() == kept.keys()


def test_the_target_of_the_vectors_is_scu_v1() -> None:
    assert (ROOT / "scu-v1.json").read_text() == to_json(scu_v1())


def test_the_folder_stays_small() -> None:
    files = [path for path in ROOT.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
