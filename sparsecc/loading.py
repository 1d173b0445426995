"""Model files -> modules and programs. Content decides what a file is, never its name; no code in it is run."""

from __future__ import annotations

import contextlib
import difflib
import io
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.export import ExportedProgram

from sparsecc.archive import load_archive
from sparsecc.capture import quiet
from sparsecc.diagnostics import CompileError
from sparsecc.weights import (
    current_directory_importable,
    find_state_dict,
    into_module,
    looks_like_safetensors,
    read_safetensors,
)

_TENSORS = re.compile(
    r"torch\._\w+\.\w+|torch\.(\w*Storage|nn\.parameter\.Parameter)|collections\.OrderedDict|__builtin__\.set"
)
"""What the pickle of plain tensors imports as well."""
EXPORT = "sparsecc.save(module, example_inputs, 'model.pt')"


def load_model(
    path: str | Path, *, factory: str | None = None, allow_pickle: bool = False
) -> nn.Module | ExportedProgram:
    """Read a torch.export archive, a state dict (of torch.save or safetensors) or, if allowed, a pickled module.

    ``factory`` ("package.module:function") builds the module of a state dict. ``allow_pickle`` trusts the file.
    Raises: CompileError (SCC010 there is no file; SCC015 it is damaged or no model; SCC016 it could run code; SCC017
    a state dict and its module do not fit; SCC018 TorchScript; SCC020 a directory or ONNX; SCC022 the factory fails;
    SCC023 a pickled class cannot be imported; SCC024 torch cannot read the archive).
    """
    data, name = _read(Path(path)), str(path)
    if data.startswith(b"PK\x03\x04"):
        return _load_zip(data, name, factory, allow_pickle)
    if looks_like_safetensors(data):
        try:
            return into_module(read_safetensors(data), factory, name)
        except (ValueError, RecursionError) as error:
            raise damaged(name, f"is damaged: {error}") from error
    if data[:1] == b"\x80":
        return _load_pickle(data, data, name, factory, allow_pickle)
    if _is_onnx(data):
        raise CompileError.of(
            "SCC020",
            f"{name} is an ONNX file, and sparsecc compiles PyTorch models",
            help=f"export the PyTorch module it came from: {EXPORT}",
        )
    raise damaged(name, "is not a PyTorch file, or is damaged")


def damaged(name: str, message: str) -> CompileError:
    return CompileError.of(
        "SCC015", f"{name} {message}", help=f"copy or download it again, or write the model with {EXPORT}"
    )


def _read(path: Path) -> bytes:
    if path.is_dir():
        if (path / "manifest.json").is_file():
            help_ = f"it is compiled already: sparsecc run {path} --inputs x.npz"
            raise CompileError.of("SCC020", f"{path} is a compiled artifact, not a model file", help=help_)
        help_ = f"give a file in it; load a model of transformers in Python and write it with {EXPORT}"
        raise CompileError.of("SCC020", f"{path} is a directory, not a model file", help=help_)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        others = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, others, n=1)
        help_ = f"did you mean '{path.parent / near[0]}'?" if near else "check the path"
        raise CompileError.of("SCC010", f"{path} does not exist", help=help_) from None
    except OSError as error:
        raise CompileError.of("SCC010", f"{path} cannot be read: {error.strerror}", help="check the path") from error
    if not data:
        raise damaged(str(path), "is empty")
    return data


def _load_zip(data: bytes, name: str, factory: str | None, allow_pickle: bool) -> nn.Module | ExportedProgram:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {member.partition("/")[2]: member for member in archive.namelist()}  # without the root folder
            broken = archive.testzip()
            pickled = archive.read(members["data.pkl"]) if "data.pkl" in members and not broken else b""
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise damaged(name, "is truncated or damaged") from error
    if broken:
        raise damaged(name, f"is damaged: {broken} has changed")
    if "archive_format" in members or any(m.startswith("models/") and m.endswith(".json") for m in members):
        return load_archive(data, name, trusted=allow_pickle)
    if "constants.pkl" in members or any(m.startswith("code/") for m in members):
        raise CompileError.of(
            "SCC018",
            f"{name} is TorchScript, which torch.export replaces",
            help=f"load the original module in Python and write it with {EXPORT}",
        )
    if "data.pkl" in members:
        return _load_pickle(data, pickled, name, factory, allow_pickle)
    raise damaged(name, "is a zip file, but not one of torch.save or torch.export")


def _load_pickle(data: bytes, pickled: bytes, name: str, factory: str | None, allow_pickle: bool) -> nn.Module:
    """What torch.save wrote; ``pickled`` is the part of ``data`` that would be executed."""
    value = _unpickle(data, pickled, name, trusted=allow_pickle)
    if isinstance(value, nn.Module):
        return value
    if (state := find_state_dict(value)) is not None:
        return into_module(state, factory, name)
    raise damaged(name, f"holds a {type(value).__name__}, neither a module nor weights")


def _unpickle(data: bytes, pickled: bytes, name: str, *, trusted: bool) -> Any:
    try:
        with quiet(), current_directory_importable() if trusted else contextlib.nullcontext():
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=not trusted)
    except (AttributeError, ImportError) as error:
        if not trusted:
            raise damaged(name, "is truncated or damaged") from error
        if "__main__'" in str(error):  # of `python -m sparsecc`, the module's name is longer
            raise CompileError.of(
                "SCC023",
                f"{name} needs a class of the script that saved it (__main__), which no other program can import",
                help=f"let that script write the module with {EXPORT}; or let it save the state dict, move the class "
                "into a file of its own and name what builds it: --model module:factory",
            ) from error
        raise CompileError.of(
            "SCC023",
            f"{name} needs code that cannot be imported here: {error}",
            help=f"run from the directory of that code, or load the module in Python there and write it with {EXPORT}",
        ) from error
    except Exception as error:  # unpickling damaged bytes raises anything
        imports = _imports(pickled)
        if trusted or imports is None or not isinstance(error, pickle.UnpicklingError):
            raise damaged(name, "is truncated or damaged") from error
        code = f" ({', '.join(imports[:3])}{', ...' if len(imports) > 3 else ''})" if imports else ""
        raise CompileError.of(
            "SCC016",
            f"{name} is a pickle of Python objects{code}: loading it runs whatever code its author put in",
            help=f"write the model with {EXPORT} where you trust the file, or add --allow-pickle here",
        ) from error


def _imports(pickled: bytes) -> list[str] | None:
    """What unpickling would import, other than torch's own; None if it is no pickle. Executes nothing."""
    stream, names = io.BytesIO(pickled), list[str]()
    try:
        strings = list[str]()
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "GLOBAL":
                names.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.append(".".join(strings[-2:]))
            elif isinstance(argument, str):
                strings.append(argument)
    except Exception:  # pickletools raises what its decoders raise
        return None
    return [ascii(n)[1:-1] for n in dict.fromkeys(names) if not _TENSORS.fullmatch(n)]


def _is_onnx(data: bytes) -> bool:
    if data[:1] != b"\x08":  # ModelProto begins with its ir_version
        return False
    try:
        return bool(onnx.load_model_from_string(data).graph.node)
    except Exception:  # protobuf's DecodeError, whose module is not public
        return False
