"""Compiled kernels come from the user's cache folder where it has them, and only if it can be trusted."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from sparsecc.backends.tvm import codegen
from sparsecc.backends.tvm.codegen import compile_kernels
from sparsecc.backends.tvm.kernels.spec import Epilogue, GlobalAverage, Isa, KernelSpec, Spmm, symbol
from sparsecc.backends.tvm.objects import CODE_ALIGNMENT, UNUSED_DAYS_MOST, Kernel, align_code, kernel_objects

KERNELS: list[Kernel] = [(Spmm(epilogue=Epilogue("relu")), "avx512"), (GlobalAverage(), "avx2")]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def objects() -> list[bytes]:
    return [align_code(compile_kernels([spec], isa)) for spec, isa in KERNELS]


def refuse(*_: object) -> NoReturn:
    raise AssertionError("compiled again")


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a linker")
def test_kernels_begin_at_cache_lines(tmp_path: Path, objects: list[bytes]) -> None:
    """Each behind a section of one byte."""
    command = ["cc", "-shared", "-nostdlib", "-o", str(tmp_path / "kernels.so")]
    for number, data in enumerate(objects):
        (tmp_path / f"{number}.o").write_bytes(data)
        (tmp_path / f"{number}.s").write_text(".text\n.byte 0xc3\n")
        command += [str(tmp_path / f"{number}{suffix}") for suffix in (".s", ".o")]
    subprocess.run(command, check=True)
    library = ctypes.CDLL(str(tmp_path / "kernels.so"))
    names = [symbol(*kernel) for kernel in KERNELS]
    places = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 1 for name in names]
    assert [place % CODE_ALIGNMENT for place in places] == [0, 0]


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


# ---- folders of other versions --------------------------------------------------------------------------------------


def other_folder(cache: Path, digit: str, days: float) -> Path:
    """As another version left it so many days ago."""
    folder = cache / "sparsecc" / f"kernels-{digit * 16}"
    folder.mkdir(parents=True)
    (folder / "spmm_avx2").write_text("kernel")
    return aged(folder, days)


def aged(path: Path, days: float) -> Path:
    used_s = time.time() - days * 24 * 3600
    os.utime(path, (used_s, used_s))
    return path


def test_what_nobody_used_for_a_month_goes_when_a_folder_is_made(cache: Path) -> None:
    old, recent = other_folder(cache, "0", UNUSED_DAYS_MOST + 1), other_folder(cache, "1", UNUSED_DAYS_MOST - 1)
    kernel_objects(KERNELS)
    assert not old.exists()
    assert (recent / "spmm_avx2").exists()
    assert len(files(cache)) == len(KERNELS) + 1

    old = other_folder(cache, "2", UNUSED_DAYS_MOST + 1)
    kernel_objects([(GlobalAverage(), "avx512")])
    assert old.exists(), "only a new folder is a reason"


def test_use_counts(cache: Path) -> None:
    kernel_objects(KERNELS)
    own = aged(files(cache)[0].parent, UNUSED_DAYS_MOST + 1)
    kernel_objects(KERNELS)
    assert time.time() - own.stat().st_mtime < 3600


def test_nothing_else_is_removed(cache: Path) -> None:
    away = cache / "away"
    other_folder(cache, "0", 0).rename(away)
    folder = cache / "sparsecc"
    (folder / f"kernels-{'0' * 16}").symlink_to(aged(away, 99), target_is_directory=True)
    for name in ("kernels", "kernels-old", f"kernels-{'0' * 17}", f"kernels-{'G' * 16}", f"old-kernels-{'0' * 16}"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("kept")
        aged(folder / name, 99)
    for name in ("tuning.json", f"kernels-{'1' * 16}"):
        (folder / name).write_text("{}")
        aged(folder / name, 99)
    (folder / f"kernels-{'2' * 16}" / "folder of the user").mkdir(parents=True)
    aged(folder / f"kernels-{'2' * 16}", 99)
    before = set(cache.rglob("*"))
    kernel_objects(KERNELS)
    assert before <= set(cache.rglob("*"))


def test_a_folder_that_goes_meanwhile_is_made_again(
    cache: Path, objects: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another process would remove it, between what is read and what is written."""
    kernel_objects(KERNELS[:1])

    def removing(specs: Sequence[KernelSpec], isa: Isa) -> bytes:
        shutil.rmtree(cache / "sparsecc")
        return compile_kernels(specs, isa)

    monkeypatch.setattr(codegen, "compile_kernels", removing)
    assert kernel_objects(KERNELS) == objects
    assert [path.name for path in files(cache)] == ["global_average_avx2"]
