"""Decide per layer how its weight is stored and what computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeGuard, cast

import torch
from torch import fx

from sparsecc.formats import Matrix, parse_format
from sparsecc.invariants import FORMATS_CHOSEN, LAYERS, SPARSITY_MEASURED, WEIGHTS_CONSTANT, WELL_FORMED
from sparsecc.pass_manager import Effects, Note
from sparsecc.program import DENSE_KERNELS, Candidate, Layer, Program, calls
from sparsecc.regions import Refusal, describe
from sparsecc.registry import Registry

from .pack_weights import packable

MARGIN = 0.10
"""Dense stays unless sparse is faster by this share: below it, the noise of a measurement decides. A format that takes
more bytes than dense also has to beat the fastest of those that do not by it, dense or not: with few zeros nearly all
4x1 blocks are stored; of 384x384 with half of them they take 5 % more than dense, to be 4 % faster than CSR."""
UNPACKED_SHARE_MOST = 0.5
"""Of its dense bytes, what a weight that is computed densely may take in the file to be stored packed: unpacking needs
memory when a session loads. With all of a ResNet-50 of 50 % zeros packed so, the session's peak is 3.3 times that of
the dense model, for a file that is a quarter smaller."""
STORED_PACKED = "; stored as csr, unpacked when the session loads"
FORMATS = ("csr", "bsr4x1", "bsr16x1")
LARGEST_PADDING = 2.0
"""A block format may compute this many times the non-zeros: 4x1 blocks run at 152-174 GFLOP/s where CSR runs at 77-85
(768x768, 128 lanes, one core of a Sapphire Rapids, AVX-512), so beyond it they cannot win."""


Work = Mapping[fx.Node, Mapping[str, int]]
"""The kernels to try per layer ("csr", ..., "dense" inside a region, "onnxruntime"), and how many values each reads."""


class Costs(Protocol):
    """Microseconds of every candidate of some layers."""

    def __call__(self, program: Program, work: Work) -> dict[fx.Node, list[Candidate]]: ...


def _is_costs(part: object) -> TypeGuard[Costs]:
    return callable(part)


COSTS: Registry[Costs] = Registry(
    "source of costs",
    "sparsecc.costs",
    {
        "measured": "sparsecc.backends.tvm.tuning:measure",
        "predicted": "sparsecc.backends.tvm.cost_model:predict",
        "none": "sparsecc.passes.choose_formats:no_costs",
    },
    _is_costs,
    unknown_code="SCC084",
)


@dataclass(frozen=True)
class ChooseFormats:
    """Write format, kernel, candidates and the reason into the facts of each layer.

    ``costs`` is "measured" on this machine, "predicted" by the cost model, "none" to keep all layers dense, or another
    name in COSTS.
    """

    costs: str = "measured"
    margin: float = MARGIN
    formats: tuple[str, ...] = FORMATS

    name = "choose-formats"
    effects = Effects(
        requires=frozenset({WELL_FORMED, WEIGHTS_CONSTANT, SPARSITY_MEASURED}), establishes=frozenset({FORMATS_CHOSEN})
    )

    def run(self, program: Program) -> Sequence[Note]:
        for name in self.formats:
            packable(name)
        nodes = [n for n in calls(program, *LAYERS) if n.name in program.layers]
        costs = COSTS.load(self.costs)
        asked = costs is not no_costs and any(program.layers[n.name].has_zeros for n in nodes)
        sizes = {n: found for n in nodes if asked and (found := self.kernels(program, n))}
        work = {n: {name: size.elems for name, size in found.items()} for n, found in sizes.items()}
        measured = costs(program, work)
        for node in nodes:
            layer = program.layers[node.name]
            if node in measured and node in sizes:
                large = {name for name, size in sizes[node].items() if size.bytes > 4 * layer.elems}
                layer = decide(layer, measured[node], self.margin, large)
                layer = replace(
                    layer, reason=layer.reason if self.costs == "measured" else f"{self.costs}: {layer.reason}"
                )
            else:
                layer = replace(layer, reason=why_not(node, layer))
            program.layers[node.name] = store(program, node, layer)
        return [Note(n.name, f"{program.layers[n.name].weight}: {program.layers[n.name].reason}") for n in nodes]

    def kernels(self, program: Program, node: fx.Node) -> dict[str, PackedSize]:
        """The candidates worth measuring, and what each reads; none without a region.

        A layer without zeros may join the region of others: a first convolution, say.
        """
        layer = program.layers[node.name]
        if isinstance(describe(node), Refusal):
            return {}
        dense: dict[str, PackedSize] = {name: PackedSize(layer.elems, 4 * layer.elems) for name in DENSE_KERNELS}
        if not layer.has_zeros:
            return dense
        sparse = {name: packed_size(program, node, name) for name in self.formats}
        largest = LARGEST_PADDING * max(layer.nonzeros, 1)
        return {**{name: size for name, size in sparse.items() if size.elems <= largest}, **dense}


def decide(layer: Layer, candidates: Sequence[Candidate], margin: float, large: Set[str] = frozenset()) -> Layer:
    """The fastest sparse candidate if it beats the fastest dense one by the margin, estimates included, else dense.

    ``large``: the formats that take more bytes than dense. If one of them is the fastest, it also has to beat the
    fastest other format by the margin; else that one stands for sparse, even where it then loses to dense.
    """
    by_time = sorted(candidates, key=lambda c: c.total_us)
    dense = next(c for c in by_time if c.kernel in DENSE_KERNELS)
    sparse = next((c for c in by_time if c.kernel not in DENSE_KERNELS), None)
    small = next((c for c in by_time if c.kernel not in DENSE_KERNELS and c.kernel not in large), None)
    too_large = ""
    if sparse and small and sparse is not small and sparse.total_us > small.total_us * (1 - margin):
        too_large = f"; {sparse.kernel} takes {sparse.total_us:.1f} µs, but more memory than dense"
        sparse = small
    layer = replace(layer, candidates=tuple(candidates))
    estimated = f" + {dense.estimated_us:.1f} µs estimated for leaving the region" if dense.estimated_us else ""
    dense_takes = f"{dense.kernel} {dense.microseconds:.1f} µs{estimated}"
    if sparse and sparse.total_us <= dense.total_us * (1 - margin):
        speedup = dense.total_us / max(sparse.total_us, 1e-3)
        reason = f"{sparse.kernel} takes {sparse.total_us:.1f} µs, {dense_takes}: {speedup:.2f}x"
        return replace(layer, format=sparse.kernel, kernel=sparse.kernel, reason=reason + too_large)
    if not layer.has_zeros:
        others = ", ".join(f"{c.kernel} {c.total_us:.1f} µs" for c in by_time if c is not dense)
        return replace(layer, kernel=dense.kernel, reason=f"dense kept: no zeros; {dense_takes}, {others}")
    versus = f"{sparse.kernel} takes {sparse.total_us:.1f} µs" if sparse else "no sparse format fits"
    reason = f"dense kept: {versus}, {dense_takes} (sparse must win by {margin:.0%}){too_large}"
    return replace(layer, kernel=dense.kernel, reason=reason)


def store(program: Program, node: fx.Node, layer: Layer) -> Layer:
    """What is computed densely is stored as CSR all the same where that takes half or less: onnxruntime unpacks it."""
    weight = program.constant(cast(fx.Node, node.args[1]))
    if layer.format != "dense" or not layer.has_zeros or layer.kernel == "dense":
        return layer
    if weight.dtype != torch.float32:
        return replace(layer, reason=f"{layer.reason}; formats hold float32 only")
    if parse_format("csr").stored_bytes(_matrix(program, node)) <= 4 * layer.elems * UNPACKED_SHARE_MOST:
        return replace(layer, format="csr", reason=layer.reason + STORED_PACKED)
    return layer


def no_costs(program: Program, work: Work) -> dict[fx.Node, list[Candidate]]:
    """Of no candidate: all layers stay dense."""
    del program, work
    return {}


def why_not(node: fx.Node, layer: Layer) -> str:
    op = describe(node)
    if isinstance(op, Refusal):
        return f"dense kept: {op.reason}"
    return f"dense kept: {'no kernel was asked for' if layer.has_zeros else 'no zeros'}"


class PackedSize(NamedTuple):
    """Of a weight: ``elems``, the values stored, zeros in blocks included; ``bytes``, those of all arrays."""

    elems: int
    bytes: int


def packed_size(program: Program, node: fx.Node, format_name: str) -> PackedSize:
    """What a layer's weight takes in a sparse format."""
    matrix, stored_as = _matrix(program, node), parse_format(format_name)
    if format_name == "csr":
        return PackedSize(program.layers[node.name].nonzeros, stored_as.stored_bytes(matrix))
    packed = stored_as.pack(matrix)
    return PackedSize(packed.arrays["values"].size, packed.stored_bytes)


def _matrix(program: Program, node: fx.Node) -> Matrix:
    weight = program.constant(cast(fx.Node, node.args[1]))
    return cast(Matrix, weight.reshape(len(weight), -1).to(torch.float32).numpy())
