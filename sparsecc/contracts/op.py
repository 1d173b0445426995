"""``torch.ops.sparsecc.keep_top``: a contract in a torch graph, with the exact selection of topk.py.

``keep_top_moving`` is that of a contract whose k moves. Importing this module registers the ops. They run in eager
mode, stay one node under torch.export, and are trainable: the choice is taken as given, so what is sent passes its
gradient straight through, and what is dropped receives none, like the sensitivity and the fill. (ResNet-20 at 28 % of
its bytes, 312 steps of the recipe in benchmarks/finetune_contracts.py: 87.2 % of 1,000 test images; with the gradient
of the identity for dropped elements too, 83.8 %.)

Letters: R samples, N elements of each, T whole tiles of n, S map entries, F fill entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn import functional

from sparsecc.program import schema

from .contract import Contract
from .keys import offset_table
from .topk import STEPS, WHOLE, Moves, keep_elems

_BITS = {
    torch.int8: torch.int8,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
}


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
    kept = _first_k(keys[:, :whole].reshape(-1, width), keep_elems(width, share_q16)).reshape(len(flat), whole)
    rest = _first_k(keys[:, whole:], keep_elems(elems - whole, share_q16))
    return _arrived(flat, torch.cat([kept, rest], 1), _spread(fill, fill_block, elems), skip_zero).reshape(x.shape)


@torch.library.custom_op("sparsecc::keep_top_moving", mutates_args=())
def keep_top_moving(
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
    share_lo_q16: int,
    share_hi_q16: int,
    period: int,
    margin_lo_q16: int,
    margin_hi_q16: int,
) -> Tensor:
    """``keep_top`` with a k that moves every ``period`` tiles, as topk.select_moving says."""
    flat = x.reshape(x.shape[:axis].numel(), x.shape[axis:].numel())
    elems = flat.shape[1]
    s = _spread(sensitivity, map_block, elems)
    keys = _keys(flat, s, (1 << key_bits) - 1, key_shift, key_base, zero_point)
    width = max(1, min(tile_elems, elems))
    whole = elems // width * width
    moves = Moves(share_q16, share_lo_q16, share_hi_q16, period, margin_lo_q16, margin_hi_q16)
    kept = _first_moving(keys[:, :whole].reshape(len(flat), whole // width, width), moves).reshape(len(flat), whole)
    rest = _first_k(keys[:, whole:], keep_elems(elems - whole, share_hi_q16))
    return _arrived(flat, torch.cat([kept, rest], 1), _spread(fill, fill_block, elems), skip_zero).reshape(x.shape)


def _arrived(flat: Tensor, kept: Tensor, fills: Tensor, skip_zero: bool) -> Tensor:
    """``torch.where(sent, flat, fills)``, of the bits: a fifth of its time."""
    sent = kept & (flat != fills) if skip_zero else kept
    bits = _bits(flat)
    ones = sent.to(bits.dtype).neg_()
    return (bits & ones).bitwise_or_(ones.bitwise_not_().bitwise_and_(_bits(fills))).view(flat.dtype)


def _bits(x: Tensor) -> Tensor:
    return x.contiguous().view(_BITS[x.dtype])


def _spread(per_block: Tensor, block: int, elems: int) -> Tensor:
    places = torch.arange(elems, device=per_block.device)
    return per_block[places // block % len(per_block)]


def _keys(x: Tensor, s: Tensor, maximum: int, shift: int, base: int, zero_point: int) -> Tensor:
    """``make_keys`` of the same numbers: int32 [R, N]."""
    if x.dtype == torch.int8:
        return (((x.int() - zero_point).abs() * s.int()) >> shift).clamp(max=maximum)
    if x.dtype not in _BITS:
        raise ValueError(f"no key is defined for {x.dtype}")
    offsets = torch.from_numpy(offset_table(str(x.dtype).removeprefix("torch.")) - np.int32(base))
    keys = (_bits(x) >> (16 if x.dtype == torch.float32 else 0)).int()
    keys = keys.bitwise_and_(0x7FFF).add_(offsets[s.int()])
    keys = keys.bitwise_right_shift_(shift).clamp_(0, maximum)
    # a sum that is a number has no NaN among its terms
    return keys.masked_fill_(x.isnan(), maximum) if x.sum().isnan() else keys


def _first_k(keys: Tensor, k: int) -> Tensor:
    """``first_k`` of keys [R, n]. The ranks are distinct, so that their k-th greatest is no matter of taste."""
    n = keys.shape[1]
    if k == 0 or keys.numel() == 0:
        return torch.zeros_like(keys, dtype=torch.bool)
    ranks = _ranks(keys)
    # numpy's selection is three times as fast as torch's
    return ranks >= torch.from_numpy(np.partition(ranks.numpy(), n - k, axis=1)[:, n - k, None])


def _first_moving(keys: Tensor, moves: Moves) -> Tensor:
    """What whole tiles keep of keys [R, T, n]. Sorted once, the mass that any k would keep is a prefix sum."""
    if keys.numel() == 0:
        return torch.zeros_like(keys, dtype=torch.bool)
    n = keys.shape[2]
    start, lo, hi = (keep_elems(n, share) for share in (moves.start_q16, moves.lo_q16, moves.hi_q16))
    step = max(1, (hi - lo) // STEPS)
    ranks = _ranks(keys)
    ordered = torch.from_numpy(~np.sort(~ranks.numpy(), axis=2))  # falling; ten times as fast as torch's
    masses = functional.pad(((ordered >> 16) + 0x8000).long().cumsum(2), (1, 0))  # at k: of the first k
    k = torch.full_like(masses[:, 0, 0], start)
    kept, total, chosen = torch.zeros_like(k), torch.zeros_like(k), list[Tensor]()
    for tile in range(keys.shape[1]):
        chosen.append(k)
        kept = kept + masses[:, tile].gather(1, k[:, None])[:, 0]
        total = total + masses[:, tile, n]
        if (tile + 1) % moves.period == 0:
            share = WHOLE * kept // total.clamp(min=1)
            falls = (total > 0) & (share > moves.margin_hi_q16)
            rises = (total > 0) & (share < moves.margin_lo_q16)
            k = torch.where(falls, (k - step).clamp(min=lo), torch.where(rises, (k + step).clamp(max=hi), k))
            kept, total = torch.zeros_like(k), torch.zeros_like(k)
    ks = torch.stack(chosen, 1)[:, :, None]
    return (ranks >= ordered.gather(2, (ks - 1).clamp(min=0))) & (ks > 0)


def _ranks(keys: Tensor) -> Tensor:
    """Key and place in one number: int32, signed, [..., n]."""
    from_end = torch.arange(0xFFFF, 0xFFFF - keys.shape[-1], -1, dtype=torch.int32, device=keys.device)
    return (keys - 0x8000).bitwise_left_shift_(16).bitwise_or_(from_end)


@keep_top_moving.register_fake  # pyright: ignore[reportUnknownMemberType, reportUntypedFunctionDecorator]  Callable of what?
@keep_top.register_fake  # pyright: ignore[reportUnknownMemberType, reportUntypedFunctionDecorator]  Callable of what?
def _like_x(x: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape)


def _note_kept(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0] == output)
    ctx.others = len(inputs) - 1


def _through_kept(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (kept,) = ctx.saved_tensors
    return (grad * kept, *[None] * ctx.others)


keep_top.register_autograd(_through_kept, setup_context=_note_kept)  # pyright: ignore[reportUnknownMemberType]
keep_top_moving.register_autograd(_through_kept, setup_context=_note_kept)  # pyright: ignore[reportUnknownMemberType]

KEEP_TOP: OpOverload = torch.ops.sparsecc.keep_top.default
KEEP_TOP_MOVING: OpOverload = torch.ops.sparsecc.keep_top_moving.default
KEEP_TOPS = {op: tuple(a.name for a in schema(op).arguments[3:]) for op in (KEEP_TOP, KEEP_TOP_MOVING)}
"""What follows x, sensitivity and fill; ONNX's functions have attributes of the same names."""


