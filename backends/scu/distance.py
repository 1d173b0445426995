"""How far what contracts mean is from the original model."""

from __future__ import annotations

import math

import numpy as np

from sparsecc.manifest import Distance
from sparsecc.reference import Array, relative_error


def distance(found: Array, original: Array) -> Distance:
    """Of one output; both have one shape. Floats of two axes, [rows, classes], are compared as class scores too."""
    error = relative_error(found, original)
    scores = original.ndim == 2 and original.shape[1] > 1 and np.issubdtype(original.dtype, np.floating)
    return Distance(
        max_relative_error=error if math.isfinite(error) else None,
        rows=len(original) if scores else 0,
        same_argmax=int(np.sum(found.argmax(1) == original.argmax(1))) if scores else 0,
    )
