"""Find passes, backends and formats by name: a literal table for ours, entry points for everyone else's."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from typing import Generic, TypeGuard, TypeVar

from sparsecc.diagnostics import CompileError

T = TypeVar("T")

BROKEN_PLUGIN = "SCC081"


@dataclass(frozen=True)
class Registry(Generic[T]):
    """Names of one kind of part, each a ``module:attribute`` that is imported only when asked for.

    ``noun`` and ``unknown_code`` make the error for a name that nobody offers; ``accepts`` tells a part from the rest.
    """

    noun: str
    group: str  # entry-point group in which other packages offer theirs
    builtin: Mapping[str, str]
    accepts: Callable[[object], TypeGuard[T]]
    unknown_code: str

    def names(self) -> list[str]:
        """Ours in the order of their table, then others' by name."""
        return [*self.builtin, *sorted(self._table.keys() - self.builtin.keys())]

    def load(self, name: str) -> T:
        """Import the part called ``name``.

        Raises:
            CompileError: ``unknown_code`` when nobody offers the name, SCC081 when what is offered cannot be used.
        """
        if name not in self._table:
            known = suggest(name, self.names())
            raise CompileError.of(self.unknown_code, f"there is no {self.noun} '{name}'", help=known)
        path = self._table[name]
        module, _, attribute = path.partition(":")
        try:
            part: object = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise self._broken(name, path, f"cannot be imported: {error}") from error
        if not self.accepts(part):
            raise self._broken(name, path, f"is a {type(part).__name__}, not a {self.noun}")
        return part

    @cached_property
    def _table(self) -> Mapping[str, str]:
        table = dict(self.builtin)
        for entry in entry_points(group=self.group):
            if table.setdefault(entry.name, entry.value) != entry.value:
                raise self._broken(entry.name, entry.value, f"is taken: {table[entry.name]} has that name")
        return table

    def _broken(self, name: str, path: str, why: str) -> CompileError:
        return CompileError.of(
            BROKEN_PLUGIN,
            f"{self.noun} '{name}' ({path}) {why}",
            help=f"uninstall or repair the package that offers it under the entry points '{self.group}'",
        )


def suggest(name: str, known: list[str]) -> str:
    """Help for a name that is not among ``known``: the nearest one if there is one, and all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"did you mean '{near[0]}'? " if near else ""
    return f"{guess}known: {', '.join(known)}"
