"""Operations that no region takes: a compile never fails over one that torch can export to ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from programs import filled
from torch import Tensor, nn
from torch.nn import functional

import sparsecc
from sparsecc.backends.onnxruntime.session import verify

Operation = Callable[[Tensor], Tensor]
INDEX = torch.tensor([3, 1, 2, 0])

VECTORS: dict[str, Operation] = {
    "trigonometry": lambda h: h.sin() + h.atan() + torch.atan2(h, h.cos()),
    "exponentials": lambda h: h.exp().log1p() + torch.expm1(h) + h.sigmoid() + functional.softplus(h),
    "special functions": lambda h: h.erf() + torch.special.expit(h) + torch.logaddexp(h, -h),
    "rounding": lambda h: h.round() + h.floor() + h.trunc() + h.frac() + h.sign(),
    "activations": lambda h: functional.silu(h) + functional.mish(h) + functional.elu(h) + functional.hardswish(h),
    "softmax": lambda h: h.softmax(-1) + h.log_softmax(-1),
    "reductions": lambda h: h.mean(-1, True) + h.var(-1, keepdim=True) + h.amax(-1, True) + h.logsumexp(-1, True),
    "scans": lambda h: h.cumsum(-1) + h.flip(-1) + h.roll(2, -1),
    "choices": lambda h: torch.where(h > 0, h, h.abs() + 1).clamp(-1, 1),
    "order": lambda h: h.sort(-1).values + h.topk(16, -1).values + h.argmax(-1, keepdim=True),
    "indices": lambda h: h.index_select(-1, INDEX).gather(-1, INDEX.expand(len(h), 4)).scatter(1, INDEX[None, :1], 1.0),
    "joining": lambda h: torch.stack(torch.cat([h, h], -1).chunk(2, -1), 1).sum(1),
    "products": lambda h: torch.einsum("bi,bj->bij", h, h).diagonal(dim1=1, dim2=2) + (h @ h.mT).mean(),
    "integers": lambda h: (h.long() // 3 % 5 << 1).bitwise_and(7).to(h.dtype),
    "triangles": lambda h: torch.einsum("bi,bj->bij", h, h).tril().triu(-3).sum(-1),
    "float16": lambda h: (h.half() * 2).float(),
    "one-hot": lambda h: functional.one_hot(h.argmax(-1), 16).to(h.dtype),
}
IMAGES: dict[str, Operation] = {
    "grouped convolution": nn.Conv2d(4, 8, 3, groups=2),
    "depthwise convolution": nn.Conv2d(4, 4, 3, groups=4, padding=1),
    "transposed convolution": nn.ConvTranspose2d(4, 3, 2, stride=2),
    "1-d convolution": lambda x: functional.conv1d(x.flatten(2), torch.ones(2, 4, 3)),
    "3-d convolution": lambda x: functional.conv3d(x[:, None], torch.ones(2, 1, 2, 2, 2)),
    "interpolation": lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False),
    "group norm": nn.GroupNorm(2, 4),
    "instance norm": nn.InstanceNorm2d(4, affine=True),
    "padding": lambda x: functional.pad(x, (1, 2, 1, 2), mode="reflect"),
    "pixel shuffle": lambda x: functional.pixel_shuffle(x, 2),
    "attention": lambda x: functional.scaled_dot_product_attention(x, x, x),
    "grid sample": lambda x: functional.grid_sample(x, x[:, :2].permute(0, 2, 3, 1).tanh(), align_corners=False),
    "patches": lambda x: functional.unfold(x, 3, padding=1),
}


class Branches(nn.Module):
    """One sparse layer, and every operation on what it gives."""

    def __init__(self, layer: nn.Module, operations: dict[str, Operation]) -> None:
        super().__init__()
        self.layer = layer
        self.modules_of = nn.ModuleList(op for op in operations.values() if isinstance(op, nn.Module))
        self.operations = operations

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = self.layer(x)
        return tuple(operation(h) for operation in self.operations.values())


@pytest.mark.parametrize(
    ("layer", "operations", "x"),
    [(nn.Linear(32, 16), VECTORS, torch.randn(3, 32)), (nn.Conv2d(2, 4, 3), IMAGES, torch.randn(2, 2, 10, 10))],
    ids=["vectors", "images"],
)
def test_what_no_region_takes_stays_plain_onnx(
    layer: nn.Module, operations: dict[str, Operation], x: Tensor, tmp_path: Path
) -> None:
    model = filled(Branches(layer, operations))
    artifact = sparsecc.compile(model, (x,), tune=False).save(tmp_path / "m.sparsecc")
    assert next(iter(artifact.manifest.layers.values())).format != "dense"
    verdicts = verify(artifact)
    assert len(verdicts) == 3 * len(operations)
    assert all(verdict.ok for verdict in verdicts), [v for v in verdicts if not v.ok]
