"""Blocks hold what was put in, bit for bit, in the bytes that were promised."""

from __future__ import annotations

import heapq
import itertools
import re
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from codec_reference import reference_decode
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sparsecc.backends.scu.codecs import (
    FIXED,
    Codec,
    Dtype,
    Header,
    decode,
    encode,
    shortest_block,
    smallest,
    worst_case_bytes,
)
from sparsecc.backends.scu.codecs.huffman import code_lengths

Array = npt.NDArray[Any]
SIZES = (0, 1, 2, 7, 8, 9, 15, 16, 17, 255, 256, 257, 1023, 1024, 1025, 65535)
NAN_WITH_PAYLOAD = {Dtype.INT8: 0x80, Dtype.FLOAT16: 0x7D2B, Dtype.BFLOAT16: 0xFF8B, Dtype.FLOAT32: 0xFFA0_1234}
MINUS_ZERO = {Dtype.INT8: 0x80, Dtype.FLOAT16: 0x8000, Dtype.BFLOAT16: 0x8000, Dtype.FLOAT32: 0x8000_0000}


CONTENTS = ("bits", "equal", "zero", "nan", "minus zero", "laplace", "few")


def tile_of(dtype: Dtype, n: int, content: str, share: float, seed: int) -> tuple[Array, Array]:
    """The values of a tile, and the mask of those kept, about ``share`` of them."""
    rng = np.random.default_rng(seed)
    bits = np.frombuffer(rng.bytes(n * dtype.width_bytes), dtype.bits).copy()
    if content == "equal":
        bits[:] = bits[:1] if n else 0
    elif content == "zero":
        bits[:] = 0
    elif content == "nan":
        bits[::3] = NAN_WITH_PAYLOAD[dtype]
    elif content == "minus zero":
        bits[::2] = MINUS_ZERO[dtype]
    elif content == "laplace":
        laplace = rng.laplace(0, 12, n).astype(np.float32).clip(-127, 127)
        top = (laplace.view("<u4") >> 16).astype("<u2")
        bits = top if dtype == Dtype.BFLOAT16 else laplace.astype(dtype.array).view(dtype.bits)
    elif content == "few":
        bits = rng.choice(bits[:3], n) if n else bits
    return bits.view(dtype.array), rng.random(n) < share


@st.composite
def tiles(draw: st.DrawFn, sizes: tuple[int, ...] = SIZES) -> tuple[Dtype, Array, Array]:
    """dtype, values, mask of the kept ones."""
    dtype = draw(st.sampled_from(Dtype))
    n = draw(st.one_of(st.sampled_from(sizes), st.integers(0, 40)))
    content = draw(st.sampled_from(CONTENTS))
    share = draw(st.sampled_from([0.0, 0.002, 0.0625, 0.25, 0.9, 1.0]))
    return dtype, *tile_of(dtype, n, content, share, draw(st.integers(0, 2**32 - 1)))


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 65535])
def test_edge_sizes_with_every_dtype_content_and_share(n: int, codec: Codec) -> None:
    for dtype, content, share in itertools.product(Dtype, CONTENTS, (0.0, 0.1, 1.0)):
        values, mask = tile_of(dtype, n, content, share, seed=n)
        block = encode(codec, values, mask, dtype)
        expected = np.where(mask, values.view(dtype.bits), 0).astype(dtype.bits)
        assert decode(block).dense().tobytes() == expected.tobytes()
        assert len(block) <= worst_case_bytes(codec, n, int(mask.sum()), dtype)


