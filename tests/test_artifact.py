"""An artifact is written whole or not at all, and nothing in it is believed before it is checked."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparsecc import artifact
from sparsecc.artifact import Artifact, golden_npz, write
from sparsecc.diagnostics import CompileError
from sparsecc.manifest import FileRecord, Manifest

X = np.arange(6, dtype=np.float32).reshape(2, 3)
Y = np.ones((2, 2), np.float32)
FILES = {"model.onnx": b"model", "kernels.so": b"\x7fELF", "golden.npz": golden_npz({"x": X}, {"y": Y})}
CHANGED = (
    "\n  help: the file was changed or damaged after sparsecc wrote it; copy the artifact or compile the model again"
)
AN_ARTIFACT = "an artifact is the directory that `sparsecc compile model.pt -o m.sparsecc` writes"


@pytest.fixture
def there(tmp_path: Path, manifest: Manifest) -> Path:
    return write(tmp_path / "m.sparsecc", FILES, manifest).path


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(CompileError) as caught:
        action()
    return str(caught.value)


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


# ---- writing and reading ---------------------------------------------------------------------------------------------


def test_what_is_written_is_read_back(there: Path, manifest: Manifest) -> None:
    opened = Artifact.open(there)
    assert replace(opened.manifest, files={}) == manifest
    assert opened.manifest.files["model.onnx"] == FileRecord(
        "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4", 5
    )
    assert opened.file("model.onnx").read_bytes() == b"model"
    inputs, outputs = opened.golden()
    np.testing.assert_array_equal(inputs["x"], X)
    np.testing.assert_array_equal(outputs["y"], Y)
    assert names(there) == ["golden.npz", "kernels.so", "manifest.json", "model.onnx"]
    assert names(there.parent) == ["m.sparsecc"]


def test_equal_arrays_give_equal_bytes() -> None:
    assert golden_npz({"x": X}, {"y": Y}) == FILES["golden.npz"]


def test_an_artifact_that_is_there_is_replaced(there: Path, manifest: Manifest) -> None:
    write(there, {k: v for k, v in FILES.items() if k != "kernels.so"}, replace(manifest, cpu="another"))
    assert Artifact.open(there).manifest.cpu == "another"
    assert names(there) == ["golden.npz", "manifest.json", "model.onnx"]
    assert names(there.parent) == ["m.sparsecc"]


def test_a_damaged_or_newer_artifact_is_replaced_too(there: Path, manifest: Manifest) -> None:
    text = json.loads((there / "manifest.json").read_text())
    (there / "manifest.json").write_text(json.dumps(text | {"schema": 99}))
    (there / "model.onnx").write_bytes(b"tampered")
    write(there, FILES, manifest)
    Artifact.open(there)


def test_a_link_to_an_artifact_stays_a_link(there: Path, manifest: Manifest) -> None:
    link = there.parent / "latest"
    link.symlink_to(there)
    write(link, FILES, replace(manifest, cpu="another"))
    assert link.is_symlink()
    assert Artifact.open(there).manifest.cpu == "another"


def test_files_may_lie_in_folders(tmp_path: Path, manifest: Manifest) -> None:
    write(tmp_path / "m", FILES | {"scu/program.scu": b"scu"}, manifest)
    assert Artifact.open(tmp_path / "m").file("scu/program.scu").read_bytes() == b"scu"


def test_what_is_not_an_artifact_is_never_overwritten(tmp_path: Path, manifest: Manifest) -> None:
    occupied = tmp_path / "m"
    way_out = "\n  help: choose another name with -o, or move what is there out of the way"
    for make in (occupied.mkdir, lambda: (occupied / "manifest.json").write_text('{"schema": 1, "files": {}}')):
        make()
        assert refusal(lambda: write(occupied, FILES, manifest)) == (
            f"error[SCC063]: {occupied} exists and is not an artifact{way_out}"
        )
    file = tmp_path / "file"
    file.write_text("mine")
    assert refusal(lambda: write(file, FILES, manifest)) == (
        f"error[SCC063]: {file} exists and is not an artifact{way_out}"
    )
    assert file.read_text() == "mine"
    assert names(tmp_path) == ["file", "m"]


def test_what_a_person_put_into_an_artifact_is_not_lost(there: Path, manifest: Manifest) -> None:
    (there / "notes").mkdir()
    (there / "notes/today.txt").write_text("mine")
    assert refusal(lambda: write(there, FILES, manifest)) == (
        f"error[SCC063]: {there} holds notes/today.txt, which is not part of the artifact\n"
        "  help: choose another name with -o, or move what is there out of the way"
    )
    assert (there / "notes/today.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    assert refusal(lambda: write(tmp_path / "no/m", FILES, manifest)) == (
        f"error[SCC063]: {tmp_path / 'no/m'} cannot be written: No such file or directory\n"
        "  help: check that its directory exists, may be written to and has space"
    )
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("step", ["write_bytes", "first rename", "second rename"])
@pytest.mark.parametrize("exists", [False, True])
def test_whatever_stops_it_nothing_changes(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, error: BaseException, step: str, exists: bool
) -> None:
    path = tmp_path / "m"
    if exists:
        write(path, FILES, manifest)

    def stop(*_: object) -> None:
        raise error

    def stop_second(source: Path, target: Path) -> None:
        if source.name == "new":
            raise error
        os.replace(source, target)

    with monkeypatch.context() as patch:
        if step == "write_bytes":
            patch.setattr(Path, "write_bytes", stop)
        else:
            patch.setattr(os, "rename", stop if step == "first rename" else stop_second)
        with pytest.raises((KeyboardInterrupt, CompileError)):
            write(path, FILES, replace(manifest, cpu="another"))
    assert names(tmp_path) == (["m"] if exists else [])
    if exists:
        assert Artifact.open(path).manifest.cpu == manifest.cpu


def test_a_manifest_that_could_not_be_read_is_not_written(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(CompileError, match="control characters"):
        write(tmp_path / "m", FILES, replace(manifest, cpu="\x07"))
    assert names(tmp_path) == []


# ---- reading what cannot be trusted ----------------------------------------------------------------------------------


def test_what_is_no_artifact_is_refused(there: Path) -> None:
    nowhere, empty = there.parent / "nowhere", there.parent / "empty"
    empty.mkdir()
    assert refusal(lambda: Artifact.open(nowhere)) == (
        f"error[SCC060]: {nowhere} does not exist\n  help: {AN_ARTIFACT}"
    )
    assert refusal(lambda: Artifact.open(empty)) == (
        f"error[SCC060]: {empty} is not an artifact: it has no manifest.json\n  help: {AN_ARTIFACT}"
    )
    assert refusal(lambda: Artifact.open(there / "model.onnx")) == (
        f"error[SCC060]: {there / 'model.onnx'} is a file, not an artifact\n"
        f"  help: did you mean '{there}'? {AN_ARTIFACT}"
    )
    too_long = there.parent / ("m" * 1000)
    assert refusal(lambda: Artifact.open(too_long)) == (
        f"error[SCC060]: {too_long} cannot be read: File name too long\n  help: check its name and its permissions"
    )


def test_an_unreadable_manifest_is_refused(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (there / "manifest.json").write_text("{}")
    assert refusal(lambda: Artifact.open(there)).startswith(
        f"error[SCC061]: {there / 'manifest.json'} lacks versions\n"
    )
    monkeypatch.setattr(artifact, "MANIFEST_LIMIT_BYTES", 10)
    (there / "manifest.json").write_text(" " * 11)
    assert refusal(lambda: Artifact.open(there)).startswith(
        f"error[SCC061]: {there / 'manifest.json'} is larger than 10 B\n"
    )


def test_a_changed_file_is_named(there: Path) -> None:
    (there / "model.onnx").write_bytes(b"mOdel")
    assert refusal(lambda: Artifact.open(there)) == (
        f"error[SCC064]: {there / 'model.onnx'} does not have the digest that the manifest says{CHANGED}"
    )
    (there / "model.onnx").write_bytes(b"mode")
    assert refusal(lambda: Artifact.open(there)) == (
        f"error[SCC064]: {there / 'model.onnx'} has 4 B, the manifest says 5 B{CHANGED}"
    )


def test_only_kernels_may_be_missing(there: Path) -> None:
    (there / "kernels.so").unlink()
    opened = Artifact.open(there)
    missing = f"is missing\n  help: copy the whole directory {there}, or compile the model again"
    assert refusal(lambda: opened.file("kernels.so")) == f"error[SCC065]: {there / 'kernels.so'} {missing}"
    (there / "golden.npz").unlink()
    assert refusal(lambda: Artifact.open(there)) == f"error[SCC065]: {there / 'golden.npz'} {missing}"
    assert refusal(opened.golden) == f"error[SCC065]: {there / 'golden.npz'} {missing}"


def test_a_file_that_is_no_file_is_not_opened(there: Path) -> None:
    (there / "kernels.so").unlink()
    os.mkfifo(there / "kernels.so")  # reading it would wait for ever
    assert refusal(lambda: Artifact.open(there)).startswith(f"error[SCC065]: {there / 'kernels.so'} is missing\n")


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "a/../../secret", "", ".", "..", "./model.onnx", "a\\b", "manifest.json", "link"],
)
def test_names_may_not_leave_the_directory(there: Path, name: str) -> None:
    (there.parent / "secret").write_bytes(b"model")
    (there / "link").symlink_to(there.parent / "secret")
    list_file(there, name, FileRecord("9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4", 5))
    assert refusal(lambda: Artifact.open(there)).startswith(
        f"error[SCC061]: {there / 'manifest.json'} lists {name!a}, which is not a file inside the artifact\n"
    )


def test_a_manifest_must_list_the_model(there: Path) -> None:
    tree = json.loads((there / "manifest.json").read_text())
    del tree["files"]["model.onnx"]
    (there / "manifest.json").write_text(json.dumps(tree))
    assert refusal(lambda: Artifact.open(there)).startswith(
        f"error[SCC061]: {there / 'manifest.json'} does not list model.onnx\n"
    )


def list_file(there: Path, name: str, record: FileRecord) -> None:
    tree = json.loads((there / "manifest.json").read_text())
    tree["files"][name] = {"sha256": record.sha256, "bytes": record.bytes}
    (there / "manifest.json").write_text(json.dumps(tree))


# ---- golden.npz ------------------------------------------------------------------------------------------------------


class Bomb:
    """Leaves a file behind if anybody unpickles it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., int], tuple[list[str]]]:
        return subprocess.call, (["touch", str(self.trace)],)


