"""The conformance vectors of docs/: reader, assembler, verifier and simulator do what an independent reference says."""

from __future__ import annotations

import hashlib
import json
import re
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
from sparsecc.backends.scu.codecs import Codec, Dtype, decode, encode
from sparsecc.backends.scu.descriptor import Descriptor, Op
from sparsecc.backends.scu.machine import Target, from_json, scu_v1, to_json
from sparsecc.backends.scu.simulator import simulate
from sparsecc.backends.scu.timing import duration
from sparsecc.backends.scu.verify import verify_program
from sparsecc.contracts.keys import Key, make_keys, offset_table
from sparsecc.contracts.topk import first_k
from sparsecc.diagnostics import CompileError

ROOT = Path(__file__).parents[3] / "docs" / "conformance"
VECTORS = sorted(path.parent for path in ROOT.glob("run/*/vector.json"))
REFUSED: list[dict[str, str]] = json.loads((ROOT / "refuse" / "refused.json").read_text())
MOST_BYTES = 320 * 1024
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


# ---- what the text itself says ---------------------------------------------------------------------------------------

TEXT = (ROOT.parent / "scu.md").read_text()


@pytest.mark.parametrize("codec", [codec for codec in Codec if codec != Codec.HUFFMAN], ids=lambda codec: codec.name)
def test_blocks_in_the_text(codec: Codec) -> None:
    (shown,) = re.findall(rf"^    {codec.name} +((?:[0-9a-f]{{2}} ?){{32}})$", TEXT, re.M)
    x, kept = np.array([0, 5, -3, 0, 7, 0, 0, 1, -7, 2], np.int8), [1, 2, 4, 8]
    key = Key("int8", 8, 7)
    assert np.flatnonzero(first_k(make_keys(x, np.array([255], np.uint8), 1, key), 4)).tolist() == kept
    assert encode(codec, x, kept, Dtype.INT8) == bytes.fromhex(shown)


def test_the_huffman_block_in_the_text() -> None:
    form = r"Header `([0-9a-f ]+)`; table `([0-9a-f ]+)`, then 126 zeros.*18 zeros and\s+`([0-9a-f ]+)`"
    ((header, table, codes),) = re.findall(form, TEXT)
    block = bytes.fromhex(header + table) + bytes(126 + 18) + bytes.fromhex(codes)
    expected = [0] * 150 + [1] * 6 + [2] * 3 + [3]
    assert decode(block.ljust(192, b"\0")).values.tolist() == expected


def test_digests_and_numbers_in_the_text() -> None:
    assert scu_v1().digest.hex() in TEXT
    for dtype, bits in (("float16", 10), ("bfloat16", 7), ("float32", 7)):
        offsets = offset_table(dtype)
        digest = hashlib.sha256(offsets.astype("<i4").tobytes()).hexdigest()
        assert re.search(rf"^    b = {bits} +{digest}$", TEXT, re.M)
        row = " | ".join(str(offsets[s]) for s in (0, 1, 2, 64, 127, 128, 254, 255))
        assert f"| b = {bits} | {row} |" in TEXT
    x = np.array([1.0, 1.0], np.float16)
    assert make_keys(x, np.array([255, 128], np.uint8), 1, Key("float16", 8, 6, 0x3000)).tolist() == [48, 32]


def test_times_in_the_text() -> None:
    at, target = {name: memory.address for name, memory in scu_v1().memory.items()}, scu_v1()
    one_run = {"reps1": 1, "reps2": 1}
    copy = Descriptor(Op.COPY, src=at["dram"], dst=at["tile0"], run_bytes=1024, **one_run)
    send = Descriptor(Op.SEND, codec=Codec.BITMASK, k=256, tile_n=1024, tiles=4, src=at["tile0"], dst=at["link"],
                      run_bytes=4096, dst_st1=416, **one_run)  # fmt: skip
    assert f"{duration(copy, None, target)} cycles = 5 + 8 + 102 + 64" in TEXT
    assert f"{duration(send, None, target)} cycles = 5 + 8 + 180 + 416" in TEXT


def test_the_folder_stays_small() -> None:
    files = [*ROOT.glob("*.*"), *ROOT.glob("run/*/*"), *ROOT.glob("refuse/*")]
    assert sum(path.stat().st_size for path in files if path.is_file()) < MOST_BYTES
