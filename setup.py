"""Refuse to build when git did not materialise the links (e.g. Windows without core.symlinks)."""

from pathlib import Path

from setuptools import setup

for name in ("passes", "backends", "models"):
    if not Path("sparsecc", name, "__init__.py").is_file():
        raise SystemExit(f"sparsecc/{name} must be a link to ../{name}; clone with `git -c core.symlinks=true clone`")
setup()
