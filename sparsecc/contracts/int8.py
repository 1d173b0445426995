"""float32 that travels as int8: the grid of an edge, and the way there and back. Normative, in float32 throughout.

    q       = clamp(roundeven(x / scale) + zero_point, -128, 127)        NaN: q = zero_point, as for 0
    arrives = (q - zero_point) * scale

Every operation rounds once: nothing multiplies by a reciprocal, nothing is fused. This is the reference of op_int8.py,
of the ONNX functions in portable.py, and of the unit's kernels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .keys import Array, Key

LEAST, GREATEST = -128, 127
STEPS = GREATEST - LEAST
LEAST_SCALE = float(np.finfo(np.float32).tiny)
"""Below it float32 numbers are not normal, and machines differ in what they make of them."""
Floats = npt.NDArray[np.float32]


def quantise(x: Array, scale: float, zero_point: int) -> npt.NDArray[np.int8]:
    """q of float32 x."""
    number = np.where(np.isnan(x), np.float32(0), x)
    with np.errstate(over="ignore"):  # beyond float32 is beyond the grid
        places = np.rint(number / np.float32(scale)) + np.float32(zero_point)
    return np.clip(places, LEAST, GREATEST).astype(np.int8)


def dequantise(q: Array, scale: float, zero_point: int) -> Floats:
    """What arrives of q."""
    steps: Floats = q.astype(np.float32) - np.float32(zero_point)
    return steps * np.float32(scale)


def is_scale(scale: float) -> bool:
    """Whether it is a normal float32 number above 0."""
    return LEAST_SCALE <= scale < np.inf and float(np.float32(scale)) == scale


def grid(least: float, greatest: float) -> tuple[float, Key]:
    """Scale and key of an edge whose values lie in [least, greatest], which is widened to hold 0.

    0 is on the grid, so it arrives as 0. Of an edge that was 0 throughout, the scale is 1.
    """
    low, high = min(0.0, least), max(0.0, greatest)
    scale = float(np.float32((high - low) / STEPS))
    if not is_scale(scale):
        scale = 1.0
    return scale, Key("int8", zero_point=min(GREATEST, max(LEAST, round(LEAST - low / scale))))
