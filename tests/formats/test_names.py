"""Formats by name: ours, block shapes, and those of other packages."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from sparsecc import formats, registry
from sparsecc.diagnostics import CompileError
from sparsecc.formats import BSR, CSR, FORMATS, Dense, known_formats, parse_format


class Renamed(Dense):
    @property
    def name(self) -> str:
        return "renamed"


RENAMED = Renamed()
REPAIR = "  help: uninstall or repair the package that offers it under the entry points 'sparsecc.formats'"


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """Entry points that another package offers: those that a test appends."""
    offers: list[EntryPoint] = []

    def entry_points(group: str) -> EntryPoints:
        return EntryPoints(offers).select(group=group)

    monkeypatch.setattr(registry, "entry_points", entry_points)
    monkeypatch.setattr(formats, "OTHERS", replace(formats.OTHERS))  # a copy has not looked yet
    return offers


def offer(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "sparsecc.formats")


def test_names_lead_back_to_their_formats() -> None:
    for form in (*FORMATS, BSR(3, 5), BSR(32, 1)):
        assert parse_format(form.name) == form


def test_built_in_names() -> None:
    assert {form.name: form.summary for form in FORMATS} == {
        "dense": "every value, zeros included",
        "csr": "compressed sparse rows: each non-zero with its column",
        "bsr4x1": "block compressed sparse rows: dense blocks of 4x1",
        "bsr16x1": "block compressed sparse rows: dense blocks of 16x1",
        "bsr4x4": "block compressed sparse rows: dense blocks of 4x4",
    }


NOT_NAMES = ["", "CSR", "bsr", "bsr4", "bsr0x1", "bsr4x", "bsr-4x1", "bsr04x1", "bsr4x1\n", "bsr\u0664x1"]


@pytest.mark.parametrize("name", NOT_NAMES)
def test_what_is_no_name(name: str, offered: list[EntryPoint]) -> None:
    assert not offered
    with pytest.raises(CompileError) as caught:
        parse_format(name)
    assert caught.value.diagnostics[0].code == "SCC030"


def test_an_unknown_name_gets_the_known_ones(offered: list[EntryPoint]) -> None:
    assert not offered
    with pytest.raises(CompileError) as caught:
        parse_format("bsr16")
    assert str(caught.value) == (
        "error[SCC030]: there is no format 'bsr16'\n"
        "  help: did you mean 'bsr16x1'? known: dense, csr, bsr4x1, bsr16x1, bsr4x4, bsr<rows>x<columns>"
    )


def test_other_packages_offer_formats(offered: list[EntryPoint]) -> None:
    offered.append(offer("renamed", f"{__name__}:RENAMED"))
    assert parse_format("renamed") is RENAMED
    assert known_formats() == [*FORMATS, RENAMED]
    assert parse_format("csr") == CSR()


BROKEN = {
    "not a format": (f"{__name__}:Renamed", f"({__name__}:Renamed) is a type, not a format"),
    "no attribute": ("math:FORM", "(math:FORM) cannot be imported: module 'math' has no attribute 'FORM'"),
    "no module": ("no_such_module:X", "(no_such_module:X) cannot be imported: No module named 'no_such_module'"),
}


@pytest.mark.parametrize(("value", "why"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_offer_is_named(value: str, why: str, offered: list[EntryPoint]) -> None:
    offered.append(offer("renamed", value))
    with pytest.raises(CompileError) as caught:
        parse_format("renamed")
    assert str(caught.value) == f"error[SCC081]: format 'renamed' {why}\n{REPAIR}"


def test_two_packages_cannot_share_a_name(offered: list[EntryPoint]) -> None:
    offered.extend([offer("renamed", f"{__name__}:RENAMED"), offer("renamed", "other:RENAMED")])
    with pytest.raises(CompileError) as caught:
        parse_format("renamed")
    why = f"(other:RENAMED) is taken: {__name__}:RENAMED has that name"
    assert str(caught.value) == f"error[SCC081]: format 'renamed' {why}\n{REPAIR}"


def test_an_offer_cannot_change_what_a_built_in_name_means(offered: list[EntryPoint]) -> None:
    offered.append(offer("csr", f"{__name__}:RENAMED"))
    assert parse_format("csr") == CSR()