@settings(max_examples=300)
@given(tile=tiles(), codec=st.sampled_from(Codec))
def test_a_block_decodes_to_what_was_encoded(tile: tuple[Dtype, Array, Array], codec: Codec) -> None:
    dtype, values, mask = tile
    n, k = len(values), int(mask.sum())
    block = encode(codec, values, mask, dtype)
    back = decode(block)
    assert (back.n, back.dtype, back.values.dtype) == (n, dtype, dtype.array)
    if codec != Codec.RAW:
        np.testing.assert_array_equal(back.indices, np.flatnonzero(mask))
        assert back.values.tobytes() == values[mask].tobytes()
    kept_or_zero = np.where(mask, values.view(dtype.bits), 0)
    assert back.dense().tobytes() == kept_or_zero.astype(dtype.bits).tobytes()
    assert Header.parse(block + b"what follows").block_bytes == len(block)
    assert len(block) <= worst_case_bytes(codec, n, k, dtype)
    if codec in FIXED:
        assert len(block) == worst_case_bytes(codec, n, k, dtype)
    assert encode(codec, values, np.flatnonzero(mask), dtype) == block


@settings(max_examples=300)
@given(tile=tiles(SIZES[:-1]), codec=st.sampled_from(Codec))
def test_a_second_decoder_reads_the_same(tile: tuple[Dtype, Array, Array], codec: Codec) -> None:
    dtype, values, mask = tile
    block = encode(codec, values, mask, dtype)
    back = decode(block)
    assert reference_decode(block) == (back.n, back.indices.tolist(), back.values.view(dtype.bits).tolist())


@pytest.mark.parametrize("codec", Codec)
def test_the_fill_takes_the_place_of_what_was_dropped(codec: Codec) -> None:
    tile = np.array([5, -6, 7, -8], np.int8)
    block = encode(codec, tile, [1, 3], Dtype.INT8, fill=-128)
    assert decode(block).dense(fill=-128).tolist() == [-128, -6, -128, -8]
    bits = np.array([0x3F80, 0x7F81], np.uint16)
    assert decode(encode(codec, bits, [1], Dtype.BFLOAT16, fill=0xBF80)).dense(fill=0xBF80).tolist() == [0xBF80, 0x7F81]


# 1 bit for 0 and 2 bits each for 1 and -1 (byte 255): 200 bits 0, then 40 times 10, then 20 times 11
HUFFMAN_BODY = "21" + "00" * 126 + "20" + "00" * 25 + "55" * 10 + "ff" * 5


# Checked by hand against block.py, bodies.py and huffman.py.
@pytest.mark.parametrize(
    ("codec", "dtype", "values", "kept", "header", "body"),
    [
        (Codec.RAW, Dtype.INT8, [1, -2, 3], [0, 1, 2], "01000000 03000300 03000000 e86f5bed", "01fe03"),
        (
            Codec.BITMASK,
            Dtype.INT8,
            [9, 1, 9, -2, 9, 9, 9, 9, 3],
            [1, 3, 8],
            "01010000 09000300 05000000 b30a3954",
            "0a01 01fe03",
        ),
        (
            Codec.INDEX,  # 3 bits each for 0, 2, 4
            Dtype.FLOAT16,
            [1.0, 0.0, -0.0, 0.0, float("nan")],
            [0, 2, 4],
            "01020100 05000300 08000000 4bb6f519",
            "1001 003c 0080 007e",
        ),
        (
            Codec.RUN,  # 3 dropped, then 15 + 15 + 3
            Dtype.INT8,
            [*[0] * 3, 7, *[0] * 33, -1, 0],
            [3, 37],
            "01030000 27000200 04000000 a33e1f66",
            "f33f 07ff",
        ),
        (
            Codec.HUFFMAN,
            Dtype.INT8,
            [0] * 200 + [1] * 40 + [-1] * 20,
            range(260),
            "01040001 04010401 a8000000 d9200516",
            HUFFMAN_BODY,
        ),
    ],
)
def test_conformance_vectors(
    codec: Codec, dtype: Dtype, values: list[float], kept: Any, header: str, body: str
) -> None:
    expected = bytes.fromhex(header + body)
    expected += bytes(-len(expected) % 32)
    tile = np.array(values, dtype.array)
    block = encode(codec, tile, np.array(kept), dtype)
    assert block.hex(" ", -4) == expected.hex(" ", -4)
    assert decode(expected).values.tobytes() == tile[np.array(kept)].tobytes()


