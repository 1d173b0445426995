"""Plans as the C tables of runtime.h. The same plans give the same text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sparsecc.backends.tvm.kernels.spec import Isa, KernelSpec, symbol
from sparsecc.backends.tvm.plan import ZEROS, InputDim, Output, Prepare, Ref, RegionPlan, Step, Variant
from sparsecc.backends.tvm.plan import Input as PlanInput
from sparsecc.regions import row_axes

_TYPES = {"float32": "TYPE_FLOAT", "uint16": "TYPE_UINT16", "int32": "TYPE_INT32"}
_INDEX_BYTES = {"uint16": 2, "int32": 4}
_SLOTS: tuple[Isa, ...] = ("avx2", "avx512")  # the order of `enum isa`


def kernels_of(plans: Iterable[RegionPlan]) -> list[KernelSpec]:
    """All kernels of some plans in the order in which the tables number them."""
    return sorted(frozenset[KernelSpec]().union(*(plan.kernels for plan in plans)), key=lambda spec: spec.symbol)


def c_tables(plans: Sequence[RegionPlan], isas: Sequence[Isa]) -> str:
    """A C source that defines everything that runtime.h declares as generated."""
    kernels = kernels_of(plans)
    tables = _Tables({spec: number for number, spec in enumerate(kernels)})
    regions = [tables.region(plan) for plan in plans]
    lines = ['#include "runtime.h"', ""]
    for isa in isas:
        lines += [f'extern kernel_fn {symbol(spec, isa)} __attribute__((visibility("hidden")));' for spec in kernels]
        names = _listed([symbol(spec, isa) for spec in kernels] or ["NULL"])
        lines.append(f"static kernel_fn *const kernels_{isa}[] = {names};")
    slots = ", ".join(f"kernels_{isa}" if isa in isas else "NULL" for isa in _SLOTS)
    lines.append(f"kernel_fn *const *const sparsecc_kernels[ISA_COUNT] = {{NULL, {slots}}};")
    names = _listed([_text(spec.symbol) for spec in kernels] or ["NULL"])
    lines.append(f"const char *const sparsecc_kernel_names[] = {names};")
    lines.append(f"const float sparsecc_zeros[{max(1, _zeros(plans))}] = {{0}};")
    lines += tables.lines
    lines.append(f"const int32_t sparsecc_regions_count = {len(plans)};")
    lines.append(f"const struct region sparsecc_regions[] = {_listed(regions)};")
    return "\n".join(lines) + "\n"


def _zeros(plans: Sequence[RegionPlan]) -> int:
    """The longest bias that is missing somewhere."""
    steps = [step for plan in plans for variant in plan.variants for step in variant.steps if step.bias == ZEROS]
    return max((int(step.parameters._asdict()["rows"]) for step in steps), default=0)


def _listed(items: Sequence[object]) -> str:
    return "{" + ", ".join(map(str, items)) + "}"


def _text(text: str) -> str:
    """A C string literal; node names are identifiers, but nothing here relies on it."""
    return '"' + "".join(c if (c.isalnum() and c.isascii()) or c in "_.:% " else f"\\{ord(c):03o}" for c in text) + '"'


@dataclass
class _Tables:
    """Static arrays as they are needed, equal ones once."""

    kernel_numbers: dict[KernelSpec, int]
    lines: list[str] = field(default_factory=list[str])
    names: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])

    def array(self, c_type: str, items: Sequence[object]) -> str:
        """The name of an array, NULL where it would be empty."""
        if not items:
            return "NULL"
        body = _listed(items)
        if (c_type, body) not in self.names:
            self.names[c_type, body] = f"table_{len(self.names)}"
            self.lines.append(f"static const {c_type} {self.names[c_type, body]}[] = {body};")
        return self.names[c_type, body]

    def region(self, plan: RegionPlan) -> str:
        given, made = len(plan.inputs), len(plan.outputs)
        bases = {"none": "BASE_NONE", "arena": "BASE_ARENA", "zeros": "BASE_ZEROS"}

        def ref(ref: Ref) -> str:
            if ref.space in bases:
                return f"{{{bases[ref.space]}, {ref.index}}}"
            first = {"input": 0, "output": given, "prepared": given + made}[ref.space]
            return f"{{BASE_INPUTS + {first + ref.index}, 0}}"

        def step(step: Step) -> str:
            table = self.array("int32_t", step.parameters)
            refs = [ref(one) for one in step.refs().values()]
            kernel = self.kernel_numbers[step.kernel]
            costs = [f"INT64_C({cost})" for cost in (step.flops, step.touched_bytes)]
            facts = [_text(step.name), *costs]
            return _listed([kernel, step.units, int(step.joins), f"INT64_C({step.work})", table, *refs, *facts])

        def variant(variant: Variant) -> str:
            most = "INT64_MAX" if variant.rows_most is None else variant.rows_most
            steps = self.array("struct step", [step(one) for one in variant.steps])
            return _listed([variant.lanes, most, len(variant.steps), steps, variant.arena_elems])

        parts = [
            self.array("struct input", [self._input(plan, one) for one in plan.inputs]),
            self.array("struct output", [self._output(plan, one) for one in plan.outputs]),
            self.array("struct prepare", [self._prepare(one) for one in plan.prepares]),
            self.array("struct variant", [variant(one) for one in plan.variants]),
        ]
        counts = [given, made, len(plan.prepares), len(plan.variants)]
        return _listed([_text(plan.op_name), *counts, *parts])

    def _input(self, plan: RegionPlan, given: PlanInput) -> str:
        shape = self.array("int64_t", [-1 if size is None else size for size in given.shape])
        rank = len(given.shape)
        axes = 0 if given.constant else row_axes(plan.kind, rank)
        return _listed([_text(given.name), _TYPES[given.type], rank, axes, shape, int(given.constant)])

    def _output(self, plan: RegionPlan, output: Output) -> str:
        dims = [f"{{{d.input}, {d.axis}}}" if isinstance(d, InputDim) else f"{{-1, {d}}}" for d in output.shape]
        row_elems = 1
        for size in output.shape[row_axes(plan.kind, len(output.shape)) :]:
            row_elems *= size if isinstance(size, int) else 0
        return _listed([_text(output.name), len(dims), self.array("struct dim", dims), row_elems])

    def _prepare(self, p: Prepare) -> str:
        steps = [self.array("int32_t", p.row_steps), self.array("int32_t", p.column_steps)]
        inputs = [-1 if number is None else number for number in (p.columns, p.row_starts, p.values)]
        stored = [_INDEX_BYTES[p.stored_index], p.blocks, p.block_rows, p.block_cols]
        layout = [f"LAYOUT_{p.layout.upper()}", p.slice_blocks, p.chunks, f"TABLE_{p.table.upper()}"]
        kernel = [p.channel_step, len(p.row_steps), len(p.column_steps)]
        return _listed([p.rows, p.cols, _INDEX_BYTES[p.index], *kernel, *steps, *inputs, *stored, *layout])
