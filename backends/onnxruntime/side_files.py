"""What reference.zip and original.zip have in common: few entries, and weights that lie in model.onnx."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import onnx
from onnx.external_data_helper import uses_external_data

from sparsecc.reference import Array

ENTRY_LIMIT_BYTES = 1 << 30


def pack_entries(entries: Mapping[str, bytes]) -> bytes:
    """A compressed zip file; equal entries give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry, data in entries.items():
            archive.writestr(zipfile.ZipInfo(entry), data, zipfile.ZIP_LZMA)  # a ZipInfo of no date
    return buffer.getvalue()


def read_entries(data: bytes, *names: str) -> list[bytes]:
    """The entries with these names.

    Raises: ValueError (one is missing, or any is too large), or what zipfile raises for a damaged file.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if missing := set(names) - set(archive.namelist()):
            raise ValueError(f"it has no {min(missing)}")
        if any(info.file_size > ENTRY_LIMIT_BYTES for info in archive.infolist()):
            raise ValueError("it is larger than a graph can be")
        return [archive.read(name) for name in names]


def digest(array: Array) -> str:
    """Equal exactly for arrays of equal type, shape and bits."""
    head = f"{array.dtype} {array.shape} ".encode()
    return hashlib.blake2b(head + array.tobytes(), digest_size=16).hexdigest()


def verify_self_contained(model: onnx.ModelProto) -> None:
    """Raises: ValueError if a tensor lies in another file, which could be any that the process may read."""
    for tensor in _tensors(model):
        if uses_external_data(tensor):
            raise ValueError(f"the tensor '{tensor.name}' lies in another file")


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Every tensor of a protobuf message, wherever one may be."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type:
            for inner in value if field.is_repeated else (value,):
                yield from _tensors(inner)
