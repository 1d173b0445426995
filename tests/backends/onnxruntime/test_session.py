"""Runs, verdicts and times of hand-made artifacts; inputs and libraries that do not fit are refused with a way out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.numpy_helper
import onnx.parser
import pytest

from sparsecc.artifact import Artifact, golden_npz, write
from sparsecc.backends.onnxruntime import engines
from sparsecc.backends.onnxruntime.dense import dense_model
from sparsecc.backends.onnxruntime.original import pack_original
from sparsecc.backends.onnxruntime.session import Engine, Verdict, bench, open_session, run, verify
from sparsecc.diagnostics import CompileError
from sparsecc.formats import BSR, CSR, Array, Matrix
from sparsecc.manifest import Manifest, Value
from sparsecc.progress import reporting
from sparsecc.reference import relative_error

checker: Any = onnx.checker  # its types are unknown in part
ENGINES: tuple[Engine, ...] = ("onnxruntime", "portable")  # the models here have no graph for torch
IN, HIDDEN, OUT = 16, 10, 6
MODEL = f"""
<ir_version: 10, opset_import: ["": 20, "sparsecc": 1]>
compiled (float[batch, {IN}] x) => (float[batch, {OUT}] y)
{{
    hidden = sparsecc.Region_0 (x, csr_values, csr_columns, csr_row_starts)
    weight = sparsecc.UnpackBSR <rows = {OUT}, cols = {HIDDEN}, block_rows = 4, block_cols = 2>
        (bsr_values, bsr_columns, bsr_row_starts)
    transposed = Transpose <perm = [1, 0]> (weight)
    y = MatMul (hidden, transposed)
}}
"""
REGION = f"""
<domain: "sparsecc", opset_import: ["": 20, "sparsecc": 1]>
Region_0 (x, values, columns, row_starts) => (y)
{{
    weight = sparsecc.UnpackCSR <rows = {HIDDEN}, cols = {IN}> (values, columns, row_starts)
    transposed = Transpose <perm = [1, 0]> (weight)
    product = MatMul (x, transposed)
    y = Relu (product)
}}
"""


def sparse_matrix(rows: int, cols: int, seed: int) -> Matrix:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((rows, cols)) < 0.3, rng.standard_normal((rows, cols)), 0).astype(np.float32)


FIRST, SECOND = sparse_matrix(HIDDEN, IN, 1), sparse_matrix(OUT, HIDDEN, 2)
X = np.random.default_rng(3).standard_normal((3, IN)).astype(np.float32)


def expected(x: Array) -> Array:
    return np.maximum(x @ FIRST.T, 0) @ SECOND.T


def compiled_model() -> onnx.ModelProto:
    model = onnx.parser.parse_model(MODEL)
    model.functions.extend([CSR().unpack_function(), BSR(4, 2).unpack_function(), onnx.parser.parse_function(REGION)])
    for prefix, packed in (("csr", CSR().pack(FIRST)), ("bsr", BSR(4, 2).pack(SECOND))):
        for name, array in packed.arrays.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, f"{prefix}_{name}"))
    checker.check_model(model)
    return model


def original_model() -> onnx.ModelProto:
    """What the user had: the second layer with a bias that is no use."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 20]>
        original (float[batch, {IN}] x) => (float[batch, {OUT}] y)
        {{ hidden = Gemm <transB = 1> (x, first)
           positive = Relu (hidden)
           y = Gemm <transB = 1> (positive, second, zeros) }}
    """)
    for name, array in {"first": FIRST, "second": SECOND, "zeros": np.zeros(OUT, np.float32)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    checker.check_model(model)
    return model


Make = Callable[..., Artifact]


@pytest.fixture
def make(tmp_path: Path, manifest: Manifest) -> Make:
    def make(
        model: onnx.ModelProto | bytes,
        kernels: bytes | None = None,
        golden: Array | None = None,
        original: bytes | None = pack_original(original_model(), compiled_model()),
    ) -> Artifact:
        outputs = {"y": expected(X) if golden is None else golden}
        data = model if isinstance(model, bytes) else model.SerializeToString()
        files = {"model.onnx": data, "golden.npz": golden_npz({"x": X}, outputs)}
        if original is not None:
            files["original.zip"] = original
        if kernels is not None:
            files["kernels.so"] = kernels
        values = (Value("x", "float32", ("batch", IN)),), (Value("y", "float32", ("batch", OUT)),)
        return write(tmp_path / "m", files, replace(manifest, inputs=values[0], outputs=values[1]))

    return make


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(CompileError) as caught:
        action()
    return str(caught.value)


# ---- engines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_every_engine_computes_the_model_for_every_batch(make: Make, engine: Engine, batch: int) -> None:
    x = np.random.default_rng(batch).standard_normal((batch, IN)).astype(np.float32)
    outputs = run(make(compiled_model()), {"x": x}, engine)
    assert list(outputs) == ["y"]
    assert relative_error(outputs["y"], expected(x)) < 1e-6


def test_a_session_serves_many_calls(make: Make) -> None:
    session = open_session(make(compiled_model()), "portable", threads=2)
    for scale in (1, 2):
        assert relative_error(session.run({"x": scale * X})["y"], scale * expected(X)) < 1e-6


def test_the_dense_model_has_standard_operators_and_dense_weights_only() -> None:
    dense = dense_model(compiled_model())
    assert {node.domain for node in dense.graph.node} == {""}
    assert [node.op_type for node in dense.graph.node] == ["Transpose", "MatMul", "Relu", "Transpose", "MatMul"]
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in dense.graph.initializer]
    for weight, original in zip(weights, (FIRST, SECOND), strict=True):
        np.testing.assert_array_equal(weight, original)
    checker.check_model(dense)


def test_the_dense_model_keeps_what_a_branch_reads() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20]>
        branching (bool c) => (float[1] y) <float[1] a = {1.0}, float[1] unused = {2.0}>
        { y = If (c) <then_branch = t () => (float[1] u) { u = Neg (a) },
                      else_branch = e () => (float[1] v) { v = Abs (a) }> }
    """)
    assert [tensor.name for tensor in dense_model(model).graph.initializer] == ["a"]


