"""What sparsecc calls the machine it runs on."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from sparsecc.machine import cpu_name

CORE = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: {family}\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\n"


@pytest.fixture
def cpuinfo(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Linux tells: the last entry."""
    texts = list[str]()
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "read_text", lambda _: texts[-1])
    return texts


def test_virtual_processors_of_one_name_are_told_apart(cpuinfo: list[str]) -> None:
    names = list[str]()
    for family in (25, 26):
        cpuinfo.append(2 * CORE.format(family=family))
        names.append(cpu_name())
    assert names == ["AMD EPYC, family 25 model 1", "AMD EPYC, family 26 model 1"]


def test_a_processor_of_which_linux_tells_no_name(cpuinfo: list[str]) -> None:
    cpuinfo.append("processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd\n")
    assert cpu_name() == (platform.processor() or platform.machine())
