"""choose-formats: sparse only where it wins by the margin; every layer has its reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from programs import before_and_after, filled, notes, program, run, seeded
from torch import Tensor, fx, nn

from sparsecc.backends.tvm import cost_model
from sparsecc.diagnostics import CompileError
from sparsecc.passes.choose_formats import Work, decide
from sparsecc.program import Candidate, Layer, Program

MEASURED = "canonicalize,fold-masks,measure-sparsity"
CHOOSE = f"{MEASURED},choose-formats{{costs=predicted}}"
LAYER = Layer("fc.weight", 4, 6, nonzeros=3)


def test_golden(golden: Callable[[str, str], None]) -> None:
    model = filled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2)))
    golden("choose_formats", before_and_after(CHOOSE, model, seeded(2, 3, 8, 8)))


@pytest.mark.parametrize(
    ("times", "kernel", "reason"),
    [
        ({"csr": 5, "dense": 10, "onnxruntime": 12}, "csr", "csr takes 5.0 µs, dense 10.0 µs: 2.00x"),
        ({"csr": 9, "bsr4x1": 4, "dense": 10}, "bsr4x1", "bsr4x1 takes 4.0 µs, dense 10.0 µs: 2.50x"),
        ({"csr": 9, "onnxruntime": 10}, "csr", "csr takes 9.0 µs, onnxruntime 10.0 µs: 1.11x"),
        (
            {"csr": 9.1, "dense": 10, "onnxruntime": 10},
            "dense",
            "dense kept: csr takes 9.1 µs, dense 10.0 µs (sparse must win by 10%)",
        ),
        (
            {"dense": 10, "onnxruntime": 8},
            "onnxruntime",
            "dense kept: no sparse format fits, onnxruntime 8.0 µs (sparse must win by 10%)",
        ),
        ({"csr": 0, "dense": 1}, "csr", "csr takes 0.0 µs, dense 1.0 µs: 1000.00x"),
    ],
)
def test_the_margin_decides(times: dict[str, float], kernel: str, reason: str) -> None:
    chosen = decide(LAYER, [Candidate(name, us) for name, us in times.items()], 0.1)
    assert (chosen.kernel, chosen.reason) == (kernel, reason)
    assert chosen.format == (kernel if kernel in ("csr", "bsr4x1") else "dense")
    assert [c.kernel for c in chosen.candidates] == list(times)


@pytest.mark.parametrize(
    ("csr_us", "kernel", "reason"),
    [
        (4.8, "csr", "csr takes 4.8 µs, onnxruntime 2.5 µs + 3.4 µs estimated for leaving the region: 1.23x"),
        (
            5.5,
            "onnxruntime",
            "dense kept: csr takes 5.5 µs, onnxruntime 2.5 µs + 3.4 µs estimated for leaving the region "
            "(sparse must win by 10%)",
        ),
    ],
)
def test_what_is_estimated_counts_and_is_told_apart(csr_us: float, kernel: str, reason: str) -> None:
    candidates = [Candidate("csr", csr_us), Candidate("dense", 12), Candidate("onnxruntime", 2.5, 3.4)]
    chosen = decide(LAYER, candidates, 0.1)
    assert (chosen.kernel, chosen.reason, chosen.candidates) == (kernel, reason, tuple(candidates))
    assert chosen.is_sparse == (kernel == "csr")


@pytest.mark.parametrize(
    ("model", "x", "reason"),
    [
        (filled(nn.Linear(64, 8), 1), seeded(2, 64), "dense kept: no zeros"),
        (
            filled(nn.Conv2d(4, 4, 3, groups=2)),
            seeded(1, 4, 8, 8),
            "dense kept: grouped convolution (groups=2) stays dense; stored as csr, unpacked when the session loads",
        ),
        (
            filled(nn.Linear(64, 8), 0.9),
            seeded(64),
            "dense kept: linear layer of an input without batch axis",
        ),
        (
            filled(nn.Linear(64, 8)).double(),
            seeded(2, 64).double(),
            "dense kept: %linear is torch.float64; regions compute in float32; formats hold float32 only",
        ),
    ],
)
def test_dense_stays_with_its_reason(model: nn.Module, x: Tensor, reason: str) -> None:
    after, _ = run(CHOOSE, program(model, x))
    (layer,) = after.layers.values()
    assert (layer.kernel, layer.reason) == ("onnxruntime", reason)


def test_a_layer_without_zeros_may_join_the_region_of_others() -> None:
    model = nn.Sequential(filled(nn.Conv2d(3, 8, 3), 1), nn.ReLU(), filled(nn.Conv2d(8, 8, 3), 0.1))
    after, _ = run(f"{CHOOSE},pack-weights,partition-regions", program(model, seeded(1, 3, 16, 16)))
    first, second = after.layers.values()
    expected = "dense kept: no zeros; dense 0.8 µs, onnxruntime 3.8 µs"
    assert (first.kernel, first.reason) == ("dense", f"predicted: {expected}")
    assert second.is_sparse
    assert len([n for n in after.graph.nodes if n.op == "call_module"]) == 1
    assert not any(n.target is torch.ops.aten.conv2d.default for n in after.graph.nodes)


def test_an_all_zero_layer_is_sparse() -> None:
    after, _ = run(CHOOSE, program(filled(nn.Linear(64, 64), 0), seeded(2, 64)))
    (layer,) = after.layers.values()
    assert (layer.nonzeros, layer.format) == (0, "csr")


def test_only_the_given_formats_are_tried() -> None:
    option = CHOOSE.replace("}", ",formats=('bsr4x1',)}")
    linear = nn.Linear(64, 64)
    linear.weight.data[8:] = 0
    after, _ = run(option, program(linear, seeded(2, 64)))
    (layer,) = after.layers.values()
    assert [c.kernel for c in layer.candidates] == ["bsr4x1", "dense", "onnxruntime"]


def test_a_format_that_pads_too_much_is_not_tried() -> None:
    after, _ = run(CHOOSE, program(filled(nn.Linear(64, 64), 0.1), seeded(2, 64)))
    (layer,) = after.layers.values()
    assert [c.kernel for c in layer.candidates] == ["csr", "dense", "onnxruntime"]


@pytest.mark.parametrize(
    ("times", "kernel", "reason"),
    [
        (
            {"csr": 8, "bsr4x1": 7.5, "dense": 10},
            "csr",
            "csr takes 8.0 µs, dense 10.0 µs: 1.25x; bsr4x1 takes 7.5 µs, but more memory than dense",
        ),
        (
            {"csr": 9.5, "bsr4x1": 8.9, "dense": 10},
            "dense",
            "dense kept: csr takes 9.5 µs, dense 10.0 µs (sparse must win by 10%); "
            "bsr4x1 takes 8.9 µs, but more memory than dense",
        ),
        ({"csr": 10, "bsr4x1": 9, "dense": 10}, "bsr4x1", "bsr4x1 takes 9.0 µs, dense 10.0 µs: 1.11x"),  # just so
        ({"csr": 8, "bsr4x1": 7, "dense": 10}, "bsr4x1", "bsr4x1 takes 7.0 µs, dense 10.0 µs: 1.43x"),
        ({"bsr4x1": 8.9, "dense": 10}, "bsr4x1", "bsr4x1 takes 8.9 µs, dense 10.0 µs: 1.12x"),
    ],
)
def test_what_takes_more_than_dense_must_win_by_the_margin(times: dict[str, float], kernel: str, reason: str) -> None:
    chosen = decide(LAYER, [Candidate(name, us) for name, us in times.items()], 0.1, {"bsr4x1"})
    assert (chosen.kernel, chosen.reason) == (kernel, reason)


@pytest.mark.parametrize(("density", "kernel"), [(0.5, "csr"), (0.3, "bsr4x1")])
def test_bytes_decide_between_formats_that_are_close(
    density: float, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def costs(_: Program, work: Work) -> dict[fx.Node, list[Candidate]]:
        times = {"csr": 8.0, "bsr4x1": 7.5, "dense": 10.0}
        return {node: [Candidate(name, us) for name, us in times.items()] for node in work}

    monkeypatch.setattr(cost_model, "predict", costs)
    after, _ = run(CHOOSE, program(filled(nn.Linear(64, 64), density), seeded(2, 64)))
    (layer,) = after.layers.values()
    assert layer.kernel == kernel


def test_costs_of_layers_that_nobody_asked_about_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def costs(program: Program, work: Work) -> dict[fx.Node, list[Candidate]]:
        assert [node.name for node in work] == ["linear"]
        return {
            n: [Candidate("csr", 1), Candidate("dense", 2)] for n in program.graph.nodes if n.name in program.layers
        }

    monkeypatch.setattr(cost_model, "predict", costs)
    grouped = filled(nn.Sequential(nn.Linear(8, 8), nn.Unflatten(1, (4, 2, 1)), nn.Conv2d(4, 4, 1, groups=2)))
    after, _ = run(CHOOSE, program(grouped, seeded(2, 8)))
    linear, convolution = after.layers.values()
    assert (linear.kernel, convolution.kernel, convolution.candidates) == ("csr", "onnxruntime", ())


def test_unknown_costs_are_refused() -> None:
    with pytest.raises(CompileError, match=r"error\[SCC084\]: there is no source of costs 'guessed'"):
        run(CHOOSE.replace("predicted", "guessed"), program(filled(nn.Linear(8, 8)), seeded(2, 8)))


def test_every_decision_is_noted() -> None:
    _, records = run(CHOOSE, program(filled(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8))), seeded(2, 64)))
    texts = notes(records, "choose-formats", done=True)
    assert [text.partition(": predicted: ")[0] for text in texts] == ["0.weight", "1.weight"]


def test_without_costs_all_layers_stay_dense() -> None:
    last_layer = filled(nn.Linear(64, 8), 1)
    model = nn.Sequential(filled(nn.Linear(64, 64), 0.05), nn.ReLU(), last_layer)
    after, _ = run(f"{MEASURED},choose-formats{{costs=none}}", program(model, seeded(2, 64)))
    first, last = after.layers.values()
    assert (first.kernel, first.format, first.candidates) == ("onnxruntime", "csr", ())
    assert first.reason == "dense kept: no kernel was asked for; stored as csr, unpacked when the session loads"
    assert last.reason == "dense kept: no zeros"
