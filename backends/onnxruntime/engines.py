"""Three ways to compute a model.onnx, each as a function from arrays to arrays."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from sparsecc.artifact import KERNELS, MODEL, Artifact
from sparsecc.diagnostics import CompileError
from sparsecc.reference import Array

from .dense import dense_model

ort: Any = importlib.import_module("onnxruntime")  # it brings no types
Options: TypeAlias = Any  # onnxruntime.SessionOptions
Compute: TypeAlias = Callable[[Sequence[str], Mapping[str, Array]], Sequence[Array]]
"""Output names and inputs by name -> outputs in the order of their names."""


def session_options(threads: int) -> Options:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised; onnxruntime would print them as well
    return options


def register_kernels(artifact: Artifact, options: Options) -> None:
    """Load kernels.so, if the artifact has one. It is native code of whoever made the artifact.

    Raises: CompileError (SCC073 it is missing, or not for this machine).
    """
    if KERNELS not in artifact.manifest.files:
        return
    path = artifact.path / KERNELS
    help_ = "run without it: --engine portable (slower, the same results), or compile the model again on this machine"
    if not path.is_file():
        raise CompileError.of("SCC073", f"{path} is missing", help=help_)
    try:
        options.register_custom_ops_library(str(path.absolute()))
    except Exception as error:  # onnxruntime's exceptions have no base class of their own
        raise CompileError.of("SCC073", f"{path} cannot be used here: {reason(error)}", help=help_) from error


def onnxruntime_session(model: str | bytes, options: Options, name: str) -> Compute:
    """A session on a file or on bytes, as a function; ``name`` is what errors call the model.

    Raises: CompileError (SCC077 onnxruntime refuses it), here or when the function is called.
    """
    help_ = (
        "the model and this onnxruntime do not fit together; compile the model again with the versions installed here"
    )
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CompileError.of("SCC077", f"onnxruntime cannot load {name}: {reason(error)}", help=help_) from error

    def compute(names: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        try:
            outputs: Sequence[Array] = session.run(list(names), dict(inputs))
        except Exception as error:
            raise CompileError.of("SCC077", f"onnxruntime cannot run {name}: {reason(error)}", help=help_) from error
        return outputs

    return compute


class GatherElements(OpRun):
    """onnx's own one (1.23) fails for axes of 64 elements and more: it calls numpy.choose."""

    op_domain = ""

    def _run(self, data: Array, indices: npt.NDArray[np.int64], axis: int = 0) -> tuple[Array]:
        return (np.take_along_axis(data, indices, axis),)


def reference_evaluator(artifact: Artifact) -> Compute:
    """onnx.reference on the dense model: numpy, with no code in common with onnxruntime or kernels.so.

    Raises: CompileError (SCC074 it cannot, because it lacks an operator), here or when the function is called.
    """
    path = artifact.file(MODEL)

    def refuse(error: Exception) -> CompileError:
        return CompileError.of(
            "SCC074",
            f"onnx's reference evaluator cannot run {path}: {reason(error)}",
            help="it lacks some operators; compare with --engine portable instead",
        )

    model = load_dense(artifact)
    try:
        evaluator = cast(Any, ReferenceEvaluator)(model, new_ops=[GatherElements])
    except Exception as error:  # it raises whatever its operators raise
        raise refuse(error) from error

    def compute(names: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        try:
            return cast("Sequence[Array]", evaluator.run(list(names), dict(inputs)))
        except Exception as error:
            raise refuse(error) from error

    return compute


def load_dense(artifact: Artifact) -> onnx.ModelProto:
    """The artifact's model in standard operators, with dense weights.

    Raises: CompileError (SCC077 the file is no such model).
    """
    path = artifact.file(MODEL)
    try:
        return dense_model(onnx.load_model_from_string(path.read_bytes()))
    except Exception as error:  # what protobuf, onnx and the formats refuse has no common class
        help_ = "the artifact is damaged; compile the model again"
        raise CompileError.of("SCC077", f"{path} cannot be unpacked: {reason(error)}", help=help_) from error


def reason(error: Exception) -> str:
    """The first line, without onnxruntime's "[ONNXRuntimeError] : 1 : FAIL : "."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", lines[0])
