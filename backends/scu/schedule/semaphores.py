"""Which tasks of different queues must wait for each other, reduced to the fewest counting semaphores can express.

There is one semaphore per ordered pair of queues: (A, B) counts what A has done that B waits for. After the reduction
its releases in A and its acquires in B ascend together: the n-th acquire needs the n-th release.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush

QUEUES = 4
Clock = tuple[int, ...]  # per queue, how many of its tasks have ended


def synchronise(
    queue: Sequence[int], start: Sequence[int], pairs: Iterable[tuple[int, int]], most: int
) -> tuple[list[int], dict[int, list[int]]]:
    """An order of all tasks that respects the pairs (before, after), and for every task those that it waits for.

    The order of each queue is that of ``start``. No semaphore counts beyond ``most`` whatever the tasks take: where it
    could, the releasing queue waits for an earlier acquire.
    """
    before = defaultdict[int, set[int]](set)
    for earlier, later in pairs:
        before[later].add(earlier)
    while True:
        order = _topological(queue, start, before)
        place = _places(queue, order)
        clocks, waits = _reduce(queue, order, place, before)
        overrun = _first_overrun(queue, order, place, clocks, waits, most)
        if overrun is None:
            return order, waits
        before[overrun[1]].add(overrun[0])


def _topological(queue: Sequence[int], start: Sequence[int], before: Mapping[int, set[int]]) -> list[int]:
    """By start as far as dependencies allow; they allow all of it but for what overruns have added."""
    after = defaultdict[int, list[int]](list)
    missing = [len(before.get(i, ())) for i in range(len(queue))]
    for later, earlier in before.items():
        for i in earlier:
            after[i].append(later)
    last = dict[int, int]()
    for i in sorted(range(len(queue)), key=lambda i: start[i]):
        if queue[i] in last:
            after[last[queue[i]]].append(i)
            missing[i] += 1
        last[queue[i]] = i
    ready = [(start[i], i) for i, count in enumerate(missing) if not count]
    heapify(ready)
    order = list[int]()
    while ready:
        _, i = heappop(ready)
        order.append(i)
        for j in after[i]:
            missing[j] -= 1
            if not missing[j]:
                heappush(ready, (start[j], j))
    return order


def _places(queue: Sequence[int], order: Iterable[int]) -> dict[int, int]:
    """Of every task in its queue."""
    lengths, place = [0] * QUEUES, dict[int, int]()
    for i in order:
        place[i] = lengths[queue[i]]
        lengths[queue[i]] += 1
    return place


def _reduce(
    queue: Sequence[int], order: Sequence[int], place: Mapping[int, int], before: Mapping[int, set[int]]
) -> tuple[dict[int, Clock], dict[int, list[int]]]:
    """Clocks at the start of every task, and the waits that neither its queue nor its other waits imply."""
    clocks, waits = dict[int, Clock](), dict[int, list[int]]()
    running: list[Clock] = [(0,) * QUEUES] * QUEUES  # at the end of what each queue has done so far
    ended = dict[int, Clock]()
    for i in order:
        unit = queue[i]
        latest = dict[int, int]()
        for j in before.get(i, ()):
            if place[j] >= running[unit][queue[j]] and (queue[j] not in latest or place[j] > place[latest[queue[j]]]):
                latest[queue[j]] = j
        waits[i] = [
            j
            for j in latest.values()
            if not any(ended[other][queue[j]] > place[j] for other in latest.values() if other != j)
        ]
        clock = tuple(map(max, zip(running[unit], *(ended[j] for j in waits[i]), strict=True)))
        clocks[i] = clock
        ended[i] = running[unit] = (*clock[:unit], place[i] + 1, *clock[unit + 1 :])
    return clocks, waits


def _first_overrun(
    queue: Sequence[int],
    order: Sequence[int],
    place: Mapping[int, int],
    clocks: Mapping[int, Clock],
    waits: Mapping[int, list[int]],
    most: int,
) -> tuple[int, int] | None:
    """The acquire that a release must wait for, lest it count beyond ``most``: (acquiring task, releasing task).

    Before the n-th release only those acquires have surely happened that the releasing task's clock shows.
    """
    tokens = defaultdict[tuple[int, int], list[tuple[int, int]]](list)  # (releasing task, acquiring task)
    for i in order:
        for j in waits[i]:
            tokens[queue[j], queue[i]].append((j, i))
    for (_, unit), synced in tokens.items():
        for n in range(most, len(synced)):
            release, acquire = synced[n][0], synced[n - most][1]
            if clocks[release][unit] <= place[acquire]:
                return acquire, release
    return None
