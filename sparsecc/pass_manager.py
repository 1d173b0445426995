"""Run passes in order; prove the order legal before, and every promise kept after, each one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sparsecc import reference
from sparsecc.diagnostics import CompileError, Diagnostic, PassBug
from sparsecc.invariants import WELL_FORMED, Invariant
from sparsecc.program import Program


@dataclass(frozen=True)
class Effects:
    """``requires`` must hold on entry. On exit all of it still holds except ``breaks``, plus ``establishes``.

    A pass keeps the meaning of the Program unless it says so (pruning does not).
    """

    requires: frozenset[Invariant] = frozenset({WELL_FORMED})
    establishes: frozenset[Invariant] = frozenset()
    breaks: frozenset[Invariant] = frozenset()
    keeps_meaning: bool = True

    def after(self, held: frozenset[Invariant]) -> frozenset[Invariant]:
        return held - self.breaks | self.establishes


@dataclass(frozen=True)
class Note:
    """One thing a pass did, or refused to do and why, at a node."""

    node: str
    text: str
    done: bool = True


class Pass(Protocol):
    """A named rewrite of a Program, in place. Returns what it did and what it refused to do."""

    @property
    def name(self) -> str: ...
    @property
    def effects(self) -> Effects: ...
    def run(self, program: Program) -> Sequence[Note]: ...


@dataclass(frozen=True)
class Record:
    """What one pass did; ``changed`` and ``error`` are derived by the manager, never self-reported.

    ``error`` is the greatest relative error of the outputs against the Program before the pass.
    """

    name: str
    changed: bool
    seconds: float
    error: float
    notes: tuple[Note, ...]


class PipelineError(ValueError):
    """The passes cannot legally run in this order."""


Observer = Callable[[str, Program], None]


@dataclass(frozen=True)
class Pipeline:
    passes: Sequence[Pass]
    given: frozenset[Invariant] = frozenset({WELL_FORMED})

    def __post_init__(self) -> None:
        held = self.given
        for p in self.passes:
            if missing := p.effects.requires - held:
                raise PipelineError(f"'{p.name}' needs {sorted(map(repr, missing))}; nothing before it provides that")
            held = p.effects.after(held)

    def run(self, program: Program, *, before: Observer | None = None) -> tuple[Program, tuple[Record, ...]]:
        """The transformed copy and a record per pass; ``before`` is told each pass's name as it starts.

        Raises: CompileError if the Program is invalid on entry, PassBug naming the pass that broke it.
        """
        program = program.clone()
        held, records = self.given, list[Record]()
        if faults := _violations(held, program):
            raise CompileError(faults)
        expected = reference.run(program)
        for p in self.passes:
            if before is not None:
                before(p.name, program)
            fingerprint, start = program.fingerprint(), time.perf_counter()
            notes = tuple(p.run(program))
            changed, seconds = program.fingerprint() != fingerprint, time.perf_counter() - start
            held = p.effects.after(held)
            if faults := _violations(held, program):
                raise PassBug(p.name, faults)
            actual = _run(p, program) if changed else expected
            error = reference.largest_error(actual, expected)
            if p.effects.keeps_meaning and not error <= reference.tolerance(program):
                raise PassBug(p.name, [Diagnostic("SCC008", f"the outputs changed by {error:.2g} of their magnitude")])
            expected = actual
            records.append(Record(p.name, changed, seconds, error, notes))
        return program, tuple(records)


def _run(p: Pass, program: Program) -> tuple[reference.Array, ...]:
    try:
        return reference.run(program)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise PassBug(p.name, [Diagnostic("SCC008", f"the program no longer runs: {reason}")]) from error


def _violations(held: frozenset[Invariant], program: Program) -> list[Diagnostic]:
    return [d for i in sorted(held, key=lambda i: i.name) for d in i.check(program)]
