"""Lower an attention region: one sample per item, on the tensors as they are."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import fx

from sparsecc.regions import Attention, tensor

from .builder import Builder
from .fuse import Layer
from .kernels import spec
from .kernels.parameters import AttentionParameters, float_bits
from .kernels.spec import QUERY_LANES
from .plan import NOTHING, Ref, Step


@dataclass
class AttentionLowering:
    """Emits a step per layer, from inputs of the region to its outputs."""

    builder: Builder
    outputs: dict[fx.Node, int] = field(default_factory=dict[fx.Node, int])

    def lower(self, layer: Layer) -> None:
        op, builder = layer.op, self.builder
        assert isinstance(op, Attention), op
        (queries, features), keys = map(int, tensor(op.q).shape[1:]), int(tensor(op.k).shape[1])
        blocks = -(-queries // QUERY_LANES)
        sizes = AttentionParameters(queries, keys, op.heads, blocks, float_bits(op.scale))
        kernel = spec.Attention(features // op.heads, op.mask is not None)
        flops = 4 * queries * keys * features
        touched = 4 * (2 * features * (queries + keys) + queries * keys * (op.mask is not None))
        x, z, values = map(builder.input, (op.q, op.k, op.v))
        mask = NOTHING if op.mask is None else builder.input(op.mask)
        y = Ref("output", self.outputs[layer.node])
        costs = flops, flops, touched
        builder.emit(Step(layer.name, kernel, sizes, op.heads * blocks, *costs, x, y, z, values=values, bias=mask))

    def write(self, number: int, node: fx.Node) -> None:
        """Every step writes its output."""
