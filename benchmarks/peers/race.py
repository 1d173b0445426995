"""Run workers in turn, so that a change of the machine's speed hits all of them alike."""

from __future__ import annotations

import json
import math
import signal
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

WORKER = Path(__file__).parent / "worker.py"
SECONDS_TO_STOP = 10
LEAST_ROUNDS = 10


class Failed(Exception):
    """What a worker says of why it cannot take part."""


@dataclass
class Worker:
    """A runtime's process; use it in ``with``. Between turns it is stopped, so that no thread of it spins.

    Raises: Failed, from ``with`` if it cannot load the model, from ``turn`` if it died.
    """

    python: str
    job: Mapping[str, object]
    script: Path = WORKER
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    def __enter__(self) -> Worker:
        self.process = subprocess.Popen(
            [self.python, str(self.script), json.dumps(self.job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            self.facts = self._answer()
        except Failed:
            self._end()
            raise
        if "failed" in self.facts:
            self._end()
            raise Failed(str(self.facts["failed"]).strip().splitlines()[0])
        self.process.send_signal(signal.SIGSTOP)
        return self

    def turn(self) -> float:
        """Seconds of one inference."""
        assert self.process.stdin
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write("run\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error
        seconds = float(self._answer()["seconds"])
        self.process.send_signal(signal.SIGSTOP)
        return seconds

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._end()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ended(self) -> Failed:
        return Failed(f"its process ended with status {self.process.wait()}")

    def _end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.communicate(timeout=SECONDS_TO_STOP)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class Times:
    """``ratio_median``: this runtime's time over the base's, median of rounds; ``ratio_min``: of the fastest calls."""

    version: str
    min_ms: float
    median_ms: float
    ratio_median: float
    ratio_min: float
    error: float
    memory_bytes: int


@dataclass(frozen=True)
class Race:
    """``rounds`` that were run."""

    rounds: int
    times: Mapping[str, Times]
    failed: Mapping[str, str]


def race(
    runners: Mapping[str, Worker], base: str, rounds: int, most_error: float, seconds_most: float = math.inf
) -> Race:
    """Every worker once per round, ``rounds`` times, or until ``seconds_most`` are over, but LEAST_ROUNDS times anyway.

    One that fails, or whose outputs are wrong, is left out by name.

    Raises: Failed if that is ``base``, to which the others are compared.
    """
    failed, seconds = dict[str, str](), dict[str, list[float]]()
    with ExitStack() as opened:
        for name, worker in runners.items():
            if reason := _refusal(opened, worker, most_error):
                failed[name] = reason
            else:
                seconds[name] = []
        start = time.monotonic()
        for done in range(rounds):
            if done >= LEAST_ROUNDS and time.monotonic() - start > seconds_most:
                break
            for name in [*seconds]:
                if reason := _failure(runners[name], seconds[name]):
                    failed[name] = reason
                    del seconds[name]
    if base in failed:
        raise Failed(f"{base}: {failed[base]}")
    times = {n: _times(runners[n].facts, s, seconds[base]) for n, s in seconds.items()}
    return Race(len(seconds[base]), times, failed)


def _refusal(opened: ExitStack, worker: Worker, most_error: float) -> str | None:
    """Start it; why it cannot take part, if so."""
    try:
        error: float = opened.enter_context(worker).facts["error"]
    except Failed as failure:
        return str(failure)
    return None if error <= most_error else f"its outputs differ by {error:.2g} of the greatest magnitude"  # NaN too


def _failure(worker: Worker, into: list[float]) -> str | None:
    """Let it have its turn; why it could not, if so."""
    try:
        into.append(worker.turn())
    except Failed as failure:
        return str(failure)
    return None


def _times(facts: Mapping[str, Any], seconds: Sequence[float], base: Sequence[float]) -> Times:
    return Times(
        version=str(facts["version"]),
        min_ms=1e3 * min(seconds),
        median_ms=1e3 * statistics.median(seconds),
        ratio_median=statistics.median(s / b for s, b in zip(seconds, base, strict=True)),
        ratio_min=min(seconds) / min(base),
        error=float(facts["error"]),
        memory_bytes=int(facts["memory_bytes"]),
    )
