"""What sender and receiver agree on, and how an edge without a contract is reported."""

import numpy as np
import pytest

from sparsecc.contracts import WHOLE, EdgeLimits, Wishes
from sparsecc.contracts.negotiation import edge_cost, least_share, negotiate_edge, spill_noted
from sparsecc.diagnostics import CompileError

from .nets import bytes_of

FLAT = np.full(10, 255, np.uint8)
STEEP = np.array([0, 200, 0, 50, 0, 0, 0, 0, 0, 0], np.uint8)


def test_least_share_of_the_mass() -> None:
    assert least_share(FLAT, 0.5) == WHOLE // 2
    assert least_share(STEEP, 0.8) == -(-WHOLE // 10)  # one of ten neurons
    assert least_share(STEEP, 1.0) == -(-WHOLE // 5)
    assert least_share(np.zeros(4, np.uint8), 0.9) == 0


def test_without_limits_sensitivity_decides() -> None:
    offer = negotiate_edge("e", 3000, STEEP, [FLAT], EdgeLimits(), bytes_of, wishes=Wishes(0.8, 0.05))
    assert (offer.proposed_q16, offer.adjusted_q16) == (6554, 6554)
    assert (offer.lo_q16, offer.hi_q16, offer.binding) == (3277, WHOLE, "sensitivity")
    offer = negotiate_edge("e", 3000, STEEP, [FLAT], EdgeLimits(), bytes_of, wishes=Wishes(0.8, 0.5))
    assert (offer.proposed_q16, offer.adjusted_q16, offer.binding) == (6554, WHOLE // 2, "receiver's need")


@pytest.mark.parametrize(
    ("limits", "binding"),
    [
        (EdgeLimits(max_payload_bytes=3000), "payload"),
        (EdgeLimits(max_received_bytes=3000), "receive buffer"),
        (EdgeLimits(max_cycles=500), "cycles"),
    ],
)
def test_limits_cap_the_share_as_far_as_they_must(limits: EdgeLimits, binding: str) -> None:
    def cycles(elems: int, share_q16: int, _: str) -> int:
        return 10 + elems * share_q16 // WHOLE

    offer = negotiate_edge("e", 3000, FLAT, [FLAT], limits, bytes_of, cycles)
    assert (offer.binding, offer.hi_binding) == (binding, binding)
    assert offer.adjusted_q16 == offer.hi_q16 < WHOLE

    def within(share: int) -> bool:
        payload = edge_cost(bytes_of, 3000, 1024, share)
        return (
            payload <= (limits.max_payload_bytes or payload)
            and payload <= (limits.max_received_bytes or payload)
            and edge_cost(cycles, 3000, 1024, share) <= (limits.max_cycles or 10**9)
        )

    assert within(offer.hi_q16)
    assert not within(offer.hi_q16 + 1)


def test_a_smaller_tile_is_the_counter_offer() -> None:
    limits = EdgeLimits(max_block_bytes=700)
    offer = negotiate_edge("e", 3000, FLAT, [FLAT], limits, bytes_of, wishes=Wishes(0.95, 0.5))
    assert (offer.tile_elems, offer.adjusted_q16) == (128, offer.proposed_q16)  # a larger one holds what is needed only
    assert bytes_of(128, offer.proposed_q16) <= 700 < bytes_of(256, offer.proposed_q16)
    assert bytes_of(256, offer.lo_q16) <= 700
    asked = negotiate_edge("e", 3000, FLAT, [FLAT], limits, bytes_of, wishes=Wishes(0, 0), asked_q16=WHOLE // 2)
    assert (asked.tile_elems, asked.hi_q16 >= WHOLE // 2) == (256, True)


def test_a_tile_need_not_hold_more_than_other_limits_allow() -> None:
    limits = EdgeLimits(max_block_bytes=700, max_payload_bytes=2000)
    offer = negotiate_edge("e", 3000, FLAT, [FLAT], limits, bytes_of, wishes=Wishes(0.95, 0.05))
    assert (offer.tile_elems, offer.hi_binding) == (1024, "payload")


def test_spilling_is_the_last_offer() -> None:
    """Not even a tile of 64 fits: the tile is the first again, and the buffer for a block binds no more."""
    limits = EdgeLimits(max_block_bytes=60)
    offer = negotiate_edge("e", 3000, FLAT, [FLAT], limits, bytes_of, wishes=Wishes(0.95, 0.5))
    assert (offer.tile_elems, offer.lo_q16, offer.hi_q16, offer.binding) == (1024, WHOLE // 2, WHOLE, "sensitivity")
    noted = [spill_noted("budget", n, WHOLE // 2, limits, bytes_of) for n in (16, 64)]
    assert noted == ["budget", "budget; spill: a block is longer than its buffer"]
    assert spill_noted("budget", 64, WHOLE, EdgeLimits(), bytes_of) == "budget"


def test_spilling_lifts_no_other_limit() -> None:
    limits = EdgeLimits(max_block_bytes=60, max_payload_bytes=8000)
    offer = negotiate_edge("e", 3000, FLAT, [FLAT], limits, bytes_of, wishes=Wishes(0.95, 0.5))
    assert (offer.tile_elems, offer.hi_binding) == (1024, "payload")
    assert edge_cost(bytes_of, 3000, offer.tile_elems, offer.hi_q16) <= 8000
    limits = EdgeLimits(max_block_bytes=60, max_payload_bytes=1000)
    with pytest.raises(CompileError, match=r"SCC048.*1000 B of the sender's buffer and link leave room for"):
        negotiate_edge("e", 3000, FLAT, [FLAT], limits, bytes_of, wishes=Wishes(0.95, 0.5))


def test_the_cost_of_everything_counts_only_where_everything_may_be_sent() -> None:
    """As of cycles, where only a block of everything spills, to a memory that is faster than the link."""

    def cycles(elems: int, share_q16: int, _dtype: str) -> int:
        return elems if share_q16 == WHOLE else 4 * elems * share_q16 // WHOLE

    assert edge_cost(cycles, 64, 64, WHOLE // 2) == 64
    assert edge_cost(cycles, 64, 64, WHOLE // 2, most_q16=WHOLE - 1) == 128


def test_int8_is_the_counter_offer_after_the_smallest_tile() -> None:
    """95 % of 64 elements take 16 + 8 + 244 B as float32; as int8, 16 + 8 + 61 B."""
    limits, wishes, both = EdgeLimits(max_block_bytes=140), Wishes(0.95, 0.5), ("float32", "int8")
    offer = negotiate_edge("e", 3000, FLAT, [FLAT], limits, bytes_of, wishes=wishes, dtypes=both)
    assert (offer.dtype, offer.tile_elems, offer.counter_offer) == ("int8", 64, True)
    offer = negotiate_edge("e", 3000, FLAT, [FLAT], limits, bytes_of, wishes=wishes, dtypes=("int8",))
    assert (offer.dtype, offer.tile_elems, offer.counter_offer) == ("int8", 64, False)
    roomy = EdgeLimits(max_block_bytes=700)
    assert negotiate_edge("e", 3000, FLAT, [FLAT], roomy, bytes_of, wishes=wishes, dtypes=both).dtype == "float32"
    spilled = negotiate_edge(
        "e", 3000, FLAT, [FLAT], EdgeLimits(max_block_bytes=50), bytes_of, wishes=wishes, dtypes=both
    )
    assert (spilled.dtype, spilled.tile_elems, spilled.counter_offer) == ("float32", 1024, False)


def test_an_edge_that_no_contract_suits() -> None:
    with pytest.raises(CompileError) as caught:
        negotiate_edge("relu_3", 2048, FLAT, [FLAT], EdgeLimits(max_received_bytes=600), bytes_of)
    assert str(caught.value) == (
        "error[SCC048]: no contract suits edge relu_3: its receiver needs 5.0% of 2048 elements, 696 B a sample, but "
        "600 B of the receiver's buffer leave room for 3.9%\n"
        "  help: give the receiver a larger buffer in the target file (--target-file)"
    )


def test_no_room_at_all() -> None:
    with pytest.raises(CompileError, match="100 B of the sender's buffer and link leave room for none"):
        negotiate_edge("relu_3", 2048, FLAT, [FLAT], EdgeLimits(max_payload_bytes=100), bytes_of)