def npy(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read: File is not a zip file"),
        (zipped({}), "holds nothing, expected inputs/x, outputs/y"),
        (golden_npz({"x": X}, {"z": Y}), "holds inputs/x, outputs/z, expected inputs/x, outputs/y"),
        (zipped({"inputs/x": b"text"}), "cannot be read: inputs/x is not an array"),
        (zipped({"inputs/x.npy": npy(b"{}")}, zipfile.ZIP_DEFLATED), "cannot be read: it is compressed"),
    ],
)
def test_a_golden_file_of_other_things_is_refused(
    tmp_path: Path, manifest: Manifest, data: bytes, message: str
) -> None:
    opened = write(tmp_path / "m", FILES | {"golden.npz": data}, manifest)
    assert refusal(opened.golden) == f"error[SCC064]: {tmp_path / 'm/golden.npz'} {message}{CHANGED}"


@pytest.mark.parametrize("shape", ["(-1,)", "(10**30,)", f"({10**30},)", "(1000000000000000,)", "(3,)", "('a',)"])
def test_an_array_that_lies_about_its_shape_is_refused(tmp_path: Path, manifest: Manifest, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    opened = write(tmp_path / "m", FILES | {"golden.npz": zipped({"inputs/x.npy": npy(header)})}, manifest)
    assert refusal(opened.golden).startswith(f"error[SCC064]: {tmp_path / 'm/golden.npz'} cannot be read: ")


def test_pickles_in_a_golden_file_do_nothing(tmp_path: Path, manifest: Manifest) -> None:
    trace = tmp_path / "trace"
    objects = np.array([Bomb(trace)], dtype=object)
    for data in (
        golden_npz({"x": objects}, {"y": objects}),
        pickle.dumps(Bomb(trace)),
        zipped({"inputs/x": pickle.dumps(Bomb(trace))}),
    ):
        opened = write(tmp_path / "m", FILES | {"golden.npz": data}, manifest)
        assert refusal(opened.golden).startswith(f"error[SCC064]: {tmp_path / 'm/golden.npz'} cannot be read: ")
        shutil.rmtree(tmp_path / "m")
    assert not trace.exists()
