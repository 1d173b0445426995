"""Kernels over planes of pixels against plain loops in numpy."""

from __future__ import annotations

from itertools import product
from math import gcd

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kernel_calls import Array, Placement, assert_untouched, call, guarded, split_points, uniform

from sparsecc.backends.tvm.kernels.parameters import (
    GlobalAverageParameters,
    Parameters,
    PoolParameters,
    ShiftParameters,
    WindowParameters,
)
from sparsecc.backends.tvm.kernels.spec import AveragePool, GlobalAverage, Isa, KernelSpec, MaxPool, Shift, Window

PLACEMENTS: tuple[Placement, ...] = ("begin", "end")
SIZES = [(1, 1), (7, 8), (9, 7), (8, 9), (5, 31), (4, 32), (3, 33), (2, 127)]


def run(
    spec: KernelSpec, isa: Isa, p: Parameters, units: int, x: Array, shape: tuple[int, ...], where: Placement
) -> Array:
    """y, computed whole and in parts, which must agree."""
    y, parts = (guarded(np.full(shape, 7, np.float32), where) for _ in range(2))
    x = guarded(x, where)
    call(spec, isa, p, units, x=x, y=y)
    call(spec, isa, p, units, x=x, y=parts, splits=split_points(units))
    np.testing.assert_array_equal(parts, y)
    assert_untouched(y, where)
    return y


