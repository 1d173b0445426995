"""The arena against a brute force that knows nothing of how it places."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sparsecc.backends.tvm.arena import ALIGNMENT_ELEMS, SLACK_ELEMS, Buffer, place, share_frames, take_over

steps = st.integers(0, 12)


def buffer(elems: int, a: int, b: int) -> Buffer:
    return Buffer(elems, min(a, b), max(a, b))


buffers = st.lists(st.builds(buffer, st.integers(1, 300), steps, steps), max_size=12)


@given(buffers)
def test_no_element_holds_two_live_values(buffers: list[Buffer]) -> None:
    offsets, arena_elems = place(buffers)
    for step in range(13):
        live = [(o, b) for o, b in zip(offsets, buffers, strict=True) if b.first_step <= step <= b.last_step]
        elements = [e for offset, b in live for e in range(offset, offset + b.elems)]
        assert len(elements) == len(set(elements))
        assert all(SLACK_ELEMS <= e < arena_elems - SLACK_ELEMS for e in elements)


@given(buffers)
def test_buffers_are_aligned(buffers: list[Buffer]) -> None:
    assert all(offset % ALIGNMENT_ELEMS == 0 for offset in place(buffers)[0])


def test_a_chain_needs_two_places() -> None:
    chain = [Buffer(64, step, step + 1) for step in range(10)]
    assert place(chain)[1] == 2 * 64 + 2 * SLACK_ELEMS


def test_nothing_needs_only_slack() -> None:
    assert place([]) == ([], 2 * SLACK_ELEMS)


def test_frames_of_one_shape_take_turns_and_nothing_else_touches_them() -> None:
    big, small = (4, 8, 8), (4, 4, 4)
    frames = {0: big, 1: big, 2: big, 4: small}
    buffers = [Buffer(96, 0, 2), Buffer(96, 1, 3), Buffer(96, 3, 5), Buffer(96, 4, 5), Buffer(32, 3, 4)]
    shared, slots = share_frames(buffers, frames)
    assert slots == [0, 1, 0, 3, 4]  # the third takes the memory of the first, which was last read before
    offsets, _ = place(shared)
    begins = {slots[number]: offsets[slots[number]] for number in range(5)}
    ends = {slots[number]: offsets[slots[number]] + buffers[number].elems for number in range(5)}
    assert all(ends[a] <= begins[b] or ends[b] <= begins[a] for a in begins for b in begins if a != b)


def test_a_frame_keeps_its_memory_for_the_whole_plan() -> None:
    shared, _ = share_frames([Buffer(96, 1, 2), Buffer(96, 5, 6)], {0: (4, 8, 8)})
    assert shared == [Buffer(96, 0, 6), Buffer(96, 5, 6)]


def test_a_taker_lives_where_what_it_takes_lived() -> None:
    buffers = [Buffer(64, 0, 2), Buffer(64, 2, 4), Buffer(64, 4, 5), Buffer(32, 3, 3)]
    taken, slots = take_over(buffers, {2: 1, 1: 0})
    assert slots == [0, 0, 0, 3]
    assert taken == [Buffer(64, 0, 5), Buffer(0, 0, 0), Buffer(0, 0, 0), Buffer(32, 3, 3)]
