"""The compiled Program kept as a torch graph beside model.onnx, so that `--engine reference` can run it without ONNX.

reference.zip holds the graph (a torch.export archive without weights) and, for each of its constants, which
initializer of model.onnx has that value; only what the exporter rewrote is stored again.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data
from torch import fx, nn
from torch.utils import _pytree as pytree

import sparsecc.ops  # noqa: F401  # pyright: ignore[reportUnusedImport]  the graph calls its operators
from sparsecc.archive import load_archive
from sparsecc.artifact import read_npz
from sparsecc.capture import dynamic_axes, quiet, widen
from sparsecc.program import Program
from sparsecc.reference import Array

GRAPH, CONSTANTS, REST = "graph.pt2", "constants.json", "rest.npz"
ENTRY_LIMIT_BYTES = 1 << 30
Reference = Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]]
"""Flat inputs -> flat outputs, both in the Program's order."""


# ---- writing ---------------------------------------------------------------------------------------------------------


def pack_reference(program: Program, model: onnx.ModelProto) -> bytes:
    """The bytes of reference.zip; equal Programs give equal bytes.

    constants.json: {constant: {"initializer": its name in model.onnx, "transposed": whether it is stored that way}},
    or null for a constant in rest.npz.
    """
    constants = {str(node.target): program.constant(node) for node in program.constants}
    homes = {_digest(numpy_helper.to_array(t)): t.name for t in model.graph.initializer}
    where, rest = dict[str, dict[str, object] | None](), dict[str, Array]()
    for name, value in constants.items():
        array = _to_numpy(value)
        if home := homes.get(_digest(array)):
            where[name] = {"initializer": home, "transposed": False}
        elif array.ndim == 2 and (home := homes.get(_digest(array.T))):
            where[name] = {"initializer": home, "transposed": True}
        else:
            where[name], rest[name] = None, array
    entries = {GRAPH: _graph(program, constants), CONSTANTS: json.dumps(where).encode(), REST: _npz(rest)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry, data in entries.items():
            archive.writestr(zipfile.ZipInfo(entry), data, zipfile.ZIP_LZMA)  # a ZipInfo of no date
    return buffer.getvalue()


class _Interpreter(fx.Interpreter):
    """Takes constants from a mapping instead of the module."""

    given: Mapping[str, torch.Tensor]

    def get_attr(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        return self.given[target] if target in self.given else super().get_attr(target, args, kwargs)


class _Lifted(nn.Module):
    """The Program as a function of its inputs and of its constants; ``module`` is hidden from torch.export."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__()
        self.interpreter = [_Interpreter(module)]

    def forward(self, inputs: tuple[torch.Tensor, ...], constants: dict[str, torch.Tensor]) -> Any:
        (interpreter,) = self.interpreter
        interpreter.given = constants
        return interpreter.run(*inputs)


def _graph(program: Program, constants: Mapping[str, torch.Tensor]) -> bytes:
    """A torch.export archive that takes the constants as inputs, and names neither files nor lines of the model."""
    dynamic = dynamic_axes(program.module)
    inputs = tuple(widen(x, axes) for x, axes in zip(program.example_inputs, dynamic, strict=True))
    arguments = (inputs, dict(constants))
    buffer = io.BytesIO()
    with quiet(), torch.no_grad():
        exported = torch.export.export(
            _Lifted(program.module),
            arguments,
            dynamic_shapes=(tuple(dynamic), dict.fromkeys(constants)),
            strict=False,
        )
        exported.example_inputs = pytree.tree_map(_hollow, (arguments, {}))
        for module in exported.graph_module.modules():
            for node in cast(fx.GraphModule, module).graph.nodes:
                node.meta = {"val": node.meta["val"]} if "val" in node.meta else {}
        torch.export.save(exported, buffer)
    return buffer.getvalue()


def _hollow(x: torch.Tensor) -> torch.Tensor:
    """The same shape and type in one element of memory: torch keeps example inputs, and ours hold the weights."""
    return torch.zeros((), dtype=x.dtype).expand(x.shape)


def _digest(array: Array) -> str:
    head = f"{array.dtype} {array.shape} ".encode()
    return hashlib.blake2b(head + array.tobytes(), digest_size=16).hexdigest()


def _npz(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **cast("dict[str, Any]", arrays))
    return buffer.getvalue()


# ---- reading ---------------------------------------------------------------------------------------------------------


def load_reference(data: bytes, model: onnx.ModelProto) -> Reference:
    """The graph as a function of its inputs, with its constants taken from ``model``.

    Nothing in ``data`` is run but operators of torch that compute.
    Raises: CompileError, ValueError, or what zipfile, numpy and torch raise for an archive that is damaged or does not
    fit the model, here or when the function is called.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if missing := {GRAPH, CONSTANTS, REST} - set(archive.namelist()):
            raise ValueError(f"it has no {min(missing)}")
        if any(info.file_size > ENTRY_LIMIT_BYTES for info in archive.infolist()):
            raise ValueError("it is larger than a graph can be")
        graph = load_archive(archive.read(GRAPH), GRAPH)
        where: object = json.loads(archive.read(CONSTANTS))
        rest = read_npz(archive.read(REST))
    if not isinstance(where, dict):
        raise ValueError(f"{CONSTANTS} is not an object")
    initializers = {t.name: t for t in model.graph.initializer}
    constants = {
        name: _to_torch(_constant(name, home, initializers, rest))
        for name, home in cast("dict[str, object]", where).items()
    }
    with quiet():
        module = graph.module()

    def run(inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        with torch.inference_mode():
            outputs: object = module(tuple(inputs), constants)
        if not isinstance(outputs, tuple):
            raise ValueError("its graph does not return a tuple")
        return cast("tuple[torch.Tensor, ...]", outputs)

    return run


def _constant(
    name: str, home: object, initializers: Mapping[str, onnx.TensorProto], rest: Mapping[str, Array]
) -> Array:
    match home:
        case None if name in rest:
            return rest[name]
        case {"initializer": str(initializer), "transposed": bool(transposed)} if initializer in initializers:
            tensor = initializers[initializer]
            if uses_external_data(tensor):  # any file that the process may read
                raise ValueError(f"the initializer '{initializer}' lies in another file")
            array = numpy_helper.to_array(tensor)
            return array.T if transposed else array
        case _:
            raise ValueError(f"the constant '{name}' is not in the model")


# numpy has no bfloat16 of its own: onnx reads one of ml_dtypes, and torch gives and takes bits


def _to_numpy(value: torch.Tensor) -> Array:
    if value.dtype is torch.bfloat16:
        return cast(Array, value.view(torch.int16).numpy().view(_BFLOAT16))
    return cast(Array, value.numpy())


def _to_torch(array: Array) -> torch.Tensor:
    array = np.array(array, order="C")
    if array.dtype == _BFLOAT16:
        return torch.as_tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.as_tensor(array)


_BFLOAT16 = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
