"""The cache of measured times never takes a file that is something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsecc.backends.tvm.tuning import machine_key, read_cache, write_cache
from sparsecc.diagnostics import CompileError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    times = {"csr on here": 1.5, "dense on here": 20.0}
    write_cache(tmp_path / "new/cache.json", times)
    assert read_cache(tmp_path / "new/cache.json") == times
    assert read_cache(tmp_path / "absent.json") == {}


def test_a_cache_of_another_version_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "cache.json"
    path.write_text('{"format": "sparsecc tuning cache 1: microseconds by kernel, layer and machine", "csr": 1.5}')
    assert read_cache(path) == {}


def test_times_of_one_instruction_set_are_not_those_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set[str]()
    for isa in ("avx2", "avx512"):
        monkeypatch.setenv("SPARSECC_ISA", isa)
        keys.add(machine_key())
    assert len(keys) == 2


@pytest.mark.parametrize("content", [b"junk", b"{}", b"[1]", b'{"a": 1.0}', b"PK\x03\x04 a model"])
def test_a_file_that_is_no_cache_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(CompileError) as caught:
        read_cache(path)
    assert str(caught.value) == (
        f"error[SCC087]: {path} exists and is not a tuning cache\n  help: name another file with --tuning-cache"
    )
    assert path.read_bytes() == content


def test_a_named_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CompileError, match=r"^error\[SCC087\]: .*cache\.json cannot be written: "):
        write_cache(tmp_path / "file" / "cache.json", {})
