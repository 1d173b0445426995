"""Arrays beside pages that nobody may touch: whoever leaves them, reading or writing, ends the process."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Placement = Literal["begin", "end"]
PAGE = mmap.PAGESIZE


def guarded(array: Array, placement: Placement = "end", missing: int = 0) -> Array:
    """A copy that begins, or ends, where accessible memory does; aligned to its elements only.

    ``missing``: so many elements at that side are inaccessible: using all of them is a wrong access.
    """
    pages = -(-array.nbytes // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    address = np.frombuffer(memory, np.uint8).ctypes.data
    missing_bytes = missing * array.itemsize
    start = PAGE - missing_bytes if placement == "begin" else (pages + 1) * PAGE - array.nbytes + missing_bytes
    copy = np.frombuffer(memory, array.dtype, array.size, start).reshape(array.shape)
    copy[...] = array
    for page in (0, pages + 1):
        guard = ctypes.c_void_p(address + page * PAGE)
        assert ctypes.CDLL(None).mprotect(guard, ctypes.c_size_t(PAGE), 0) == 0
    return copy
