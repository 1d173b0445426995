"""Contracts that nobody negotiates: the same share on every edge, or those of an earlier compile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparsecc import reference
from sparsecc.diagnostics import CompileError
from sparsecc.program import Program, where

from .contract import Contract
from .keys import Key
from .maps import SensitivityMap, uniform_map
from .negotiation import BlockCost, EdgeLimits, Wishes, edge_cost, negotiate_edge, spill_noted, why_whole
from .procedure import FLOAT32_BYTES
from .settled import EdgeRecord, Settled
from .stages import Edge, assign_stages, edges
from .topk import WHOLE


def uniform(program: Program, share_q16: int, payload_bytes: BlockCost, limits: EdgeLimits, tile_elems: int) -> Settled:
    """The same share on every edge, by magnitude alone, in tiles that the unit's memory has room for, or spilled."""
    contracts, log, measured = list[Contract](), list[EdgeRecord](), uniform_map()
    least = Wishes(sender_mass=0.0, receiver_mass=0.0)
    for edge, elems in _sized(program):
        offer = negotiate_edge(
            edge.name,
            elems,
            measured.sensitivity,
            (),
            limits,
            payload_bytes,
            tile_elems=tile_elems,
            wishes=least,
            where=where(edge.node),
            asked_q16=share_q16,
        )
        share = min(share_q16, offer.hi_q16)
        binding = "share to keep" if share == share_q16 else offer.hi_binding
        if share < WHOLE == offer.hi_q16 and (reason := why_whole(elems, offer.tile_elems, share, payload_bytes)):
            share, binding = WHOLE, reason
        contract = Contract.fixed(edge.name, Key("float32"), share, tile_elems=offer.tile_elems)
        contracts.append(contract)
        log.append(_record(contract, elems, binding, limits, payload_bytes))
    return Settled(tuple(contracts), {c.edge: measured for c in contracts}, tuple(log))


def given(
    program: Program,
    contracts: Sequence[Contract],
    maps: Mapping[str, SensitivityMap],
    payload_bytes: BlockCost,
    limits: EdgeLimits | None = None,
) -> Settled:
    """Contracts as they are; where their blocks are beyond the ``limits``, the log tells that they spill.

    Raises: CompileError SCC044 unless they are on the edges of the Program, all of them.
    """
    sized = {edge.name: elems for edge, elems in _sized(program)}
    names = {contract.edge for contract in contracts}
    if names != set(sized):
        only, without = sorted(names - set(sized)), sorted(set(sized) - names)
        what = f"one is on {only[0]}, which is no edge of this model" if only else f"edge {without[0]} has none"
        raise CompileError.of(
            "SCC044",
            f"the contracts are not for this model: {what}",
            help="give contracts that were settled for it, or its fine-tuned weights; or negotiate new ones",
        )
    log = [
        _record(contract, sized[contract.edge], "given", limits or EdgeLimits(), payload_bytes)
        for contract in contracts
    ]
    return Settled(tuple(contracts), maps, tuple(log))


def _sized(program: Program) -> list[tuple[Edge, int]]:
    """The edges that carry float32, and their elements of one sample."""
    sizes = reference.shapes(program)
    cut = [edge for edge in edges(assign_stages(program.graph)) if edge.carries_float32]
    return [(edge, int(sizes[edge.name][1:].numel())) for edge in cut]


def _record(contract: Contract, elems: int, binding: str, limits: EdgeLimits, payload_bytes: BlockCost) -> EdgeRecord:
    tile_elems = min(elems, contract.tile_elems)
    return EdgeRecord(
        edge=contract.edge,
        elems=elems,
        tile_elems=contract.tile_elems,
        proposed_q16=None,
        adjusted_q16=None,
        lo_q16=None,
        hi_q16=None,
        settled_q16=contract.share_q16,
        binding=spill_noted(binding, tile_elems, contract.share_hi_q16, limits, payload_bytes, contract.key.dtype),
        degradation=None,
        dense_bytes=FLOAT32_BYTES * elems,
        settled_bytes=edge_cost(payload_bytes, elems, contract.tile_elems, contract.share_hi_q16, contract.key.dtype),
        dtype=contract.key.dtype,
    )
