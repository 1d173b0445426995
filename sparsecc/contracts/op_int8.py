"""The torch ops of int8.py: ``quantise`` and ``dequantise``, one kernel each on the unit. Importing registers them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._ops import OpOverload

from .int8 import GREATEST, LEAST


@torch.library.custom_op("sparsecc::quantise", mutates_args=())
def quantise(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """int8 of float32 x."""
    return places(x, scale, zero_point).clamp_(LEAST, GREATEST).to(torch.int8)


@torch.library.custom_op("sparsecc::dequantise", mutates_args=())
def dequantise(q: Tensor, scale: float, zero_point: int) -> Tensor:
    """float32 of int8 q."""
    return (q.float() - zero_point).mul_(scale)


def places(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """Where x is on the grid, which may be beyond its ends."""
    # a tensor, as torch may multiply by the reciprocal of a number
    return x.masked_fill(x.isnan(), 0).div_(torch.tensor(scale, dtype=torch.float32)).round_().add_(zero_point)


@quantise.register_fake  # pyright: ignore[reportUnknownMemberType, reportUntypedFunctionDecorator]  Callable of what?
def _int8_like(x: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.int8)


@dequantise.register_fake  # pyright: ignore[reportUnknownMemberType, reportUntypedFunctionDecorator]  Callable of what?
def _float32_like(q: Tensor, *_: object) -> Tensor:
    return q.new_empty(q.shape, dtype=torch.float32)


QUANTISE: OpOverload = torch.ops.sparsecc.quantise.default
DEQUANTISE: OpOverload = torch.ops.sparsecc.dequantise.default
