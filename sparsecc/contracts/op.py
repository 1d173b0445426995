"""``torch.ops.sparsecc.keep_top``: a contract in a torch graph, with the exact selection of topk.py.

Importing this module registers the op. It runs in eager mode, stays one node under torch.export, and is trainable:
the choice is taken as given, so what is sent passes its gradient straight through, and what is dropped receives none,
like the sensitivity and the fill. (ResNet-20 at 28 % of its bytes, 312 steps of the recipe in
benchmarks/finetune_contracts.py: 87.2 % of 1,000 test images; with the gradient of the identity for dropped elements
too, 83.8 %.)

Letters: R samples, N elements of each, S map entries, F fill entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload

from sparsecc.program import schema

from .contract import Contract
from .keys import offset_table
from .topk import keep_elems

_BITS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32}


@torch.library.custom_op("sparsecc::keep_top", mutates_args=())
def keep_top(
    x: Tensor,
    sensitivity: Tensor,
    fill: Tensor,
    share_q16: int,
    tile_elems: int,
    map_block: int,
    fill_block: int,
    axis: int,
    key_bits: int,
    key_shift: int,
    key_base: int,
    zero_point: int,
    skip_zero: bool,
) -> Tensor:
    """x, whose dtype is the key's, with the dropped elements of every tile replaced by the fill.

    Shapes: x [..., elements from ``axis`` on]; sensitivity u8 [S], one per ``map_block`` elements; fill [F] of x's
    dtype, one per ``fill_block`` elements; both repeat. The attributes are those of Contract and Key.
    """
    flat = x.reshape(x.shape[:axis].numel(), x.shape[axis:].numel())
    elems = flat.shape[1]
    s = _spread(sensitivity, map_block, elems)
    keys = _keys(flat, s, (1 << key_bits) - 1, key_shift, key_base, zero_point)
    width = max(1, min(tile_elems, elems))
    whole = elems // width * width
    kept = torch.cat(
        [
            _first_k(keys[:, :whole].reshape(-1, width), keep_elems(width, share_q16)).reshape(len(flat), whole),
            _first_k(keys[:, whole:], keep_elems(elems - whole, share_q16)),
        ],
        dim=1,
    )
    fills = _spread(fill, fill_block, elems)
    sent = kept & (flat != fills) if skip_zero else kept
    return torch.where(sent, flat, fills).reshape(x.shape)


def _spread(per_block: Tensor, block: int, elems: int) -> Tensor:
    places = torch.arange(elems, device=per_block.device)
    return per_block[places // block % len(per_block)]


def _keys(x: Tensor, s: Tensor, maximum: int, shift: int, base: int, zero_point: int) -> Tensor:
    """``make_keys`` of the same numbers: int32 [R, N]."""
    if x.dtype == torch.int8:
        return (((x.int() - zero_point).abs() * s.int()) >> shift).clamp(max=maximum)
    if x.dtype not in _BITS:
        raise ValueError(f"no key is defined for {x.dtype}")
    name = str(x.dtype).removeprefix("torch.")
    bits = x.contiguous().view(_BITS[x.dtype]).int()
    magnitudes = (bits >> (16 if x.dtype == torch.float32 else 0)) & 0x7FFF
    offsets = torch.tensor(offset_table(name).tolist(), dtype=torch.int32, device=x.device)[s.long()] - base
    keys = ((magnitudes + offsets) >> shift).clamp(0, maximum)
    return keys.masked_fill(x.isnan(), maximum)


def _first_k(keys: Tensor, k: int) -> Tensor:
    """``first_k`` of keys [R, n]. The ranks are distinct, so that their k-th greatest is no matter of taste."""
    n = keys.shape[1]
    if k == 0 or keys.numel() == 0:
        return torch.zeros_like(keys, dtype=torch.bool)
    from_end = torch.arange(0xFFFF, 0xFFFF - n, -1, dtype=torch.int32, device=keys.device)
    ranks = (keys - 0x8000 << 16) | from_end  # 32 bits, signed
    # numpy's selection is three times as fast as torch's
    return ranks >= torch.from_numpy(np.partition(ranks.numpy(), n - k, axis=1)[:, n - k, None])


@keep_top.register_fake  # pyright: ignore[reportUnknownMemberType, reportUntypedFunctionDecorator]  Callable of what?
def _like_x(x: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape)


def _note_kept(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0] == output)


def _through_kept(context: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (kept,) = context.saved_tensors
    return (grad * kept, *(None for _ in range(12)))


keep_top.register_autograd(_through_kept, setup_context=_note_kept)  # pyright: ignore[reportUnknownMemberType]

KEEP_TOP: OpOverload = torch.ops.sparsecc.keep_top.default
KEEP_TOP_ATTRIBUTES = tuple(a.name for a in schema(KEEP_TOP).arguments[3:])
"""What follows x, sensitivity and fill; ONNX's function has attributes of the same names."""


def attributes(contract: Contract, fill_block: int = 1) -> dict[str, int]:
    """The attributes of the op for a contract, by name and in the op's order; ONNX's are the same."""
    key = contract.key
    return {
        "share_q16": contract.share_q16,
        "tile_elems": contract.tile_elems,
        "map_block": contract.map_block,
        "fill_block": fill_block,
        "axis": contract.axis,
        "key_bits": key.bits,
        "key_shift": key.shift,
        "key_base": key.base,
        "zero_point": key.zero_point,
        "skip_zero": int(contract.skip_zero),
    }


def transmit(
    x: Tensor, sensitivity: Tensor, contract: Contract, fill: Tensor | None = None, fill_block: int = 1
) -> Tensor:
    """What arrives of x: ``contract.transmit`` in torch. Without a fill, dropped elements are 0 or the zero point."""
    if fill is None:
        fill = x.new_full((1,), contract.key.zero_point)
    numbers = attributes(contract, fill_block)
    skip_zero = bool(numbers.pop("skip_zero"))
    last = contract.order == "channels-last"
    ordered = x.movedim(contract.axis, -1) if last else x
    arrived: Tensor = keep_top(ordered, sensitivity, fill, *numbers.values(), skip_zero)
    return arrived.movedim(-1, contract.axis).contiguous() if last else arrived
