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
    """The processor as the system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def tuning_cache() -> Path:
    """The file of measured times: the one given to compile, else the user's cache folder."""
    return _cache.get() or default_tuning_cache()


def default_tuning_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root, "sparsecc", "tuning.json")


@contextmanager
def cache_at(path: Path | None) -> Generator[None, None, None]:
    """Within the block, measured times are read from and written to ``path`` (None: the user's cache folder)."""
    token = _cache.set(path)
    try:
        yield
    finally:
        _cache.reset(token)