# ---- verify and bench ------------------------------------------------------------------------------------------------


def test_verify_reports_each_engine(make: Make) -> None:
    verdicts = verify(make(compiled_model()), ENGINES)
    assert [(v.engine, v.output, v.tolerance, v.ok, v.note) for v in verdicts] == [
        (engine, "y", 1e-4, True, "") for engine in ENGINES
    ]
    assert all(v.max_relative_error is not None and v.max_relative_error < 1e-6 for v in verdicts)


def test_verify_finds_a_difference(make: Make) -> None:
    golden = expected(X)
    golden[2, 0] += np.float32(2e-4 * np.abs(golden).max())
    for verdict in verify(make(compiled_model(), golden=golden), ENGINES):
        assert not verdict.ok
        assert verdict.max_relative_error == pytest.approx(2e-4, rel=1e-2)


def test_a_missing_reference_is_a_note_for_verify_and_an_error_for_run(make: Make) -> None:
    artifact = make(compiled_model())
    message = f"{artifact.path} holds no graph for torch (reference.zip)"
    assert verify(artifact)[2] == Verdict("reference", "y", None, 1e-4, True, message)
    assert refusal(lambda: run(artifact, {"x": X}, "reference")) == (
        f"error[SCC074]: {message}\n  help: use --engine portable instead"
    )


