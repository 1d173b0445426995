"""Ctrl-C between the steps of long work instead of anywhere inside torch, TVM or onnxruntime."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from sparsecc.progress import Progress


@contextmanager
def heard_between_steps() -> Generator[Callable[[Progress | None], Progress]]:
    """Yields a function that makes a listener raise KeyboardInterrupt if Ctrl-C was pressed since the last step.

    Raised in the middle of native code, or while torch is imported, it would be swallowed, or end the process without
    a word. Whoever presses it a second time does not want to wait: that one is raised at once.
    """
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            signal.default_int_handler(number, frame)
        pressed = True
        print("stopping after this step; press again to stop at once", file=sys.stderr)

    def checked(listener: Progress | None) -> Progress:
        def tell(stage: str, done: int, total: int) -> None:
            if pressed:
                print("interrupted; nothing was written", file=sys.stderr)
                raise KeyboardInterrupt
            if listener is not None:
                listener(stage, done, total)

        return tell

    before = signal.signal(signal.SIGINT, press)
    try:
        yield checked
    finally:
        signal.signal(signal.SIGINT, before)
