"""A compiler for sparse inference: pruned PyTorch models that run faster and smaller in stock onnxruntime.

>>> artifact = sparsecc.compile(model, example_inputs).save("m.sparsecc")  # doctest: +SKIP
>>> outputs = sparsecc.run(artifact, {"x": array})  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from sparsecc.api import Compiled, compile, save  # noqa: A004  a method of the package, as in re.compile
    from sparsecc.artifact import Artifact
    from sparsecc.backends.onnxruntime.bench import bench
    from sparsecc.backends.onnxruntime.session import open_session, run, verify
    from sparsecc.diagnostics import CompileError, Diagnostic, PassBug

__all__ = [
    "Artifact",
    "CompileError",
    "Compiled",
    "Diagnostic",
    "PassBug",
    "__version__",
    "bench",
    "compile",
    "open_session",
    "run",
    "save",
    "verify",
]

_HOMES = {
    "Artifact": "sparsecc.artifact",
    "CompileError": "sparsecc.diagnostics",
    "Compiled": "sparsecc.api",
    "Diagnostic": "sparsecc.diagnostics",
    "PassBug": "sparsecc.diagnostics",
    "bench": "sparsecc.backends.onnxruntime.bench",
    "compile": "sparsecc.api",
    "open_session": "sparsecc.backends.onnxruntime.session",
    "run": "sparsecc.backends.onnxruntime.session",
    "save": "sparsecc.api",
    "verify": "sparsecc.backends.onnxruntime.session",
}
"""Where each name lives; it is imported on first use, so that `sparsecc --help` waits for neither torch nor TVM."""


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("sparsecc")
    if name not in _HOMES:
        raise AttributeError(f"module 'sparsecc' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__]
