"""Rules: what to look for at a node, why it may not fire, and what replaces it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import fx

from sparsecc.pass_manager import Note
from sparsecc.program import Program


@dataclass(frozen=True)
class Refused:
    """The pattern is there, but rewriting it would be wrong or useless, for this reason."""

    reason: str


@dataclass(frozen=True)
class Rule:
    """``rewrite(program, node)`` answers with the node that replaces ``node``, or with None if the pattern is not
    there, or Refused.

    It may insert nodes before ``node``; the driver redirects the users and drops what became dead.
    """

    name: str
    targets: tuple[object, ...]
    rewrite: Callable[[Program, fx.Node], fx.Node | Refused | None]


def apply_rules(program: Program, rules: Sequence[Rule]) -> list[Note]:
    """Try every rule at every node once, in graph order; a note per rewrite and per refusal."""
    notes = list[Note]()
    for node in list(program.graph.nodes):
        for rule in rules:
            if node.op != "call_function" or node.target not in rule.targets or not node.users:
                continue
            result = rule.rewrite(program, node)
            if isinstance(result, Refused):
                notes.append(Note(node.name, f"{rule.name}: {result.reason}", done=False))
            elif result is not None:
                node.replace_all_uses_with(result)
                notes.append(Note(node.name, rule.name))
    program.tidy()
    return notes
