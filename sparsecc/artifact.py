"""A compiled model on disk: a directory of files, and a manifest with their digests. Written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np

from sparsecc.diagnostics import CompileError
from sparsecc.manifest import FileRecord, Manifest, Value, from_json, to_json, unreadable
from sparsecc.reference import Array

MODEL, KERNELS, GOLDEN, MANIFEST = "model.onnx", "kernels.so", "golden.npz", "manifest.json"
REFERENCE = "reference.zip"
"""The compiled graph for torch, of targets that have one (sparsecc.backends.onnxruntime.torch_reference)."""
ORIGINAL = "original.zip"
"""The dense original for onnxruntime, of targets that keep it (sparsecc.backends.onnxruntime.original)."""
MANIFEST_LIMIT_BYTES = 64 << 20  # a layer takes under 1 KB: far beyond any real model, and still read in a second
CHUNK_BYTES = 1 << 20
_AN_ARTIFACT = "an artifact is the directory that `sparsecc compile model.pt -o m.sparsecc` writes"
# what zipfile and numpy raise for bytes that are no arrays: damaged, encrypted, of a size that no machine has, pickled
NOT_AN_NPZ = (OSError, ValueError, OverflowError, MemoryError, EOFError, RuntimeError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Artifact:
    """An artifact whose files are there and are the ones its manifest describes (``kernels.so`` may be absent).

    The digests show damage, not who wrote it: whoever can change a file can change the manifest.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Artifact:
        """Read the manifest, and compare every file with it.

        Raises: CompileError (SCC060 no artifact there; SCC061 the manifest is unreadable; SCC062 it is newer than this
        sparsecc; SCC064 a file was changed; SCC065 a file is missing).
        """
        path = Path(path)
        try:
            manifest = from_json(_read_manifest(path), str(path / MANIFEST))
            for name in (MODEL, GOLDEN):
                if name not in manifest.files:
                    raise unreadable(str(path / MANIFEST), f"does not list {name}")
            for name, record in manifest.files.items():
                _check_file(path, name, record)
        except OSError as error:
            raise CompileError.of(
                "SCC060", f"{path} cannot be read: {error.strerror}", help="check its name and its permissions"
            ) from error
        return cls(path, manifest)

    def file(self, name: str) -> Path:
        """The path of a file that the manifest lists.

        Raises: CompileError (SCC065 it is not there).
        """
        if name not in self.manifest.files or not (self.path / name).is_file():
            raise _missing(self.path, name)
        return self.path / name

    def golden(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Sample inputs, and the outputs that every engine must give for them, in the manifest's order: the original
        model's, or what contracts mean.

        Raises: CompileError (SCC064 the file holds something else; SCC065 it is missing).
        """
        name = str(self.file(GOLDEN))
        try:
            arrays = read_npz(self.file(GOLDEN).read_bytes())
        except NOT_AN_NPZ as error:
            raise _changed(name, f"cannot be read: {error}") from error
        roles = {"inputs": self.manifest.inputs, "outputs": self.manifest.outputs}
        keys = [f"{role}/{value.name}" for role, values in roles.items() for value in values]
        if sorted(arrays) != sorted(keys):
            raise _changed(name, f"holds {', '.join(sorted(arrays)) or 'nothing'}, expected {', '.join(sorted(keys))}")

        def of(role: str, values: tuple[Value, ...]) -> dict[str, Array]:
            return {value.name: arrays[f"{role}/{value.name}"] for value in values}

        return of("inputs", self.manifest.inputs), of("outputs", self.manifest.outputs)


def write(path: str | Path, files: Mapping[str, bytes], manifest: Manifest) -> Artifact:
    """Write an artifact, replacing one that is there; the manifest's ``files`` are derived from the bytes.

    The files come into being in a directory beside ``path`` that takes its name at the end: an error or Ctrl-C leaves
    everything as it was.
    Raises: CompileError (SCC063 something else is at ``path``, or it cannot be written).
    """
    path = Path(path)
    target = _resolved(path)  # a link to an artifact stays a link
    verify_replaceable(path)
    records = {name: FileRecord(hashlib.sha256(data).hexdigest(), len(data)) for name, data in sorted(files.items())}
    manifest = replace(manifest, files=records)
    contents = {**files, MANIFEST: to_json(manifest).encode()}
    try:
        with tempfile.TemporaryDirectory(
            dir=target.parent, prefix=f".{target.name}.", ignore_cleanup_errors=True
        ) as workspace:
            new, old = Path(workspace, "new"), Path(workspace, "old")
            for name, data in contents.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                (new / name).write_bytes(data)
            _exchange(new, target, old)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    return Artifact(path, manifest)


def _unwritable(path: Path, why: str) -> CompileError:
    help_ = "check that its directory exists, may be written to and has space"
    return CompileError.of("SCC063", f"{path} cannot be written: {why}", help=help_)


def golden_npz(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> bytes:
    """The bytes of golden.npz; equal arrays give equal bytes."""
    roles = {"inputs": inputs, "outputs": outputs}
    return npz({f"{role}/{name}": array for role, values in roles.items() for name, array in values.items()})


def npz(arrays: Mapping[str, Array]) -> bytes:
    """The bytes of an npz file that ``read_npz`` reads; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **cast("dict[str, Any]", arrays))
    return buffer.getvalue()