def test_bench_compares_with_the_original(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    models = list[object]()

    def session(model: bytes | str, options: Any, name: str) -> engines.Compute:
        models.append(model)
        return engines.onnxruntime_session(model, options, name)

    monkeypatch.setattr("sparsecc.backends.onnxruntime.bench.onnxruntime_session", session)
    artifact = make(compiled_model())
    result = bench(artifact, threads=2, runs=7)
    assert models == [str(artifact.path / "model.onnx"), original_model().SerializeToString()]
    assert result.dense_bytes == len(original_model().SerializeToString())
    assert (result.threads, result.runs, result.shapes) == (2, 7, {"x": (3, IN)})
    assert 0 < result.dense.min_ms <= result.dense.median_ms
    assert 0 < result.compiled.min_ms <= result.compiled.median_ms
    assert result.ratio_min == pytest.approx(result.dense.min_ms / result.compiled.min_ms)
    assert result.ratio_median > 0
    assert result.compiled_bytes == artifact.manifest.files["model.onnx"].bytes
    assert bench(artifact, runs=1, inputs={"x": X[:1]}).shapes == {"x": (1, IN)}


def test_bench_tells_how_far_it_is(make: Make) -> None:
    steps = list[tuple[str, int, int]]()
    with reporting(lambda *step: steps.append(step)):
        bench(make(compiled_model()), runs=1)
    stages = ("restoring the dense original", "measuring against the dense original")
    assert steps == [(stage, done, 1) for stage in stages for done in (0, 1)]


def test_bench_needs_the_original(make: Make) -> None:
    artifact = make(compiled_model(), original=None)
    assert refusal(lambda: bench(artifact)) == (
        f"error[SCC078]: {artifact.path} does not hold the dense original (original.zip), which bench compares with\n"
        "  help: compile the model again with --target cpu, which keeps it"
    )


def test_a_damaged_original_is_refused(make: Make) -> None:
    artifact = make(compiled_model(), original=b"no zip file")
    assert refusal(lambda: bench(artifact)) == (
        f"error[SCC078]: {artifact.path / 'original.zip'} and model.onnx do not give the dense original: "
        "File is not a zip file\n"
        "  help: the artifact is damaged; copy it again as a whole, or compile the model again"
    )


def test_bench_refuses_inputs_that_do_not_fit(make: Make) -> None:
    assert refusal(lambda: bench(make(compiled_model()), inputs={})).startswith("error[SCC070]: input 'x' is missing")


# ---- inputs ----------------------------------------------------------------------------------------------------------

TAKES = f"the model takes x: float32[batch, {IN}]"
FREE = f"  help: axis 1 is fixed at {IN}; batch may have any size from 1"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, f"error[SCC070]: input 'x' is missing\n  help: {TAKES}"),
        (
            {"X": X},
            "error[SCC070]: the model has no input 'X'\n  help: known: x\n"
            f"error[SCC070]: input 'x' is missing\n  help: {TAKES}",
        ),
        (
            {"x": X, "q": X, "b": X, "z": X},  # in the order given
            "\n".join(f"error[SCC070]: the model has no input '{name}'\n  help: known: x" for name in "qbz"),
        ),
        (
            {"x": X.astype(np.float64)},
            "error[SCC072]: input 'x' is float64, expected float32\n  help: convert it: array.astype('float32')",
        ),
        (
            {"x": X[0]},
            f"error[SCC071]: input 'x' has shape [{IN}], expected [batch, {IN}]: "
            f"the number of axes is 1, not 2\n{FREE}",
        ),
        (
            {"x": X[:, :4]},
            f"error[SCC071]: input 'x' has shape [3, 4], expected [batch, {IN}]: axis 1 is 4, not {IN}\n{FREE}",
        ),
        (
            {"x": X[:0]},
            f"error[SCC071]: input 'x' has shape [0, {IN}], expected [batch, {IN}]: "
            f"axis 0 (batch) is 0, and must be at least 1\n{FREE}",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(make: Make, inputs: Mapping[str, Array], message: str) -> None:
    artifact = make(compiled_model())
    assert refusal(lambda: run(artifact, inputs)) == message
    assert refusal(lambda: open_session(artifact).run(inputs)) == message


def test_a_free_axis_has_one_size_in_all_inputs(make: Make, manifest: Manifest) -> None:
    artifact = make(compiled_model())
    values = (Value("ids", "int64", ("batch", "sequence")), Value("attention_mask", "int64", ("batch", "sequence")))
    artifact = replace(artifact, manifest=replace(manifest, inputs=values))
    ids, mask = np.zeros((2, 7), np.int64), np.zeros((3, 7), np.int64)
    assert refusal(lambda: run(artifact, {"ids": ids, "attention_mask": mask})) == (
        "error[SCC071]: input 'attention_mask' has shape [3, 7], expected [batch, sequence]: "
        "axis 0 (batch) is 3, but 2 in 'ids'\n  help: batch and sequence may have any size from 1, "
        "the same in all inputs"
    )
    assert refusal(lambda: run(artifact, {"ids": ids, "atention_mask": ids})).startswith(
        "error[SCC070]: the model has no input 'atention_mask'\n"
        "  help: did you mean 'attention_mask'? known: ids, attention_mask\n"
    )


def test_fixed_sizes_say_how_to_free_them(make: Make, manifest: Manifest) -> None:
    fixed = replace(manifest, inputs=(Value("x", "float32", (1, IN)),))
    artifact = replace(make(compiled_model()), manifest=fixed)
    assert refusal(lambda: run(artifact, {"x": X})) == (
        f"error[SCC071]: input 'x' has shape [3, {IN}], expected [1, {IN}]: axis 0 is 3, not 1\n"
        "  help: all its axes are fixed; to leave the first one free, compile with --dynamic batch, or where the model "
        "file is an export, save it again with dynamic={'batch': 0}"
    )


# ---- kernels.so and model.onnx that cannot be used -------------------------------------------------------------------

WITHOUT = "run without it: --engine portable (slower, the same results), or compile the model again on this machine"


@pytest.mark.parametrize(
    ("kernels", "why"),
    [
        (b"\x7fELF" + bytes(14) + b"\xb7\x00" + bytes(44), "is not for x86-64 processors"),  # e_machine of AArch64
        (b"no library", "cannot be used here: Failed to load library"),
    ],
)
def test_kernels_for_another_machine_are_refused_and_portable_still_runs(make: Make, kernels: bytes, why: str) -> None:
    artifact = make(compiled_model(), kernels=kernels)
    message = refusal(lambda: run(artifact, {"x": X}))
    assert message.startswith(f"error[SCC073]: {artifact.path / 'kernels.so'} {why}")
    assert message.endswith(f"\n  help: {WITHOUT}")
    assert relative_error(run(artifact, {"x": X}, "portable")["y"], expected(X)) < 1e-6
    assert refusal(lambda: bench(artifact)) == message
    assert [(v.engine, v.ok, bool(v.note)) for v in verify(artifact)] == [
        ("onnxruntime", False, True),
        ("portable", True, False),
        ("reference", True, True),
    ]


def test_missing_kernels_are_refused_and_portable_still_runs(make: Make) -> None:
    path = make(compiled_model(), kernels=b"").path
    (path / "kernels.so").unlink()
    artifact = Artifact.open(path)
    assert refusal(lambda: run(artifact, {"x": X})) == (
        f"error[SCC073]: {path / 'kernels.so'} is missing\n  help: {WITHOUT}"
    )
    assert relative_error(run(artifact, {"x": X}, "portable")["y"], expected(X)) < 1e-6


def test_a_library_that_the_manifest_does_not_list_is_not_loaded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = make(compiled_model())
    (artifact.path / "kernels.so").write_bytes(b"\x7fELF, which would fail to load")
    run(artifact, {"x": X})
    monkeypatch.setattr(engines, "KERNELS", "model.onnx")
    with pytest.raises(CompileError, match="SCC073"):  # the check above can fail
        run(artifact, {"x": X})


def test_a_model_that_onnxruntime_refuses_is_an_error(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    artifact = make(b"no model")
    path = artifact.path / "model.onnx"
    assert refusal(lambda: run(artifact, {"x": X})) == (
        f"error[SCC077]: onnxruntime cannot load {path}: Load model from {path} failed:Protobuf parsing failed.\n"
        "  help: the model and this onnxruntime do not fit together; "
        "compile the model again with the versions installed here"
    )
    original = artifact.path / "original.zip"
    assert refusal(lambda: bench(artifact)).startswith(
        f"error[SCC078]: {original} and model.onnx do not give the dense original: "
    )
    assert capfd.readouterr() == ("", "")


def test_a_model_that_fails_when_it_runs_is_an_error(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    model = compiled_model()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 0
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "any"
    artifact = make(model)
    narrow = replace(artifact, manifest=replace(artifact.manifest, inputs=(Value("x", "float32", ("batch", 4)),)))
    message = refusal(lambda: run(narrow, {"x": X[:, :4]}))
    assert message.startswith(f"error[SCC077]: onnxruntime cannot run {artifact.path / 'model.onnx'}: ")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("tensor", "array", "reason"),
    [
        ("csr_columns", np.full(1, 60000, np.uint16), "csr matrix of 10x16: columns is uint16[1], expected uint16["),
        ("bsr_row_starts", np.array([0, 9, 1], np.int32), "bsr4x2 matrix of 6x10: row_starts[2] = 1 is below"),
    ],
)
def test_packed_arrays_that_lie_are_refused(make: Make, tensor: str, array: Array, reason: str) -> None:
    model = compiled_model()
    (target,) = [t for t in model.graph.initializer if t.name == tensor]
    target.CopyFrom(onnx.numpy_helper.from_array(array, tensor))
    artifact = make(model)
    message = refusal(lambda: bench(artifact, runs=1))
    assert message.startswith(
        f"error[SCC078]: {artifact.path / 'original.zip'} and model.onnx do not give the dense original: {reason}"
    )
    assert message.endswith("\n  help: the artifact is damaged; copy it again as a whole, or compile the model again")
