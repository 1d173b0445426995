"""A block that nobody vouches for is decoded right or refused with a reason."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from codec_reference import reference_decode

from sparsecc.backends.scu.codecs import Codec, Dtype, Header, decode, encode, worst_case_bytes
from sparsecc.diagnostics import CompileError

COPY = "\n  help: copy the file again as a whole, or compile the model again"
UPGRADE = "\n  help: upgrade sparsecc, or compile the model again with this one"


def blocks(seed: int) -> Iterator[tuple[bytes, np.random.Generator]]:
    """Without end: valid blocks of every codec and dtype, small and skewed enough that Huffman codes them."""
    rng = np.random.default_rng(seed)
    while True:
        codec, dtype = Codec(int(rng.integers(len(Codec)))), Dtype(int(rng.integers(len(Dtype))))
        n = int(rng.choice([0, 1, 9, 60, 300, 600]))
        values = rng.laplace(0, 2, n).astype(dtype.array)
        yield encode(codec, values, rng.random(n) < rng.choice([0.05, 0.5, 1.0]), dtype), rng


def mutated(block: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(block)
    kind = rng.integers(6)
    at = int(rng.integers(len(data)))
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        data[at % 16] = int(rng.integers(256))
    elif kind == 2:
        data[at : at + 4] = rng.bytes(len(data[at : at + 4]))
    elif kind == 3:
        del data[at:]
    elif kind == 4:
        data += rng.bytes(int(rng.integers(1, 64)))
    else:
        other = int(rng.integers(len(data)))
        data[at : at + 8] = data[other : other + len(data[at : at + 8])].ljust(len(data[at : at + 8]), b"\0")
    return bytes(data)


def resealed(data: bytes) -> bytes:
    """The same fields and body with the checksum, padding and length that belong to them, as far as there are bytes."""
    if len(data) < 16:
        return data
    (body_bytes,) = struct.unpack_from("<I", data, 8)
    body = data[16 : 16 + body_bytes].ljust(min(body_bytes, 4096), b"\0")
    sealed = data[:12] + struct.pack("<I", zlib.crc32(data[:12] + body)) + body
    return sealed + bytes(-len(sealed) % 32)


def test_ten_thousand_mutated_blocks_are_refused() -> None:
    source = blocks(seed=1)
    codes: set[str] = set()
    tried = 0
    while tried < 10_000:
        block, rng = next(source)
        damaged = mutated(block, rng)
        if damaged == block:
            continue
        tried += 1
        with pytest.raises(CompileError) as caught:
            decode(damaged)
        codes.add(caught.value.diagnostics[0].code)
    assert codes == {"SCC096", "SCC097", "SCC098", "SCC099"}


def test_ten_thousand_mutated_blocks_with_a_right_checksum_are_decoded_right_or_refused() -> None:
    source = blocks(seed=2)
    accepted = dict.fromkeys(Codec, 0)
    refused = dict.fromkeys(Codec, 0)
    for _ in range(10_000):
        block, rng = next(source)
        damaged = resealed(mutated(block, rng))
        try:
            tile = decode(damaged)
        except CompileError:
            refused[Codec(block[1])] += 1
            continue
        header = Header.parse(damaged)
        accepted[header.codec] += 1
        assert len(damaged) <= worst_case_bytes(header.codec, header.n, header.count, header.dtype)
        assert reference_decode(damaged) == (
            tile.n,
            tile.indices.tolist(),
            tile.values.view(tile.dtype.bits).tolist(),
        )
        again = encode(header.codec, tile.dense(), tile.indices, tile.dtype)
        if header.codec == Codec.HUFFMAN:  # the same tile can have other codes
            assert reference_decode(again) == reference_decode(damaged)
        else:
            assert again == damaged
    assert min(accepted.values()) > 100
    assert min(refused.values()) > 100


def block_of(codec: int, n: int, count: int, body: bytes, *, version: int = 1, dtype: int = 0, flags: int = 0) -> bytes:
    """A well-sealed block with any fields and body."""
    return resealed(struct.pack("<BBBBHHII", version, codec, dtype, flags, n, count, len(body), 0) + body)


GOOD = encode(Codec.BITMASK, np.arange(9, dtype=np.int8), [1, 3, 8], Dtype.INT8)
TABLE = bytes([0x11]) + bytes(127)  # symbols 0 and 1, one bit each
ONE_SYMBOL = bytes([0x01]) + bytes(127)
INCOMPLETE = bytes([0x21]) + bytes(127)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"", "error[SCC096]: a block has a header of 16 B, and only 0 B are there" + COPY),
        (GOOD[:15], "error[SCC096]: a block has a header of 16 B, and only 15 B are there" + COPY),
        (GOOD[:-1], "error[SCC096]: by its header the block is 32 B long, and 31 B are there" + COPY),
        (GOOD + bytes(32), "error[SCC096]: by its header the block is 32 B long, and 64 B are there" + COPY),
        (
            GOOD[:20] + b"\x77" + GOOD[21:],
            "error[SCC097]: the block's checksum is 0x62f94ccb, and its content has 0xa2432066" + COPY,
        ),
        (
            block_of(0, 1, 1, b"a", version=2),
            "error[SCC098]: the block has version 2; this sparsecc reads version 1" + UPGRADE,
        ),
        (block_of(5, 1, 1, b"a"), "error[SCC098]: the block names codec 5; there are 5, numbered from 0" + UPGRADE),
        (
            block_of(0, 1, 1, b"a", dtype=4),
            "error[SCC098]: the block names dtype 4; there are 4, numbered from 0" + UPGRADE,
        ),
        (
            block_of(1, 1, 1, b"\1a", flags=1),
            "error[SCC098]: the BITMASK block has flags 0x01; for INT8 only the bits of 0x00 mean something" + UPGRADE,
        ),
        (
            block_of(4, 1, 1, b"aa", dtype=1, flags=7),
            "error[SCC098]: the HUFFMAN block has flags 0x07; for FLOAT16 only the bits of 0x03 mean something"
            + UPGRADE,
        ),
        (block_of(1, 3, 4, b"\7abcd"), "error[SCC099]: the BITMASK block says that it holds 4 of 3 elements" + COPY),
        (block_of(0, 3, 2, b"abc"), "error[SCC099]: the RAW block says that it holds 2 of 3 elements" + COPY),
        (
            block_of(3, 3, 1, b"abcd"),
            "error[SCC099]: the RUN block has a body of 4 B; 1 of 3 INT8 elements never take more than 2 B" + COPY,
        ),
        (
            block_of(0, 3, 3, b"ab"),
            "error[SCC099]: the body of the RAW block has 2 B; 3 of 3 INT8 elements take 3 B" + COPY,
        ),
        (
            block_of(1, 9, 3, b"\x0a\x01ab"),
            "error[SCC099]: the body of the BITMASK block has 4 B; 3 of 9 INT8 elements take 5 B" + COPY,
        ),
        (
            block_of(2, 9, 3, b"\x0a\x01ab"),
            "error[SCC099]: the body of the INDEX block has 4 B; 3 of 9 INT8 elements take 5 B" + COPY,
        ),
        (GOOD[:-1] + b"x", "error[SCC099]: the 11 B of padding after the block's body are not all zero" + COPY),
        (
            block_of(1, 9, 2, b"\x07\x00ab"),
            "error[SCC099]: the mask of the BITMASK block does not mark 2 of 9 elements" + COPY,
        ),
        (
            block_of(1, 9, 2, b"\x01\x04ab"),
            "error[SCC099]: the mask of the BITMASK block does not mark 2 of 9 elements" + COPY,
        ),
        (
            block_of(4, 9, 2, b"\x01\x04ab"),
            "error[SCC099]: the mask of the HUFFMAN block does not mark 2 of 9 elements" + COPY,
        ),
        *(
            (
                block_of(2, 9, 2, bytes([second << 4 | first]) + b"ab"),
                "error[SCC099]: the positions of the INDEX block are not 2 ascending numbers below 9" + COPY,
            )
            for first, second in ((3, 3), (4, 3), (3, 9))
        ),
        (
            block_of(2, 9, 1, b"\x13a"),
            "error[SCC099]: the unused bits after the INDEX block's last position are not zero" + COPY,
        ),
        (
            block_of(3, 9, 3, b"ab"),
            "error[SCC099]: the body of the RUN block has 2 B, too few for 3 values" + COPY,
        ),
        *(
            (
                block_of(3, 20, 2, runs + b"ab"),
                "error[SCC099]: the runs of the RUN block do not lead to 2 of 20 elements" + COPY,
            )
            for runs in (b"\xf1", b"", b"\xee")
        ),
        (block_of(3, 40, 1, b"\xf0\xffa"), "error[SCC099]: the RUN block goes on after its last value" + COPY),
        (
            block_of(4, 9, 2, b"\x01"),
            "error[SCC099]: the body of the HUFFMAN block has 1 B, too few for a mask of 9 elements" + COPY,
        ),
        (block_of(4, 3, 3, b"ab"), "error[SCC099]: the HUFFMAN block ends inside byte 0 of its values" + COPY),
        (
            block_of(4, 3, 3, b"abcde", dtype=1),
            "error[SCC099]: the HUFFMAN block ends inside byte 1 of its values" + COPY,
        ),
        (
            block_of(4, 300, 300, TABLE + bytes(38) + b"x", flags=1),
            "error[SCC099]: the HUFFMAN block goes on for 1 B after its last value" + COPY,
        ),
        (
            block_of(4, 300, 300, TABLE[:99], flags=1),
            "error[SCC099]: the HUFFMAN block ends inside a table of code lengths" + COPY,
        ),
        *(
            (
                block_of(4, 300, 300, table + bytes(99), flags=1),
                "error[SCC099]: the code lengths of the HUFFMAN block make no complete prefix code" + COPY,
            )
            for table in (bytes(128), INCOMPLETE, b"\x11\x01" + bytes(126), b"\x02" + bytes(127))
        ),
        *(
            (
                block_of(4, 300, 300, stream, flags=1),
                "error[SCC099]: the codes of the HUFFMAN block end early, or one does not exist" + COPY,
            )
            for stream in (TABLE + bytes(37), ONE_SYMBOL + bytes(20) + b"\4" + bytes(17), TABLE)
        ),
        (
            block_of(4, 147, 147, TABLE + bytes(19), flags=1),
            "error[SCC099]: a coded plane of the HUFFMAN block is not shorter than the plain one" + COPY,
        ),
        (
            block_of(4, 300, 300, TABLE + bytes(37) + b"\x80", flags=1),
            "error[SCC099]: the unused bits after the HUFFMAN block's last code are not zero" + COPY,
        ),
    ],
)
def test_what_is_refused_and_how(block: bytes, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        decode(block)
    assert str(caught.value) == message


def test_a_header_alone_tells_the_length() -> None:
    header = Header.parse(GOOD[:16])
    assert (header.codec, header.dtype, header.flags, header.n, header.count) == (Codec.BITMASK, Dtype.INT8, 0, 9, 3)
    assert (header.body_bytes, header.block_bytes) == (5, 32)
