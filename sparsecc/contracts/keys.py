"""The integer keys that the unit ranks activations by. Normative: two implementations agree on every bit.

    int8      key = min(max, (|x - zero_point| * s) >> shift)
    floats    key = clamp((magnitude + offset[s] - base) >> shift, 0, max)        NaN: key = max

``s`` is the u8 sensitivity of the element's block, ``max`` is 255 or 65535. A float's magnitude is its bits without the
sign, of float32 the top 16 of them: a piecewise linear log2 in units of 2**-mantissa_bits, so that adding
``offset[s] ~ log2(s / 255)`` multiplies by the sensitivity. Zero of either sign has magnitude 0 and key 0.

Letters: N elements in traversal order (row-major), S map entries.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Keys = npt.NDArray[np.int32]
Table = npt.NDArray[np.int32]


@dataclass(frozen=True)
class FloatFormat:
    """The part of a float that a key sees. ``min_exponent`` is that of the smallest normal number."""

    mantissa_bits: int
    min_exponent: int
    max_exponent: int
    largest: float

    @property
    def infinity(self) -> int:
        """Magnitude of infinity; a larger one is NaN."""
        return (self.max_exponent - self.min_exponent + 2) << self.mantissa_bits


FLOATS = {
    "float16": FloatFormat(10, -14, 15, 65504.0),
    "bfloat16": FloatFormat(7, -126, 127, (2 - 2.0**-7) * 2.0**127),
    "float32": FloatFormat(7, -126, 127, (2 - 2.0**-23) * 2.0**127),  # its top 16 bits are a truncated bfloat16
}
DTYPES = ("int8", *FLOATS)
MOST_SENSITIVE = 255


@dataclass(frozen=True)
class Key:
    """How an element becomes a key. ``bits`` is 8 or 16; ``base`` is of floats, ``zero_point`` of int8 only."""

    dtype: str  # as numpy calls it: one of DTYPES
    bits: int = 16
    shift: int = 0
    base: int = 0
    zero_point: int = 0

    @property
    def maximum(self) -> int:
        return (1 << self.bits) - 1

    @classmethod
    def window(cls, dtype: str, largest: float, octaves: int = 8) -> Key:
        """An 8-bit key for floats whose top is the magnitude of ``largest`` and that resolves ``octaves`` below it.

        Smaller values have key 0, so they rank by their place only. ``largest`` is the greatest score, of which the
        greatest absolute value is an upper bound.
        """
        form = FLOATS[dtype]
        shift = max(0, math.ceil(math.log2((octaves << form.mantissa_bits) / 256)))
        value = np.array([largest], np.float16 if dtype == "float16" else np.float32)
        return cls(dtype, 8, shift, max(0, int(_magnitudes(value)[0]) + 1 - (256 << shift)))


@functools.cache
def offset_table(dtype: str) -> Table:
    """round(log2(s / 255) * 2**mantissa_bits) for every u8 s: int32 [256], read-only.

    A block with s = 0 gets -32768, which no magnitude reaches: its key is 0.
    """
    scale = 1 << FLOATS[dtype].mantissa_bits
    table = [-32768, *(round(math.log2(s / MOST_SENSITIVE) * scale) for s in range(1, 256))]
    offsets = np.array(table, np.int32)
    offsets.setflags(write=False)
    return offsets


def spread(per_block: Array, block: int, elems: int) -> Array:
    """One value per element from one per block: element j has that of block ``(j // block) % S``. [S] -> [elems].

    A map shorter than the traversal repeats, as for the tokens of a sequence.
    """
    return per_block[np.arange(elems) // block % len(per_block)]


def make_keys(x: Array, sensitivity: Bytes, block: int, key: Key) -> Keys:
    """Keys in 0..key.maximum of x [..., N], with sensitivity [S] of blocks of ``block`` elements: int32 [..., N].

    Raises: ValueError when x is not of the key's dtype.
    """
    if x.dtype.name != key.dtype:
        raise ValueError(f"keys of {key.dtype} cannot be made from {x.dtype.name}")
    s = spread(sensitivity, block, x.shape[-1]).astype(np.int32)
    if key.dtype == "int8":
        distance = np.abs(x.astype(np.int32) - key.zero_point)
        shifted: Keys = np.minimum((distance * s) >> key.shift, key.maximum)
        return shifted
    scores = _magnitudes(x) + offset_table(key.dtype)[s] - key.base
    keys = np.clip(scores >> key.shift, 0, key.maximum)
    return np.where(_is_nan(x), key.maximum, keys).astype(np.int32)


def _bits(x: Array) -> Array:
    return np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}")


def _magnitudes(x: Array) -> Keys:
    """The bits without the sign, of float32 the top 16."""
    bits = _bits(x)
    return (bits >> 16 if x.dtype.itemsize == 4 else bits).astype(np.int32) & 0x7FFF


def _is_nan(x: Array) -> Array:
    """From all the bits: in the top 16, a NaN of float32 may look like infinity."""
    infinity = FLOATS[x.dtype.name].infinity << (16 if x.dtype.itemsize == 4 else 0)
    unsigned = _bits(x) & (0x7FFFFFFF if x.dtype.itemsize == 4 else 0x7FFF)
    return np.asarray(unsigned > infinity)
