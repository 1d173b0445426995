"""A target that stores weights sparsely and computes nothing sparsely: one ONNX file, no kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsecc.backend import Build
from sparsecc.backends.onnxruntime.emit import emit
from sparsecc.backends.onnxruntime.engines import onnxruntime_session, session_options
from sparsecc.manifest import Check
from sparsecc.pipelines import TIDY
from sparsecc.program import Program
from sparsecc.reference import TOLERANCE, Array, relative_error


@dataclass(frozen=True)
class PlainOnnx:
    """``build`` needs no kernels, and nothing to measure."""

    name = "plain-onnx"
    summary = "any machine with onnxruntime: model.onnx with packed weights, computed densely"

    def pipeline(self, *, tune: bool) -> str:
        del tune
        return f"{TIDY},drop-repeated-relu,measure-sparsity,choose-formats{{costs=predicted}},pack-weights"

    def build(self, program: Program, original: Program, golden: Sequence[Array], *, tune: bool) -> Build:
        del tune
        model = emit(program).SerializeToString(deterministic=True)
        compute = onnxruntime_session(model, session_options(threads=1), "model.onnx")
        feeds = {n: x.numpy() for n, x in zip(original.input_names, original.example_inputs, strict=True)}
        outputs = compute(original.output_names, feeds)
        error = max(map(relative_error, outputs, golden), default=0.0)
        return Build({"model.onnx": model}, program, Check(TOLERANCE, None, error, None))


PLAIN_ONNX = PlainOnnx()
