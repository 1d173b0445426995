"""Fixtures that several parts of the suite share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Cli, Result
from hypothesis import settings

from sparsecc.cli import main
from sparsecc.manifest import Check, Manifest, Region, Source, Speed, Value, Versions
from sparsecc.pass_manager import Note, Record
from sparsecc.program import Candidate, Layer

settings.register_profile("sparsecc", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("sparsecc")


@pytest.fixture
def manifest() -> Manifest:
    """Of a small model with everything in it: x[batch, 3] -> y[batch, 2]."""
    return Manifest(
        versions=Versions("0.1.0", "2.13.0", "1.19.0", "1.31.0", "0.27.0", "3.11.7"),
        cpu="AMD EPYC",
        target="cpu",
        source=Source("file", "ab" * 32),
        inputs=(Value("x", "float32", ("batch", 3)),),
        outputs=(Value("y", "float32", ("batch", 2)),),
        passes=(Record("fold-masks", True, 0.25, 1e-7, (Note("linear", "plain zeros: 90 %"),)),),
        layers={
            "linear": Layer("fc.weight", 2, 3, "plain zeros", 2, "csr", "csr", 24, (Candidate("csr", 1.5),), "csr wins")
        },
        regions=(Region("region_0", "Region_0", "token", ("linear",), ("x",), ("y",), 3, 4096),),
        check=Check(1e-4, 2e-7, 2e-7, None),
        speed=Speed(1, 2.0, 1.0, 2.0, 200),
    )


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["sparsecc", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        printed = capsys.readouterr()
        return Result(exit_.value.code, printed.out, printed.err)

    return run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files, do not compare")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)`` compares with tests/golden/name.txt."""

    def compare(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / f"{name}.txt"
        if request.config.getoption("--update-golden"):
            path.write_text(text)
        assert path.exists(), f"{path} is missing: run pytest --update-golden"
        assert text == path.read_text(), f"{path} differs: run pytest --update-golden and read the difference"

    return compare
