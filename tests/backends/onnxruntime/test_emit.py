"""model.onnx without kernels: valid, deterministic, and the same results in stock onnxruntime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from programs import PREDICTED, Model, filled, program, run, seeded
from torch import Tensor, nn
from torch.nn import functional

from sparsecc import reference
from sparsecc.backends.onnxruntime.emit import DOMAIN, OPSET, emit, regions
from sparsecc.backends.onnxruntime.timing import new_session
from sparsecc.diagnostics import CompileError
from sparsecc.program import Program

X = seeded(2, 64)
TOKENS = seeded(2, 8, 64)
IMAGE = seeded(2, 16, 8, 8)


def compiled(module: nn.Module, *inputs: Tensor, dynamic: Mapping[str, int] | None = None) -> Program:
    return run(PREDICTED, program(filled(module, 0.1), *inputs, dynamic=dynamic))[0]


def conv() -> nn.Conv2d:
    return nn.Conv2d(16, 16, 3, padding=1)


def linear() -> nn.Linear:
    return nn.Linear(64, 64)


def check(p: Program, *others: tuple[Tensor, ...]) -> onnx.ModelProto:
    """The outputs on the example inputs and on others are those of the reference."""
    model = emit(p)
    onnx.checker.check_model(model, full_check=True)
    session = new_session(model.SerializeToString(), None)
    assert tuple(i.name for i in session.get_inputs()) == p.input_names
    assert tuple(o.name for o in session.get_outputs()) == p.output_names
    for inputs in (p.example_inputs, *others):
        feeds = {name: x.numpy() for name, x in zip(p.input_names, inputs, strict=True)}
        assert reference.largest_error(session.run(None, feeds), reference.run(p, inputs)) < 1e-5
    return model


def two_convolutions(m: Any, x: Tensor) -> Tensor:
    return functional.relu(m.b(functional.relu(m.a(x))) + x)


def residual() -> nn.Module:
    return Model(two_convolutions, a=conv(), b=conv())


@pytest.mark.parametrize(
    ("forward", "x"),
    [
        (lambda m, x: m.fc(m.fc(x).relu()), X),
        (lambda m, x: ((y := m.fc(x)), y, x), X),
        (lambda m, x: {"a": m.fc(x).relu(), "b": m.fc.weight}, X),
        (lambda m, x: m.fc(torch.cumsum(m.fc(x), 1)), X),
        (lambda m, x: m.fc(torch.fft.fft(m.fc(x)).abs()), X),
        (lambda m, x: torch.cond(x.sum() > 0, lambda v: m.fc(v), lambda v: v * 2, (x,)), X),
        (lambda m, x: m.norm(functional.gelu(m.fc(x)) + x), TOKENS),
        (lambda m, x: m.b((y := m.a(x)).cumsum(1)) + y.relu(), IMAGE),
        (lambda m, x: m.fc(functional.max_pool2d(m.a(x), 4).flatten(1)), IMAGE),
    ],
)
def test_portable_form(forward: Callable[..., object], x: Tensor) -> None:
    model = Model(forward, a=conv(), b=conv(), fc=linear(), norm=nn.LayerNorm(64))
    other = seeded(*x.shape, seed=8)
    check(compiled(model, x), (other,))


def test_an_all_zero_layer() -> None:
    model = filled(nn.Sequential(linear(), nn.ReLU(), linear()), 0)
    check(run(PREDICTED, program(model, X))[0])


def test_a_transformer_layer_of_free_sizes() -> None:
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    check(compiled(layer, TOKENS, dynamic={"batch": 0, "sequence": 1}), (seeded(1, 1, 64),), (seeded(5, 17, 64),))


def test_two_images_of_one_free_batch() -> None:
    model = Model(lambda m, x, y: m.a(x).mean((2, 3)) + m.b(y).mean((2, 3)), a=conv(), b=conv())
    p = compiled(model, IMAGE, seeded(2, 16, 5, 5), dynamic={"batch": 0})
    check(p, (seeded(3, 16, 8, 8), seeded(3, 16, 5, 5)))


def test_free_sizes_carry_their_names() -> None:
    model = emit(compiled(nn.Sequential(linear(), nn.ReLU()), TOKENS, dynamic={"batch": 0, "sequence": 1}))
    for value in (*model.graph.input, *model.graph.output):
        assert [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] == ["batch", "sequence", 64]


def test_equal_programs_are_equal_bytes() -> None:
    first, second = (emit(compiled(residual(), IMAGE, dynamic={"batch": 0})) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_nothing_names_this_machine() -> None:
    content = emit(compiled(residual(), IMAGE)).SerializeToString()
    assert b".py" not in content
    assert __file__.encode() not in content


def test_weights_are_stored_packed_and_once() -> None:
    model = emit(compiled(Model(lambda m, x: m.fc(m.fc(x).relu()), fc=linear()), X))
    sizes = {t.name.removeprefix("module."): int(np.prod(t.dims)) for t in model.graph.initializer}
    assert sorted(sizes) == ["fc.bias", "fc_weight_columns", "fc_weight_row_starts", "fc_weight_values"]
    assert max(sizes.values()) < 0.2 * 64 * 64


def test_large_initializers_come_first() -> None:
    model = emit(compiled(Model(lambda m, x: m.b(m.a(x)), a=nn.Linear(64, 8), b=nn.Linear(8, 256)), X))
    sizes = [tensor.ByteSize() for tensor in model.graph.initializer]
    assert len(sizes) >= 4
    assert sizes == sorted(sizes, reverse=True)


def test_a_region_is_one_node_with_a_function_behind() -> None:
    p = compiled(residual(), IMAGE)
    model = emit(p)
    (region,) = regions(p)
    assert [(n.domain, n.op_type) for n in model.graph.node] == [(DOMAIN, region.op)]
    assert {f.name for f in model.functions} == {region.op, "UnpackCSR"}
    assert {(o.domain, o.version) for o in model.opset_import} == {("", OPSET), (DOMAIN, 1)}


def test_a_dense_model_has_nothing_of_ours() -> None:
    model = check(run(PREDICTED, program(filled(linear(), 1), X))[0])
    assert not model.functions
    assert [o.domain for o in model.opset_import] == [""]


def test_dense_layers_of_tokens_are_products_of_two_axes() -> None:
    """Flattened once for both, and back and apart in one step."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = nn.Linear(6, 8), nn.Linear(6, 8, bias=False)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            q, k = (layer(x).view(2, 5, 4, 2) for layer in (self.q, self.k))
            return q, k

    model = check(program(Heads(), seeded(2, 5, 6)))
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts["Gemm"] + counts["MatMul"] == 2
    assert counts["Reshape"] == 3
    products = {node.input[0] for node in model.graph.node if node.op_type in ("Gemm", "MatMul")}
    assert len(products) == 1


def test_an_operator_is_named_after_its_content() -> None:
    """Another library's kernels must never claim a region that computes something else."""
    relu, gelu = (compiled(nn.Sequential(linear(), act, linear()), X) for act in (nn.ReLU(), nn.GELU()))
    other_size = compiled(nn.Sequential(linear(), nn.ReLU(), nn.Linear(64, 32)), X)
    names = {regions(p)[0].op for p in (relu, gelu, other_size)}
    assert len(names) == 3
    assert regions(relu)[0].op == regions(relu.clone())[0].op


def test_what_onnx_cannot_say_is_refused_with_the_exporters_reason() -> None:
    p = program(Model(lambda _, x: functional.scaled_dot_product_attention(x, x, x, is_causal=True)), TOKENS)
    with pytest.raises(CompileError) as caught:
        emit(p)
    assert str(caught.value) == (
        "error[SCC021]: torch's ONNX exporter cannot write this model: only 4D query, key, and value are supported\n"
        "  help: torch.onnx.export(model, inputs, dynamo=True) alone shows the whole story"
    )
