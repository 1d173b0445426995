"""The machine that compiles: its processor, and where it keeps what it measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_cache: ContextVar[Path | None] = ContextVar("tuning_cache", default=None)


def cpu_name() -> str:
    """The processor as the system calls it; with family and model, for many virtual ones are all called "AMD EPYC"."""
    name, family, model = map(_cpuinfo, ("model name", "cpu family", "model"))
    if not name:
        return platform.processor() or platform.machine()
    return f"{name}, family {family} model {model}" if family and model else name


def cpu_flags() -> frozenset[str]:
    """What Linux says the processor has, under its names: "avx2", "avx512f", ..."""
    return frozenset(_cpuinfo("flags").split())


def _cpuinfo(field: str) -> str:
    """The first core's, or nothing."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in fields if name.strip() == field), "")


def tuning_cache() -> Path:
    """The file of measured times: the one given to compile, else the user's cache folder."""
    return _cache.get() or default_tuning_cache()


def default_tuning_cache() -> Path:
    return user_cache() / "tuning.json"


def user_cache() -> Path:
    """The folder of what can be measured or built again."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root, "sparsecc")


@contextmanager
def cache_at(path: Path | None) -> Generator[None, None, None]:
    """Within the block, measured times are read from and written to ``path`` (None: the user's cache folder)."""
    token = _cache.set(path)
    try:
        yield
    finally:
        _cache.reset(token)
