"""The wheel: what is in it, and that it works far from the repository."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINKS = ("passes", "backends", "models")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the files under version control, so that the build leaves nothing in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for file in tracked_files():
        copy = source / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / file).is_symlink():
            copy.symlink_to((ROOT / file).readlink())
        elif (ROOT / file).is_file():
            copy.write_bytes((ROOT / file).read_bytes())
    pip = (
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(out),
    )
    subprocess.run((*pip, str(source)), check=True)
    (path,) = out.glob("sparsecc-*.whl")
    return path


def tracked_files() -> list[Path]:
    listing = subprocess.run(("git", "ls-files", "-z"), cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [Path(name) for name in listing.split("\0") if name]


def test_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    files = [file for file in tracked_files() if file.parts[0] in (*LINKS, "sparsecc") and (ROOT / file).is_file()]
    expected = {f"sparsecc/{file}" if file.parts[0] in LINKS else str(file) for file in files}
    assert expected - inside == set()
    assert {"sparsecc/py.typed", "sparsecc/models/lenet5.npz", "sparsecc/backends/onnxruntime/runtime.c"} <= inside
    assert [name for name in inside if name.startswith((*(f"{link}/" for link in LINKS), "tests/"))] == []
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_wheel_works_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel))
    subprocess.run(pip, check=True)
    code = (
        "import importlib, pkgutil, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import sparsecc\n"
        "assert sparsecc.__file__.startswith(sys.argv[1]), sparsecc.__file__\n"
        "for module in pkgutil.walk_packages(sparsecc.__path__, 'sparsecc.'):\n"
        "    importlib.import_module(module.name)\n"
        "assert all(getattr(sparsecc, name) for name in sparsecc.__all__)\n"
    )
    subprocess.run((sys.executable, "-c", code, str(site)), cwd=tmp_path, check=True)


def test_import_is_lazy() -> None:
    """`import sparsecc` costs nothing of its own: what it names is imported on first use."""
    code = "import sys, sparsecc; sys.exit(repr({'torch', 'tvm', 'onnx', 'numpy', 'rich'} & sys.modules.keys() or ''))"
    assert subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=False).stderr == "''\n"


def test_linked_folders_refuse_their_bare_names() -> None:
    for name in LINKS:
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {name}"
        done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=False)
        assert f"ImportError: import sparsecc.{name}; the top-level {name}/ folder is only where its source lives" in (
            done.stderr
        )
