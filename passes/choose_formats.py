"""Decide per layer how its weight is stored and what computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeGuard, cast

import torch
from torch import fx

from sparsecc.formats import Matrix, parse_format
from sparsecc.invariants import FORMATS_CHOSEN, LAYERS, SPARSITY_MEASURED, WEIGHTS_CONSTANT, WELL_FORMED
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import Candidate, Layer, Program, calls
from sparsecc.regions import Refusal, describe
from sparsecc.registry import Registry

MARGIN = 0.10
"""Dense stays unless sparse is faster by this share: below it, the noise of a measurement decides."""
FORMATS = ("csr", "bsr4x1", "bsr16x1")
LARGEST_PADDING = 2.0
"""A block format may compute this many times the non-zeros: 4x1 blocks run at 152-174 GFLOP/s where CSR runs at 77-85
(768x768, 128 lanes, one core of a Sapphire Rapids, AVX-512), so beyond it they cannot win."""


class Costs(Protocol):
    """Microseconds of every candidate ("csr", ..., "dense" inside a region, "onnxruntime") of some layers."""

    def __call__(self, program: Program, work: Mapping[fx.Node, Sequence[str]]) -> dict[fx.Node, list[Candidate]]: ...


def _is_costs(part: object) -> TypeGuard[Costs]:
    return callable(part)


COSTS: Registry[Costs] = Registry(
    "source of costs",
    "sparsecc.costs",
    {"measured": "sparsecc.backends.tvm.tuning:measure", "predicted": "sparsecc.backends.tvm.cost_model:predict"},
    _is_costs,
    unknown_code="SCC084",
)


@dataclass(frozen=True)
class ChooseFormats:
    """Write format, kernel, candidates and the reason into the facts of each layer.

    ``costs`` is "measured" on this machine or "predicted" by the cost model, or another name in COSTS.
    """

    costs: str = "measured"
    margin: float = MARGIN
    formats: tuple[str, ...] = FORMATS

    name = "choose-formats"
    effects = Effects(
        requires=frozenset({WELL_FORMED, WEIGHTS_CONSTANT, SPARSITY_MEASURED}), establishes=frozenset({FORMATS_CHOSEN})
    )

    def run(self, program: Program) -> Sequence[Note]:
        nodes = [n for n in calls(program, *LAYERS) if n.name in program.layers]
        work = {n: options for n in nodes if (options := self.options(program, n))}
        measured = COSTS.load(self.costs)(program, work)
        for node in nodes:
            layer = program.layers[node.name]
            if node in measured:
                layer = decide(layer, measured[node], self.margin)
                layer = replace(
                    layer, reason=layer.reason if self.costs == "measured" else f"{self.costs}: {layer.reason}"
                )
            else:
                layer = replace(layer, reason=why_not(node))
            program.layers[node.name] = store(program, node, layer)
        return [Note(n.name, f"{program.layers[n.name].format}: {program.layers[n.name].reason}") for n in nodes]

    def options(self, program: Program, node: fx.Node) -> list[str]:
        """The candidates worth measuring; none where a region cannot take the layer or nothing is zero."""
        layer = program.layers[node.name]
        if isinstance(describe(node), Refusal) or layer.nonzeros == layer.elems:
            return []
        sparse = [f for f in self.formats if padding(program, node, f) <= LARGEST_PADDING]
        return [*sparse, "dense", "onnxruntime"]


def decide(layer: Layer, candidates: Sequence[Candidate], margin: float) -> Layer:
    """The fastest sparse candidate if it beats the fastest dense one by the margin, else dense."""
    times = {c.kernel: c.microseconds for c in candidates}
    dense = min((k for k in times if k in ("dense", "onnxruntime")), key=times.__getitem__)
    sparse = min((k for k in times if k not in ("dense", "onnxruntime")), key=times.__getitem__, default=None)
    layer = replace(layer, candidates=tuple(candidates))
    if sparse and times[sparse] <= times[dense] * (1 - margin):
        speedup = times[dense] / max(times[sparse], 1e-3)
        reason = f"{sparse} takes {times[sparse]:.1f} µs, {dense} {times[dense]:.1f} µs: {speedup:.2f}x"
        return replace(layer, format=sparse, kernel=sparse, reason=reason)
    versus = f"{sparse} takes {times[sparse]:.1f} µs" if sparse else "no sparse format fits"
    reason = f"dense kept: {versus}, {dense} {times[dense]:.1f} µs (sparse must win by {margin:.0%})"
    return replace(layer, kernel=dense, reason=reason)


def store(program: Program, node: fx.Node, layer: Layer) -> Layer:
    """What is computed densely is stored as CSR all the same where that is smaller: onnxruntime unpacks it at load."""
    weight = program.constant(cast(fx.Node, node.args[1]))
    if layer.format != "dense" or layer.nonzeros == layer.elems or layer.kernel == "dense":
        return layer
    if weight.dtype != torch.float32:
        return replace(layer, reason=f"{layer.reason}; formats hold float32 only")
    if parse_format("csr").stored_bytes(_matrix(program, node)) < 4 * layer.elems * (1 - MARGIN):
        return replace(layer, format="csr", reason=layer.reason + "; stored as csr, unpacked when the session loads")
    return layer


def why_not(node: fx.Node) -> str:
    op = describe(node)
    return f"dense kept: {op.reason}" if isinstance(op, Refusal) else "dense kept: no zeros"


def padding(program: Program, node: fx.Node, format_name: str) -> float:
    """Values that a format computes per non-zero."""
    if format_name == "csr":
        return 1.0
    stored_elems = parse_format(format_name).pack(_matrix(program, node)).arrays["values"].size
    return stored_elems / max(program.layers[node.name].nonzeros, 1)


def _matrix(program: Program, node: fx.Node) -> Matrix:
    weight = program.constant(cast(fx.Node, node.args[1]))
    return cast(Matrix, weight.reshape(len(weight), -1).to(torch.float32).numpy())
