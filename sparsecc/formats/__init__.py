"""How weights are stored. ``parse_format("bsr4x1").pack(weight)``"""

from __future__ import annotations

import re
from typing import TypeGuard

from sparsecc.diagnostics import CompileError
from sparsecc.registry import Registry, suggest

from .base import Array, Format, Matrix, Packed, SparseFormat
from .bsr import BSR
from .csr import CSR
from .dense import Dense

__all__ = [
    "BSR",
    "CSR",
    "FORMATS",
    "Array",
    "Dense",
    "Format",
    "Matrix",
    "Packed",
    "SparseFormat",
    "check",
    "known_formats",
    "parse_format",
]

FORMATS: tuple[Format, ...] = (Dense(), CSR(), BSR(4, 1), BSR(16, 1), BSR(4, 4))
"""The built-in formats, each with ``name`` and ``summary``; ``parse_format`` takes BSR of any block shape."""


def _is_format(part: object) -> TypeGuard[Format]:
    return isinstance(part, Format) and not isinstance(part, type)


OTHERS = Registry("format", "sparsecc.formats", {}, _is_format, unknown_code="SCC030")
"""Formats that other packages offer: an entry point's name and its format's are the same."""


def known_formats() -> list[Format]:
    """The built-in formats, then those of other packages."""
    return [*FORMATS, *(parse_format(name) for name in OTHERS.names())]


def parse_format(name: str) -> Format:
    """The format called ``name``: "dense", "csr", "bsr4x1", or one that another package offers.

    Raises:
        CompileError: SCC030 with the known names.
    """
    for built_in in FORMATS:
        if built_in.name == name:
            return built_in
    if block := re.fullmatch(r"bsr([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", name):
        return BSR(int(block[1]), int(block[2]))
    if name in OTHERS.names():
        return OTHERS.load(name)
    names = [*(built_in.name for built_in in FORMATS), *OTHERS.names(), "bsr<rows>x<columns>"]
    raise CompileError.of("SCC030", f"there is no format '{name}'", help=suggest(name, names))


def check(packed: Packed) -> None:
    """Verify arrays read from an untrusted file.

    Raises:
        ValueError: what is out of bounds, in one sentence.
        CompileError: SCC030 when the format is unknown.
    """
    parse_format(packed.format).check(packed)
