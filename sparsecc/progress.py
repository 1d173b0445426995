"""Say how far a long step is, from wherever it runs, to whoever asked to be told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""``(stage, done, total)``; a stage begins with done == 0 and ends with done == total."""

_listener: ContextVar[Progress | None] = ContextVar("progress", default=None)


@contextmanager
def reporting(listener: Progress | None) -> Generator[None, None, None]:
    """Within the block, ``listener`` hears of every tracked step."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def track(stage: str, items: Collection[T]) -> Iterator[T]:
    """The items, reporting each one as it is finished."""
    for done, item in enumerate(items):
        step(stage, done, len(items))
        yield item
    step(stage, len(items), len(items))


def step(stage: str, done: int, total: int) -> None:
    listener = _listener.get()
    if listener is not None:
        listener(stage, done, total)
