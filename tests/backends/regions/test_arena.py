"""The arena against a brute force that knows nothing of how it places."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sparsecc.backends.tvm.arena import ALIGNMENT_ELEMS, SLACK_ELEMS, Buffer, place

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
