"""Contracts that nobody negotiates: where they cut, where they keep everything and why, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparsecc.contracts import WHOLE, EdgeLimits, keep_elems
from sparsecc.contracts.given import given, uniform
from sparsecc.contracts.negotiation import NO_CODEC, NO_CYCLES, edge_cost, why_whole
from sparsecc.diagnostics import CompileError

from .nets import bytes_of, small_program

PROGRAM = small_program()  # edges of 512, 512 and 8 elements
HALF = WHOLE // 2


def raw(elems: int, *_: object) -> int:
    """No codec can leave anything out."""
    return 16 + 4 * elems


def test_the_same_share_everywhere() -> None:
    settled = uniform(PROGRAM, HALF, bytes_of, EdgeLimits(), 256)
    assert [c.share_q16 for c in settled.contracts] == [HALF] * 3
    assert {c.tile_elems for c in settled.contracts} == {256}
    assert [r.settled_bytes for r in settled.log] == [2 * bytes_of(256, HALF), 2 * bytes_of(256, HALF), 33]
    assert {r.binding for r in settled.log} == {"share to keep"}


def test_edges_that_no_codec_makes_smaller_keep_everything() -> None:
    settled = uniform(PROGRAM, HALF, raw, EdgeLimits(), 1024)
    assert [c.share_q16 for c in settled.contracts] == [WHOLE] * 3
    assert {(r.settled_q16, r.binding) for r in settled.log} == {(WHOLE, NO_CODEC)}
    whole = uniform(PROGRAM, WHOLE, raw, EdgeLimits(), 1024)
    assert {r.binding for r in whole.log} == {"share to keep"}


def test_tiles_get_smaller_where_blocks_of_the_share_find_no_room() -> None:
    settled = uniform(PROGRAM, HALF, bytes_of, EdgeLimits(max_block_bytes=600), 512)
    assert bytes_of(256, HALF) <= 600 < bytes_of(512, HALF)
    assert [c.tile_elems for c in settled.contracts] == [256, 256, 512]
    assert {(c.share_q16, r.binding) for c, r in zip(settled.contracts, settled.log, strict=True)} == {
        (HALF, "share to keep")
    }


def test_given_contracts_are_taken_as_they_are() -> None:
    settled = uniform(PROGRAM, HALF, bytes_of, EdgeLimits(), 256)
    again = given(PROGRAM, settled.contracts, settled.maps, bytes_of)
    assert again.contracts == settled.contracts
    assert {r.binding for r in again.log} == {"given"}
    assert again.settled_bytes == settled.settled_bytes


def test_the_log_tells_of_no_negotiation() -> None:
    settled = uniform(PROGRAM, HALF, bytes_of, EdgeLimits(max_block_bytes=600), 512)
    again = given(PROGRAM, settled.contracts, settled.maps, bytes_of)
    for r in (*settled.log, *again.log):
        assert (r.proposed_q16, r.adjusted_q16, r.lo_q16, r.hi_q16, r.degradation) == (None,) * 5


@pytest.mark.parametrize(
    ("rename", "message"),
    [({"mean": "sum"}, "one is on sum, which is no edge of this model"), ({"relu": None}, "edge relu has none")],
)
def test_contracts_of_another_model(rename: dict[str, str | None], message: str) -> None:
    settled = uniform(PROGRAM, HALF, bytes_of, EdgeLimits(), 256)
    names = [rename.get(c.edge, c.edge) for c in settled.contracts]
    contracts = [replace(c, edge=name) for c, name in zip(settled.contracts, names, strict=True) if name]
    with pytest.raises(CompileError) as caught:
        given(PROGRAM, contracts, settled.maps, bytes_of)
    assert str(caught.value) == (
        f"error[SCC044]: the contracts are not for this model: {message}\n"
        "  help: give contracts that were settled for it, or its fine-tuned weights; or negotiate new ones"
    )


def test_a_cost_that_jumps_down_at_everything() -> None:
    """A short last tile may take more in any codec than whole; the edge never costs more than everything."""

    def block(elems: int, share_q16: int, _: str) -> int:
        k = keep_elems(elems, share_q16)
        return 4 * elems if k == elems else elems // 8 + 4 * k

    costs = [edge_cost(block, 1100, 1024, share) for share in range(0, WHOLE + 1, 64)]
    assert costs == sorted(costs)
    assert costs[-1] == 4400
    assert why_whole(1100, 1024, 60 * 1024, block) is None
    assert why_whole(1100, 1024, 64 * 1000, block) == NO_CODEC
    assert why_whole(1100, 1024, HALF, block, lambda n, *_: n) == NO_CYCLES
