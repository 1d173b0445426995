"""From a tidied Program and calibration data to settled contracts: measure, negotiate, settle, check jointly.

settlement = negotiate(program, calibration, Budget("bytes", 0.3), payload_bytes)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from torch import fx

from sparsecc import reference
from sparsecc.diagnostics import CompileError
from sparsecc.program import Program, where

from .calibration import Calibration, split
from .contract import Contract
from .curves import Curve
from .degradation import measure_degradation
from .int8 import grid
from .joint import Joint, with_shares
from .keys import MOST_SENSITIVE, Bytes, Key
from .maps import SensitivityMap
from .measures import choose_loss, main_output, quality_name
from .negotiation import BlockCost, EdgeLimits, Offer, Wishes, edge_cost, negotiate_edge, spill_noted, why_whole
from .ranges import Range, measure_ranges
from .replay import outputs
from .searches import within_cycles, within_drop
from .sensitivity import measure_sensitivity, traversal_order
from .settled import EdgeRecord, Settlement
from .settlement import Terms, settle
from .stages import Edge, assign_stages, edges
from .topk import WHOLE

Stages = Mapping[fx.Node, int]
Kind = Literal["bytes", "cycles", "accuracy", "keep", "agreed"]
Routing = Literal["magnitude", "sensitivity"]
FLOAT32_BYTES = 4
Makespan = Callable[[Mapping[str, Contract], Mapping[str, SensitivityMap]], int]
"""Cycles that the whole program takes under contracts, with their maps."""


@dataclass(frozen=True)
class Budget:
    """What the contracts may cost.

    "bytes": a share of what all edges take in float32, dense, without headers. "cycles": a share of what the program's
    schedule takes if everything is sent. "accuracy": the greatest drop of quality on held-out data, 0.01 being a
    percentage point. "keep": the same share everywhere, no search. "agreed": no budget, every edge carries what its
    sender and receiver agreed on.
    """

    kind: Kind
    value: float = 0.0


@dataclass(frozen=True)
class Options:
    """How to measure. ``routing`` "magnitude" ranks by |a|, "sensitivity" by |a| times the map's gradient part.

    ``loss`` as in measures, ``form`` and ``block`` as in sensitivity; ``order`` None: what suits each edge. ``dtypes``
    are those that edges may travel as, float32 or int8: the first, and where blocks of it find no room the next.
    """

    loss: str = "auto"
    form: str = "taylor"
    block: int | None = None
    routing: Routing = "magnitude"
    order: str | None = None
    dtypes: tuple[str, ...] = ("float32",)
    tile_elems: int = 1024
    held_out: float = 0.5
    seed: int = 0
    wishes: Wishes = field(default_factory=Wishes)


def negotiate(
    program: Program,
    calibration: Calibration,
    budget: Budget,
    payload_bytes: BlockCost,
    limits: Mapping[str, EdgeLimits] | None = None,
    cycles: BlockCost | None = None,
    options: Options = Options(),
    makespan: Makespan | None = None,
) -> Settlement:
    """Contracts for every edge of the Program that carries float32, of the sizes of its example inputs.

    A budget of bytes is kept exactly; an accuracy budget holds on the held-out part of ``calibration``. One of cycles
    holds for ``makespan``, and needs it and ``cycles``, those of a block.

    Raises: CompileError (SCC047 maps, SCC048 an edge without a contract, SCC058 calibration data, SCC059 a budget).
    """
    stages = assign_stages(program.graph)
    cut = [edge for edge in edges(stages) if edge.carries_float32]
    fitting, checking = split(calibration, options.held_out, options.seed)
    first = fitting.batches()[0]
    loss = choose_loss(options.loss, main_output(outputs(program, first.inputs, {}, {})), calibration.labels)
    orders = {edge.name: options.order or traversal_order(edge.node) for edge in cut}
    maps = measure_sensitivity(program, cut, fitting, loss, orders, options.block, options.form, options.seed)
    sizes = reference.shapes(program)
    elems = {edge.name: int(sizes[edge.name][1:].numel()) for edge in cut}
    allowed = {edge.name: (limits or {}).get(edge.name, EdgeLimits()) for edge in cut}
    offers = {
        edge.name: negotiate_edge(
            edge.name,
            elems[edge.name],
            maps[edge.name].sensitivity,
            _receivers(edge, cut, maps, stages),
            allowed[edge.name],
            payload_bytes,
            cycles,
            options.tile_elems,
            options.wishes,
            where(edge.node),
            options.dtypes,
            asked_q16=round(budget.value * WHOLE) if budget.kind == "keep" else 0,
        )
        for edge in cut
    }
    ranges = measure_ranges(program, [name for name, offer in offers.items() if offer.dtype == "int8"], fitting)
    counted = cycles if budget.kind in ("accuracy", "cycles") else None  # bytes and keep are orders about bytes
    reasons = _better_whole(offers, elems, {n: offer.lo_q16 for n, offer in offers.items()}, payload_bytes, counted)
    offers |= {name: replace(offers[name], lo_q16=WHOLE, adjusted_q16=WHOLE) for name in reasons}
    measured = maps
    if options.routing == "magnitude":
        maps = {name: replace(m, gradient=np.full_like(m.gradient, MOST_SENSITIVE)) for name, m in maps.items()}
    whole = {name: _whole(name, offer, maps[name], orders[name], ranges.get(name)) for name, offer in offers.items()}
    searching = budget.kind in ("bytes", "cycles", "accuracy")
    curves = measure_degradation(program, cut, fitting, whole, maps, loss) if searching else {}
    joint = Joint(program, checking, loss, maps, whole)

    def late(shares: Mapping[str, int]) -> dict[str, str]:
        return _better_whole(offers, elems, shares, payload_bytes, counted)

    def length(shares: Mapping[str, int]) -> int:
        assert makespan is not None
        return makespan(with_shares(whole, {**shares, **dict.fromkeys(late(shares), WHOLE)}), maps)

    shares = _shares(budget, offers, curves, elems, payload_bytes, cycles, joint, length)
    stay = late(shares)
    shares |= dict.fromkeys(stay, WHOLE)
    reasons |= stay
    log = tuple(
        _record(
            name,
            offers[name],
            elems[name],
            share,
            curves.get(name),
            payload_bytes,
            allowed[name],
            budget,
            reasons.get(name),
        )
        for name, share in shares.items()
    )
    settled = with_shares(whole, shares)
    quality = quality_name(loss, calibration.labels)
    return Settlement(tuple(settled.values()), maps, log, loss, quality, joint.dense, joint.estimate(shares), measured)


def _receivers(edge: Edge, cut: Sequence[Edge], maps: Mapping[str, SensitivityMap], stages: Stages) -> list[Bytes]:
    """The maps of what the readers of an edge send on themselves."""
    homes = {stages[reader] for reader in edge.readers}
    return [maps[other.name].sensitivity for other in cut if other.stage in homes]


def _better_whole(
    offers: Mapping[str, Offer],
    elems: Mapping[str, int],
    shares: Mapping[str, int],
    payload_bytes: BlockCost,
    cycles: BlockCost | None,
) -> dict[str, str]:
    """The edges that may send everything and had better than these shares, with the reasons."""
    able = {name: offer for name, offer in offers.items() if offer.hi_q16 == WHOLE > shares[name]}
    reasons = {
        name: why_whole(elems[name], offer.tile_elems, shares[name], payload_bytes, cycles, offer.dtype)
        for name, offer in able.items()
    }
    return {name: reason for name, reason in reasons.items() if reason}


def _whole(name: str, offer: Offer, measured: SensitivityMap, order: str, range_: Range | None) -> Contract:
    """``range_`` is that of the values, of an edge that travels as int8."""
    scale, key = grid(*range_) if range_ else (0.0, Key("float32"))
    fixed = Contract.fixed(name, key, WHOLE, tile_elems=offer.tile_elems, map_block=measured.block)
    return replace(fixed, order=order, scale=scale)


def _shares(
    budget: Budget,
    offers: Mapping[str, Offer],
    curves: Mapping[str, Curve],
    elems: Mapping[str, int],
    payload_bytes: BlockCost,
    cycles: BlockCost | None,
    joint: Joint,
    makespan: Callable[[Mapping[str, int]], int],
) -> dict[str, int]:
    if budget.kind == "agreed":
        return {name: offer.adjusted_q16 for name, offer in offers.items()}
    if budget.kind == "keep":
        return {name: min(round(budget.value * WHOLE), offer.hi_q16) for name, offer in offers.items()}
    block_cost = cycles if budget.kind == "cycles" and cycles is not None else payload_bytes
    terms = {
        name: Terms(
            curves[name],
            functools.partial(
                edge_cost,
                block_cost,
                elems[name],
                offer.tile_elems,
                most_q16=offer.hi_q16,
                dtype=offer.dtype,
            ),
            offer.lo_q16,
            offer.hi_q16,
        )
        for name, offer in offers.items()
    }
    if budget.kind == "accuracy":
        return within_drop(budget.value, terms, joint)
    if budget.kind == "cycles":
        return within_cycles(budget.value, terms, makespan)
    unit = FLOAT32_BYTES * sum(elems.values())
    shares = settle(terms, int(budget.value * unit))
    if shares is None:
        leasts = {name: t.cost(t.lo_q16) for name, t in terms.items()}
        least, greatest = sum(leasts.values()), max(leasts, key=leasts.__getitem__)
        enough = next((n / 1000 for n in range(1, 1001) if int(n / 1000 * unit) >= least), None)
        raise CompileError.of(
            "SCC059",
            f"the contracts may take {int(budget.value * unit)} bytes, but what every receiver needs at least "
            f"takes {least} (most of all edge {greatest}: {leasts[greatest]}), and all of the dense bytes are {unit}",
            help=f"give --bytes-budget {enough:g} or more"
            if enough
            else "blocks have headers, and those of small tensors outweigh what is left out: "
            "give --accuracy-budget instead",
        )
    return shares


def _record(
    name: str,
    offer: Offer,
    elems: int,
    share: int,
    curve: Curve | None,
    payload_bytes: BlockCost,
    limits: EdgeLimits,
    budget: Budget,
    why_whole: str | None,
) -> EdgeRecord:
    binding = offer.binding
    if budget.kind != "agreed":
        at_end = {offer.hi_q16: offer.hi_binding, offer.lo_q16: "receiver's need"}
        binding = at_end.get(share, f"budget of {budget.kind}") if share < WHOLE else "nothing"
    binding = why_whole or binding
    if offer.counter_offer:
        binding = f"{binding}; {offer.dtype} for the block buffer"
    return EdgeRecord(
        edge=name,
        elems=elems,
        tile_elems=offer.tile_elems,
        proposed_q16=offer.proposed_q16,
        adjusted_q16=offer.adjusted_q16,
        lo_q16=offer.lo_q16,
        hi_q16=offer.hi_q16,
        settled_q16=share,
        binding=spill_noted(binding, min(elems, offer.tile_elems), share, limits, payload_bytes, offer.dtype),
        degradation=None if curve is None else curve.at(share),
        dense_bytes=FLOAT32_BYTES * elems,
        settled_bytes=edge_cost(payload_bytes, elems, offer.tile_elems, share, offer.dtype),
        dtype=offer.dtype,
    )
