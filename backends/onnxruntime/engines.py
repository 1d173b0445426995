"""Three ways to compute a model.onnx, each as a function from arrays to arrays."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import onnx
import onnxruntime as ort
import torch

from sparsecc.artifact import KERNELS, MODEL, REFERENCE, Artifact
from sparsecc.diagnostics import CompileError
from sparsecc.reference import Array

Compute: TypeAlias = Callable[[Sequence[str], Mapping[str, Array]], Sequence[Array]]
"""Output names and inputs by name -> outputs in the order of their names."""


ELF_X86_64 = b"\x3e\x00"
"""e_machine, at byte 18 of an ELF file; what the linker says of another machine's library is that there is no file."""


def session_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised; onnxruntime would print them as well
    return options


def register_kernels(artifact: Artifact, options: ort.SessionOptions) -> None:
    """Load kernels.so, if the artifact has one. It is native code of whoever made the artifact.

    Raises: CompileError (SCC073 it is missing, or not for this machine).
    """
    if KERNELS not in artifact.manifest.files:
        return
    path = artifact.path / KERNELS
    help_ = "run without it: --engine portable (slower, the same results), or compile the model again on this machine"
    if not path.is_file():
        raise CompileError.of("SCC073", f"{path} is missing", help=help_)
    with path.open("rb") as library:
        head = library.read(20)
    if head[:4] == b"\x7fELF" and head[18:20] != ELF_X86_64:
        raise CompileError.of("SCC073", f"{path} is not for x86-64 processors", help=help_)
    try:
        options.register_custom_ops_library(str(path.absolute()))
    except Exception as error:  # onnxruntime's exceptions have no base class of their own
        raise CompileError.of("SCC073", f"{path} cannot be used here: {reason(error)}", help=help_) from error


def onnxruntime_session(model: str | bytes, options: ort.SessionOptions, name: str) -> Compute:
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


def torch_engine(artifact: Artifact, threads: int) -> Compute:
    """The compiled graph in torch, on the weights of model.onnx: no code in common with onnxruntime or kernels.so.

    torch has one number of threads for the whole process; it is as before when a call returns.
    Raises: CompileError (SCC074 the artifact has no such graph, or a damaged one), here or when the function is called.
    """
    from .torch_reference import load_reference  # torch.export takes half a second to import

    if REFERENCE not in artifact.manifest.files:
        raise CompileError.of(
            "SCC074", f"{artifact.path} holds no graph for torch ({REFERENCE})", help="use --engine portable instead"
        )
    path = artifact.file(REFERENCE)

    def refuse(error: Exception) -> CompileError:
        return CompileError.of(
            "SCC074",
            f"{path} does not run in torch: {reason(error)}",
            help="it is damaged, of another torch, or not made for such input; compare with --engine portable instead",
        )

    try:
        run = load_reference(path.read_bytes(), onnx.load_model_from_string(artifact.file(MODEL).read_bytes()))
    except Exception as error:  # damaged bytes, and what they make torch do, raise anything
        raise refuse(error) from error

    def compute(names: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            outputs = run([torch.tensor(inputs[value.name]) for value in artifact.manifest.inputs])
            by_name = dict(zip((v.name for v in artifact.manifest.outputs), outputs, strict=True))
            return [by_name[name].numpy() for name in names]
        except Exception as error:
            raise refuse(error) from error
        finally:
            torch.set_num_threads(before)

    return compute


def reason(error: Exception) -> str:
    """The first line, without codes: onnxruntime's "[ONNXRuntimeError] : 1 : FAIL : ", ours "error[SCC024]: "."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^(\[ONNXRuntimeError\] : \d+ : \w+ : |error\[SCC\d+\]: )", "", lines[0])
