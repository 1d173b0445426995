"""The dense original kept beside model.onnx, so that `bench` can compare with what the user had.

original.zip holds the original's ONNX graph without its large weights and, for each of those, which weight of
model.onnx it is equal to, perhaps transposed or up to a scale per row. The zeros and most of the bits of the two models
are the same; what is not stays in the graph.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import cast

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sparsecc.artifact import npz, read_npz
from sparsecc.formats import Array

from .dense import WEIGHTS_LIMIT_BYTES, dense_model
from .side_files import digest, pack_entries, read_entries, verify_self_contained

GRAPH, WEIGHTS, SCALES = "graph.onnx", "weights.json", "scales.npz"
LARGE_BYTES = 1024
"""Smaller weights stay in the graph; to say where to find one took 24 to 48 B, compressed (MiniLM, LeNet-5)."""
SCALED_ERROR = 1e-6
"""Of a weight recovered by scales, as a share of its greatest magnitude: some roundings of float32 (6e-8 each)."""


# ---- writing ---------------------------------------------------------------------------------------------------------


def pack_original(original: onnx.ModelProto, compiled: onnx.ModelProto) -> bytes:
    """The bytes of original.zip; equal models give equal bytes.

    weights.json: {initializer of the original: {"weight": the digest of the weight of ``compiled`` that it is,
    "transposed": whether that is its transpose, "scaled": whether each row of that is this one's times a factor}}.
    The factors are in scales.npz under the initializer's name. Signs of zeros are not kept.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(original)
    weights = _weights(compiled)
    by_signs = {_signs(weight): key for key, weight in weights.items() if _scalable(weight)}
    where, scales = dict[str, dict[str, object]](), dict[str, Array]()
    for tensor in graph.graph.initializer:
        array = numpy_helper.to_array(tensor)
        for transposed, view in _views(array):
            if (key := digest(view)) in weights:
                where[tensor.name] = {"weight": key, "transposed": transposed, "scaled": False}
            elif (
                _scalable(view)
                and (key := by_signs.get(_signs(view), ""))
                and (scale := _scale(weights[key], view)) is not None
            ):
                where[tensor.name] = {"weight": key, "transposed": transposed, "scaled": True}
                scales[tensor.name] = scale
            else:
                continue
            tensor.CopyFrom(onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims))
            break
    graph_data: bytes = graph.SerializeToString(deterministic=True)
    return pack_entries({GRAPH: graph_data, WEIGHTS: json.dumps(where).encode(), SCALES: npz(scales)})


def _views(array: Array) -> Iterator[tuple[bool, Array]]:
    """A large weight as a matrix and, where it is one, as its transpose."""
    if _large(array):
        yield False, _matrix(array)
        if array.ndim == 2:
            yield True, _matrix(array.T)


def _weights(compiled: onnx.ModelProto) -> dict[str, Array]:
    """The large weights, unpacked, as matrices by their digests: names differ between versions of onnx's inliner."""
    arrays = map(numpy_helper.to_array, dense_model(compiled).graph.initializer)
    return {digest(matrix): matrix for matrix in map(_matrix, filter(_large, arrays))}


def _large(array: Array) -> bool:
    return array.dtype != object and array.nbytes >= LARGE_BYTES  # strings are objects


def _matrix(array: Array) -> Array:
    """[rows, ...] -> [rows, cols], and -0 -> 0: a product with a mask has such zeros, a packed weight none."""
    matrix = array.reshape(len(array), -1)
    return cast(Array, matrix + matrix.dtype.type(0))


def _signs(matrix: Array) -> str:
    """A digest that no scaling of rows changes, and that hardly two weights share.

    Of where the zeros are, and which values have the sign of the first non-zero one in their row.
    """
    signs = (matrix > 0).astype(np.int8) - (matrix < 0).astype(np.int8)
    first = signs[np.arange(len(signs)), (signs != 0).argmax(axis=1)]
    return digest(signs * first[:, None])


def _scalable(matrix: Array) -> bool:
    return np.issubdtype(matrix.dtype, np.floating) and matrix.shape[1] > 1  # of one column, the scales are the weight


def _scale(compiled: Array, original: Array) -> Array | None:
    """float32[rows] with compiled = scale * original, by least squares; None if there is none."""
    c, o = compiled.astype(np.float64), original.astype(np.float64)
    with np.errstate(all="ignore"):  # infinities and NaN end as an error that is not small
        squares = (o * o).sum(axis=1)
        scale = np.where(squares > 0, (c * o).sum(axis=1) / squares, 1).astype(np.float32)
        error = np.abs(_unscaled(compiled, scale).astype(original.dtype) - o).max()
        return scale if error <= SCALED_ERROR * np.abs(o).max() else None


def _unscaled(compiled: Array, scale: Array) -> Array:
    with np.errstate(over="ignore"):
        return (compiled.astype(np.float64) / scale.astype(np.float64)[:, None]).astype(compiled.dtype)


# ---- reading ---------------------------------------------------------------------------------------------------------


def load_original(data: bytes, compiled: onnx.ModelProto) -> onnx.ModelProto:
    """The original, with its weights taken from ``compiled``.

    Raises: ValueError, or what zipfile, json, protobuf, numpy and onnx raise for an archive that is damaged or does not
    fit ``compiled``.
    """
    graph_data, weights_data, scales_data = read_entries(data, GRAPH, WEIGHTS, SCALES)
    original = onnx.load_model_from_string(graph_data)
    where: object = json.loads(weights_data)
    scales = read_npz(scales_data)
    if not isinstance(where, dict):
        raise ValueError(f"{WEIGHTS} is not an object")
    verify_self_contained(original)
    verify_self_contained(compiled)
    weights, left_bytes = _weights(compiled), WEIGHTS_LIMIT_BYTES
    tensors = {tensor.name: tensor for tensor in original.graph.initializer}
    for name, home in cast("dict[str, object]", where).items():
        if name not in tensors:
            raise ValueError(f"{GRAPH} has no weight '{name}'")
        tensor, array = tensors[name], _original_weight(name, home, weights, scales)
        left_bytes -= array.nbytes  # one weight may be named many times
        if left_bytes < 0:
            raise ValueError("its weights are larger than a model can be")
        array = array.astype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).reshape(tuple(tensor.dims))
        tensor.CopyFrom(numpy_helper.from_array(array, name))
    return original


def _original_weight(name: str, home: object, weights: Mapping[str, Array], scales: Mapping[str, Array]) -> Array:
    match home:
        case {"weight": str(key), "transposed": bool(transposed), "scaled": bool(scaled)} if key in weights:
            matrix = weights[key]
        case _:
            raise ValueError(f"the weight '{name}' is not in the model")
    if scaled:
        scale = scales.get(name)
        if scale is None or scale.shape != (len(matrix),) or scale.dtype != np.float32 or not scale.all():
            raise ValueError(f"the weight '{name}' has no scales")
        matrix = _unscaled(matrix, scale)
    return matrix.T if transposed else matrix
