"""Pipeline: order proved before it runs, every promise checked after each pass, and the culprit named."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from programs import filled, program, seeded
from torch import nn

from sparsecc.diagnostics import CompileError, PassBug
from sparsecc.invariants import (
    FORMATS_CHOSEN,
    SPARSITY_MEASURED,
    WEIGHTS_CONSTANT,
    WEIGHTS_PACKED,
    WELL_FORMED,
    Invariant,
)
from sparsecc.pass_manager import Effects, Note, Pass, Pipeline, PipelineError
from sparsecc.passes.fold_masks import FoldMasks
from sparsecc.program import Layer, Program, calls

aten = torch.ops.aten


@dataclass(frozen=True)
class Planted:
    """A pass made of a function, which promises what the test wants."""

    does: Callable[[Program], None]
    effects: Effects = field(default_factory=Effects)
    name = "planted"

    def run(self, program: Program) -> Sequence[Note]:
        self.does(program)
        return [Note("here", "did it")]


def small() -> Program:
    return program(filled(nn.Sequential(nn.Linear(6, 4), nn.ReLU())), seeded(2, 6))


def nothing(_: Program) -> None: ...


def drop_relu(p: Program) -> None:
    (relu,) = calls(p, aten.relu.default)
    relu.replace_all_uses_with(relu.all_input_nodes[0])
    p.tidy()


def drop_producer(p: Program) -> None:
    (linear,) = calls(p, aten.linear.default)
    linear.users.clear()
    p.graph.erase_node(linear)


def no_shape(p: Program) -> None:
    (relu,) = calls(p, aten.relu.default)
    with p.graph.inserting_before(relu):
        node = p.graph.call_function(aten.neg.default, relu.args)
    node.append(relu)
    relu.update_arg(0, node)


def write_in_place(p: Program) -> None:
    (relu,) = calls(p, aten.relu.default)
    relu.target = aten.relu_.default


def add_not_runnable(p: Program) -> None:
    (relu,) = calls(p, aten.relu.default)
    relu.target = aten.view.default
    relu.args = (relu.args[0], [5])


def compute_weight(p: Program) -> None:
    (linear,) = calls(p, aten.linear.default)
    linear.update_arg(1, p.add_call(linear, aten.neg.default, linear.args[1], like=linear))
    linear.update_arg(1, p.add_call(linear, aten.neg.default, linear.args[1], like=linear))


def choose(p: Program) -> None:
    p.layers["linear"] = Layer("0.weight", 4, 6, format="csr", reason="because")


def forget_reason(p: Program) -> None:
    p.layers["linear"] = Layer("0.weight", 4, 6)


def promising(*invariants: Invariant) -> Effects:
    return Effects(establishes=frozenset(invariants))


def test_changed_is_derived() -> None:
    _, records = Pipeline([FoldMasks(), FoldMasks(), Planted(nothing)]).run(small())
    assert [(r.name, r.changed) for r in records] == [("fold-masks", True), ("fold-masks", False), ("planted", False)]
    assert records[-1].notes == (Note("here", "did it"),)
    assert all(r.seconds > 0 and r.error == 0 for r in records)


def test_input_is_untouched() -> None:
    p = small()
    before = p.fingerprint()
    after, _ = Pipeline([FoldMasks()]).run(p)
    assert p.fingerprint() == before != after.fingerprint()


def test_each_pass_is_announced_before_it_runs() -> None:
    seen = list[tuple[str, int]]()
    Pipeline([Planted(nothing), FoldMasks()]).run(small(), before=lambda name, p: seen.append((name, len(p.layers))))
    assert seen == [("planted", 0), ("fold-masks", 0)]


def test_illegal_order_is_rejected_before_running() -> None:
    needs = Planted(nothing, Effects(requires=frozenset({FORMATS_CHOSEN})))
    with pytest.raises(
        PipelineError, match=re.escape("'planted' needs ['formats-chosen']; nothing before it provides that")
    ):
        Pipeline([needs])
    breaks = Planted(nothing, Effects(breaks=frozenset({FORMATS_CHOSEN})))
    gives = Planted(nothing, promising(FORMATS_CHOSEN))
    Pipeline([gives, needs])
    with pytest.raises(PipelineError):
        Pipeline([gives, breaks, needs])


@pytest.mark.parametrize(
    ("does", "promises", "finding"),
    [
        (drop_relu, (), "error[SCC008]: the outputs changed by "),
        (add_not_runnable, (), "error[SCC008]: the program no longer runs: shape '[5]' is invalid for input of size 8"),
        (drop_producer, (), "error[SCC001]: the graph is broken: "),
        (no_shape, (), "error[SCC002]: a value without shape and type\n  --> <unknown line>, node %neg_default"),
        (write_in_place, (), "error[SCC003]: aten.relu_.default writes to its input\n  --> "),
        (
            compute_weight,
            (WEIGHTS_CONSTANT,),
            "error[SCC004]: the weight of this layer is computed from constants by aten.neg.default\n  --> ",
        ),
        (nothing, (SPARSITY_MEASURED,), "error[SCC005]: a layer whose non-zeros were not counted\n  --> "),
        (forget_reason, (FORMATS_CHOSEN,), "error[SCC006]: no decision and no reason for layer %linear (0.weight)"),
        (choose, (WEIGHTS_PACKED,), "error[SCC007]: the weight was to be stored as csr and is dense\n  --> "),
    ],
)
def test_a_broken_promise_names_the_culprit(
    does: Callable[[Program], None], promises: tuple[Invariant, ...], finding: str
) -> None:
    with pytest.raises(PassBug) as caught:
        Pipeline([FoldMasks() if does is choose else Planted(nothing), Planted(does, promising(*promises))]).run(
            small()
        )
    assert str(caught.value).startswith(f"pass 'planted' left the program invalid\n{finding}")


def test_a_pass_may_say_that_it_changes_the_meaning() -> None:
    _, (record,) = Pipeline([Planted(drop_relu, Effects(keeps_meaning=False))]).run(small())
    assert record.error > 0.1


def test_an_error_is_counted_from_the_pass_before() -> None:
    prune = Planted(drop_relu, Effects(keeps_meaning=False))
    _, records = Pipeline([prune, FoldMasks()]).run(small())
    assert records[1].error == 0


def test_bad_input_is_not_blamed_on_the_first_pass() -> None:
    p = small()
    no_shape(p)
    with pytest.raises(CompileError, match=r"^error\[SCC002\]: a value without shape and type"):
        Pipeline([FoldMasks()]).run(p)


_: Pass = FoldMasks()
assert repr(WELL_FORMED) == "well-formed"
