"""Small networks of the shapes in scope: concatenations, edges with several readers, transformer blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from programs import Model, filled, seeded
from torch import Tensor, nn
from torch.nn import functional


def concatenation() -> tuple[nn.Module, Tensor]:
    """A dense block: what was sent is concatenated with what was made of it."""

    def forward(m: Model, x: Tensor) -> Tensor:
        first = m.first(x).relu()
        both = torch.cat([first, m.second(first).relu()], 1)
        last: Tensor = m.head(m.third(both).relu().flatten(1))
        return last

    parts = {
        "first": nn.Conv2d(3, 16, 3, padding=1),
        "second": nn.Conv2d(16, 16, 3, padding=1),
        "third": nn.Conv2d(32, 16, 3, stride=2, padding=1),
        "head": nn.Linear(16 * 36, 10),
    }
    return scaled(Model(forward, **parts)), seeded(2, 3, 12, 12)


def several_readers() -> tuple[nn.Module, Tensor]:
    """One tensor is read on both tiles, by three layers and an addition."""

    def forward(m: Model, x: Tensor) -> Tensor:
        shared = m.first(x).relu()
        left = m.left(shared).relu()
        right = m.right(left).relu() + shared
        last: Tensor = m.head(torch.cat([right, m.again(shared + right)], -1))
        return last

    parts = {
        "first": nn.Linear(20, 300),
        "left": nn.Linear(300, 300),
        "right": nn.Linear(300, 300),
        "again": nn.Linear(300, 40),
        "head": nn.Linear(340, 10),
    }
    return scaled(Model(forward, **parts)), seeded(2, 20)


def transformer_block() -> tuple[nn.Module, Tensor]:
    """12 tokens of 32 features: attention with two heads and a feed-forward network, norms before both."""

    def forward(m: Model, x: Tensor) -> Tensor:
        h = m.norm1(x)
        q, k, v = (layer(h).unflatten(-1, (2, 16)).transpose(1, 2) for layer in (m.query, m.key, m.value))
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + m.out(attended)
        x = x + m.down(functional.gelu(m.up(m.norm2(x))))
        last: Tensor = m.head(x.mean(1))
        return last

    parts: dict[str, nn.Module] = {name: nn.Linear(32, 32) for name in ("query", "key", "value", "out")}
    parts |= {"up": nn.Linear(32, 96), "down": nn.Linear(96, 32), "head": nn.Linear(32, 5)}
    parts |= {"norm1": nn.LayerNorm(32), "norm2": nn.LayerNorm(32)}
    return scaled(Model(forward, **parts)), seeded(2, 12, 32)


def scaled(model: nn.Module) -> nn.Module:
    """Reproducible weights under which activations keep their size."""
    filled(model, density=1)
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.dim() > 1):
            weight.mul_(weight[0].numel() ** -0.5)
    return model


SMALL: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    made.__name__: made for made in (concatenation, several_readers, transformer_block)
}