# scu.md, "Codecs". Dense is the payload alone, n values without header or padding; a block counts its header, body
# and padding to 32 bytes: 416 B = pad(16 + 128 mask + 256 values).
@pytest.mark.parametrize(
    ("dtype", "k", "codec", "block_bytes", "ratio"),
    [
        (Dtype.INT8, 256, Codec.BITMASK, 416, 2.46),
        (Dtype.INT8, 256, Codec.INDEX, 608, 1.68),
        (Dtype.FLOAT16, 128, Codec.BITMASK, 416, 4.92),
        (Dtype.BFLOAT16, 128, Codec.INDEX, 448, 4.57),
        (Dtype.INT8, 64, Codec.BITMASK, 224, 4.57),
        (Dtype.INT8, 64, Codec.INDEX, 160, 6.40),
    ],
)
def test_sizes_of_the_design(dtype: Dtype, k: int, codec: Codec, block_bytes: int, ratio: float) -> None:
    values = np.arange(1024).astype(dtype.array)
    block = encode(codec, values, np.arange(0, 1024, 1024 // k), dtype)
    assert len(block) == worst_case_bytes(codec, 1024, k, dtype) == block_bytes
    assert round(1024 * dtype.width_bytes / block_bytes, 2) == ratio


def test_the_worst_case_of_runs_is_reached() -> None:
    kept = np.arange(15, 1024, 16)  # 15 dropped before each: two nibbles
    block = encode(Codec.RUN, np.zeros(1024, np.int8), kept, Dtype.INT8)
    assert len(block) == worst_case_bytes(Codec.RUN, 1024, len(kept), Dtype.INT8) == 16 + 64 + 64 + 16


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("dtype", Dtype)
def test_keeping_less_never_has_a_greater_worst_case(codec: Codec, dtype: Dtype) -> None:
    for n in (0, 1, 31, 1024):
        bounds = [worst_case_bytes(codec, n, k, dtype) for k in range(n + 1)]
        assert bounds == sorted(bounds)
        assert all(bound % 32 == 0 for bound in bounds)


def test_random_bytes_take_no_more_as_huffman_than_as_bitmask() -> None:
    noise = np.frombuffer(np.random.default_rng(0).bytes(4096), np.float32)
    for kept in (np.arange(1024), np.arange(1, 1024)):
        block = encode(Codec.HUFFMAN, noise, kept, Dtype.FLOAT32)
        assert len(block) <= len(encode(Codec.BITMASK, noise, kept, Dtype.FLOAT32))


@pytest.mark.parametrize(
    ("k", "dtype", "allowed", "codec"),
    [
        (256, Dtype.INT8, FIXED, Codec.BITMASK),
        (64, Dtype.INT8, FIXED, Codec.INDEX),
        (64, Dtype.INT8, Codec, Codec.INDEX),  # RUN is as long
        (128, Dtype.FLOAT16, FIXED, Codec.BITMASK),
        (128, Dtype.FLOAT16, Codec, Codec.RUN),
        (1024, Dtype.FLOAT32, FIXED, Codec.RAW),
        (64, Dtype.INT8, [Codec.RAW, Codec.BITMASK], Codec.BITMASK),
        (1024, Dtype.INT8, [Codec.HUFFMAN, Codec.RAW], Codec.RAW),  # as long
    ],
)
def test_smallest(k: int, dtype: Dtype, allowed: Any, codec: Codec) -> None:
    assert smallest(1024, k, dtype, allowed) == codec


def test_a_constant_takes_the_codec_that_suits_its_values() -> None:
    rng = np.random.default_rng(0)
    weights = np.clip(rng.laplace(0, 6, 16384), -127, 127).astype(np.int8)
    block = shortest_block(weights, np.arange(16384), Dtype.INT8)
    assert Header.parse(block).codec == Codec.HUFFMAN
    shares = np.unique(weights, return_counts=True)[1] / weights.size
    entropy_bytes = float(-(shares * np.log2(shares)).sum()) * weights.size / 8
    assert entropy_bytes <= len(block) - 16 - 128 <= 1.02 * entropy_bytes + 32
    few = shortest_block(weights, np.arange(0, 16384, 1000), Dtype.INT8, FIXED)
    assert Header.parse(few).codec == Codec.INDEX


@settings(max_examples=100)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=256).filter(any).map(lambda c: c + [0] * (256 - len(c))))
def test_code_lengths_are_optimal(counts: list[int]) -> None:
    lengths = code_lengths(counts)
    assert ((lengths > 0) == (np.array(counts) > 0)).all()
    heap = [(count, 0, 0) for count in counts if count]  # weight, bits and depth below it: Huffman's own algorithm
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, bits_a, depth_a), (b, bits_b, depth_b) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (a + b, bits_a + bits_b + a + b, 1 + max(depth_a, depth_b)))
    weight, bits, depth = heap[0]
    assume(depth <= 15)
    assert sum(c * b for c, b in zip(counts, lengths, strict=True)) == (bits or weight)  # one symbol: one bit each


