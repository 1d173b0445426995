"""The compiled Program kept as a torch graph beside model.onnx, so that `--engine reference` can run it without ONNX.

reference.zip holds the graph (a torch.export archive without weights) and, for each of its constants, which
initializer of model.onnx has that value; only what the exporter rewrote is stored again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import fx, nn
from torch.utils import _pytree as pytree

import sparsecc.contracts.op  # pyright: ignore[reportUnusedImport]  the graph calls their operators
import sparsecc.ops  # noqa: F401  # pyright: ignore[reportUnusedImport]
from sparsecc.archive import load_archive
from sparsecc.artifact import npz, read_npz
from sparsecc.capture import dynamic_axes, quiet, widen
from sparsecc.program import Program
from sparsecc.reference import Array

from .side_files import digest, pack_entries, read_entries, verify_self_contained

GRAPH, CONSTANTS, REST = "graph.pt2", "constants.json", "rest.npz"
Reference = Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]]
"""Flat inputs -> flat outputs, both in the Program's order."""


# ---- writing ---------------------------------------------------------------------------------------------------------


def pack_reference(program: Program, model: onnx.ModelProto) -> bytes:
    """The bytes of reference.zip; equal Programs give equal bytes.

    constants.json: {constant: {"initializer": its name in model.onnx, "transposed": whether it is stored that way}},
    or null for a constant in rest.npz.
    """
    constants = {str(node.target): program.constant(node) for node in program.constants}
    homes = {digest(numpy_helper.to_array(t)): t.name for t in model.graph.initializer}
    where, rest = dict[str, dict[str, object] | None](), dict[str, Array]()
    for name, value in constants.items():
        array = _to_numpy(value)
        if home := homes.get(digest(array)):
            where[name] = {"initializer": home, "transposed": False}
        elif array.ndim == 2 and (home := homes.get(digest(array.T))):
            where[name] = {"initializer": home, "transposed": True}
        else:
            where[name], rest[name] = None, array
    return pack_entries({GRAPH: _graph(program, constants), CONSTANTS: json.dumps(where).encode(), REST: npz(rest)})


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


# ---- reading ---------------------------------------------------------------------------------------------------------


def load_reference(data: bytes, model: onnx.ModelProto) -> Reference:
    """The graph as a function of its inputs, with its constants taken from ``model``.

    Nothing in ``data`` is run but operators of torch that compute.
    Raises: CompileError, ValueError, or what zipfile, numpy and torch raise for an archive that is damaged or does not
    fit the model, here or when the function is called.
    """
    graph_data, constants_data, rest_data = read_entries(data, GRAPH, CONSTANTS, REST)
    graph = load_archive(graph_data, GRAPH)
    where: object = json.loads(constants_data)
    rest = read_npz(rest_data)
    if not isinstance(where, dict):
        raise ValueError(f"{CONSTANTS} is not an object")
    verify_self_contained(model)
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
            array = numpy_helper.to_array(initializers[initializer])
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
