"""Program: clones that are their own, fingerprints that see every change, constants and calls that know their shape."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from programs import Model, filled, program, seeded
from torch import nn

from sparsecc import reference
from sparsecc.program import Layer, Program, calls, same_sizes, where

aten = torch.ops.aten
X = seeded(2, 6)


def small() -> Program:
    return program(filled(nn.Sequential(nn.Linear(6, 4), nn.ReLU())), X, dynamic={"batch": 0})


def add_layer(p: Program) -> None:
    p.layers["linear"] = Layer("0.weight", 4, 6)


def rename_constant(p: Program) -> None:
    (linear,) = calls(p, aten.linear.default)
    linear.update_arg(1, p.add_constant("w", p.constant(linear.all_input_nodes[1])))


def drop_relu(p: Program) -> None:
    (relu,) = calls(p, aten.relu.default)
    relu.replace_all_uses_with(relu.all_input_nodes[0])


@pytest.mark.parametrize("change", [add_layer, rename_constant, drop_relu])
def test_a_changed_clone_has_another_fingerprint_and_leaves_the_original(change: Callable[[Program], None]) -> None:
    p = small()
    before, clone = p.fingerprint(), p.clone()
    assert clone.fingerprint() == before
    change(clone)
    clone.tidy()
    assert clone.fingerprint() != before
    assert p.fingerprint() == before
    assert p.layers == {}


def test_a_write_into_a_weight_is_seen() -> None:
    p = small()
    before = p.fingerprint()
    with torch.no_grad():
        p.constant(p.constants[0])[0] += 1
    assert p.fingerprint() != before


def test_equal_bytes_of_another_shape_or_type_are_another_constant() -> None:
    values = [torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32), torch.zeros(0), torch.zeros(0, 3)]
    prints = set[str]()
    for value in values:
        p = small()
        p.graph.output_node().args = ((p.add_constant("c", value),),)
        prints.add(p.fingerprint())
    assert len(prints) == len(values)


def test_fingerprints_keep_no_weights_alive() -> None:
    p = small()
    p.fingerprint()
    weight = weakref.ref(p.module.get_parameter("0.weight"))
    del p
    gc.collect()
    assert weight() is None


def test_a_constant_gets_a_free_name_and_a_shape() -> None:
    p = small()
    nodes = [p.add_constant("a.b", seeded(3)) for _ in range(3)]
    assert [str(n.target) for n in nodes] == ["a_b", "a_b_1", "a_b_2"]
    assert tuple(nodes[0].meta["val"].shape) == (3,)
    torch.testing.assert_close(p.constant(nodes[2]), seeded(3))
    p.tidy()
    assert [str(n.target) for n in p.constants] == ["0.weight", "0.bias"]


def test_a_call_knows_its_shape_and_its_source() -> None:
    p = small()
    (relu,) = calls(p, aten.relu.default)
    node = p.add_call(relu, aten.flatten.using_ints, relu.args[0], 0, like=relu)
    assert str(node.meta["val"].shape[0]).count("4") == 1  # four times the batch
    assert where(node).source == where(relu).source


def test_where_names_the_line_of_the_user() -> None:
    def forward(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return x.relu()

    (relu,) = calls(program(Model(forward), X), aten.relu.default)
    line = forward.__code__.co_firstlineno + 1
    assert str(where(relu)) == f"{__file__}:{line}, node %relu"


def test_where_without_a_trace_names_the_node() -> None:
    (relu,) = calls(small(), aten.relu.default)
    relu.meta.pop("stack_trace")
    assert str(where(relu)) == "<unknown line>, node %relu"


def test_facts_of_dropped_layers_go() -> None:
    p = small()
    add_layer(p)
    p.layers["gone"] = replace(p.layers["linear"])
    p.tidy()
    assert list(p.layers) == ["linear"]


def test_sizes_are_equal_for_every_batch_or_not_at_all() -> None:
    p = program(Model(lambda _, x: (x + 1, x[:2])), X, dynamic={"batch": 0})
    (x,) = p.graph.find_nodes(op="placeholder")
    added, sliced = p.output_nodes
    assert same_sizes(x.meta["val"].shape, added.meta["val"].shape)
    assert not same_sizes(x.meta["val"].shape, sliced.meta["val"].shape)
    assert not same_sizes(x.meta["val"].shape, x.meta["val"].shape[:1])


def test_sparsity_of_an_empty_layer() -> None:
    assert Layer("w", 0, 5).sparsity == 0
    assert Layer("w", 2, 5, nonzeros=1).sparsity == 0.9


@pytest.mark.parametrize(
    ("actual", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.2], [1.0, 2.0], 0.1),
        ([0.5], [0.0], 0.5),
        ([float("nan")], [float("nan")], 0.0),
        ([float("nan"), 1.0], [0.0, 1.0], float("inf")),
        ([float("inf")], [1.0], float("inf")),
        ([1.0], [1.0, 1.0], float("inf")),
        ([], [], 0.0),
    ],
)
def test_relative_error(actual: list[float], expected: list[float], error: float) -> None:
    found = reference.relative_error(torch.tensor(actual).numpy(), torch.tensor(expected).numpy())
    assert found == pytest.approx(error)


def test_other_types_and_numbers_of_outputs_are_infinitely_wrong() -> None:
    ints, floats = torch.ones(2, dtype=torch.int32).numpy(), torch.ones(2).numpy()
    assert reference.relative_error(ints, floats) == float("inf")
    assert reference.relative_error(ints, ints) == 0
    assert reference.relative_error(ints, ints + 1) == float("inf")
    assert reference.largest_error([ints], [ints, ints]) == float("inf")
    assert reference.largest_error([], []) == 0


def test_shapes_are_those_of_the_example_inputs() -> None:
    assert reference.shapes(small())["linear"] == torch.Size([2, 4])
