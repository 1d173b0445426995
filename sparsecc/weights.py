"""State dicts: tensors without code, and the module that a factory builds for them."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import math
import os
import sys
from collections.abc import Generator, Iterator, Mapping
from typing import Any, TypeGuard, cast

import torch
from torch import nn

from sparsecc.capture import user_line
from sparsecc.diagnostics import CompileError

StateDict = Mapping[str, torch.Tensor]
FEW = 5  # names in an error before "and ... more"


def is_state_dict(value: object) -> TypeGuard[StateDict]:
    return isinstance(value, Mapping) and all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in cast("Mapping[object, object]", value).items()
    )


def find_state_dict(value: object) -> StateDict | None:
    """The value itself, or what training scripts wrap: {"state_dict": {...}, "epoch": 7}."""
    if is_state_dict(value) and value:
        return value
    if isinstance(value, Mapping):
        checkpoint = cast("Mapping[object, object]", value)
        for key in ("state_dict", "model_state_dict", "model", "net"):
            if is_state_dict(inner := checkpoint.get(key)) and inner:
                return inner
    return None


def into_module(state: StateDict, factory: str | None, name: str) -> nn.Module:
    """What ``factory`` builds, with these weights. Names may carry DataParallel's "module." and prune's masks.

    Raises: CompileError (SCC017 no factory, or names or shapes differ; SCC022 the factory cannot be used).
    """
    if factory is None:
        raise CompileError.of(
            "SCC017",
            f"{name} is a state dict: weights without the module they belong to",
            help="name the function or class that builds the module: --model package.module:factory",
        )
    module = build(factory)
    expected = module.state_dict()
    state = _unmasked(_unwrapped(state), expected)
    if problems := list(_differences(state, expected)):
        raise CompileError.of(
            "SCC017",
            f"{name} does not fit the module that {factory} builds: {'; '.join(problems)}",
            help="build the module with the arguments it was trained with, or give another --model",
        )
    module.load_state_dict(dict(state), strict=False)
    return module


def build(factory: str) -> nn.Module:
    """Call "package.module:function", looking in the current directory too.

    Raises: CompileError SCC022.
    """
    path, _, attribute = factory.partition(":")
    form = "--model takes package.module:factory, a function or class without required arguments"
    if not path or not attribute:
        raise CompileError.of("SCC022", f"--model '{factory}' is not of the form package.module:factory", help=form)

    def failure(what: str, error: Exception) -> CompileError:
        return CompileError.of("SCC022", f"{what}: {type(error).__name__}: {error}", where=user_line(error), help=form)

    with current_directory_importable():  # the user's code may raise anything
        try:
            make: Any = importlib.import_module(path)
        except Exception as error:
            raise failure(f"--model {factory}: the module '{path}' cannot be imported", error) from error
        try:
            make = functools.reduce(getattr, attribute.split("."), make)
        except AttributeError as error:
            raise CompileError.of("SCC022", f"--model {factory}: {error}", help=form) from error
        try:
            module: object = make()
        except Exception as error:
            raise failure(f"--model {factory} fails when it is called", error) from error
    if not isinstance(module, nn.Module):
        raise CompileError.of(
            "SCC022", f"--model {factory} returns a {type(module).__name__}, not a torch.nn.Module", help=form
        )
    return module


@contextlib.contextmanager
def current_directory_importable() -> Generator[None]:
    """As `python -m` has it, and an installed command has not."""
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before


def _unwrapped(state: StateDict) -> StateDict:
    prefix = "module."
    if all(key.startswith(prefix) for key in state):
        return {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def _unmasked(state: StateDict, expected: StateDict) -> StateDict:
    """Apply the masks of torch.nn.utils.prune where the module has plain weights: w_orig, w_mask -> w."""
    result = dict(state)
    for key in expected:
        original, mask = f"{key}_orig", f"{key}_mask"
        if key in result or original not in result or mask not in result:
            continue
        if result[original].shape == result[mask].shape:
            result[key] = result.pop(original) * result.pop(mask)
    return result


def _differences(state: StateDict, expected: StateDict) -> Iterator[str]:
    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]  # not in old files
    unexpected = [k for k in state if k not in expected]
    shapes = [
        f"{k} is {list(state[k].shape)}, not {list(expected[k].shape)}"
        for k in expected
        if k in state and state[k].shape != expected[k].shape
    ]
    for what, names in (("missing", missing), ("unexpected", unexpected), ("shapes", shapes)):
        if names:
            more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
            yield f"{what}: {', '.join(names[:FEW])}{more}"


# ---- safetensors -----------------------------------------------------------------------------------------------------

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def looks_like_safetensors(data: bytes) -> bool:
    """Eight bytes of header length, then JSON."""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8


def read_safetensors(data: bytes) -> StateDict:
    """Source: the format's description at https://huggingface.co/docs/safetensors.

    Raises: ValueError for anything that the description does not allow.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header: object = json.loads(data[8:end])
    body, tensors = memoryview(data)[end:], dict[str, torch.Tensor]()
    for name, entry in cast("dict[str, Any]", header).items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = _DTYPES[entry["dtype"]], [int(size) for size in entry["shape"]]
            start, stop = map(int, entry["data_offsets"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"'{name}' is not described as a tensor") from error
        size_bytes = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or not 0 <= start <= stop <= len(body) or stop - start != size_bytes:
            raise ValueError(f"'{name}' lies outside the file, or its size is not its shape's")
        flat = torch.frombuffer(bytearray(body[start:stop]), dtype=dtype) if size_bytes else torch.empty(0, dtype=dtype)
        tensors[name] = flat.reshape(shape)
    return tensors
