"""The target description: every number sourced, every mistake in a user's file named, one digest for equal numbers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import sparsecc.backends.scu.machine as machine
from sparsecc.backends.scu.machine import from_json, load_target, scu_v1, to_json
from sparsecc.diagnostics import CompileError

HELP = '\n  help: write `extends = "scu-v1"` and a name, then only the numbers that differ; scu.toml shows them all'


def user_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CompileError) as caught:
        load_target(path)
    return str(caught.value).replace(str(path), "my.toml")


def test_every_number_has_unit_and_source() -> None:
    lines = Path(machine.__file__).with_name("scu.toml").read_text().splitlines()
    numbers = [line for line in lines if re.match(r"\w+ = [\d.]", line)]
    assert len(numbers) > 80
    bare = [line for line in numbers if not line.startswith("isa") and not re.search(r"# [^;]+; \S", line)]
    assert bare == []


def test_target_json_keeps_everything() -> None:
    target = scu_v1()
    assert from_json(to_json(target)) == target
    assert from_json(to_json(target)).digest == target.digest


def test_digest_depends_on_the_numbers_alone() -> None:
    tree = json.loads(to_json(scu_v1()))
    backwards = json.dumps(dict(reversed(tree.items())), indent=3)
    assert from_json(backwards).digest == scu_v1().digest
    tree["link"]["pj_per_byte"] = 1  # an integer where the field is real
    assert from_json(json.dumps(tree)).digest == scu_v1().digest
    tree["link"]["bytes_per_cycle"] = 5
    assert from_json(json.dumps(tree)).digest != scu_v1().digest


def test_golden_digest() -> None:
    """Changes whenever a number or the canonical form does: programs compiled before are then refused."""
    assert scu_v1().digest.hex() == "3a4ea027876f6fb25be1f0c80681826a222d65c9387a254c73cf7cf4cd61a2fc"


def test_user_file_states_differences(tmp_path: Path) -> None:
    text = 'extends = "scu-v1"\nname = "wide"\n[link]\nbytes_per_cycle = 64\n[memory.tile0]\nbytes = 1024\n'
    target = load_target(user_file(tmp_path, text))
    assert (target.name, target.link.bytes_per_cycle, target.memory["tile0"].bytes) == ("wide", 64, 1024)
    assert target.link.latency_cycles == scu_v1().link.latency_cycles
    assert target.memory["tile1"] == scu_v1().memory["tile1"]


def test_complete_user_file(tmp_path: Path) -> None:
    text = Path(machine.__file__).with_name("scu.toml").read_text()
    assert load_target(user_file(tmp_path, text)) == scu_v1()


def test_binary_user_file(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CompileError, match=r"SCC089.*my\.toml is no text, so no TOML"):
        load_target(path)


SOME_CODECS = "expected some of raw, bitmask, index, run, huffman, in this order"
HEAD = 'extends = "scu-v1"\nname = "x"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", "is not valid TOML: Invalid value (at end of document)"),
        ('name = "x"', "lacks isa (and 13 more)"),
        ('extends = "tpu"', "extends 'tpu'; built in: scu-v1"),
        ('extends = "scu-v1"', "needs a name of its own, other than 'scu-v1'"),
        (HEAD + "isa = 2", "is of ISA 2; this sparsecc knows ISA 1"),
        (HEAD + "[link]\nwidth = 4", "has an unknown field link.'width'"),
        (HEAD + "[link]\nbytes_per_cycle = 0", "has 0 at link.bytes_per_cycle, expected an integer from 1 to 2^48"),
        (HEAD + "[link]\nbytes_per_cycle = 4.5", "has 4.5 at link.bytes_per_cycle, expected an integer from 1 to 2^48"),
        (HEAD + "[dma]\nburst_bytes = true", "has True at dma.burst_bytes, expected an integer from 1 to 2^48"),
        (HEAD + "[link]\npj_per_byte = nan", "has nan at link.pj_per_byte, expected a number from 0 to 2^48"),
        (HEAD + "[link]\npj_per_byte = -1", "has -1 at link.pj_per_byte, expected a number from 0 to 2^48"),
        (HEAD + "link = 4", "has no table link"),
        (HEAD + 'codecs = ["zip"]', f"has ['zip'] at codecs, {SOME_CODECS}"),
        (HEAD + "codecs = []", f"has [] at codecs, {SOME_CODECS}"),
        (HEAD + "[tile]\ncount = 3", "has 2 memories of kind scratchpad for 3 compute tiles"),
        (HEAD + "[memory.tile0]\nregion = 3", "has the same region for memory.tile0 and memory.tile1"),
        (HEAD + "[memory.tile0]\nregion = 256", "has 256 at memory.tile0.region, expected 1 to 255"),
        (HEAD + "[command]\nsemaphores = 257",
         "has 257 at command.semaphores, and the descriptor's field holds at most 256"),
        (HEAD + "[register.bytes_link]\noffset = 0x400", "has register.semaphores overlapping register.bytes_link"),
        (HEAD + "[register.bytes_link]\noffset = 0x1000", "has register.bytes_link beyond the 4096 B of memory config"),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(user_file(tmp_path, text)) == f"error[SCC089]: target file my.toml {message}{HELP}"


def test_missing_file(tmp_path: Path) -> None:
    found = refusal(tmp_path / "my.toml")
    assert found == f"error[SCC089]: target file my.toml cannot be read: No such file or directory{HELP}"


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"a":1,"a":2}', "[" * 100_000, b"\xff", '{"isa": NaN}'])
def test_target_json_is_untrusted(text: str | bytes) -> None:
    with pytest.raises(CompileError, match="SCC089"):
        from_json(text)


def test_no_single_change_of_target_json_crashes() -> None:
    """Every value replaced by every kind of JSON value: read, or refused with its code."""

    def places(tree: Any) -> list[tuple[Any, Any]]:
        here = [(tree, key) for key in tree]
        return here + [p for value in tree.values() if isinstance(value, dict) for p in places(value)]

    tree = json.loads(to_json(scu_v1()))
    accepted = 0
    for table, key in places(tree):
        kept = table[key]
        values: tuple[Any, ...] = (None, True, -1, 0, 10**30, 1e300, "x", "\n", [], [1], {}, {"a": {}})
        for value in values:
            table[key] = value
            try:
                from_json(json.dumps(tree))
                accepted += 1
            except CompileError as error:
                assert error.diagnostics[0].code == "SCC089"  # noqa: PT017  most changes are refused, not all
        table[key] = kept
    assert accepted > 0


def test_gemm_cycles() -> None:
    """By hand: K/R = 2 and N/C = 1 passes of 16 + 16 + 16 + 64 - 2 cycles."""
    assert scu_v1().tile.gemm_cycles(64, 16, 27) == 2 * 1 * 110
