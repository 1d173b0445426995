"""Compiled kernels come from the user's cache folder where it has them, and only if it can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from sparsecc.backends.tvm import codegen
from sparsecc.backends.tvm.codegen import compile_kernels
from sparsecc.backends.tvm.kernels.spec import Epilogue, GlobalAverage, Spmm
from sparsecc.backends.tvm.objects import Kernel, kernel_objects

KERNELS: list[Kernel] = [(Spmm(epilogue=Epilogue("relu")), "avx512"), (GlobalAverage(), "avx2")]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def objects() -> list[bytes]:
    return [compile_kernels([spec], isa) for spec, isa in KERNELS]


def refuse(*_: object) -> NoReturn:
    raise AssertionError("compiled again")


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_what_is_compiled_is_kept(cache: Path, objects: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel_objects(KERNELS) == objects
    assert [path.name for path in files(cache)] == ["global_average_avx2", "spmm_1x1_v4_uint16_relu_avx512"]
    monkeypatch.setattr(codegen, "compile_kernels", refuse)
    assert kernel_objects(KERNELS[::-1]) == objects[::-1]
    with pytest.raises(AssertionError, match="compiled again"):
        kernel_objects([(GlobalAverage(), "avx512")])


def test_damaged_and_exchanged_objects_are_compiled_again(cache: Path, objects: list[bytes]) -> None:
    kernel_objects(KERNELS)
    first, second = files(cache)
    good = first.read_bytes()
    for bad in (b"", good[:40], good[:-1] + bytes([good[-1] ^ 1]), second.read_bytes()):
        first.write_bytes(bad)
        assert kernel_objects(KERNELS) == objects
        assert first.read_bytes() == good


@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_a_folder_where_others_write_is_not_read(
    cache: Path, mode: int, objects: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernel_objects(KERNELS) == objects
    folder = files(cache)[0].parent
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(mode)
    monkeypatch.setattr(codegen, "compile_kernels", refuse)
    with pytest.raises(AssertionError, match="compiled again"):
        kernel_objects(KERNELS)


def test_without_a_writable_folder_kernels_are_compiled(
    tmp_path: Path, objects: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kernel_objects(KERNELS) == objects
