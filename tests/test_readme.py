"""The Python in the README runs, from top to bottom."""

import re
from pathlib import Path

import pytest

from sparsecc.cli import app

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    assert len(BLOCKS) == 6
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), namespace)


def test_commands_exist() -> None:
    known = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    known |= {group.typer_instance.info.name for group in app.registered_groups if group.typer_instance}
    uses = re.findall(r"^    sparsecc (\w+(?: \| \w+)*)", README, re.MULTILINE)
    assert {name for use in uses for name in use.split(" | ")} | {"demo"} == known
    assert "&& sparsecc demo\n" in README
