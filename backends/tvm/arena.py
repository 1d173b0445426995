"""Place buffers of known sizes and lifetimes in one arena, reusing memory that is no longer live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SLACK_ELEMS = 64  # in front and behind: kernels read and write whole vectors, at most 4 of 16 lanes, beyond a buffer
ALIGNMENT_ELEMS = 16  # 64 bytes: one cache line, one AVX-512 vector


@dataclass(frozen=True)
class Buffer:
    """``elems`` float32 from the step that writes it first to the last step that uses it, both inclusive."""

    elems: int
    first_step: int
    last_step: int

    def meets(self, other: Buffer) -> bool:
        return self.first_step <= other.last_step and other.first_step <= self.last_step


def place(buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    """An offset per buffer such that buffers alive at one time do not overlap, and the elements of the whole arena.

    Largest first, each at the lowest offset that is free for its lifetime.
    Source: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020, greedy by size.
    """
    offsets = [0] * len(buffers)
    placed: list[int] = []
    for number in sorted(range(len(buffers)), key=lambda n: (-buffers[n].elems, n)):
        buffer = buffers[number]
        offset = SLACK_ELEMS
        for other in sorted((n for n in placed if buffers[n].meets(buffer)), key=lambda n: offsets[n]):
            if offset + buffer.elems <= offsets[other]:
                break
            offset = max(offset, _aligned(offsets[other] + buffers[other].elems))
        offsets[number] = offset
        placed.append(number)
    used = max((offsets[n] + buffers[n].elems for n in placed), default=SLACK_ELEMS)
    return offsets, _aligned(used + SLACK_ELEMS)


def _aligned(elems: int) -> int:
    return -(-elems // ALIGNMENT_ELEMS) * ALIGNMENT_ELEMS
