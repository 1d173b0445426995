"""The static plan of a region: which kernel runs when, on which memory. Pure data, and a text to read it by.

A *row* of a region is one sample of an image region or one token of a token region; an *item* is what one pass over
the steps computes: one sample, or a panel of ``lanes`` tokens. Offsets are float32 elements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from sparsecc.regions import Kind

from .kernels.parameters import Parameters
from .kernels.spec import Index, KernelSpec

Space = Literal["none", "arena", "input", "output", "prepared", "zeros"]
ElementType = Literal["float32", "uint16", "int32"]
LANES = -1  # as the units of a step: the valid lanes of the item, known only at run time


@dataclass(frozen=True)
class Ref:
    """Memory that a kernel sees. ``index``: an arena offset in elements, or the number of the input, output or table.

    ``offset``: elements into a buffer of the arena that has no place yet (`Builder.finish` gives it one); else 0.
    Inputs and outputs that are not constant advance with the item.
    """

    space: Space = "none"
    index: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return self.space if self.space in ("none", "zeros") else f"{self.space}[{self.index}]"


NOTHING = Ref()
ZEROS = Ref("zeros")


@dataclass(frozen=True)
class Step:
    """One kernel over ``units`` units. ``joins``: independent of the step before, both may run at once.

    ``work``: FLOPs plus bytes moved for a whole item; a copied byte takes about as long as a sparse FLOP.
    ``flops`` and ``touched_bytes`` are of a whole item too, for profiles: multiplications and additions of stored
    weights, or of activations with each other, with real lanes (else 0), and the distinct bytes read and written,
    halos left out.
    """

    name: str
    kernel: KernelSpec
    parameters: Parameters
    units: int
    work: int
    flops: int
    touched_bytes: int
    x: Ref
    y: Ref
    z: Ref = NOTHING
    rows: Ref = NOTHING
    cols: Ref = NOTHING
    values: Ref = NOTHING
    bias: Ref = NOTHING
    joins: bool = False

    def refs(self) -> dict[str, Ref]:
        return {name: getattr(self, name) for name in ("x", "y", "z", "rows", "cols", "values", "bias")}


@dataclass(frozen=True)
class Prepare:
    """A table made and checked once from a weight's constant inputs: one of those that a layout needs.

    stored: blocks as the model has them. Only ``cols`` are made: column k = (c, ky, kx) of the matrix becomes
            c * channel_step + row_steps[ky] + column_steps[kx], block_cols entries per block. A dense weight names no
            inputs and gets one entry per column.
    sliced: blocks in the order of a sliced `Spmm`, slices being ``slice_blocks`` block columns wide. In each slice the
            block rows of each of ``chunks`` chunks are in the order of their number of blocks.
    sell:   single elements as `SpmvSell` wants them; x is contiguous, ``index`` not read.
    """

    rows: int
    cols: int
    index: Index
    channel_step: int = 1
    row_steps: tuple[int, ...] = (0,)
    column_steps: tuple[int, ...] = (0,)
    columns: int | None = None  # input number
    row_starts: int | None = None  # input number
    stored_index: Index = "uint16"
    blocks: int = 0
    block_rows: int = 1
    block_cols: int = 1
    layout: Literal["stored", "sliced", "sell"] = "stored"
    slice_blocks: int = 0
    chunks: int = 1
    table: Literal["cols", "rows", "values"] = "cols"
    values: int | None = None  # input number, where the table holds values


@dataclass(frozen=True)
class Input:
    """An input of the node. ``shape`` has None where a size is dynamic; a constant is an initializer."""

    name: str
    type: ElementType
    shape: tuple[int | None, ...]
    constant: bool


@dataclass(frozen=True)
class InputDim:
    """The size of an axis of an input, known only at run time."""

    input: int
    axis: int

    def __str__(self) -> str:
        return f"input {self.input} axis {self.axis}"


@dataclass(frozen=True)
class Output:
    name: str
    shape: tuple[int | InputDim, ...]


@dataclass(frozen=True)
class Variant:
    """The steps for items of ``lanes`` rows, taken where the node has at most ``rows_most`` rows (None: any number)."""

    lanes: int
    rows_most: int | None
    steps: tuple[Step, ...]
    arena_elems: int


@dataclass(frozen=True)
class RegionPlan:
    """All that the runtime needs to compute a region. Variants are tried in order; the last one takes any rows."""

    op_name: str
    kind: Kind
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    prepares: tuple[Prepare, ...]
    variants: tuple[Variant, ...]
    kernels: frozenset[KernelSpec] = field(init=False)

    def __post_init__(self) -> None:
        used = frozenset(step.kernel for variant in self.variants for step in variant.steps)
        object.__setattr__(self, "kernels", used)

    def __str__(self) -> str:
        return "\n".join(_lines(self)) + "\n"


def _lines(plan: RegionPlan) -> Iterator[str]:
    yield f"region {plan.op_name}: {plan.kind}"
    for number, given in enumerate(plan.inputs):
        sizes = ", ".join("?" if size is None else str(size) for size in given.shape)
        yield f"  input {number}: {given.name} {given.type}[{sizes}]{' constant' if given.constant else ''}"
    for number, output in enumerate(plan.outputs):
        yield f"  output {number}: {output.name} [{', '.join(map(str, output.shape))}]"
    for number, table in enumerate(plan.prepares):
        sliced = f" in slices of {table.slice_blocks} block columns, sorted in {table.chunks} chunks"
        layouts = {"stored": "", "sliced": sliced, "sell": " in SELL"}
        inputs = {"cols": table.columns, "rows": table.row_starts, "values": table.values}
        layout = layouts[table.layout]
        if table.table != "cols" or table.layout == "sell":
            yield f"  prepared {number}: {table.table} of input {inputs[table.table]}{layout}"
            continue
        source = "every column" if table.columns is None else f"columns of input {table.columns}{layout}"
        steps = f"c*{table.channel_step} + ky{list(table.row_steps)} + kx{list(table.column_steps)}"
        yield f"  prepared {number}: {source} of {table.rows}x{table.cols} -> {steps} {table.index}"
    for variant in plan.variants:
        limit = "" if variant.rows_most is None else f" (up to {variant.rows_most} rows)"
        yield f"  variant of {variant.lanes} lanes{limit}: arena of {variant.arena_elems} elements"
        for step in variant.steps:
            yield f"    {_step_line(step)}"


def _step_line(step: Step) -> str:
    refs = " ".join(f"{name}={ref}" for name, ref in step.refs().items() if ref != NOTHING)
    sizes = " ".join(f"{name}={size}" for name, size in step.parameters._asdict().items())
    units = "valid lanes" if step.units == LANES else f"{step.units} units"
    return f"{'+' if step.joins else '-'} {step.name}: {step.kernel.symbol} {refs} ({sizes}) {units}, work {step.work}"