def test_fibonacci_counts_would_need_longer_codes_than_there_are() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 21:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = code_lengths(fibonacci + [0] * (256 - 21))[:21]
    assert lengths.max() == 15
    assert sum(2.0**-lengths) == 1
    values = np.repeat(np.arange(21), fibonacci).astype(np.int8)
    block = encode(Codec.HUFFMAN, values, np.arange(len(values)), Dtype.INT8)
    assert decode(block).values.tobytes() == values.tobytes()


@pytest.mark.parametrize("codec", [Codec.BITMASK, Codec.INDEX])
@pytest.mark.parametrize("dtype", Dtype)
def test_a_tile_takes_well_under_a_millisecond(codec: Codec, dtype: Dtype) -> None:
    values = np.zeros(1024, dtype.array)
    kept = np.arange(0, 1024, 4)
    block = encode(codec, values, kept, dtype)
    for step in (lambda: encode(codec, values, kept, dtype), lambda: decode(block)):
        seconds: list[float] = []
        for _ in range(50):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        assert min(seconds) < 0.3e-3


@pytest.mark.parametrize(
    ("values", "kept", "message"),
    [
        (np.zeros(4, np.int16), [0], "a tile of INT8 is one axis of at most 65535 int8 values, not int16 [4]"),
        (np.zeros((2, 2), np.int8), [0], "a tile of INT8 is one axis of at most 65535 int8 values, not int8 [2, 2]"),
        (np.zeros(65536, np.int8), [0], "a tile of INT8 is one axis of at most 65535 int8 values, not int8 [65536]"),
        *(
            (np.zeros(4, np.int8), kept, "what is kept is a mask of 4, or ascending indices below 4")
            for kept in ([4], [-1], [1, 0], [2, 2], [True], [0.0], [[0]])
        ),
    ],
)
def test_what_cannot_be_encoded(values: Array, kept: Any, message: str) -> None:
    for codec in Codec:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            encode(codec, values, kept, Dtype.INT8)


@pytest.mark.parametrize(("n", "k"), [(4, 5), (4, -1), (65536, 0)])
def test_no_worst_case_outside_the_format(n: int, k: int) -> None:
    with pytest.raises(ValueError, match="0 <= k <= n <= 65535 does not hold"):
        worst_case_bytes(Codec.RAW, n, k, Dtype.INT8)


def test_nothing_allowed() -> None:
    with pytest.raises(ValueError, match="empty"):
        smallest(8, 1, Dtype.INT8, [])


def test_all_subsets_of_a_small_tile() -> None:
    tile = np.arange(1, 8, dtype=np.int8)
    for mask in itertools.product([False, True], repeat=7):
        kept = np.array(mask)
        for codec in Codec:
            assert decode(encode(codec, tile, kept, Dtype.INT8)).dense().tolist() == (tile * kept).tolist()
