"""The block: a 16-byte header, a body, and zeros up to a multiple of 32 bytes. All numbers are little-endian.

offset  field    type
     0  version  u8    1
     1  codec    u8    Codec
     2  dtype    u8    Dtype
     3  flags    u8    0, except for HUFFMAN: bit i says that byte i of the values is coded
     4  n        u16   elements of the tile
     6  count    u16   elements the body holds; n for RAW
     8  bytes    u32   of the body alone
    12  crc32    u32   IEEE 802.3, of the first 12 bytes of the header and then the body
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparsecc.diagnostics import CompileError

VERSION = 1
HEADER_BYTES = 16
ALIGN_BYTES = 32  # a block is padded to this, header included (scu.md)
MAX_ELEMS = 65535  # n is a u16
_FIELDS = struct.Struct("<BBBBHHI")  # the header without its checksum
_HELP = "copy the file again as a whole, or compile the model again"

Values: TypeAlias = npt.NDArray[Any]  # [n] in the dtype's array type
Bits: TypeAlias = npt.NDArray[Any]  # [count] values as unsigned little-endian integers: NaNs keep their payload
Indices: TypeAlias = npt.NDArray[np.int64]  # [count] ascending


class Codec(IntEnum):
    """The codec field. RAW holds the whole tile, the others the kept values and where they belong."""

    RAW = 0
    BITMASK = 1
    INDEX = 2
    RUN = 3
    HUFFMAN = 4


class Dtype(IntEnum):
    """The dtype field: what an element is."""

    INT8 = 0
    FLOAT16 = 1
    BFLOAT16 = 2
    FLOAT32 = 3

    @property
    def width_bytes(self) -> int:
        return (1, 2, 2, 4)[self]

    @property
    def array(self) -> np.dtype[Any]:
        """The numpy type of a tile. numpy has no bfloat16: its bits travel as uint16."""
        return np.dtype(("<i1", "<f2", "<u2", "<f4")[self])

    @property
    def bits(self) -> np.dtype[Any]:
        return np.dtype(f"<u{self.width_bytes}")


@dataclass(frozen=True, eq=False)
class Tile:
    """The kept part of a tile of ``n`` elements: ``values[j]`` belongs at ``indices[j]``.

    Shapes: values [count] in ``dtype.array``, indices [count] ascending.
    """

    n: int
    dtype: Dtype
    indices: Indices
    values: Values

    def dense(self, fill: float = 0) -> Values:
        """All n elements, ``fill`` where one was dropped (for BFLOAT16 the bits of the fill). Bit-exact."""
        tile = np.full(self.n, fill, self.dtype.array).view(self.dtype.bits)
        tile[self.indices] = self.values.view(self.dtype.bits)
        return tile.view(self.dtype.array)


@dataclass(frozen=True)
class Header:
    """The fields of a block's header; ``body_bytes`` is the one called ``bytes`` above."""

    codec: Codec
    dtype: Dtype
    flags: int
    n: int
    count: int
    body_bytes: int
    crc32: int

    @property
    def block_bytes(self) -> int:
        return padded(self.body_bytes)

    @staticmethod
    def parse(data: bytes) -> Header:
        """The header at the start of ``data``, which may be longer than the block. Reads nothing but the header.

        Raises: CompileError SCC096 if the header is cut short, SCC098 for a version, codec, dtype or flag that does
        not exist, SCC099 if it has more kept elements than elements.
        """
        if len(data) < HEADER_BYTES:
            raise cut_short(f"a block has a header of {HEADER_BYTES} B, and only {len(data)} B are there")
        version, codec, dtype, flags, n, count, body_bytes = _FIELDS.unpack_from(data)
        if version != VERSION:
            raise unknown(f"the block has version {version}; this sparsecc reads version {VERSION}")
        if codec not in list(Codec):
            raise unknown(f"the block names codec {codec}; there are {len(Codec)}, numbered from 0")
        if dtype not in list(Dtype):
            raise unknown(f"the block names dtype {dtype}; there are {len(Dtype)}, numbered from 0")
        legal_flags = (1 << Dtype(dtype).width_bytes) - 1 if codec == Codec.HUFFMAN else 0
        if flags & ~legal_flags:
            raise unknown(
                f"the {Codec(codec).name} block has flags {flags:#04x}; for {Dtype(dtype).name} only the bits of "
                f"{legal_flags:#04x} mean something"
            )
        if count > n or (codec == Codec.RAW and count < n):
            raise impossible(f"the {Codec(codec).name} block says that it holds {count} of {n} elements")
        (crc32,) = struct.unpack_from("<I", data, _FIELDS.size)
        return Header(Codec(codec), Dtype(dtype), flags, n, count, body_bytes, crc32)


def padded(body_bytes: int) -> int:
    """Bytes of a block on the link and in memory: header, body and padding."""
    return -(-(HEADER_BYTES + body_bytes) // ALIGN_BYTES) * ALIGN_BYTES


def seal(codec: Codec, dtype: Dtype, flags: int, n: int, count: int, body: bytes) -> bytes:
    """The block around a body."""
    fields = _FIELDS.pack(VERSION, codec, dtype, flags, n, count, len(body))
    crc32 = zlib.crc32(body, zlib.crc32(fields))
    return (fields + struct.pack("<I", crc32) + body).ljust(padded(len(body)), b"\0")


def unseal(data: bytes, header: Header) -> bytes:
    """The body of the block that ``data`` is, from its first to its last byte.

    Raises: CompileError SCC096 if the block is longer or shorter than its header says, SCC097 if the checksum does not
    match, SCC099 if the padding is not zero.
    """
    if len(data) != header.block_bytes:
        raise cut_short(f"by its header the block is {header.block_bytes} B long, and {len(data)} B are there")
    end = HEADER_BYTES + header.body_bytes
    crc32 = zlib.crc32(data[HEADER_BYTES:end], zlib.crc32(data[: _FIELDS.size]))
    if crc32 != header.crc32:
        raise CompileError.of(
            "SCC097",
            f"the block's checksum is {header.crc32:#010x}, and its content has {crc32:#010x}",
            help=_HELP,
        )
    if any(data[end:]):
        raise impossible(f"the {len(data) - end} B of padding after the block's body are not all zero")
    return data[HEADER_BYTES:end]


def cut_short(message: str) -> CompileError:
    return CompileError.of("SCC096", message, help=_HELP)


def unknown(message: str) -> CompileError:
    return CompileError.of("SCC098", message, help="upgrade sparsecc, or compile the model again with this one")


def impossible(message: str) -> CompileError:
    return CompileError.of("SCC099", message, help=_HELP)
