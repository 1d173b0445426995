"""One-shot magnitude pruning, in place and exact to the weight: for trying a sparsity, not for keeping accuracy.

Prunes the `weight` of every Conv2d and Linear; biases, norms and embeddings stay. Nothing is retrained.

Shapes: a weight counts as a matrix [out, in * kh * kw] where blocks are meant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsecc.diagnostics import CompileError


def prune_by_magnitude(
    model: nn.Module, sparsity: float, *, skip_first_conv: bool = False, scope: Literal["layer", "global"] = "layer"
) -> dict[str, float]:
    """Zero the smallest weights of each layer (or of all layers together) and return the share of zeros by parameter.

    Exactly round(sparsity * n) weights are zeroed, ties going to the lower index (layers in module order); with zeros
    there before, the share returned can be higher. A skipped convolution is not in the result.

    Raises: CompileError SCC041 for a sparsity outside 0..1, SCC042 for a weight that is computed, not stored.
    """
    _verify_share(sparsity)
    weights = prunable_weights(model, skip_first_conv=skip_first_conv)
    if scope == "layer" or not weights:
        masks = {name: smallest(weight.abs().flatten(), sparsity) for name, weight in weights.items()}
    else:
        mask = smallest(torch.cat([weight.abs().flatten() for weight in weights.values()]), sparsity)
        masks = dict(zip(weights, torch.split(mask, [weight.numel() for weight in weights.values()]), strict=True))
    return {name: _zero(weight, masks[name].view_as(weight)) for name, weight in weights.items()}


def prune_blocks(model: nn.Module, sparsity: float, block_rows: int, block_cols: int = 1) -> dict[str, float]:
    """Zero the blocks of least L2 norm in each layer and return the share of zero elements by parameter.

    The grid starts at the matrix's first element; blocks at the far edges are cut off and compete with what they hold.
    Exactly round(sparsity * blocks) blocks are zeroed, ties going to the lower index in row-major order.

    Raises: as `prune_by_magnitude`; CompileError SCC041 for a block without elements.
    """
    _verify_share(sparsity)
    if block_rows < 1 or block_cols < 1:
        raise CompileError.of(
            "SCC041",
            f"a pruning block of {block_rows} x {block_cols} holds no weights",
            help="give at least one row and one column",
        )
    realised: dict[str, float] = {}
    for name, weight in prunable_weights(model).items():
        matrix = weight.reshape(weight.shape[0], math.prod(weight.shape[1:]))
        rows, cols = matrix.shape
        grid_rows, grid_cols = -(-rows // block_rows), -(-cols // block_cols)
        filled = functional.pad(matrix, (0, grid_cols * block_cols - cols, 0, grid_rows * block_rows - rows))
        blocks = filled.reshape(grid_rows, block_rows, grid_cols, block_cols)
        dropped = smallest(blocks.double().square().sum((1, 3)).flatten(), sparsity).view(grid_rows, grid_cols)
        spread = dropped.repeat_interleave(block_rows, 0).repeat_interleave(block_cols, 1)
        realised[name] = _zero(weight, spread[:rows, :cols].reshape(weight.shape))
    return realised


def prunable_weights(model: nn.Module, *, skip_first_conv: bool = False) -> dict[str, Tensor]:
    """Detached views of all Conv2d and Linear weights by parameter name, in module order; shared weights once.

    Raises: CompileError SCC042 for a weight that a mask or parametrization computes: zeros written to it would be lost.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    skip = skip_first_conv
    for prefix, module in cast("Iterable[tuple[str, nn.Module]]", model.named_modules()):
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        name = f"{prefix}.weight" if prefix else "weight"
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        if weight is None:
            raise CompileError.of(
                "SCC042",
                f"{name} is computed by a mask or parametrization, so pruning it in place would be lost",
                help="make it permanent first, with torch.nn.utils.prune.remove or remove_parametrizations",
            )
        if isinstance(module, nn.Conv2d) and skip:
            skip = False
        elif id(weight) not in seen:
            found[name] = weight.detach()
        seen.add(id(weight))
    return found


def smallest(scores: Tensor, share: float) -> Tensor:
    """Mask over the scores [n] of the round(share * n) smallest, ties going to the lower index."""
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask[scores.argsort(stable=True)[: round(share * scores.numel())]] = True
    return mask


def _zero(weight: Tensor, mask: Tensor) -> float:
    weight.masked_fill_(mask, 0.0)
    return float((weight == 0).sum()) / weight.numel() if weight.numel() else 0.0


def _verify_share(sparsity: float) -> None:
    if not 0 <= sparsity <= 1:
        raise CompileError.of(
            "SCC041", f"a sparsity of {sparsity} is no share of the weights", help="give 0.9 to prune 90 %"
        )
