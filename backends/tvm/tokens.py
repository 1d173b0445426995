"""Lower a token region: per item a panel of tokens, every value [features][lanes], or one token, a plain vector."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import fx

from sparsecc.regions import Activation, Add, LayerNorm, Linear, item_shape

from .builder import Builder, Value
from .fuse import Layer
from .kernels import spec
from .kernels.parameters import LayerNormParameters, TokensParameters, VectorNormParameters, float_bits
from .kernels.spec import VECTOR_LANES, Epilogue, LoadTokens, StoreTokens
from .matmul import Columns, multiply
from .plan import LANES, NOTHING, Ref, Step


@dataclass
class TokenLowering:
    """Emits the steps of layers over panels of ``lanes`` tokens: a multiple of a vector, or 1."""

    builder: Builder
    lanes: int
    values: dict[fx.Node, Value] = field(default_factory=dict[fx.Node, Value])

    def lower(self, layer: Layer) -> None:
        builder = self.builder
        match layer.op:
            case Linear() as op:
                x = self._value(op.x)
                z = None if layer.add is None else self._value(layer.add)
                y, epilogue = self._new(layer.node), Epilogue(layer.function, layer.add is not None)
                bias, columns = builder.bias(op.bias), Columns(self.lanes)
                multiply(builder, layer.name, op.weight, bias, x.ref, columns, y, z, epilogue)
            case LayerNorm() as op:
                x, y = self._value(op.x), self._new(layer.node)
                self._layer_norm(layer.name, op, x, y)
            case Activation() as op:
                x, y = self._value(op.x), self._new(layer.node)
                builder.elementwise(layer.name, x, y, NOTHING, Epilogue(op.function))
            case Add() as op:
                x, added, y = self._value(op.x), self._value(op.y).ref, self._new(layer.node)
                builder.elementwise(layer.name, x, y, added, Epilogue(layer.function, True))
            case _:
                raise AssertionError(layer.op)

    def write(self, number: int, node: fx.Node) -> None:
        panel, output = self._value(node), Ref("output", number)
        if self.lanes == 1:
            self.builder.copy(f"{node.name}.out", panel, replace(panel, ref=output))
        else:
            self._transfer(f"{node.name}.out", StoreTokens(), panel, panel.ref, output)

    def _value(self, node: fx.Node) -> Value:
        """The panel of a node; the region's inputs are loaded where they are first needed. One token needs no loading:
        the kernels of a vector touch its elements only."""
        if node not in self.values and self.lanes == 1:
            features, _, _ = item_shape(node, "token")
            self.values[node] = Value(self.builder.input(node), features, 1, 1, 1)
        elif node not in self.values:
            panel = self._new(node)
            self._transfer(f"{node.name}.in", LoadTokens(), panel, self.builder.input(node), panel.ref)
        return self.values[node]

    def _new(self, node: fx.Node) -> Value:
        features, _, _ = item_shape(node, "token")
        self.values[node] = Value(self.builder.buffer(features * self.lanes), features, 1, self.lanes, self.lanes)
        return self.values[node]

    def _transfer(self, name: str, kernel: LoadTokens | StoreTokens, panel: Value, x: Ref, y: Ref) -> None:
        parameters = TokensParameters(panel.channels, panel.pitch)
        self.builder.emit(Step(name, kernel, parameters, LANES, 8 * panel.elems, 0, 8 * panel.elems, x, y))

    def _layer_norm(self, name: str, op: LayerNorm, x: Value, y: Value) -> None:
        values, bias = self.builder.input(op.weight), self.builder.input(op.bias)
        epsilon_bits, costs = float_bits(op.epsilon), (20 * x.elems, 0, 8 * x.elems)
        if self.lanes == 1:
            one = VectorNormParameters(x.channels, epsilon_bits)
            step = Step(name, spec.VectorNorm(), one, 1, *costs, x.ref, y.ref)
        else:
            parameters, units = LayerNormParameters(x.channels, x.pitch, epsilon_bits), x.pitch // VECTOR_LANES
            step = Step(name, spec.LayerNorm(), parameters, units, *costs, x.ref, y.ref)
        self.builder.emit(replace(step, values=values, bias=bias))
