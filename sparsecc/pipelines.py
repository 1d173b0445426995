"""Pipelines as text: "canonicalize,choose-formats{margin=0.2},pack-weights" <-> passes with options."""

from __future__ import annotations

import ast
import dataclasses
import re
from typing import TypeGuard

from sparsecc.diagnostics import CompileError
from sparsecc.pass_manager import Pass, Pipeline, PipelineError
from sparsecc.registry import Registry


def _is_pass(part: object) -> TypeGuard[type[Pass]]:
    return isinstance(part, type) and all(hasattr(part, a) for a in ("name", "effects", "run"))


PASSES: Registry[type[Pass]] = Registry(
    "pass",
    "sparsecc.passes",
    {
        "canonicalize": "sparsecc.passes.canonicalize:Canonicalize",
        "fold-masks": "sparsecc.passes.fold_masks:FoldMasks",
        "fold-constants": "sparsecc.passes.fold_constants:FoldConstants",
        "fold-batchnorm": "sparsecc.passes.fold_batchnorm:FoldBatchNorm",
        "prune-weights": "sparsecc.passes.prune_weights:PruneWeights",
        "measure-sparsity": "sparsecc.passes.measure_sparsity:MeasureSparsity",
        "choose-formats": "sparsecc.passes.choose_formats:ChooseFormats",
        "pack-weights": "sparsecc.passes.pack_weights:PackWeights",
        "fuse-attention": "sparsecc.passes.fuse_attention:FuseAttention",
        "partition-regions": "sparsecc.passes.partition_regions:PartitionRegions",
        "bind-contracts": "sparsecc.passes.bind_contracts:BindContracts",
        "lower-transfers": "sparsecc.passes.lower_transfers:LowerTransfers",
        "schedule-dma": "sparsecc.passes.schedule_dma:ScheduleDMA",
    },
    _is_pass,
    unknown_code="SCC080",
)

TIDY = "canonicalize,fold-masks,fold-constants,fold-batchnorm"
"""What every target begins with: one spelling, weights that are plain constants."""
CPU = f"{TIDY},measure-sparsity,choose-formats,pack-weights,fuse-attention,partition-regions"
DENSE = f"{TIDY},measure-sparsity,choose-formats{{costs=none}},pack-weights"
"""The same model without kernels, where those gain nothing."""


def parse(text: str) -> Pipeline:
    """Build the passes that ``text`` names.

    Raises: CompileError SCC080 for no pass or an unknown one, SCC082 for an unknown or mistyped option, SCC083 for an
    illegal order.
    """
    items = re.findall(r"[^,{}]+(?:\{[^{}]*\}\s*)?", text)
    if not items or ",".join(items) != text:
        raise CompileError.of(
            "SCC080", f"'{text}' is not a list of passes", help=f"for instance: {TIDY},prune-weights{{sparsity=0.9}}"
        )
    return build([_parse_pass(item) for item in items])


def build(passes: list[Pass]) -> Pipeline:
    try:
        return Pipeline(passes)
    except PipelineError as error:
        raise CompileError.of(
            "SCC083",
            f"these passes cannot run in this order: {error}",
            help="`sparsecc passes` shows what each pass needs and provides",
        ) from error


def describe(pipeline: Pipeline) -> str:
    """The text that ``parse`` turns into the same pipeline."""
    return ",".join(p.name + _options_text(p) for p in pipeline.passes)


def _parse_pass(item: str) -> Pass:
    name, _, rest = item.strip().partition("{")
    kind = PASSES.load(name.strip())
    options = dict(_parse_option(kind, name, o) for o in _split(rest.rstrip("}")))
    return kind(**options)


def _split(options: str) -> list[str]:
    """At commas outside parentheses."""
    return [o for o in re.split(r",(?![^()]*\))", options) if o.strip()]


def _parse_option(kind: type[Pass], name: str, option: str) -> tuple[str, object]:
    key, _, value = (part.strip() for part in option.partition("="))
    defaults = {f.name: f.default for f in _fields(kind)}
    if key not in defaults:
        raise CompileError.of(
            "SCC082", f"pass '{name}' has no option '{key}'", help=f"its options: {', '.join(defaults) or 'none'}"
        )
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        parsed = value
    default = defaults[key]
    if isinstance(default, float) and type(parsed) is int:
        parsed = float(parsed)
    if default is not dataclasses.MISSING and type(parsed) is not type(default):
        raise CompileError.of(
            "SCC082",
            f"option '{key}' of pass '{name}' is a {type(default).__name__}, not {value}",
            help=f"for instance {name}{{{key}={default}}}",
        )
    return key, parsed


def _options_text(p: Pass) -> str:
    changed = [f"{f.name}={value}" for f in _fields(type(p)) if (value := getattr(p, f.name)) != f.default]
    return "{" + ",".join(changed) + "}" if changed else ""


def _fields(kind: type[Pass]) -> tuple[dataclasses.Field[object], ...]:
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
