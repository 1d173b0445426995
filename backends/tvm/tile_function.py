"""The S-TIR function of a call: one of tile_kernels.py where it fits, TVM's own otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from .relax_function import Lowered, relax_function
from .tile_call import Call, Operand, dtype_name
from .tile_kernels import Attention, Convolution, attention, conv2d, dequantise, linear, mask_strides, quantise


def tile_function(call: Call) -> Lowered:
    """Raises: what `relax_function` raises."""
    a = call.arguments
    mask: Operand | None = a.get("attn_mask")
    match str(call.target):
        case "sparsecc.quantise.default":
            return Lowered(quantise(call.operands[0].elems, a["scale"], a["zero_point"]), (0,), reduces=False)
        case "sparsecc.dequantise.default":
            return Lowered(dequantise(call.operands[0].elems, a["scale"], a["zero_point"]), (0,), reduces=False)
        case _:
            function = None
    if call.item is None and all(o.dtype is torch.float32 for o in call.operands if o != mask):
        match str(call.target):
            case "aten.conv2d.default":
                function = _conv2d(**a)
            case "aten.linear.default":
                function = _linear(**a)
            case "aten.scaled_dot_product_attention.default":
                function = _attention(**a)
            case _:
                pass
    if function is None:
        return relax_function(*call.module())
    return Lowered(function, tuple(o.number for o in a.values() if isinstance(o, Operand)), True)


def _conv2d(
    input: Operand,  # noqa: A002  the schema's name
    weight: Operand,
    bias: Operand | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Any:
    if len(input.shape) != 4:
        return None
    filters, _, *kernel = weight.shape
    (down, right), (top, left), (step_down, step_right) = ((*pair, *pair)[:2] for pair in (stride, padding, dilation))
    sizes = Convolution(
        *input.shape,
        filters,
        (kernel[0], kernel[1]),
        (
            (input.shape[2] + 2 * top - step_down * (kernel[0] - 1) - 1) // down + 1,
            (input.shape[3] + 2 * left - step_right * (kernel[1] - 1) - 1) // right + 1,
        ),
        (down, right),
        (top, left),
        (step_down, step_right),
        groups,
    )
    return conv2d(sizes, bias=bias is not None)


def _linear(input: Operand, weight: Operand, bias: Operand | None) -> Any:  # noqa: A002  the schema's name
    if len(weight.shape) != 2:
        return None
    columns, depth = weight.shape
    return linear(math.prod(input.shape[:-1]), columns, depth, bias=bias is not None)


def _attention(
    query: Operand,
    key: Operand,
    value: Operand,
    attn_mask: Operand | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Any:
    *leading, queries, head_elems = query.shape
    *_, keys, _ = key.shape
    heads, key_heads = (tensor.shape[-3] if len(tensor.shape) > 2 else 1 for tensor in (query, key))
    fits = query.shape[:-3] == key.shape[:-3] and key.shape[:-1] == value.shape[:-1]
    if not fits or dropout_p or not (heads == key_heads or enable_gqa):
        return None
    if attn_mask and attn_mask.dtype not in (torch.bool, torch.float32):
        return None
    sizes = Attention(
        batch=math.prod(leading),
        heads=heads,
        key_heads=key_heads,
        queries=queries,
        keys=keys,
        head_elems=head_elems,
        value_elems=value.shape[-1],
        scale=head_elems**-0.5 if scale is None else scale,
        causal=is_causal,
        mask_dtype=dtype_name(attn_mask.dtype) if attn_mask else "",
        leading=tuple(leading),
        mask_strides=mask_strides(attn_mask.shape, leading, queries, keys) if attn_mask else (),
    )
    return attention(sizes)
