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
from torch import fx, nn
from torch.utils import _pytree as pytree

from sparsecc.capture import dynamic_axes, quiet, widen
from sparsecc.archive import load_archive
from sparsecc.program import Program
from sparsecc.reference import Array

GRAPH, CONSTANTS, REST = "graph.pt2", "constants.json", "rest.npz"
ENTRY_LIMIT_BYTES = 1 << 30


def pack_reference(program: Program, model: onnx.ModelProto) -> bytes:
    """The bytes of reference.zip; equal Programs give equal bytes but for torch's own archive."""
    constants = {str(n.target): program.constant(n) for n in program.graph.find_nodes(op="get_attr")}
    homes = {_digest(numpy_helper.to_array(t)): t.name for t in model.graph.initializer}
    where, rest = dict[str, dict[str, object]](), dict[str, Array]()
    for name, value in constants.items():
        array = value.numpy()
        if home := homes.get(_digest(array)):
            where[name] = {"initializer": home, "transposed": False}
        elif array.ndim == 2 and (home := homes.get(_digest(np.ascontiguousarray(array.T)))):
            where[name] = {"initializer": home, "transposed": True}
        else:
            rest[name] = array
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        for entry, data in ((GRAPH, _graph(program, constants)), (CONSTANTS, json.dumps(where).encode()), (REST, _npz(rest))):
            archive.writestr(zipfile.ZipInfo(entry), data, zipfile.ZIP_LZMA)
    return buffer.getvalue()


def load_reference(data: bytes, model: onnx.ModelProto) -> Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]]:
    """The graph as a function of its inputs, with its constants taken from ``model``.

    Raises: CompileError for an archive that is not safe to read; ValueError, KeyError or OSError for a damaged one.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(info.file_size > ENTRY_LIMIT_BYTES for info in archive.infolist()):
            raise ValueError("it is larger than a graph can be")
        graph = load_archive(archive.read(GRAPH), "reference.zip")
        where = cast("dict[str, dict[str, Any]]", json.loads(archive.read(CONSTANTS)))
        with np.load(io.BytesIO(archive.read(REST)), allow_pickle=False) as rest:
            constants = {name: torch.as_tensor(rest[name]) for name in rest.files}
    initializers = {t.name: t for t in model.graph.initializer}
    for name, home in where.items():
        array = numpy_helper.to_array(initializers[home["initializer"]])
        constants[name] = torch.as_tensor(np.array(array.T if home["transposed"] else array))
    module = graph.module()

    def run(inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        with torch.inference_mode():
            return cast("tuple[torch.Tensor, ...]", module(tuple(inputs), constants))

    return run


class _Interpreter(fx.Interpreter):
    """Takes constants from a mapping instead of the module."""

    given: Mapping[str, torch.Tensor]

    def get_attr(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        return self.given[str(target)]


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
    dynamic = dynamic_axes(program.module)
    inputs = tuple(widen(x, axes) for x, axes in zip(program.example_inputs, dynamic, strict=True))
    buffer = io.BytesIO()
    with quiet(), torch.no_grad():
        exported = torch.export.export(
            _Lifted(program.module),
            (inputs, dict(constants)),
            dynamic_shapes=(tuple(dynamic), dict.fromkeys(constants)),
            strict=False,
        )
        exported._example_inputs = pytree.tree_map(_hollow, ((inputs, dict(constants)), {}))
        torch.export.save(exported, buffer)
    return buffer.getvalue()


def _hollow(x: torch.Tensor) -> torch.Tensor:
    """The same shape and type in one element of memory: torch keeps example inputs, and ours hold the weights."""
    return torch.zeros((), dtype=x.dtype).expand(x.shape)


def _digest(array: Array) -> str:
    head = f"{array.dtype} {array.shape} ".encode()
    return hashlib.blake2b(head + np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()


def _npz(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **cast("dict[str, Any]", arrays))
    return buffer.getvalue()
