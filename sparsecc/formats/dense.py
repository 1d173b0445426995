"""Dense: every value is stored, zeros too. What stays where no sparse format wins."""

from __future__ import annotations

from dataclasses import dataclass

from .base import VALUES, Matrix, Packed, check_arrays, require_matrix


@dataclass(frozen=True)
class Dense:
    """``values`` f32[rows, cols], the matrix itself."""

    @property
    def name(self) -> str:
        return "dense"

    @property
    def summary(self) -> str:
        return "every value, zeros included"

    def pack(self, dense: Matrix) -> Packed:
        return Packed(self.name, require_matrix(dense), {"values": dense.copy()})

    def unpack(self, packed: Packed) -> Matrix:
        self.check(packed)
        return packed.arrays["values"].copy()

    def stored_bytes(self, dense: Matrix) -> int:
        rows, cols = require_matrix(dense)
        return rows * cols * VALUES.itemsize

    def check(self, packed: Packed) -> None:
        check_arrays(packed, self.name, {"values": (VALUES, packed.shape)})
