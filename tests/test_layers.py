"""The core knows nothing of its passes and backends: the registry resolves their names.

diagnostics -> program -> invariants -> pass_manager -> passes -> backends -> cli
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = {"__init__", "cli", "cli_contracts", "cli_options", "cli_scu", "demo"}
"""What people call may name anything below it."""
PARTS = ("sparsecc.passes", "sparsecc.backends", "sparsecc.models")
ORDER = ("diagnostics", "program", "invariants", "pass_manager")


def imported_modules(path: Path) -> Iterator[str]:
    """Absolute names of everything a file imports, wherever in the file."""
    package = ".".join(("sparsecc", *path.relative_to(ROOT / "sparsecc").parent.parts))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def core_files() -> list[Path]:
    folders = ("", "formats")
    files = [file for folder in folders for file in (ROOT / "sparsecc" / folder).glob("*.py")]
    return sorted(file for file in files if file.parent.name != "sparsecc" or file.stem not in TOP)


@pytest.mark.parametrize("path", core_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_core_imports_no_pass_backend_or_model(path: Path) -> None:
    assert [m for m in imported_modules(path) if m.startswith(PARTS)] == []


@pytest.mark.parametrize("path", sorted((ROOT / "passes").glob("*.py")), ids=lambda path: path.stem)
def test_passes_import_no_backend(path: Path) -> None:
    assert [m for m in imported_modules(ROOT / "sparsecc" / "passes" / path.name) if "backends" in m] == []


def test_core_modules_import_only_what_is_below_them() -> None:
    for i, name in enumerate(ORDER):
        above = {f"sparsecc.{later}" for later in (*ORDER[i + 1 :], "backend", "api", "cli", "pipelines")}
        assert above.isdisjoint(imported_modules(ROOT / "sparsecc" / f"{name}.py")), name


def test_imports_are_seen_in_every_spelling() -> None:
    seen = set(imported_modules(ROOT / "sparsecc" / "cli.py"))
    assert {"json", "sparsecc.report", "sparsecc.backends.onnxruntime.session"} <= seen
    assert "sparsecc.passes.fold_constants" in imported_modules(ROOT / "sparsecc" / "passes" / "fold_masks.py")
