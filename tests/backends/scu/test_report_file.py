"""report.json as an attacker writes it: refused with the place, never shown."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scu_artifact import figure, report_tree, scu_artifact

from sparsecc.backends.scu import report_file
from sparsecc.backends.scu.report_file import Figures, from_json, read_report
from sparsecc.diagnostics import CompileError
from sparsecc.manifest import Manifest

HELP = "\n  help: copy the artifact again, or compile the model again"


def refusal(data: bytes) -> str:
    with pytest.raises(CompileError) as caught:
        from_json(data, "r.json")
    head, tail = "error[SCC118]: r.json is not a readable report: ", HELP
    text = str(caught.value)
    assert text.startswith(head)
    assert text.endswith(tail)
    return text[len(head) : -len(tail)]


def test_a_report_reads_back() -> None:
    report = from_json(json.dumps(report_tree()).encode(), "r.json")
    assert report.figures.dense == figure(4)
    assert report.schedule.method == "CP-SAT"
    assert report.settlement == report_tree()["settlement"]
    assert [edge["edge"] for edge in report.edges] == ["relu_1"]


def test_a_baseline_that_does_not_fit() -> None:
    """null with a reason; reasons for what is there or unknown are not taken over."""
    tree = report_tree()
    figures = {**tree["figures"], "dense": None, "does_not_fit": {"dense": "too large", "contracts": "?", "x": "?"}}
    found = from_json(json.dumps({**tree, "figures": figures}).encode(), "r.json").figures
    assert found == Figures(figure(1), None, figure(2), {"dense": "too large"})
    again = from_json(json.dumps({**tree, "figures": found.to_json()}).encode(), "r.json").figures
    assert again == found


def test_a_report_from_before_baselines_could_be_missing() -> None:
    tree = report_tree()
    del tree["figures"]["does_not_fit"]
    assert from_json(json.dumps(tree).encode(), "r.json").figures == Figures(figure(1), figure(4), figure(2))


def test_contracts_have_figures_whatever_the_reason() -> None:
    tree = report_tree()
    tree["figures"] |= {"contracts": None, "does_not_fit": {"contracts": "too large"}}
    assert refusal(json.dumps(tree).encode()) == "figures.contracts is null, expected an object"


def test_a_report_without_a_negotiation() -> None:
    report = from_json(json.dumps({**report_tree(), "settlement": None}).encode(), "r.json")
    assert report.settlement is None
    assert report.edges == []


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (["schema"], 2, "its schema is 2; this sparsecc reads schema 1"),
        (["schema"], "\x1b[2J", r"its schema is '\x1b[2J'; this sparsecc reads schema 1"),
        (["schedule"], [], "schedule is a list, expected an object"),
        (["schedule", "method"], "\x1b[2J", r"schedule.method is '\x1b[2J', expected printable text"),
        (["schedule", "makespan_cycles"], 1.5, "schedule.makespan_cycles is 1.5, expected an integer"),
        (["schedule", "makespan_cycles"], True, "schedule.makespan_cycles is true, expected an integer"),
        (["schedule", "makespan_cycles"], -1, "schedule.makespan_cycles is -1, expected a number from 0"),
        (["figures", "dense", "cycles"], None, "figures.dense.cycles is null, expected an integer"),
        (["figures", "dense", "energy_pj"], float("nan"),
         "figures.dense.energy_pj is NaN, expected a number of at most 2^63"),
        (["figures", "dense", "cycles"], 10**30,
         f"figures.dense.cycles is {10**30}, expected a number of at most 2^63"),
        (["figures", "dense", "energy_by_component_pj"], {"a\nb": 1},
         r"figures.dense.energy_by_component_pj is 'a\nb', expected printable text"),
        (["figures", "dense"], None, "figures.dense is null, expected an object"),
        (["figures", "does_not_fit"], [], "figures.does_not_fit is a list, expected an object"),
        (["figures", "does_not_fit"], {"dense": None}, "figures.does_not_fit.dense is null, expected printable text"),
        (["figures", "does_not_fit"], {"dense": "\x1b[2J"},
         r"figures.does_not_fit.dense is '\x1b[2J', expected printable text"),
        (["figures", "does_not_fit"], {"\x1b": "a"},
         r"figures.does_not_fit is '\x1b', expected printable text"),
        (["settlement"], "none", "settlement is 'none', expected an object"),
        (["settlement", "edges"], {}, "settlement.edges is an object, expected a list"),
        (["settlement", "edges"], [1], "settlement.edges[0] is 1, expected an object"),
        (["settlement", "edges", 0, "binding"], "\r", r"settlement.edges[0].binding is '\r', expected printable text"),
        (["settlement", "dense", "low"], [1e300],
         "settlement.dense.low[0] is 1e+300, expected a number of at most 2^63"),
    ],
)  # fmt: skip
def test_fields_that_cannot_be(path: list[Any], value: object, why: str) -> None:
    tree = report_tree()
    place: Any = tree
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    assert refusal(json.dumps(tree).encode()) == why


def test_what_is_no_json_object() -> None:
    assert refusal(b"[1]") == "the top is a list, expected an object"
    assert refusal(b"{") == "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    assert refusal(b"\xff").startswith("'utf-8' codec can't decode byte 0xff")
    assert "recursion" in refusal(b'{"a":' * 100_000).lower()


@given(st.data())
def test_a_missing_field_is_found(data: st.DataObject) -> None:
    tree = copy.deepcopy(report_tree())
    part = data.draw(st.sampled_from([tree["schedule"], tree["figures"], tree["figures"]["zero_compression"]]))
    name = data.draw(st.sampled_from(sorted(part.keys() - {"does_not_fit"})))
    del part[name]
    assert f".{name} is null, expected " in refusal(json.dumps(tree).encode())


def test_a_report_that_is_too_large(tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = scu_artifact(tmp_path / "m", manifest)
    assert read_report(artifact).figures.contracts == figure(1)
    monkeypatch.setattr(report_file, "MOST_BYTES", 100)
    with pytest.raises(CompileError) as caught:
        read_report(artifact)
    path = artifact.path / "scu" / "report.json"
    assert str(caught.value) == f"error[SCC118]: {path} is not a readable report: it is larger than 100 B{HELP}"
