"""Compiled kernels from the user's cache folder; those that it lacks are compiled, several at once, and kept there.

There is a folder per generator of kernels; older versions leave theirs behind. One that no compile has used for
`UNUSED_DAYS_MOST` days goes when another is made. Who uses it at that very moment compiles again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import re
import stat
import struct
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from sparsecc.machine import user_cache
from sparsecc.progress import track

from .kernels.spec import Isa, KernelSpec, symbol

DIGEST_BYTES = 32
UNUSED_DAYS_MOST = 30
FOLDER = re.compile(r"kernels-[0-9a-f]{16}")
SHF_EXECINSTR = 4  # System V ABI, section attributes
CODE_ALIGNMENT = 64
"""Bytes. LLVM asks for 16, and then a kernel's speed depends on those before it: of a BERT with 90 % zeros, the
products with 768 x 768 take 134 or 141 us, by where in a cache line their loop happens to lie (a thread of a Zen 5)."""
Kernel = tuple[KernelSpec, Isa]


def kernel_objects(kernels: Sequence[Kernel]) -> list[bytes]:
    """A relocatable object per kernel; the same bytes whether or not the cache had them."""
    folder = user_cache() / f"kernels-{_generator()}"
    with suppress(OSError):
        os.utime(folder)  # when it was last used
    names = [symbol(*kernel) for kernel in kernels]
    objects = {name: data for name in names if (data := _read(folder, name)) is not None}
    missing = {name: kernel for name, kernel in zip(names, kernels, strict=True) if name not in objects}
    if missing:
        from .codegen import compile_kernels  # TVM takes a second to import

        def compiled(kernel: Kernel) -> bytes:
            spec, isa = kernel
            return compile_kernels([spec], isa)

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # TVM works without Python's lock
            results = pool.map(compiled, missing.values())
            for name, data in zip(track("compiling kernels", missing), results, strict=True):
                objects[name] = data
                _write(folder, name, data)
    return [align_code(objects[name]) for name in names]


def align_code(data: bytes) -> bytes:
    """A relocatable object whose code the linker begins at a cache line (System V ABI: section headers, ELF64)."""
    elf = bytearray(data)
    (first,), (size, count) = struct.unpack_from("<Q", elf, 0x28), struct.unpack_from("<HH", elf, 0x3A)
    for header in range(first, first + size * count, size):
        (flags,), (alignment,) = (struct.unpack_from("<Q", elf, header + at) for at in (8, 48))
        if flags & SHF_EXECINSTR:
            struct.pack_into("<Q", elf, header + 48, max(alignment, CODE_ALIGNMENT))
    return bytes(elf)


@functools.cache
def _generator() -> str:
    """A digest of what decides the code of a kernel besides its name: TVM, and the sources that speak to it."""
    here = Path(__file__).parent
    digest = hashlib.sha256(importlib.metadata.version("apache-tvm").encode())
    for path in (here / "codegen.py", *sorted((here / "kernels").glob("*.py"))):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _digest(name: str, data: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + data).digest()


def _read(folder: Path, name: str) -> bytes | None:
    """What was written under that name; nothing if it is not there, damaged, or where others may write: it is code."""
    try:
        info, content = folder.stat(), (folder / name).read_bytes()
    except OSError:
        return None
    digest, data = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    own = info.st_uid == os.geteuid() and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return data if own and digest == _digest(name, data) else None


def _write(folder: Path, name: str, data: bytes) -> None:
    """Replace the file in one step; without a writable cache folder every compile compiles again."""
    with suppress(OSError):
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _remove_unused(folder.parent)
        new = folder / f"{name}.{os.getpid()}"
        new.write_bytes(_digest(name, data) + data)
        new.replace(folder / name)


def _remove_unused(cache: Path) -> None:
    """Remove kernels of other generators that nobody used lately: files in folders of that name, and no links."""
    last_used_s = time.time() - UNUSED_DAYS_MOST * 24 * 3600
    for folder in cache.iterdir():
        with suppress(OSError):  # another process may remove it too, or use it again
            if FOLDER.fullmatch(folder.name) and not folder.is_symlink() and folder.stat().st_mtime < last_used_s:
                for path in folder.iterdir():
                    path.unlink(missing_ok=True)
                folder.rmdir()