# ---- reading ---------------------------------------------------------------------------------------------------------


def _read_manifest(path: Path) -> bytes:
    if not path.is_dir():
        what = "is a file, not an artifact" if path.exists() else "does not exist"
        within = path.parent / MANIFEST
        hint = f"did you mean '{path.parent}'? " if path.exists() and within.is_file() else ""
        raise CompileError.of("SCC060", f"{path} {what}", help=hint + _AN_ARTIFACT)
    name = path / MANIFEST
    if not name.is_file():
        raise CompileError.of("SCC060", f"{path} is not an artifact: it has no {MANIFEST}", help=_AN_ARTIFACT)
    with name.open("rb") as file:
        text = file.read(MANIFEST_LIMIT_BYTES + 1)
    if len(text) > MANIFEST_LIMIT_BYTES:
        raise unreadable(str(name), f"is larger than {MANIFEST_LIMIT_BYTES} B")
    return text


def _check_file(root: Path, name: str, record: FileRecord) -> None:
    file, parts = root / name, PurePosixPath(name)
    plain = str(parts) == name and name not in (".", MANIFEST) and "\\" not in name and ".." not in parts.parts
    if not plain or not _resolved(file).is_relative_to(_resolved(root)):
        raise unreadable(str(root / MANIFEST), f"lists {name!a}, which is not a file inside the artifact")
    if not file.is_file():
        if name == KERNELS and not file.exists():
            return  # portable still works; whoever needs it says so
        raise _missing(root, name)
    if file.stat().st_size != record.bytes:
        raise _changed(str(file), f"has {file.stat().st_size} B, the manifest says {record.bytes} B")
    if _digest(file, record.bytes) != record.sha256:
        raise _changed(str(file), "does not have the digest that the manifest says")


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike Path.resolve, it takes links that lead nowhere


def _digest(path: Path, size_bytes: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in _chunks(file, size_bytes):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(file: io.BufferedReader, size_bytes: int) -> Iterator[bytes]:
    while size_bytes > 0 and (chunk := file.read(min(CHUNK_BYTES, size_bytes))):
        size_bytes -= len(chunk)
        yield chunk


def read_npz(data: bytes) -> dict[str, Array]:
    """The arrays of an npz file; only uncompressed ones, so that they take no more memory than the file has bytes.

    Raises: one of NOT_AN_NPZ for other bytes.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is compressed")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {key: cast(object, file[key]) for key in file.files}
    if other := [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise ValueError(f"{other[0]} is not an array")
    return cast("dict[str, Array]", arrays)


def _missing(root: Path, name: str) -> CompileError:
    return CompileError.of(
        "SCC065",
        f"{root / name} is missing",
        help=f"copy the whole directory {root}, or compile the model again",
    )


def _changed(file: str, message: str) -> CompileError:
    return CompileError.of(
        "SCC064",
        f"{file} {message}",
        help="the file was changed or damaged after sparsecc wrote it; copy the artifact or compile the model again",
    )


# ---- writing ---------------------------------------------------------------------------------------------------------


def verify_replaceable(path: str | Path) -> None:
    """Only an artifact may be replaced, and only if nobody put anything beside its files.

    Raises: CompileError (SCC063 something else is there).
    """
    path = Path(path)
    target = path.resolve()
    if not target.parent.is_dir():
        raise _unwritable(path, "No such file or directory")
    if not target.exists():
        return
    known = _listed_files(target)
    foreign = sorted(str(f.relative_to(target)) for f in target.rglob("*") if not f.is_dir()) if known else []
    others = [name for name in foreign if name not in (known or ())]
    if known is None or others:
        why = f"holds {others[0]}, which is not part of the artifact" if others else "exists and is not an artifact"
        help_ = "choose another name with -o, or move what is there out of the way"
        raise CompileError.of("SCC063", f"{path} {why}", help=help_)


def _listed_files(target: Path) -> set[str] | None:
    """The names of an artifact's files, whatever its schema or state; None if this is no artifact."""
    try:
        tree: object = json.loads(_read_manifest(target))
    except (CompileError, OSError, ValueError, RecursionError):
        return None
    if not isinstance(tree, dict):
        return None
    fields = cast("dict[str, object]", tree)
    versions, files = fields.get("versions"), fields.get("files")
    if "schema" not in fields or not isinstance(versions, dict) or "sparsecc" not in versions:
        return None
    return {MANIFEST, *cast("dict[str, object]", files)} if isinstance(files, dict) else None


def _exchange(new: Path, target: Path, old: Path) -> None:
    """Move ``new`` to ``target``; what was there goes to ``old``, and comes back if that fails."""
    try:
        if target.exists():
            os.rename(target, old)
        os.rename(new, target)
    except BaseException:
        if old.exists() and not target.exists():
            os.rename(old, target)
        raise
