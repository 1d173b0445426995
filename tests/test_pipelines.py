"""Pipelines as text: read, written, and refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from sparsecc import pipelines
from sparsecc.diagnostics import CompileError
from sparsecc.pass_manager import Effects, Note, Pipeline
from sparsecc.passes.choose_formats import ChooseFormats
from sparsecc.passes.prune_weights import PruneWeights
from sparsecc.pipelines import PASSES, describe, parse
from sparsecc.program import Program

MEASURED = "fold-masks,measure-sparsity"


@pytest.mark.parametrize(
    "text",
    [
        "canonicalize",
        pipelines.CPU,
        "fold-masks,prune-weights{sparsity=0.5}",
        f"{MEASURED},choose-formats{{costs=predicted,margin=0.2}}",
        f"{MEASURED},choose-formats{{formats=('csr', 'bsr4x1')}}",
    ],
)
def test_text_and_passes_are_the_same(text: str) -> None:
    assert describe(parse(text)) == text
    assert describe(parse(describe(parse(text)))) == text


def test_options_reach_the_pass() -> None:
    options = "{ costs = predicted , formats=('csr',) , margin=0 }"
    parsed = parse(f" fold-masks , measure-sparsity,choose-formats{options} ")
    assert parsed.passes[-1] == ChooseFormats("predicted", 0.0, ("csr",))


def test_defaults_are_not_written() -> None:
    assert describe(parse("fold-masks,prune-weights{sparsity=0.9}")) == "fold-masks,prune-weights"
    assert parse("fold-masks,prune-weights").passes[-1] == PruneWeights(0.9)


KNOWN = ", ".join(PASSES.names())
LIST = "for instance: canonicalize,fold-masks,fold-constants,fold-batchnorm,prune-weights{sparsity=0.9}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "canonicalise",
            f"error[SCC080]: there is no pass 'canonicalise'\n  help: did you mean 'canonicalize'? known: {KNOWN}",
        ),
        (
            "canonicalize,,fold-masks",
            f"error[SCC080]: 'canonicalize,,fold-masks' is not a list of passes\n  help: {LIST}",
        ),
        ("", f"error[SCC080]: '' is not a list of passes\n  help: {LIST}"),
        ("fold-masks}", f"error[SCC080]: 'fold-masks}}' is not a list of passes\n  help: {LIST}"),
        (
            "fold-masks,prune-weights{sparsity=0.5",
            f"error[SCC080]: 'fold-masks,prune-weights{{sparsity=0.5' is not a list of passes\n  help: {LIST}",
        ),
        (
            "prune-weights{share=0.5}",
            "error[SCC082]: pass 'prune-weights' has no option 'share'\n  help: its options: sparsity",
        ),
        (
            "canonicalize{hard=True}",
            "error[SCC082]: pass 'canonicalize' has no option 'hard'\n  help: its options: none",
        ),
        (
            "prune-weights{sparsity=much}",
            "error[SCC082]: option 'sparsity' of pass 'prune-weights' is a float, not much\n"
            "  help: for instance prune-weights{sparsity=0.9}",
        ),
        (
            "prune-weights{sparsity=True}",
            "error[SCC082]: option 'sparsity' of pass 'prune-weights' is a float, not True\n"
            "  help: for instance prune-weights{sparsity=0.9}",
        ),
        (
            "pack-weights",
            "error[SCC083]: these passes cannot run in this order: 'pack-weights' needs "
            "['formats-chosen', 'weights-constant']; nothing before it provides that\n"
            "  help: `sparsecc passes` shows what each pass needs and provides",
        ),
        (
            "fold-masks,measure-sparsity,prune-weights,choose-formats",
            "error[SCC083]: these passes cannot run in this order: 'choose-formats' needs ['sparsity-measured']; "
            "nothing before it provides that\n  help: `sparsecc passes` shows what each pass needs and provides",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", list(PASSES.builtin))
def test_every_pass_is_found_under_its_own_name(name: str) -> None:
    built = PASSES.load(name)()
    assert built.name == name
    assert type(built).__doc__
    assert describe(Pipeline([built], given=built.effects.requires)) == name


def test_a_pass_that_is_no_dataclass_has_no_options() -> None:
    class Plain:
        name = "plain"
        effects = Effects()

        def run(self, program: Program) -> Sequence[Note]:
            return [Note(n, "seen") for n in program.layers]

    assert describe(pipelines.build([Plain()])) == "plain"


def test_a_field_without_default_is_written() -> None:
    @dataclass(frozen=True)
    class Needy:
        share: float
        name = "needy"
        effects = Effects()

        def run(self, program: Program) -> Sequence[Note]:
            return [Note(n, "seen") for n in program.layers]

    assert describe(pipelines.build([Needy(0.5)])) == "needy{share=0.5}"
