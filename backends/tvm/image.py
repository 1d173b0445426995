"""Lower an image region: one sample per item, every value [channels][pixels]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from torch import fx

from sparsecc.regions import (
    Activation,
    Add,
    Conv2d,
    Linear,
    Pool2d,
    Reshape,
    Window,
    item_shape,
)

from .builder import Builder, Value, kernel_pitch
from .fuse import Layer
from .kernels.parameters import GlobalAverageParameters, PoolParameters, ShiftParameters
from .kernels.spec import COPIES, AveragePool, Epilogue, GlobalAverage, MaxPool, Shift
from .matmul import Columns, multiply
from .plan import NOTHING, Ref, Step

FRAME_BYTES_MOST = 1_500_000
"""In ResNet-50 with 90 % zeros (one thread of an EPYC, 1 MiB of second-level cache per core), a bottleneck whose frame
takes 1.2 MB (128 x 28 x 28) gains 35 us of 1,020, one with 2.4 MB (64 x 56 x 56) loses 115 to 154 us."""


def framed_nodes(layers: Sequence[Layer]) -> set[fx.Node]:
    """The nodes to make as frames: a convolution's, whose kernel can write one, that another convolution reads as such.

    ResNet-56 with 90 % zeros takes 0.47 ms where it takes 0.78 with `Shift` before every convolution (one thread of an
    EPYC with AVX-512).
    """
    made = {layer.node for layer in layers if isinstance(layer.op, Conv2d) and layer.function in ("none", "relu")}
    return made & {layer.op.x for layer in layers if isinstance(layer.op, Conv2d) and reads_frame(layer.op)}


def reads_frame(op: Conv2d) -> bool:
    shape = (op.kernel, op.stride, op.padding, op.dilation)
    channels, height, width = item_shape(op.x, "image")
    fits = 4 * COPIES * channels * height * width <= FRAME_BYTES_MOST
    return shape == ((3, 3), (1, 1), (1, 1), (1, 1)) and height * width > 1 and fits


def _in_frame(x: Value) -> tuple[Ref, Columns]:
    """The first element of a frame, and where the columns of a 3x3 kernel find it."""
    rows, copy_rows = x.pitch // x.width, x.copy_pitch // x.width
    steps = Columns(x.width, rows, row_steps=(0, 1, 2), column_steps=(0, copy_rows, 2 * copy_rows))
    return replace(x.ref, offset=x.ref.offset - x.copy_pitch - x.width), steps


@dataclass
class ImageLowering:
    """Emits the steps of layers. ``outputs`` numbers the nodes whose values leave the region."""

    builder: Builder
    outputs: Mapping[fx.Node, int]
    framed: Set[fx.Node]
    values: dict[fx.Node, Value] = field(default_factory=dict[fx.Node, Value])
    kept: dict[tuple[object, ...], Value] = field(default_factory=dict[tuple[object, ...], Value])

    def lower(self, layer: Layer) -> None:
        epilogue = Epilogue(layer.function, layer.add is not None)
        match layer.op:
            case Conv2d() as op:
                z = None if layer.add is None else self._readable(layer.add)
                self._convolution(layer.name, op, self._new(layer.node), z, epilogue)
            case Linear() as op:
                y, x = self._new(layer.node), self._worked(op.x)
                z = None if layer.add is None else self._worked(layer.add)
                bias = self.builder.bias(op.bias)
                multiply(self.builder, layer.name, op.weight, bias, x.ref, Columns(1), y, z, epilogue)
            case Pool2d() as op:
                y = self._new(layer.node)
                self._pool(layer.name, op, self._value(op.x), y)
            case Activation() as op:
                y = self._new(layer.node)
                self.builder.elementwise(layer.name, self._worked(op.x), y, NOTHING, Epilogue(op.function))
            case Add() as op:
                y, x, added = self._new(layer.node), self._worked(op.x), self._worked(op.y).ref
                self.builder.elementwise(layer.name, x, y, added, Epilogue(layer.function, True))
            case Window() as op:
                self._window(layer, op)
            case Reshape() as op:
                self._flatten(layer, op)
            case _:
                raise AssertionError(layer.op)

    def write(self, number: int, node: fx.Node) -> None:
        """Copy a value to an output, unless it stands there already."""
        value = self._value(node)
        if value.ref != Ref("output", number):
            compact = Value(Ref("output", number), value.channels, value.height, value.width, value.lanes)
            self.builder.copy(f"{node.name}.out", value, compact)

    def _value(self, node: fx.Node) -> Value:
        """The value of a node at the pitch at which it was made; a user's tensor has no padding."""
        if node not in self.values:
            channels, height, width = item_shape(node, "image")
            self.values[node] = Value(self.builder.input(node), channels, height, width, height * width)
        return self.values[node]

    def _readable(self, node: fx.Node) -> Value:
        """The value where kernels that read whole vectors may read it."""
        value = self._value(node)
        return value if value.whole_vectors and value.lanes > 1 else self._worked(node)

    def _worked(self, node: fx.Node) -> Value:
        """The value at the pitch at which kernels work."""
        value = self._value(node)
        pitch = kernel_pitch(value.lanes)
        if value.pitch == pitch:
            return value
        key = ("worked", node)
        if key not in self.kept:
            ref = self.builder.buffer(value.channels * pitch)
            self.kept[key] = Value(ref, value.channels, value.height, value.width, pitch)
            self.builder.copy(f"{node.name}.in", value, self.kept[key])
        return self.kept[key]

    def _new(self, node: fx.Node) -> Value:
        """Room for the value of a node: its output where that has the kernels' pitch, else the arena."""
        channels, height, width = item_shape(node, "image")
        if node in self.framed:
            self.values[node] = self.builder.frame(channels, height, width)
            return self.values[node]
        pitch = kernel_pitch(height * width)
        number = self.outputs.get(node)
        fits = number is not None and pitch == height * width
        ref = Ref("output", number) if number is not None and fits else self.builder.buffer(channels * pitch)
        self.values[node] = Value(ref, channels, height, width, pitch)
        return self.values[node]

    def _window(self, layer: Layer, op: Window) -> None:
        x = self._value(op.x)
        same_shape = item_shape(layer.node, "image") == (x.channels, x.height, x.width)
        if same_shape and op.start == (0, 0, 0) and op.step == (1, 1, 1):
            self.values[layer.node] = x
            return
        self.builder.window(layer.name, x, self._new(layer.node), op.start, op.step)

    def _flatten(self, layer: Layer, op: Reshape) -> None:
        """[channels][pixels] as a vector: the same memory where no padding lies between the channels."""
        x = self._value(op.x)
        channels, height, width = item_shape(layer.node, "image")
        if x.pitch == x.lanes:
            self.values[layer.node] = Value(x.ref, channels, height, width, 1)
            return
        y = self._new(layer.node)
        self.builder.copy(layer.name, x, Value(y.ref, x.channels, x.height, x.width, x.lanes))

    def _convolution(self, name: str, op: Conv2d, y: Value, z: Value | None, epilogue: Epilogue) -> None:
        x, bias = self._value(op.x), self.builder.bias(op.bias)
        pointwise = op.kernel == (1, 1) and op.stride == (1, 1) and op.padding == (0, 0)
        if y.lanes == 1:
            read, columns = self._receptive_field(name, op, x), Columns(1)
        elif x.framed and reads_frame(op):
            read, columns = _in_frame(x)
        elif pointwise and x.whole_vectors:
            read, columns = x.ref, Columns(x.pitch)
        else:
            read, columns = self._shifted(name, op, x, y)
        multiply(self.builder, name, op.weight, bias, read, columns, y, z, epilogue)

    def _receptive_field(self, name: str, op: Conv2d, x: Value) -> Ref:
        """The whole input of a convolution with one output pixel, in the order of the weight's columns."""
        height, width = op.kernel
        if (x.height, x.width) == op.kernel and op.padding == (0, 0) and x.pitch == x.lanes:
            return x.ref
        ref = self.builder.buffer(x.channels * height * width)
        y = Value(ref, x.channels, height, width, height * width)
        start, step = (0, -op.padding[0], -op.padding[1]), (1, *op.dilation)
        self.builder.window(f"{name}.field", x, y, start, step)
        return ref

    def _shifted(self, name: str, op: Conv2d, x: Value, y: Value) -> tuple[Ref, Columns]:
        """The input as `Shift` lays it out, shared by convolutions that see it alike, and where columns find it."""
        (kernel_height, kernel_width), (stride_y, stride_x) = op.kernel, op.stride
        (dilation_y, dilation_x), (pad_top, pad_left) = op.dilation, op.padding
        parities = min(kernel_height, stride_y // math.gcd(stride_y, dilation_y))
        parity_of_row = [ky % parities for ky in range(kernel_height)]
        offset_of_row = [ky * dilation_y // stride_y for ky in range(kernel_height)]
        out_rows = y.height + max(offset_of_row)
        sizes = (x.channels, x.height, x.width, x.pitch, kernel_width, parities, out_rows, y.width)
        parameters = ShiftParameters(*sizes, stride_y, stride_x, dilation_y, dilation_x, pad_top, pad_left)
        columns = Columns(
            unit=y.width,
            channel_step=out_rows,
            row_steps=tuple(
                parity * x.channels * out_rows + offset
                for parity, offset in zip(parity_of_row, offset_of_row, strict=True)
            ),
            column_steps=tuple(kx * parities * x.channels * out_rows for kx in range(kernel_width)),
        )
        planes = kernel_width * parities * x.channels
        key = (x.ref, parameters)
        if key not in self.kept:
            ref = self.builder.buffer(planes * out_rows * y.width)
            self.kept[key] = Value(ref, planes, out_rows, y.width, out_rows * y.width)
            # Of the strided copies of two ResNets most take two to four times as long (one thread of an EPYC).
            work = (8 if stride_x == 1 else 24) * planes * out_rows * y.width
            touched = 4 * (x.channels * x.lanes + planes * out_rows * y.width)
            self.builder.emit(Step(f"{name}.shift", Shift(), parameters, planes, work, 0, touched, x.ref, ref))
        return self.kept[key].ref, columns

    def _pool(self, name: str, op: Pool2d, x: Value, y: Value) -> None:
        work = 4 * x.channels * (x.lanes + y.lanes * op.kernel[0] * op.kernel[1])
        touched = 4 * x.channels * (x.lanes + y.lanes)
        if op.function == "average" and y.lanes == 1 and op.kernel == (x.height, x.width) and op.padding == (0, 0):
            whole = GlobalAverageParameters(x.lanes, x.pitch, y.pitch)
            self.builder.emit(Step(name, GlobalAverage(), whole, x.channels, work, 0, touched, x.ref, y.ref))
            return
        sizes = (x.height, x.width, x.pitch, y.height, y.width, y.pitch)
        parameters = PoolParameters(*sizes, *op.kernel, *op.stride, *op.padding, int(op.count_padding))
        kernel = MaxPool() if op.function == "max" else AveragePool()
        self.builder.emit(Step(name, kernel, parameters, x.channels, work, 0, touched, x.ref, y.ref))
