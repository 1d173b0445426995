"""Place buffers of known sizes and lifetimes in one arena, reusing memory that is no longer live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

SLACK_ELEMS = 64  # in front and behind: kernels read and write whole vectors, at most 4 of 16 lanes, beyond a buffer
ALIGNMENT_ELEMS = 16  # 64 bytes: one cache line, one AVX-512 vector

FrameShape = tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True)
class Buffer:
    """``elems`` float32 from the step that writes it first to the last step that uses it, both inclusive."""

    elems: int
    first_step: int
    last_step: int

    def meets(self, other: Buffer) -> bool:
        return self.first_step <= other.last_step and other.first_step <= self.last_step


def share_frames(buffers: Sequence[Buffer], frames: Mapping[int, FrameShape]) -> tuple[list[Buffer], list[int]]:
    """Let frames of one shape take turns in memory that nothing else uses: what surrounds them stays zero.

    Returns the buffers, of which such memory lives from the first step to the last, and for each the number of the one
    whose memory it takes.
    """
    result, slots = list(buffers), list(range(len(buffers)))
    last_step = max((buffer.last_step for buffer in buffers), default=0)
    turns: dict[FrameShape, list[int]] = {}  # the frames that came last
    for number in sorted(frames, key=lambda n: buffers[n].first_step):
        own = turns.setdefault(frames[number], [])
        free = next((n for n in own if buffers[n].last_step < buffers[number].first_step), None)
        if free is None:
            result[number] = replace(buffers[number], first_step=0, last_step=last_step)
            own.append(number)
        else:
            slots[number], result[number] = slots[free], Buffer(0, 0, 0)
            own[own.index(free)] = number
    return result, slots


def take_over(buffers: Sequence[Buffer], takers: Mapping[int, int]) -> tuple[list[Buffer], list[int]]:
    """Give each taker the memory of a buffer that is read last in the step which first writes the taker.

    Returns the buffers and for each the number of the one whose memory it takes.
    """
    result, slots = list(buffers), list(range(len(buffers)))
    for taker in sorted(takers, key=lambda number: buffers[number].first_step):
        slot = slots[taker] = slots[takers[taker]]
        result[slot] = replace(result[slot], last_step=buffers[taker].last_step)
        result[taker] = Buffer(0, 0, 0)
    return result, slots


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
