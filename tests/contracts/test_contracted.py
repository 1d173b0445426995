"""Contracts in a module: the same results as in the Program, gradients of what is sent, both modes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from programs import Model, seeded
from torch.overrides import TorchFunctionMode

from sparsecc import pipelines
from sparsecc.capture import capture
from sparsecc.contracts import WHOLE, Budget, Contract, Key, apply, negotiate, uniform_map
from sparsecc.contracts.binding import insert_contracts
from sparsecc.contracts.replay import outputs
from sparsecc.contracts.stages import assign_stages, edges
from sparsecc.diagnostics import CompileError

from .nets import bytes_of, samples, small, small_program

PROGRAM = small_program()
SETTLED = negotiate(PROGRAM, samples(), Budget("bytes", 0.4), bytes_of)
X = seeded(7, 3, 8, 8, seed=9)


def test_the_same_results_as_the_program() -> None:
    (expected,) = outputs(PROGRAM, [X], {c.edge: c for c in SETTLED.contracts}, SETTLED.maps)
    contracted = apply(small(), SETTLED.contracts, SETTLED.maps)
    torch.testing.assert_close(contracted(X), expected)
    torch.testing.assert_close(contracted(X[:1]), expected[:1])  # another batch
    assert not torch.allclose(small()(X), expected)


def test_bound_into_a_program() -> None:
    (expected,) = outputs(PROGRAM, [X], {c.edge: c for c in SETTLED.contracts}, SETTLED.maps)
    bound = PROGRAM.clone()
    insert_contracts(bound, {c.edge: c for c in SETTLED.contracts}, SETTLED.maps)
    bound.graph.lint()
    assert torch.equal(bound.module(X)[0], expected)
    sent = bound.graph.find_nodes(op="call_function", target=torch.ops.sparsecc.keep_top.default)
    cut = {e.node for e in edges(assign_stages(bound.graph))}
    assert len(sent) == 2
    assert cut >= set(sent)  # the payload travels, not the turned tensor


def test_readers_may_take_views() -> None:
    """A contract that goes through pixels, not channels, gives a tensor back in the order that it had."""

    def forward(m: Model, x: torch.Tensor) -> object:
        hidden = m.first(x).relu()
        return m.second(hidden).mean((2, 3)) + m.third(hidden.view(-1, 32))

    layers = (torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.Conv2d(2, 3, 3), torch.nn.Linear(32, 3))
    model = Model(forward, **dict(zip(("first", "second", "third"), layers, strict=True)))
    x = seeded(2, 1, 4, 4)
    tidied, _ = pipelines.parse(pipelines.TIDY).run(capture(model, [x], dynamic={"batch": 0}))
    contracts = [
        replace(Contract.fixed(e.name, Key("float32"), WHOLE // 2), order="channels-last")
        for e in edges(assign_stages(tidied.graph))
    ]
    assert "relu" in [contract.edge for contract in contracts]
    maps = {contract.edge: uniform_map() for contract in contracts}
    (expected,) = outputs(tidied, [x], {c.edge: c for c in contracts}, maps)
    torch.testing.assert_close(apply(model, contracts, maps)(x), expected)
    insert_contracts(tidied, {c.edge: c for c in contracts}, maps)
    torch.testing.assert_close(tidied.module(x)[0], expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_readers_get_the_layout_that_was_sent(layout: torch.memory_format) -> None:
    """Whatever the order of the contract: training in channels-last turns nothing twice."""
    x = X.contiguous(memory_format=layout)
    contracted = apply(small(), [replace(c, order="channels-last") for c in SETTLED.contracts], SETTLED.maps)
    torch.testing.assert_close(contracted(x), apply(small(), contracted.contracts, SETTLED.maps)(X))
    seen = list[torch.Tensor]()

    class Watching(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Callable[..., object],
            types: object,
            args: tuple[object, ...] = (),
            kwargs: dict[str, object] | None = None,
        ) -> object:
            result = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.contiguous.default:
                assert isinstance(result, torch.Tensor)
                seen.append(result)
            return result

    with Watching():
        contracted(x)
    assert seen
    assert all(y.is_contiguous(memory_format=layout) for y in seen if y.dim() == 4)


def test_what_is_sent_receives_gradient() -> None:
    """y = sum(w2 * kept(w1 * x)): three of six rows of w1 learn, those whose outputs are sent."""
    model = Model(lambda m, x: m.second(m.first(x)), first=torch.nn.Linear(4, 6), second=torch.nn.Linear(6, 1))
    contract = Contract.fixed("linear", Key("float32"), WHOLE // 2)
    contracted = apply(model, [contract], {"linear": uniform_map()})
    x = seeded(1, 4)
    contracted(x).sum().backward()
    assert model.first.weight.grad is not None
    assert model.second.weight.grad is not None
    sent = model.second.weight.grad[0] != 0  # what was dropped arrived as 0
    assert int(sent.sum()) == 3
    torch.testing.assert_close(model.first.weight.grad, model.second.weight.T * sent[:, None] @ x)


def test_training_changes_the_model_itself() -> None:
    model = small()
    contracted = apply(model, SETTLED.contracts, SETTLED.maps).train()
    assert [id(p) for p in contracted.parameters()] == [id(p) for p in model.parameters()]
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    contracted(X).square().mean().backward()
    optimizer.step()
    after = model.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same <= {"conv1.bias", "conv2.bias"}  # batch normalisation cancels them; its statistics are not the same
    contracted.eval()
    trained, _ = pipelines.parse(pipelines.TIDY).run(capture(model, [X], dynamic={"batch": 0}))
    (expected,) = outputs(trained, [X], {c.edge: c for c in SETTLED.contracts}, SETTLED.maps)
    torch.testing.assert_close(contracted(X), expected)


def test_dead_code_and_checks_of_tracing_make_no_edges() -> None:
    """``unused`` would have an edge to it, and ``to`` leaves a check of its input behind."""

    def forward(m: Model, x: torch.Tensor) -> object:
        hidden = m.first(x)
        m.unused(hidden.relu())
        return m.second(hidden) * (x[:, :1] > 0).to(torch.float32)

    model = Model(forward, first=torch.nn.Linear(4, 6), unused=torch.nn.Linear(6, 3), second=torch.nn.Linear(6, 2))
    x = seeded(5, 4)
    tidied, _ = pipelines.parse(pipelines.TIDY).run(capture(model, [x], dynamic={"batch": 0}))
    contracts = [Contract.fixed(e.name, Key("float32"), WHOLE // 2) for e in edges(assign_stages(tidied.graph))]
    maps = {contract.edge: uniform_map() for contract in contracts}
    (expected,) = outputs(tidied, [x], {c.edge: c for c in contracts}, maps)
    torch.testing.assert_close(apply(model, contracts, maps)(x), expected)


def test_modes_switch_dropout() -> None:
    contracted = apply(small(), SETTLED.contracts, SETTLED.maps)
    assert torch.equal(contracted(X), contracted(X))
    contracted.train()
    assert not torch.equal(contracted(X), contracted(X))
    contracted.eval()
    assert torch.equal(contracted(X), contracted(X))


def test_first_called_with_a_view() -> None:
    contracted = apply(small(), SETTLED.contracts, SETTLED.maps)
    crop = contracted(torch.nn.functional.pad(X, (1, 1, 1, 1))[:, :, 1:9, 1:9])
    assert torch.equal(crop, contracted(X.clone()))


def test_another_network() -> None:
    with pytest.raises(CompileError) as caught:
        apply(small(), SETTLED.contracts[:2], SETTLED.maps)(X)
    assert str(caught.value) == (
        "error[SCC049]: there are 2 contracts, but Small has 3 edges that could carry one\n"
        "  help: apply contracts to the model that they were settled for"
    )
    half = replace(SETTLED.contracts[0], key=Key("float16"))
    with pytest.raises(CompileError, match=r"SCC044.*is for float16, but the edge carries float32"):
        apply(small(), [half, *SETTLED.contracts[1:]], SETTLED.maps)(X)