def op_of(contract: Contract) -> OpOverload:
    return KEEP_TOP_MOVING if contract.period else KEEP_TOP


def attributes(contract: Contract, fill_block: int = 1) -> dict[str, int]:
    """The attributes of a contract's op, by name and in the op's order; ONNX's are the same."""
    key = contract.key
    fixed = {
        "share_q16": contract.share_q16,
        "tile_elems": contract.tile_elems,
        "map_block": contract.map_block,
        "fill_block": fill_block,
        "axis": contract.axis,
        "key_bits": key.bits,
        "key_shift": key.shift,
        "key_base": key.base,
        "zero_point": key.zero_point,
        "skip_zero": contract.skip_zero,
    }
    if not contract.period:
        return fixed
    names = ("share_lo_q16", "share_hi_q16", "period", "margin_lo_q16", "margin_hi_q16")
    return fixed | {name: getattr(contract, name) for name in names}


def transmit(
    x: Tensor, sensitivity: Tensor, contract: Contract, fill: Tensor | None = None, fill_block: int = 1
) -> Tensor:
    """What arrives of x: ``contract.transmit`` in torch. Without a fill, dropped elements are the contract's."""
    if fill is None:
        fill = x.new_full((1,), contract.dropped)
    last = contract.order == "channels-last"
    ordered = x.movedim(contract.axis, -1) if last else x
    arrived: Tensor = op_of(contract)(ordered, sensitivity, fill, *attributes(contract, fill_block).values())
    return arrived.movedim(-1, contract.axis).contiguous() if last else arrived
