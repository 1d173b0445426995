"""What this installation offers: passes, targets and formats, ours and those of other packages."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, cast

from rich.console import Group, RenderableType
from rich.table import Table

from sparsecc.backend import BACKENDS
from sparsecc.formats import known_formats
from sparsecc.pass_manager import Pass
from sparsecc.pipelines import PASSES

from .text import FACTS, table


def targets() -> list[dict[str, str]]:
    return [{"name": name, "summary": BACKENDS.load(name).summary} for name in BACKENDS.names()]


def formats() -> list[dict[str, str]]:
    return [{"name": form.name, "summary": form.summary} for form in known_formats()]


def passes() -> dict[str, Any]:
    """Every pass, and the pipeline of every target as text for --pipeline."""
    pipelines = {name: BACKENDS.load(name).pipeline(tune=True) for name in BACKENDS.names()}
    return {"passes": [_pass_facts(PASSES.load(name)) for name in PASSES.names()], "pipelines": pipelines}


def list_table(title: str, facts: list[dict[str, str]]) -> Table:
    return table(title, ("name", "what it is"), [(fact["name"], fact["summary"]) for fact in facts])


def passes_table(facts: dict[str, Any]) -> RenderableType:
    """A paragraph per pass, which fits a narrow terminal too, and a pipeline per line."""

    def about(fact: dict[str, Any]) -> str:
        options = [f"{name}={default}" for name, default in fact["options"].items()]
        lists = {"needs": fact["needs"], "provides": fact["provides"], "breaks": fact["breaks"], "options": options}
        return "\n".join([fact["summary"], *(f"{name}: {', '.join(items)}" for name, items in lists.items() if items)])

    rows = [(fact["name"], about(fact)) for fact in facts["passes"]]
    pipelines = [(f"target {name}", text.replace(",", ", ")) for name, text in facts["pipelines"].items()]
    return Group(table("passes", ("pass", "what it does"), rows), table("pipelines", FACTS, pipelines))


def _pass_facts(kind: type[Pass]) -> dict[str, Any]:
    effects = cast(Pass, kind).effects  # a class attribute: the order of passes does not depend on their options
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    return {
        "name": cast(Pass, kind).name,
        "summary": (inspect.getdoc(kind) or "").partition("\n")[0],
        "needs": sorted(map(repr, effects.requires)),
        "provides": sorted(map(repr, effects.establishes)),
        "breaks": sorted(map(repr, effects.breaks)),
        "keeps_meaning": effects.keeps_meaning,
        "options": {field.name: str(field.default) for field in fields},
    }
