"""What went wrong, where in the user's model, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Where:
    """A graph node (``None`` before there is a graph) and the user's line (``None`` when capture lost it)."""

    node: str | None
    source: str | None = None

    def __str__(self) -> str:
        source = self.source or "<unknown line>"
        return source if self.node is None else f"{source}, node %{self.node}"


@dataclass(frozen=True)
class Diagnostic:
    """One finding. ``code`` is stable and documented in codes.py; ``help`` is an action, not a restatement."""

    code: str
    message: str
    where: Where | None = None
    help: str | None = None
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        lines = [f"{self.severity.value}[{self.code}]: {self.message}"]
        if self.where is not None:
            lines.append(f"  --> {self.where}")
        if self.help is not None:
            lines.append(f"  help: {self.help}")
        return "\n".join(lines)


class CompileError(Exception):
    """The user's file, model, options or inputs cannot be used. Carries every finding, not the first."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(map(str, self.diagnostics)))

    @classmethod
    def of(
        cls,
        code: str,
        message: str,
        *,
        where: Where | None = None,
        help: str | None = None,  # noqa: A002  the field's name
    ) -> CompileError:
        return cls([Diagnostic(code, message, where, help)])


class PassBug(Exception):
    """A pass, or what a target made of its work, broke a promise. Never the user's fault.

    ``what`` replaces the sentence on a pass where the culprit is none.
    """

    def __init__(self, culprit: str, diagnostics: Sequence[Diagnostic], what: str | None = None) -> None:
        self.culprit = culprit
        self.diagnostics = tuple(diagnostics)
        findings = "\n".join(map(str, self.diagnostics))
        what = what or f"pass '{culprit}' left the program invalid"
        super().__init__(f"{what}\n{findings}")
