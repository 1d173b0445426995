"""``torch.ops.sparsecc.keep_top``: a contract in a torch graph, with the exact selection of topk.py.

``keep_top_moving`` is that of a contract whose k moves, ``keep_top_int8`` that of float32 that travels as int8.
Importing this module registers the ops. They run in eager mode, stay one node under torch.export, and are trainable:
the choice is taken as given, so what is sent passes its gradient straight through, and what is dropped receives none,
like the sensitivity and the fill. (ResNet-20 at 28 % of its bytes, 312 steps of the recipe in
benchmarks/finetune_contracts.py: 87.2 % of 1,000 test images; with the gradient of the identity for dropped elements
too, 83.8 %.) What int8 clamps receives none either.

Letters: R samples, N elements of each, T whole tiles of n, S map entries, F fill entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn import functional

from sparsecc.program import schema

from .contract import Contract
from .int8 import GREATEST, LEAST
from .keys import offset_table
from .op_int8 import DEQUANTISE, QUANTISE, places
from .topk import STEPS, WHOLE, Moves, keep_elems

_BITS = {
    torch.int8: torch.int8,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
}
Value = TypeVar("Value")


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


@torch.library.custom_op("sparsecc::keep_top_int8", mutates_args=())
def keep_top_int8(
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
    scale: float,
) -> Tensor:
    """float32 x as it arrives by way of int8, of which ``fill`` is; with a period, k moves."""
    tile, key = (tile_elems, map_block, fill_block, axis), (key_bits, key_shift, key_base, zero_point)
    moves = share_lo_q16, share_hi_q16, period, margin_lo_q16, margin_hi_q16
    numbers = share_q16, *tile, *key, skip_zero, *moves, scale
    return expand(lambda op, args: op(*args), x, sensitivity, fill, *numbers)


def expand(
    call: Callable[[OpOverload, tuple[Any, ...]], Value], x: Value, sensitivity: Value, fill: Value, *numbers: Any
) -> Value:
    """``keep_top_int8`` in three steps: ``call(op, args)`` makes each, of what the one before it gave."""
    named = dict(zip(KEEP_TOPS[KEEP_TOP_INT8], numbers, strict=True))
    grid = named["scale"], named["zero_point"]
    op = KEEP_TOP_MOVING if named["period"] else KEEP_TOP
    sent = call(op, (call(QUANTISE, (x, *grid)), sensitivity, fill, *(named[name] for name in KEEP_TOPS[op])))
    return call(DEQUANTISE, (sent, *grid))


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


@keep_top_int8.register_fake  # pyright: ignore[reportUnknownMemberType, reportUntypedFunctionDecorator]  Callable of what?
@keep_top_moving.register_fake  # pyright: ignore[reportUnknownMemberType, reportUntypedFunctionDecorator]  Callable of what?
@keep_top.register_fake  # pyright: ignore[reportUnknownMemberType, reportUntypedFunctionDecorator]  Callable of what?
def _like_x(x: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape)


def _note_kept(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0] == output)
    ctx.others = len(inputs) - 1


def _note_kept_int8(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *others = inputs
    named = dict(zip(KEEP_TOPS[KEEP_TOP_INT8], inputs[3:], strict=True))
    grid = named["scale"], named["zero_point"]
    place = places(x, *grid)
    arrives = DEQUANTISE(QUANTISE(x, *grid), *grid) == output
    ctx.save_for_backward(arrives & (place >= LEAST) & (place <= GREATEST) & ~x.isnan())
    ctx.others = len(others)


def _through_kept(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (kept,) = ctx.saved_tensors
    return (grad * kept, *[None] * ctx.others)


keep_top.register_autograd(_through_kept, setup_context=_note_kept)  # pyright: ignore[reportUnknownMemberType]
keep_top_moving.register_autograd(_through_kept, setup_context=_note_kept)  # pyright: ignore[reportUnknownMemberType]
keep_top_int8.register_autograd(_through_kept, setup_context=_note_kept_int8)  # pyright: ignore[reportUnknownMemberType]

KEEP_TOP: OpOverload = torch.ops.sparsecc.keep_top.default
KEEP_TOP_MOVING: OpOverload = torch.ops.sparsecc.keep_top_moving.default
KEEP_TOP_INT8: OpOverload = torch.ops.sparsecc.keep_top_int8.default
KEEP_TOPS = {op: tuple(a.name for a in schema(op).arguments[3:]) for op in (KEEP_TOP, KEEP_TOP_MOVING, KEEP_TOP_INT8)}
"""What follows x, sensitivity and fill; ONNX's functions have attributes of the same names."""


def op_of(contract: Contract) -> OpOverload:
    if contract.scale:
        return KEEP_TOP_INT8
    return KEEP_TOP_MOVING if contract.period else KEEP_TOP


def attributes(contract: Contract, fill_block: int = 1) -> dict[str, int | float]:
    """The attributes of a contract's op, by name and in the op's order; ONNX's are the same."""
    key = contract.key
    of_key = {
        "fill_block": fill_block,
        "key_bits": key.bits,
        "key_shift": key.shift,
        "key_base": key.base,
        "zero_point": key.zero_point,
    }
    return {n: of_key[n] if n in of_key else getattr(contract, n) for n in KEEP_TOPS[op_of(contract)]}


def transmit(
    x: Tensor, sensitivity: Tensor, contract: Contract, fill: Tensor | None = None, fill_block: int = 1
) -> Tensor:
    """What arrives of x: ``contract.transmit`` in torch. Without a fill, dropped elements are the contract's."""
    if fill is None:
        fill = torch.full((1,), contract.dropped, dtype=travelling(contract, x.dtype), device=x.device)
    last = contract.order == "channels-last"
    ordered = x.movedim(contract.axis, -1) if last else x
    arrived: Tensor = op_of(contract)(ordered, sensitivity, fill, *attributes(contract, fill_block).values())
    return arrived.movedim(-1, contract.axis).contiguous() if last else arrived


def travelling(contract: Contract, dtype: torch.dtype) -> torch.dtype:
    """Of the payload of an edge that carries ``dtype``; of its fill too."""
    return torch.int8 if contract.scale else dtype