def shifted(x: Array, p: ShiftParameters) -> Array:
    y = np.zeros((p.kernel_width, p.parities, p.channels, p.out_rows, p.out_width), np.float32)
    for kx, i, r, ox in product(*(range(n) for n in (p.kernel_width, p.parities, p.out_rows, p.out_width))):
        iy = r * p.stride_y + (i * p.dilation_y) % p.stride_y - p.pad_top
        ix = ox * p.stride_x + kx * p.dilation_x - p.pad_left
        if 0 <= iy < p.height and 0 <= ix < p.width:
            y[kx, i, :, r, ox] = x[:, iy, ix]
    return y


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "padding"),
    [
        (1, 1, 1, 0),
        (1, 2, 1, 0),
        (3, 1, 1, 1),
        (3, 2, 1, 1),
        (5, 1, 1, 0),
        (7, 2, 1, 3),
        (3, 1, 2, 2),
        (3, 3, 2, 1),
        (2, 4, 2, 1),
    ],
)
def test_shift_feeds_a_convolution(
    kernel: int, stride: int, dilation: int, padding: int, isa: Isa, placement: Placement
) -> None:
    """Against the definition, and: gathering with the documented column indices is the convolution."""
    for height, width in SIZES:
        out_height, out_width = ((n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for n in (height, width))
        if out_height < 1 or out_width < 1:
            continue
        channels, parities = 3, min(kernel, stride // gcd(stride, dilation))
        rows = out_height + (kernel - 1) * dilation // stride
        x = uniform(channels, height, width)
        p = ShiftParameters(
            channels,
            height,
            width,
            height * width,
            kernel,
            parities,
            rows,
            out_width,
            stride,
            stride,
            dilation,
            dilation,
            padding,
            padding,
        )
        shape = (kernel, parities, channels, rows, out_width)
        y = run(Shift(), isa, p, kernel * parities * channels, x, shape, placement)
        np.testing.assert_array_equal(y, shifted(x, p))

        weight = uniform(1, channels, kernel, kernel, seed=1)
        total = np.zeros(out_height * out_width)
        for c, ky, kx in product(range(channels), range(kernel), range(kernel)):
            column = ((kx * parities + ky % parities) * channels + c) * rows + ky * dilation // stride
            total += weight[0, c, ky, kx] * y.ravel()[column * out_width :][: total.size].astype(np.float64)
        expected = F.conv2d(torch.tensor(x)[None], torch.tensor(weight), None, stride, padding, dilation)
        np.testing.assert_allclose(total, expected.numpy().ravel(), rtol=1e-4, atol=1e-5)


def test_shift_of_a_pitched_value_may_miss_the_image(isa: Isa) -> None:
    """Padding wider than the image: some kernel columns see nothing but zeros."""
    x = uniform(2, 16)
    p = ShiftParameters(2, 3, 3, 16, 9, 1, 11, 3, 1, 1, 1, 1, 4, 4)
    y = run(Shift(), isa, p, 18, x, (9, 1, 2, 11, 3), "end")
    np.testing.assert_array_equal(y, shifted(x[:, :9].reshape(2, 3, 3), p))
    assert not y[0].any()


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    ("start", "step", "grow"),
    [
        ((0, 0, 0), (1, 1, 1), (0, 0, 0)),
        ((1, 0, 0), (2, 1, 1), (0, 0, 0)),
        ((0, 0, 0), (1, 2, 2), (0, 0, 0)),
        ((-2, 0, 0), (1, 1, 1), (3, 0, 0)),
        ((-1, -1, -2), (1, 1, 1), (2, 3, 5)),
        ((0, 1, 2), (1, 1, 3), (0, 0, 0)),
        ((0, 200, 200), (1, 1, 1), (0, 0, 0)),
        ((-3, -2, -1), (2, 3, 2), (4, 4, 4)),
    ],
)
def test_window(
    start: tuple[int, int, int], step: tuple[int, int, int], grow: tuple[int, int, int], isa: Isa, placement: Placement
) -> None:
    for height, width in SIZES:
        size = (5, height, width)
        out = [(n + s - 1) // s + g for n, s, g in zip(size, step, grow, strict=True)]
        x_pitch, y_pitch = height * width + 3, out[1] * out[2]
        x = uniform(5, x_pitch)
        image = x[:, : height * width].reshape(size)
        expected = np.zeros(out, np.float32)
        for at in np.ndindex(*out):
            source = tuple(b + s * i for b, s, i in zip(start, step, at, strict=True))
            if all(0 <= i < n for i, n in zip(source, size, strict=True)):
                expected[at] = image[source]
        p = WindowParameters(*size, x_pitch, out[0], out[1], out[2], y_pitch, *start, *step)
        np.testing.assert_array_equal(run(Window(), isa, p, out[0], x, tuple(out), placement), expected)


def test_window_leaves_the_rest_of_a_pitch_alone(isa: Isa) -> None:
    x = uniform(2, 3, 7)
    y = run(Window(), isa, WindowParameters(2, 3, 7, 21, 2, 3, 7, 32, 0, 0, 0, 1, 1, 1), 2, x, (2, 32), "end")
    np.testing.assert_array_equal(y[:, :21], x.reshape(2, 21))
    np.testing.assert_array_equal(y[:, 21:], 7)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1), (5, 4, 2), (1, 1, 0)]
)
def test_pools(kernel: int, stride: int, padding: int, isa: Isa, placement: Placement) -> None:
    for height, width in SIZES:
        out = [(n + 2 * padding - kernel) // stride + 1 for n in (height, width)]
        if min(out) < 1:
            continue
        x = uniform(3, height, width) - np.float32(2)  # negative: zero padding must not win a maximum
        image = torch.tensor(x, dtype=torch.float64)[None]
        for count_padding in (True, False):
            sizes = (height, width, height * width, out[0], out[1], out[0] * out[1])
            p = PoolParameters(*sizes, kernel, kernel, stride, stride, padding, padding, count_padding)
            average = F.avg_pool2d(image, kernel, stride, padding, count_include_pad=count_padding)
            maximum = F.max_pool2d(image, kernel, stride, padding)
            for spec, expected in ((AveragePool(), average), (MaxPool(), maximum)):
                y = run(spec, isa, p, 3, x, (3, *out), placement)
                np.testing.assert_allclose(y, expected[0].numpy(), rtol=1e-6)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("lanes", [1, 7, 15, 16, 17, 49, 64, 127])
def test_global_average(lanes: int, isa: Isa, placement: Placement) -> None:
    x = uniform(9, lanes)
    y = run(GlobalAverage(), isa, GlobalAverageParameters(lanes, lanes, 1), 9, x, (9,), placement)
    np.testing.assert_allclose(y, x.astype(np.float64).mean(1), rtol=1e-5, atol=1e-7)
