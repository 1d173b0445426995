"""capture: models of every shape of input and output, with their names, and refusals that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from programs import PREDICTED, Model, called, error, filled, run, seeded
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from sparsecc import reference
from sparsecc.capture import capture, export
from sparsecc.diagnostics import CompileError
from sparsecc.program import Program

X = seeded(2, 64)
TOKENS = seeded(2, 8, 64)
IMAGE = seeded(2, 4, 6, 6)


def linear() -> nn.Linear:
    return nn.Linear(64, 64)


def check(module: nn.Module, inputs: Sequence[Tensor] | Mapping[str, Tensor], **options: Any) -> Program:
    """Captured, and through every pass: the outputs are those of the module, in its order."""
    program = capture(filled(module, 0.1), inputs, **options)
    outputs = module(**inputs) if isinstance(inputs, Mapping) else module(*inputs)
    expected = [leaf.detach().numpy() for leaf in pytree.tree_leaves(outputs) if leaf is not None]
    assert reference.largest_error(reference.run(program), expected) < 1e-5
    after, _ = run(PREDICTED, program)
    assert reference.largest_error(reference.run(after), expected) < 1e-4
    assert (after.input_names, after.output_names) == (program.input_names, program.output_names)
    return after


# ---- inputs and outputs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forward", "names"),
    [
        (lambda m, x: m.a(x), ("output",)),
        (lambda m, x: (m.a(x), x), ("output_0", "output_1")),
        (lambda m, x: ((y := m.a(x)), y, y + 1), ("output_0", "output_1", "output_2")),
        (lambda m, x: {"logits": m.a(x), "hidden": [x, m.a(x)]}, ("logits", "hidden_0", "hidden_1")),
        (lambda m, x: {"only": m.a(x)}, ("output",)),
        (lambda m, x: (m.a(x), None), ("output_0",)),
        (lambda m, x: {"inputs_0": m.a(x), "other": x}, ("output_0", "other")),
        (lambda m, x: {"a_0": m.a(x), "a": [x]}, ("output_0", "output_1")),
        (lambda m, x: (m.a(x), m.a.weight), ("output_0", "output_1")),
        (lambda m, x: (m.a(x), torch.arange(3)), ("output_0", "output_1")),
    ],
)
def test_outputs(forward: Callable[..., object], names: tuple[str, ...]) -> None:
    assert check(Model(forward, a=linear()), [X]).output_names == names


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = linear()

    def forward(self, x: Tensor, y: Tensor | None = None, *, scale: Tensor) -> Tensor:
        scaled: Tensor = self.a(x) * scale
        return scaled if y is None else scaled + y


@pytest.mark.parametrize("dynamic", [None, {"batch": 0}])
def test_inputs_by_name_in_any_order(dynamic: Mapping[str, int] | None) -> None:
    scale = torch.full((2, 1), 0.5)
    for inputs in ({"x": X, "scale": scale}, {"scale": scale, "y": X + 1, "x": X}):
        assert set(check(Named(), inputs, dynamic=dynamic).input_names) == set(inputs)


def test_several_inputs() -> None:
    model = Model(lambda m, x, y: (m.a(x) + m.b(y), m.a(y)), a=linear(), b=linear())
    assert len(check(model, [X, X + 1], dynamic={"batch": 0}).input_names) == 2


def test_one_tensor_instead_of_a_sequence() -> None:
    one: Any = X
    assert called(capture(nn.ReLU(), one)) == ["aten.relu.default"]


def test_a_module_without_parameters() -> None:
    assert check(nn.ReLU(), [X]).layers == {}


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forward", "x"),
    [
        (lambda m, x: m.b(torch.fft.fft(m.a(x)).abs()), X),
        (lambda m, x: m.b(torch.cumsum(m.a(x), 1)), X),
        (lambda m, x: m.b(torch.einsum("bij,bkj->bik", m.a(x), x) @ x), TOKENS),
        (lambda m, x: m.b(torch.sort(m.a(x))[0]), X),
        (lambda m, x: torch.cond(x.sum() > 0, lambda v: m.a(v), lambda v: m.b(v), (x,)), X),
        (lambda m, x: functional.scaled_dot_product_attention(m.a(x), m.b(x), x), TOKENS),
        (lambda m, x: m.b(m.a(x).relu_().add_(1)), X),
        (lambda m, x: m.b(functional.dropout(m.a(x), 0.5, training=m.training)), X),
        (lambda m, x: m.a(x) + m.a.weight.sum() + m.b.bias, X),
        (lambda m, x: m.a(x[0]), X),
    ],
)
def test_anything_between_layers_is_let_through(forward: Callable[..., object], x: Tensor) -> None:
    check(Model(forward, a=linear(), b=linear()), [x])


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Sequential(nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv2d(4, 4, 3)), IMAGE),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1, groups=2)), IMAGE),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), IMAGE),
        (nn.Conv2d(4, 4, 3), IMAGE[0]),
        (nn.Conv1d(4, 4, 3), seeded(2, 4, 9)),
        (nn.Conv3d(2, 2, 2), seeded(1, 2, 4, 4, 4)),
        (nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.Upsample(scale_factor=2)), IMAGE),
        (nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), TOKENS),
    ],
)
def test_modules(module: nn.Module, x: Tensor) -> None:
    check(module, [x])


def test_recurrent_layers() -> None:
    check(Model(lambda m, x: m.b(m.a(x)[0]), a=nn.LSTM(64, 32, batch_first=True), b=nn.Linear(32, 8)), [TOKENS])


# ---- dynamic sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 5), (64, 17)])
def test_batch_and_sequence_are_free(batch: int, sizes: tuple[int, int]) -> None:
    model = filled(nn.Sequential(linear(), nn.GELU(), linear(), nn.LayerNorm(64)), 0.1)
    before = capture(model, [seeded(batch, batch, 64)], dynamic={"batch": 0, "sequence": 1})
    assert sorted(before.dims.values()) == ["batch", "sequence"]
    after, _ = run(PREDICTED, before)
    x = seeded(*sizes, 64, seed=3)
    assert reference.largest_error(reference.run(after, [x]), [model(x).detach().numpy()]) < 1e-5


def test_a_network_that_views_its_batch() -> None:
    model = Model(lambda m, x: m.b(m.a(x).relu().view(x.shape[0], -1)), a=nn.Conv2d(4, 4, 3), b=nn.Linear(64, 10))
    before = capture(filled(model), [IMAGE], dynamic={"batch": 0})
    after, _ = run(PREDICTED, before)
    assert error(after, before, seeded(5, 4, 6, 6)) < 1e-5


def test_an_exported_program_brings_its_inputs_and_its_dims() -> None:
    exported = export(filled(linear()), [X], dynamic={"rows": 0})
    program = capture(exported)
    assert list(program.dims.values()) == ["batch"]
    assert torch.equal(program.example_inputs[0], X)
    assert torch.equal(capture(exported, [X + 1]).example_inputs[0], X + 1)


def test_a_dynamic_axis_is_forgotten_with_its_model() -> None:
    x = seeded(2, 64)
    capture(linear(), [x], dynamic={"batch": 0})
    assert capture(linear(), [x]).dims == {}


def test_training_mode_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(64, 4), nn.Dropout(), nn.BatchNorm1d(4))
    model[1].eval()
    capture(model, [X])
    assert [m.training for m in model] == [True, False, True]


# ---- refusals --------------------------------------------------------------------------------------------------------


def refusal(model: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(CompileError) as caught:
        capture(model, *arguments, **options)
    return str(caught.value)


def test_no_example_inputs() -> None:
    assert refusal(linear()) == (
        "error[SCC012]: a module needs example inputs to be traced\n"
        "  help: give them: --inputs x.npz, or sparsecc.compile(module, example_inputs); "
        "sparsecc.save(module, example_inputs, 'model.pt') keeps both in one file"
    )


def test_an_exported_program_has_fixed_its_axes() -> None:
    assert refusal(export(linear(), [X]), dynamic={"batch": 0}) == (
        "error[SCC012]: dynamic axes were asked for, but an exported program has fixed its axes already\n"
        "  help: export it again: sparsecc.save(module, example_inputs, 'model.pt', dynamic={'batch': 0})"
    )


def test_data_dependent_python_is_refused_at_its_line() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.a(x) if x.sum() > 0 else x

    message = refusal(nn.Sequential(Model(forward, a=linear())), [X])
    assert message.startswith("error[SCC011]: torch.export cannot trace Sequential in '0' (Model): Could not guard on ")
    assert f"\n  --> {__file__}:{forward.__code__.co_firstlineno + 1}\n  help: make the forward pass " in message


@pytest.mark.parametrize(
    ("model", "sign"),
    [
        (nn.BatchNorm1d(64), "the model changes its own buffer 'running_mean' when it runs"),
        (nn.Dropout(), "the model drops values at random when it runs"),
    ],
)
def test_programs_exported_in_training_mode(model: nn.Module, sign: str) -> None:
    exported = torch.export.export(model.train(), (X,))
    assert refusal(exported) == (
        f"error[SCC013]: {sign} (exported in training mode?)\n  help: call model.eval() before exporting"
    )


def test_an_axis_that_the_model_fixes_cannot_be_dynamic() -> None:
    assert refusal(Model(lambda _, x: x.reshape(2, 64) + 1), [X], dynamic={"batch": 0}) == (
        "error[SCC011]: Model fixes the size of an axis that should be dynamic: "
        "axis 0 of input 'inputs[0]' has always size 2\n"
        "  help: leave that axis out of the dynamic ones, or free the model of its size"
    )


@pytest.mark.parametrize("dynamic", [None, {"batch": 0}])
def test_inputs_that_the_model_refuses(dynamic: Mapping[str, int] | None) -> None:
    for inputs in ([X, X], [], {"y": X}):
        refused = refusal(linear(), inputs, dynamic=dynamic)
        assert refused.startswith("error[SCC012]: the example inputs do not fit forward(")
        assert refused.endswith("\n  help: give one array per parameter, in their order or under their names")
    refused = refusal(linear(), [seeded(2, 3)], dynamic=dynamic)
    assert refused.startswith("error[SCC011]: torch.export cannot trace Linear: a and b must have same reduction dim")
    refused = refusal(nn.Sequential(linear(), nn.ReLU(), nn.Linear(65, 4)), [X], dynamic=dynamic)
    assert refused.startswith("error[SCC011]: torch.export cannot trace Sequential in '2' (Linear): a and b must have")


def test_a_model_that_draws_random_numbers_is_refused_at_its_line() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return torch.rand(2, 64).add(m.a(x))

    assert refusal(Model(forward, a=linear()), [X]) == (
        "error[SCC026]: the model gives different outputs for equal inputs: aten.rand.default draws random numbers\n"
        f"  --> {__file__}:{forward.__code__.co_firstlineno + 1}, node %rand\n"
        "  help: pass what is random as an input, or draw it once in __init__ and keep it with register_buffer"
    )


def test_random_numbers_that_change_nothing_are_no_fault() -> None:
    assert capture(Model(lambda _, x: x + 0 * torch.rand(2, 64)), [X]).output_names == ("output",)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(value: float) -> None:
    layer = linear()
    with torch.no_grad():
        layer.weight[1, 2] = value
    message = refusal(nn.Sequential(layer), [X])
    assert message.startswith("error[SCC019]: the weight '0.weight' holds NaN or infinite values\n  --> ")
    assert message.endswith("help: the training run diverged, or the file is damaged; load a good checkpoint")


def test_inputs_and_outputs_must_be_tensors() -> None:
    assert refusal(Model(lambda _, x: (x, x.shape[0])), [X], dynamic={"batch": 0}) == (
        "error[SCC014]: output 'output_1' is not a tensor\n  help: return tensors only"
    )


def test_bfloat16_has_no_arrays() -> None:
    assert refusal(linear().bfloat16(), [X.bfloat16()]) == (
        "error[SCC014]: 'input_1' is bfloat16, which arrays cannot hold\n"
        "  help: take and return float32, and convert inside the model: x.to(torch.bfloat16)"
    )


def test_example_inputs_must_fit_an_export() -> None:
    exported = torch.export.export(nn.Linear(4, 2).eval(), (torch.randn(1, 4),))
    for inputs, message in (
        (
            (torch.randn(7, 4),),
            "example input 'input_1' is float32[7, 4], and the model was exported for float32[1, 4]",
        ),
        (
            (torch.ones(1, 4).int(),),
            "example input 'input_1' is int32[1, 4], and the model was exported for float32[1, 4]",
        ),
        ({"foo": torch.randn(1, 4)}, "the example inputs are foo, but the exported program takes input"),
        ((torch.randn(1, 4),) * 2, "there are 2 example inputs, but the exported program takes input"),
    ):
        with pytest.raises(CompileError) as caught:
            capture(exported, inputs)
        assert str(caught.value).splitlines()[0] == f"error[SCC012]: {message}"
