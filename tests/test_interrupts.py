"""Ctrl-C waits for the next step of the work, and only once."""

from __future__ import annotations

import os
import signal

import pytest

from sparsecc.interrupts import heard_between_steps


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_next_step_raises_it() -> None:
    heard = list[tuple[str, int, int]]()
    before = signal.getsignal(signal.SIGINT)
    with heard_between_steps() as checked:
        tell = checked(lambda *step: heard.append(step))
        tell("first", 0, 1)
        press()
        with pytest.raises(KeyboardInterrupt):
            tell("second", 0, 1)
    assert heard == [("first", 0, 1)]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_one_does_not_wait() -> None:
    def press_twice() -> None:
        press()
        press()
        signal.pause()

    with heard_between_steps(), pytest.raises(KeyboardInterrupt):
        press_twice()
