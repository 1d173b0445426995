"""What a program.scu says, as records: code, contracts, kernels, constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .descriptor import Descriptor

MAX_OPERANDS = 4


@dataclass(frozen=True)
class Contract:
    """What a contract register holds; margins in 1/65536 of the tile's key mass.

    Every ``period`` tiles, k falls where the kept share of the key mass exceeds margin_hi, and rises where it is below
    margin_lo, within [k_lo, k_hi]. period = 0: k is fixed.
    """

    k: int
    k_lo: int
    k_hi: int
    period: int = 0
    margin_lo: int = 0
    margin_hi: int = 0


@dataclass(frozen=True)
class Operand:
    address: int
    bytes: int


@dataclass(frozen=True)
class Kernel:
    """A function of the compute tiles' code: reads input_bytes at src and the operands, writes output_bytes at dst.

    A GEMM is [m, k] x [k, n]; k = 0 is m * n element-wise operations. ``dtype`` is that of the arithmetic.
    """

    symbol: str
    dtype: int
    m: int
    n: int
    k: int
    input_bytes: int
    output_bytes: int
    operands: tuple[Operand, ...] = ()


@dataclass(frozen=True)
class UnitProgram:
    """A whole program. ``config`` is (offset, value) pairs written before it starts; ``smap`` the map's first bytes.

    ``labels`` name descriptors, ``notes`` are remarks on them: neither changes what the program does.
    """

    code: tuple[Descriptor, ...]
    contracts: tuple[Contract, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    config: tuple[tuple[int, int], ...] = ()
    constants: bytes = b""
    smap: bytes = b""
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    labels: Mapping[str, int] = field(default_factory=dict[str, int])
    notes: Mapping[int, str] = field(default_factory=dict[int, str])
