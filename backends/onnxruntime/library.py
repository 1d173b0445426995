"""Build kernels.so: generated tables, the fixed runtime, compiled kernels, one link. Needs a C compiler."""

from __future__ import annotations

import functools
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sparsecc.backends.tvm.kernels.spec import Isa
from sparsecc.backends.tvm.objects import kernel_objects
from sparsecc.backends.tvm.plan import RegionPlan
from sparsecc.diagnostics import CompileError

from .tables import c_tables, kernels_of

SOURCES = ("prepare.c", "runtime.c", "ort.c")
FLAGS = ("-std=c11", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-shared")
# zig compiles for the machine at hand unless told otherwise; glibc 2.17 is that of manylinux2014
ZIG_FLAGS = ("-target", "x86_64-linux-gnu.2.17", "-mcpu=x86_64")

Command = tuple[str, ...]


def build_library(
    plans: Sequence[RegionPlan],
    out: Path,
    isas: Sequence[Isa] = ("avx2", "avx512"),
) -> None:
    """Write the shared library of some regions to ``out``. The same plans and tools give the same bytes.

    Raises: CompileError (SCC050) without a working C compiler.
    """
    compiler = c_compiler()
    kernels = kernels_of(plans)
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tables.c").write_text(c_tables(plans, isas))
        (folder / "exports").write_text("{ global: RegisterCustomOps; sparsecc_*; local: *; };\n")
        objects = list[str]()
        for number, data in enumerate(kernel_objects([(kernel, isa) for isa in isas for kernel in kernels])):
            objects.append(f"{number}.o")
            (folder / objects[-1]).write_bytes(data)
        sources = ["tables.c", *(str(here / source) for source in SOURCES)]
        command = (
            *compiler,
            *FLAGS,
            f"-I{here}",
            *sources,
            *objects,
            "-Wl,-s",
            "-Wl,--version-script=exports",
            "-o",
            "out.so",
        )
        if problem := _run(command, folder):
            raise CompileError.of(
                "SCC050",
                f"the C compiler '{shlex.join(compiler)}' failed on {out.name}: {problem}",
                help="set CC to another C compiler, or unset it and `pip install ziglang`",
            )
        shutil.copyfile(folder / "out.so", out)


def c_compiler() -> Command:
    """The first C compiler that can build a shared library: $CC, cc, gcc, clang, the ziglang package."""
    for command in c_compilers():
        if _works(command):
            return command
    raise CompileError.of(
        "SCC050",
        "no working C compiler was found ($CC, cc, gcc, clang and the ziglang package were tried)",
        help="`pip install ziglang` brings one, or set CC",
    )


def c_compilers() -> Iterator[Command]:
    """What may serve as C compiler, best first, whether or not it exists."""
    if chosen := os.environ.get("CC"):
        yield tuple(shlex.split(chosen))
    yield from ((name,) for name in ("cc", "gcc", "clang"))
    if importlib.util.find_spec("ziglang") is not None:
        yield (sys.executable, "-m", "ziglang", "cc", *ZIG_FLAGS)


@functools.cache
def _works(command: Command) -> bool:
    """Whether it finds libc's headers and links: a bare compiler without them is common in containers."""
    if shutil.which(command[0]) is None:
        return False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "trial.c").write_text(
            "#include <stdlib.h>\nvoid *trial(void);\nvoid *trial(void) { return malloc(1); }\n"
        )
        return not _run((*command, *FLAGS, "trial.c", "-o", "trial.so"), folder)


def _run(command: Command, folder: Path) -> str:
    """Nothing, or the first lines of what went wrong."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return (
        "" if done.returncode == 0 else "; ".join((done.stderr or done.stdout).strip().splitlines()[:3]) or "no output"
    )
