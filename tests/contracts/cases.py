"""Activations that are hard to rank, contracts, and the four engines that must agree on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime as ort
import torch
from hypothesis import strategies as st
from onnx import TensorProto, helper

from sparsecc.contracts import Contract, Key, first_k_reference, spread, transmit
from sparsecc.contracts import op as torch_op
from sparsecc.contracts.keys import Array, Bytes
from sparsecc.contracts.portable import grid_functions, keep_top_function, keep_top_node

SIZES = (1, 7, 1023, 1024, 1025, 3000)
KINDS = ("any bits", "normal", "ties", "all equal", "zeros of both signs", "all NaN", "tiny", "near powers of two")
ONNX_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int8": TensorProto.INT8,
}


def activations(kind: str, dtype: str, rows: int, elems: int, seed: int) -> Array:
    """[rows, elems]; bfloat16 comes from torch, as numpy has none."""
    random = np.random.default_rng(seed)
    shape = (rows, elems)
    if dtype == "int8":
        low, high = {"all equal": (7, 8), "zeros of both signs": (0, 1), "ties": (-2, 3)}.get(kind, (-128, 128))
        return random.integers(low, high, shape, np.int8)
    wide = {
        "normal": random.normal(size=shape),
        "ties": random.choice([0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf], shape),
        "all equal": np.full(shape, -1.5),
        "zeros of both signs": random.choice([0.0, -0.0], shape),
        "all NaN": np.full(shape, np.nan),
        "tiny": random.choice([1, -1], shape) * np.exp2(random.uniform(-149, -120, shape)),
        "near powers of two": np.exp2(random.integers(-20, 15, shape)) * (1 + random.integers(-2, 3, shape) * 2.0**-23),
    }
    if kind == "any bits":
        bits = random.integers(0, 1 << 32, shape, np.uint32)
        if dtype == "float16":
            return bits.astype(np.uint16).view(np.float16)
        return bits.view(np.float32) if dtype == "float32" else bfloat16(bits & np.uint32(0xFFFF0000))
    single = wide[kind].astype(np.float32)
    return bfloat16(single.view(np.uint32)) if dtype == "bfloat16" else single.astype(dtype)


def bfloat16(bits: Array) -> Array:
    """The bfloat16 numbers that are the top halves of float32 bits."""
    dtype = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    return (bits >> 16).astype(np.uint16).view(cast(Any, dtype))


@st.composite
def contracts(draw: st.DrawFn, dtype: str) -> Contract:
    """Of an edge that carries ``dtype``; of float32 also those that travel as int8."""
    scale = draw(st.sampled_from((0.0, 0.0, float(np.float32(0.02)), 2.0**-126))) if dtype == "float32" else 0.0
    dtype = "int8" if scale else dtype
    integer = dtype == "int8"
    key = Key(
        dtype,
        draw(st.sampled_from((8, 16))),
        draw(st.integers(0, 9)),
        0 if integer else draw(st.sampled_from((0, 1000, 16000, 0x7FFF))),
        draw(st.sampled_from((0, -128, 127, 5))) if integer else 0,
    )
    share = draw(st.sampled_from((0, 1, 64, 65, 16_384, 19_661, 65_535, 65_536)))
    skip_zero = draw(st.booleans())
    tile_elems, block = draw(st.sampled_from((1, 100, 1024, 4096))), draw(st.sampled_from((1, 3, 64)))
    contract = Contract("x", key, share, share, share, tile_elems, block, skip_zero=skip_zero, scale=scale)
    return draw(moving(contract)) if draw(st.booleans()) else contract


@st.composite
def moving(draw: st.DrawFn, contract: Contract) -> Contract:
    """The same with a k that moves, around any of its shares."""
    lo, share, hi = sorted((contract.share_q16, draw(st.integers(0, 65_536)), draw(st.integers(0, 65_536))))
    margins = sorted((draw(st.integers(0, 65_535)), draw(st.integers(0, 65_535))))
    return replace(
        contract,
        share_q16=share,
        share_lo_q16=lo,
        share_hi_q16=hi,
        period=draw(st.sampled_from((1, 2, 3, 7, 1000))),
        margin_lo_q16=margins[0],
        margin_hi_q16=margins[1],
    )


def reference(x: Array, s: Bytes, contract: Contract, fill: Array, fill_block: int) -> Array:
    fills = spread(fill, fill_block, x.shape[1])
    values, _ = transmit(x, s, contract, fills, first_k_reference)
    return values


def fast(x: Array, s: Bytes, contract: Contract, fill: Array, fill_block: int) -> Array:
    values, _ = transmit(x, s, contract, spread(fill, fill_block, x.shape[1]))
    return values


def in_torch(x: Array, s: Bytes, contract: Contract, fill: Array, fill_block: int) -> Array:
    y = torch_op.transmit(tensor(x), torch.from_numpy(s), contract, tensor(fill), fill_block)
    return y.view(torch.int16).numpy().view(x.dtype) if y.dtype == torch.bfloat16 else y.numpy()


def tensor(x: Array) -> torch.Tensor:
    if x.dtype.name == "bfloat16":
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def in_onnxruntime(x: Array, s: Bytes, contract: Contract, fill: Array, fill_block: int) -> Array:
    """bfloat16 goes in and out as float32, which numpy and onnxruntime can exchange."""
    return run_model(onnx_model(contract, fill_block, x.ndim), x, s, fill)


def run_model(model: onnx.ModelProto, x: Array, s: Bytes, fill: Array) -> Array:
    half = x.dtype.name == "bfloat16"
    feeds = {"x": x.astype(np.float32), "s": s, "f": fill.astype(np.float32)} if half else {"x": x, "s": s, "f": fill}
    options = cast(Any, ort).SessionOptions()
    options.intra_op_num_threads = 1
    session: Any = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (y,) = cast(list[Array], session.run(None, feeds))
    return bfloat16(y.view(np.uint32)) if half else y


def onnx_model(contract: Contract, fill_block: int, rank: int) -> onnx.ModelProto:
    dtype = contract.key.dtype
    if dtype == "bfloat16":
        outer, names, out = TensorProto.FLOAT, ("x16", "f16"), "y16"
        before = [helper.make_node("Cast", [n[0]], [n], to=TensorProto.BFLOAT16) for n in names]
        after = [helper.make_node("Cast", [out], ["y"], to=TensorProto.FLOAT)]
    else:
        outer, names, out, before, after = ONNX_TYPES[dtype], ("x", "f"), "y", [], []
    if contract.scale:
        grid: Any = {"scale": contract.scale, "zero_point": contract.key.zero_point, "domain": "sparsecc"}
        outer, names, out = TensorProto.FLOAT, ("q", "f"), "sent"
        before = [helper.make_node("Quantise", ["x"], ["q"], **grid)]
        after = [helper.make_node("Dequantise", ["sent"], ["y"], **grid)]
    node = keep_top_node(contract, [names[0], "s", names[1]], out, fill_block)
    shape = [f"d{i}" for i in range(rank)]
    info, fill_type = helper.make_tensor_value_info, TensorProto.INT8 if contract.scale else outer
    inputs = [info("x", outer, shape), info("s", TensorProto.UINT8, ["S"]), info("f", fill_type, ["F"])]
    graph = helper.make_graph([*before, node, *after], "keep_top", inputs, [info("y", outer, shape)])
    function = keep_top_function(dtype, moving=contract.period > 0)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("sparsecc", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[function, *grid_functions()], ir_version=10)
    onnx.checker.check_model(model)  # pyright: ignore[reportUnknownMemberType]  PathLike of nothing
    return model


ENGINES = {"fast": fast, "torch": in_torch, "onnxruntime": in_onnxruntime}


def assert_same_bits(actual: Array, expected: Array) -> None:
    """The same dtype, shape and bits; of a NaN of bfloat16 only that it is one, as it travels as float32."""
    assert actual.dtype == expected.dtype
    unsigned = f"u{expected.dtype.itemsize}"
    actual_bits, expected_bits = (np.ascontiguousarray(y).view(unsigned) for y in (actual, expected))
    if expected.dtype.name == "bfloat16":
        actual_bits, expected_bits = (np.where(b & 0x7FFF > 0x7F80, 0x7FC0, b) for b in (actual_bits, expected_bits))
    np.testing.assert_array_equal(actual_bits, expected_bits)
