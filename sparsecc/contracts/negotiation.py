"""What sender and receiver of an edge agree on: the bounds within which the global settlement may choose its share.

1. The sender proposes the least share that keeps ``sender_mass`` of its map's sensitivity, within its buffer and link.
2. The receiver adjusts it to what it needs at least, the share that would keep ``receiver_mass`` of its own map (the
   map of what it sends on itself; of the last layers, that of the edge), and what its buffer and its time allow.
3. Where the buffer for one block holds less than the two want, the receiver offers a tile of half the size, down to 64
   elements; then the next dtype, such as int8 after float32, from the first size on. At last it offers that blocks
   spill: they wait in another memory, in tiles of the first size and dtype, and may have any length.
4. Where no share suits both, the negotiation fails with the reason.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparsecc.diagnostics import CompileError, Where

from .keys import Bytes
from .maps import Averages
from .topk import WHOLE

BlockCost = Callable[[int, int, str], int]
"""Of the elements of a tile, the share (in 1/65536) and the dtype that travels: bytes or cycles of its block. It never
falls as shares rise, but for the last step, to everything."""
LEAST_TILE_ELEMS = 64
NO_CODEC = "RAW: no codec makes it smaller"
NO_CYCLES = "RAW: a contract saves no cycles"
SPILL = "spill: a block is longer than its buffer"


@dataclass(frozen=True)
class EdgeLimits:
    """What one edge may take of the machine; None: no limit. A payload is that of a sample, a block that of a tile."""

    max_payload_bytes: int | None = None  # of the sender's buffer and the link
    max_received_bytes: int | None = None  # of the receiver's buffer
    max_block_bytes: int | None = None  # of the buffer for one tile at either end
    max_cycles: int | None = None  # until the receiver has it all


@dataclass(frozen=True)
class Offer:
    """What the two agreed on; shares in 1/65536. ``binding`` set the adjusted share, ``hi_binding`` is what caps it.

    ``dtype`` is what travels, of which ``counter_offer`` says that the receiver asked for it.
    """

    tile_elems: int
    proposed_q16: int
    adjusted_q16: int
    lo_q16: int
    hi_q16: int
    binding: str
    hi_binding: str
    dtype: str = "float32"
    counter_offer: bool = False


@dataclass(frozen=True)
class Wishes:
    """Shares of sensitivity mass, 0 to 1: what the sender proposes to keep, and what the receiver insists on."""

    sender_mass: float = 0.95
    receiver_mass: float = 0.05


def least_share(sensitivity: Bytes, mass: float) -> int:
    """The least share whose most sensitive neurons hold this part of the sum of a map; blocks may be cut."""
    falling: Averages = np.sort(sensitivity.astype(np.float64))[::-1]
    sums: Averages = np.append(0.0, falling.cumsum())
    if not sums[-1]:
        return 0
    rising = sums[: int(sums.argmax()) + 1]  # what follows adds nothing
    places = float(np.interp(mass * float(sums[-1]), rising, list(range(len(rising)))))
    return min(WHOLE, max(1, math.ceil(places / len(sensitivity) * WHOLE)))


def edge_cost(
    block_cost: BlockCost,
    elems: int,
    tile_elems: int,
    share_q16: int,
    dtype: str = "float32",
    most_q16: int = WHOLE,
) -> int:
    """Of one sample: the sum over its tiles, the last of which may be shorter. Never falls as the share rises.

    A share that takes no less than everything costs what everything does: then everything is sent (``why_whole``),
    unless ``most_q16`` forbids that.
    """
    able = {share_q16, WHOLE} if most_q16 == WHOLE else {share_q16}
    return min(_sum(block_cost, elems, tile_elems, share, dtype) for share in able)


def _sum(block_cost: BlockCost, elems: int, tile_elems: int, share_q16: int, dtype: str) -> int:
    whole, rest = divmod(elems, tile_elems)
    return whole * block_cost(tile_elems, share_q16, dtype) + (block_cost(rest, share_q16, dtype) if rest else 0)


def why_whole(
    elems: int,
    tile_elems: int,
    share_q16: int,
    payload_bytes: BlockCost,
    cycles: BlockCost | None = None,
    dtype: str = "float32",
) -> str | None:
    """Why an edge had better send everything than a share below 1; None if it had not."""
    for cost, reason in ((payload_bytes, NO_CODEC), (cycles, NO_CYCLES)):
        if cost is None:
            continue
        of_share = functools.partial(edge_cost, cost, elems, tile_elems, dtype=dtype)
        if of_share(share_q16) >= of_share(WHOLE):
            return reason
    return None


def halves(tile_elems: int) -> Iterator[int]:
    """The tiles that a receiver offers, one after the other."""
    yield tile_elems
    while tile_elems // 2 >= LEAST_TILE_ELEMS:
        tile_elems //= 2
        yield tile_elems


def spill_noted(
    binding: str,
    tile_elems: int,
    share_q16: int,
    limits: EdgeLimits,
    payload_bytes: BlockCost,
    dtype: str = "float32",
) -> str:
    """The binding constraint, and whether the blocks of such tiles spill."""
    room = limits.max_block_bytes
    spills = room is not None and payload_bytes(tile_elems, share_q16, dtype) > room
    return f"{binding}; {SPILL}" if spills else binding


def negotiate_edge(
    edge: str,
    elems: int,
    sender: Bytes,
    receivers: Sequence[Bytes],
    limits: EdgeLimits,
    payload_bytes: BlockCost,
    cycles: BlockCost | None = None,
    tile_elems: int = 1024,
    wishes: Wishes = Wishes(),
    where: Where | None = None,
    dtypes: Sequence[str] = ("float32",),
    asked_q16: int = 0,
) -> Offer:
    """Bounds of an edge of ``elems`` elements a sample; ``sender`` and ``receivers`` are sensitivities u8 [S].

    ``dtypes`` are those that may travel, the first unless there is no room for it. There must be room for ``asked_q16``
    too, the share that a person wants.

    Raises: CompileError SCC048 when no share suits both sides.
    """
    proposed = least_share(sender, wishes.sender_mass)
    needed = max(least_share(s, wishes.receiver_mass) for s in (receivers or (sender,)))
    wanted = max(proposed, needed, asked_q16)
    fitting = [(tile, dtype, limits) for dtype in dtypes for tile in halves(tile_elems)]
    offers = iter((*fitting, (tile_elems, dtypes[0], replace(limits, max_block_bytes=None))))
    while True:
        tile_elems, dtype, allowed = next(offers)
        caps = _caps(elems, min(tile_elems, elems), allowed, payload_bytes, cycles, dtype)
        room = caps.pop("block buffer")
        if room >= min(wanted, *caps.values()):  # as it is in the last offer
            break
    caps["block buffer"] = room
    binding = min(caps, key=lambda name: caps[name])
    if caps[binding] < needed:
        least_bytes = edge_cost(payload_bytes, elems, min(tile_elems, elems), needed, dtype)
        _fail(edge, elems, needed, least_bytes, caps[binding], binding, limits, where)
    hi = caps[binding]
    adjusted = min(max(min(proposed, caps["payload"]), needed), hi)
    reason = "sensitivity"
    if adjusted != proposed:
        reason = "receiver's need" if adjusted == needed else binding
    return Offer(
        tile_elems,
        min(proposed, caps["payload"]),
        adjusted,
        needed,
        hi,
        reason,
        binding,
        dtype,
        counter_offer=dtype != dtypes[0],
    )


def _caps(
    elems: int, tile_elems: int, limits: EdgeLimits, payload_bytes: BlockCost, cycles: BlockCost | None, dtype: str
) -> dict[str, int]:
    """The greatest share that each constraint allows; -1 where it allows none at all."""

    def most(limit: int | None, cost: Callable[[int], int]) -> int:
        return WHOLE if limit is None else bisect_right(range(WHOLE + 1), limit, key=cost) - 1

    def payload(share: int) -> int:
        return edge_cost(payload_bytes, elems, tile_elems, share, dtype)

    caps = {
        "payload": most(limits.max_payload_bytes, payload),
        "receive buffer": most(limits.max_received_bytes, payload),
        "block buffer": most(
            limits.max_block_bytes, lambda share: edge_cost(payload_bytes, tile_elems, tile_elems, share, dtype)
        ),
    }
    if cycles is not None:
        caps["cycles"] = most(limits.max_cycles, lambda share: edge_cost(cycles, elems, tile_elems, share, dtype))
    return caps


def _fail(
    edge: str,
    elems: int,
    needed: int,
    least_bytes: int,
    cap: int,
    binding: str,
    limits: EdgeLimits,
    where: Where | None,
) -> None:
    constraint, way_out = {
        "payload": (f"{limits.max_payload_bytes} B of the sender's buffer and link", "give the sender a larger buffer"),
        "receive buffer": (
            f"{limits.max_received_bytes} B of the receiver's buffer",
            "give the receiver a larger buffer",
        ),
        "cycles": (f"{limits.max_cycles} cycles until all has arrived", "give the transfer more time"),
    }[binding]
    room = f"leave room for {cap / WHOLE:.1%}" if cap > 0 else "leave room for none"
    raise CompileError.of(
        "SCC048",
        f"no contract suits edge {edge}: its receiver needs {needed / WHOLE:.1%} of {elems} elements, {least_bytes} B "
        f"a sample, but {constraint} {room}",
        where=where,
        help=f"{way_out} in the target file (--target-file)",
    )
