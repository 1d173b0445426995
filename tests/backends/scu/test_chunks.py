"""How an edge is cut into SENDs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sparsecc.backends.scu.chunks import Ranking, Sending, without_zeros
from sparsecc.backends.scu.codecs import FIXED, Codec, Dtype
from sparsecc.backends.scu.descriptor import Flag
from sparsecc.backends.scu.machine import scu_v1
from sparsecc.backends.scu.unit_program import Contract
from sparsecc.diagnostics import CompileError

FIXED_K = {"share_q16": 16_384, "map_block": 2, "key_bits": 16, "skip_zero": 0}
MOVING_K = FIXED_K | {
    "share_lo_q16": 8_192,
    "share_hi_q16": 32_768,
    "period": 3,
    "margin_lo_q16": 5,
    "margin_hi_q16": 9,
}


def sending(numbers: dict[str, int], **more: Any) -> Sending:
    usual: dict[str, Any] = {"name": "relu", "rows": 2, "elems": 300, "tile_elems": 128, "codecs": FIXED}
    usual |= {"lossless": None, "ranking": None, "dtype": Dtype.FLOAT32, "fill": 0, "register": 3, "where": None}
    return Sending(numbers=numbers, **usual | more)


def test_a_k_that_stays() -> None:
    assert [(c.start, c.tile_n, c.tiles, c.k, c.flags, c.opens) for c in sending(FIXED_K).chunks(1 << 20)] == [
        (0, 128, 2, 32, Flag.WIDE_KEYS, False),
        (1024, 44, 1, 11, Flag.WIDE_KEYS, False),
        (1200, 128, 2, 32, Flag.WIDE_KEYS, False),
        (2224, 44, 1, 11, Flag.WIDE_KEYS, False),
    ]


def test_a_k_that_moves_is_sent_at_its_most_and_a_short_tile_without_register() -> None:
    found = sending(MOVING_K, ranking=Ranking(10, 150, block=2, repeat=150))
    assert found.contract == Contract(32, 16, 64, 3, 5, 9)
    chunks = list(found.chunks(300))
    assert [(c.tile_n, c.tiles, c.k, bool(c.flags & Flag.REGISTER), c.opens) for c in chunks[:3]] == [
        (128, 1, 64, True, True),
        (128, 1, 64, True, False),
        (44, 1, 22, False, False),
    ]
    assert [dict(c.more) for c in chunks[:3]] == [
        {"smap": 10, "dst_st2": 2, "contract": 3},
        {"smap": 74, "dst_st2": 2, "contract": 3},
        {"smap": 138, "dst_st2": 2},
    ]
    assert chunks[3].opens  # the second sample


def test_what_is_dropped_is_not_sent_raw() -> None:
    """At 98 % kept, RAW blocks would be shorter, but they hold everything."""
    chunks = list(sending(FIXED_K | {"share_q16": 64_225}, tile_elems=100).chunks(1 << 20))
    assert {(c.k, c.codec) for c in chunks} == {(97, Codec.BITMASK)}
    whole = MOVING_K | {"share_hi_q16": 65_536}
    assert {c.codec for c in sending(whole, elems=256).chunks(1 << 20)} == {Codec.BITMASK}


@pytest.mark.parametrize("numbers", [FIXED_K, MOVING_K | {"share_q16": 16_384, "share_hi_q16": 16_384}])
def test_only_raw_is_allowed(numbers: dict[str, int]) -> None:
    with pytest.raises(CompileError) as caught:
        list(sending(numbers, codecs=(Codec.RAW,)).chunks(1 << 20))
    assert str(caught.value) == (
        "error[SCC120]: the contract on relu keeps 32 of 128 elements, and no codec allowed (raw) leaves elements out\n"
        "  help: allow bitmask or index (--codecs), on a target that has them"
    )


@pytest.mark.parametrize(
    ("codecs", "codec"),
    [
        (("raw", "bitmask", "index", "run"), Codec.BITMASK),
        (("raw", "index", "run"), Codec.RUN),
        (("raw", "index"), Codec.INDEX),
        (("raw",), Codec.RAW),
    ],
)
def test_zero_compression_takes_what_the_target_has(codecs: tuple[str, ...], codec: Codec) -> None:
    assert without_zeros(replace(scu_v1(), codecs=codecs)) == codec
    (*_, chunk) = sending({}, lossless=codec).chunks(1 << 20)
    assert (chunk.codec, chunk.k, chunk.tile_n) == (codec, 44, 44)
    assert chunk.flags == (Flag(0) if codec == Codec.RAW else Flag.SKIP_ZERO)
