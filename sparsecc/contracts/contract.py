"""What an edge of the network transmits: the settled contract, its checks, and its JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, cast, get_type_hints

import numpy as np
import torch

from sparsecc.diagnostics import CompileError, Diagnostic, Where

from .int8 import dequantise, is_scale, quantise
from .keys import DTYPES, Array, Bytes, Key, make_keys
from .topk import (
    MAX_TILE_ELEMS,
    WHOLE,
    Mask,
    Moves,
    Selector,
    fill_dropped,
    first_k,
    keep_elems,
    select,
    select_moving,
)

SCHEMA = 4
"""Rises when contracts written by this sparsecc could be misread by an older one."""
FILLS = ("zero", "mean")
ORDERS = ("rows", "channels-last")
MAX_BLOCK_ELEMS = 2**31 - 1
MAX_AXIS = 7
MAX_PERIOD_TILES = 65_535
MAX_MARGIN = 65_535

Record = TypeVar("Record")


@dataclass(frozen=True)
class Contract:
    """The share of an edge's elements that is sent, and how they are chosen. Plain data: see check_contract.

    Shares are in 1/65536. Within a sample the share may move from share_q16, within [share_lo_q16, share_hi_q16], every
    ``period`` tiles (0: it never moves): down where they kept more than margin_hi_q16 of their key mass, up where less
    than margin_lo_q16. Buffers and schedules are made for the upper end. A sample is what the axes before ``axis``
    enumerate; its elements are traversed in row-major order, by ``order`` "channels-last" with ``axis`` moved to the
    end. Then a tile holds all channels of some pixels, not all pixels of some channels, and the map has S channels.

    With a ``scale`` the edge carries float32 and travels as int8 (int8.py): keys, k, and fill are those of int8.
    """

    edge: str
    key: Key
    share_q16: int
    share_lo_q16: int
    share_hi_q16: int
    tile_elems: int = 1024
    map_block: int = 1  # elements
    axis: int = 1
    period: int = 0  # tiles
    margin_lo_q16: int = 0
    margin_hi_q16: int = 0
    fill: str = "zero"  # int8: the zero point. "mean": fill_value, of what calibration data drop
    fill_value: float = 0.0
    skip_zero: bool = False  # kept elements that equal the fill are not sent: the payload's length varies
    order: str = "rows"
    scale: float = 0.0  # of float32 that travels as int8; 0: elements travel as they are

    @classmethod
    def fixed(cls, edge: str, key: Key, share_q16: int, *, tile_elems: int = 1024, map_block: int = 1) -> Contract:
        """A share that never moves."""
        return cls(edge, key, share_q16, share_q16, share_q16, tile_elems, map_block)

    def k(self, elems: int) -> int:
        """Elements kept of a tile of ``elems``."""
        return keep_elems(elems, self.share_q16)

    def k_lo(self, elems: int) -> int:
        return keep_elems(elems, self.share_lo_q16)

    def k_hi(self, elems: int) -> int:
        """What a buffer for the payload of a tile must hold."""
        return keep_elems(elems, self.share_hi_q16)

    @property
    def keeps_everything(self) -> bool:
        """Whether the edge travels whole, as without a contract."""
        return self.share_lo_q16 == WHOLE and not self.scale

    @property
    def edge_dtype(self) -> str:
        """What the edge carries; ``key.dtype`` is what travels."""
        return "float32" if self.scale else self.key.dtype

    @property
    def dropped(self) -> float:
        """What stands for dropped elements, of the dtype that travels."""
        return self.fill_value if self.fill == "mean" else self.key.zero_point

    @property
    def moves(self) -> Moves:
        shares = self.share_q16, self.share_lo_q16, self.share_hi_q16
        return Moves(*shares, self.period, self.margin_lo_q16, self.margin_hi_q16)


def transmit(
    x: Array,
    sensitivity: Bytes,
    contract: Contract,
    fill: Array | None = None,
    selector: Selector = first_k,
) -> tuple[Array, Mask]:
    """What arrives of x, and which elements are sent: the reference of torch, onnxruntime and the simulator.

    Shapes: x [..., elements from contract.axis on]; sensitivity u8 [S], of blocks of contract.map_block elements; fill,
    of the dtype that travels, one value per element in traversal order (spread it) or one for all; both results have
    the shape of x.
    """
    if contract.scale:
        grid = contract.scale, contract.key.zero_point
        values, sent = transmit(quantise(x, *grid), sensitivity, replace(contract, scale=0.0), fill, selector)
        return dequantise(values, *grid), sent
    if contract.order == "channels-last":
        moved = np.moveaxis(x, contract.axis, -1)
        values, sent = transmit(moved, sensitivity, replace(contract, order="rows"), fill, selector)
        return np.moveaxis(values, -1, contract.axis), np.moveaxis(sent, -1, contract.axis)
    samples = int(np.prod(x.shape[: contract.axis]))
    flat = x.reshape(samples, int(np.prod(x.shape[contract.axis :])))
    keys = make_keys(flat, sensitivity, contract.map_block, contract.key)
    if contract.period:
        kept = select_moving(keys, contract.moves, contract.tile_elems, selector)
    else:
        kept = select(keys, contract.share_q16, contract.tile_elems, selector)
    if fill is None:
        fill = np.array([contract.dropped], x.dtype)
    values, sent = fill_dropped(flat, kept, fill, contract.skip_zero)
    return values.reshape(x.shape), sent.reshape(x.shape)


# ---- checks ----------------------------------------------------------------------------------------------------------


def check_contract(contract: Contract) -> Iterator[Diagnostic]:
    """What no target could do: SCC043 per field that is out of range."""
    for message in _mistakes(contract):
        yield Diagnostic(
            "SCC043",
            f"contract on {contract.edge}: {message}",
            help="negotiate the contracts again: compile the model again",
        )


def _mistakes(contract: Contract) -> Iterator[str]:
    key, lo, share, hi = contract.key, contract.share_lo_q16, contract.share_q16, contract.share_hi_q16
    margin_lo, margin_hi = contract.margin_lo_q16, contract.margin_hi_q16
    if key.dtype not in DTYPES:
        yield f"no key is defined for {key.dtype}, only for {', '.join(DTYPES)}"
    if key.bits not in (8, 16):
        yield f"keys have 8 or 16 bits, not {key.bits}"
    if not 0 <= key.shift <= 15:
        yield f"key shift {key.shift} is not in 0..15"
    if not 0 <= key.base <= (0 if key.dtype == "int8" else 0x7FFF):
        yield f"key base {key.base} is not in " + ("0..0, as int8 has none" if key.dtype == "int8" else "0..32767")
    if not (-128 <= key.zero_point <= 127 if key.dtype == "int8" else key.zero_point == 0):
        yield f"{key.dtype} cannot have zero point {key.zero_point}"
    if not 0 <= lo <= share <= hi <= WHOLE:
        yield f"shares {lo} <= {share} <= {hi} do not ascend within 0..{WHOLE}"
    if not 1 <= contract.tile_elems <= MAX_TILE_ELEMS:
        yield f"a tile of {contract.tile_elems} elements is not in 1..{MAX_TILE_ELEMS}"
    if not 1 <= contract.map_block <= MAX_BLOCK_ELEMS:
        yield f"a map block of {contract.map_block} elements is not in 1..{MAX_BLOCK_ELEMS}"
    if not 0 <= contract.axis <= MAX_AXIS:
        yield f"axis {contract.axis} is not in 0..{MAX_AXIS}"
    if not 0 <= contract.period <= MAX_PERIOD_TILES:
        yield f"a period of {contract.period} tiles is not in 0..{MAX_PERIOD_TILES}"
    if contract.period == 0 and not lo == share == hi:
        yield "the share has room to move, but period 0 never moves it"
    if not 0 <= margin_lo <= margin_hi <= MAX_MARGIN:
        yield f"margins {margin_lo} <= {margin_hi} do not ascend within 0..{MAX_MARGIN}"
    elif contract.period == 0 and margin_hi:
        yield "there are margins, but period 0 never compares with them"
    if contract.fill not in FILLS:
        yield f"fill '{contract.fill}' is none of {', '.join(FILLS)}"
    elif contract.fill_value != fill_in_16_bits(contract.key.dtype, contract.fill_value):
        yield f"a fill of {contract.fill_value!r} is not one of the {key.dtype} numbers that 16 bits tell"
    elif contract.fill == "zero" and contract.fill_value:
        yield f"fill 'zero' has the value {contract.fill_value!r}"
    if contract.scale and key.dtype != "int8":
        yield f"{key.dtype} travels as it is, and there is a scale of {contract.scale!r}"
    elif contract.scale and not is_scale(contract.scale):
        yield f"a scale of {contract.scale!r} is no normal float32 number above 0"
    if contract.order not in ORDERS:
        yield f"order '{contract.order}' is none of {', '.join(ORDERS)}"


def fill_in_16_bits(dtype: str, value: float) -> float:
    """The number nearest to ``value`` that field ``fill`` of a descriptor can tell: of float32 its upper 16 bits."""
    if dtype == "int8":
        return float(min(127, max(-128, round(value)))) if np.isfinite(value) else 0.0
    kind = torch.float16 if dtype == "float16" else torch.bfloat16
    rounded = torch.tensor(value, dtype=torch.float32).to(kind).item()
    return float(rounded) if np.isfinite(rounded) else 0.0


def check_contract_fits(
    contract: Contract, shape: Sequence[int], dtype: str, map_elems: int, where: Where | None = None
) -> Iterator[Diagnostic]:
    """SCC044 where the edge's tensor, or its sensitivity map of ``map_elems`` entries, is not the contract's."""
    help_text = "the contracts belong to another model, or it has changed since: compile it again"
    if dtype != contract.edge_dtype:
        message = f"contract on {contract.edge} is for {contract.edge_dtype}, but the edge carries {dtype}"
        yield Diagnostic("SCC044", message, where, help_text)
    if contract.axis > len(shape):
        message = f"contract on {contract.edge} begins at axis {contract.axis}, but the edge has {len(shape)} axes"
        yield Diagnostic("SCC044", message, where, help_text)
        return
    elems = int(np.prod(shape[contract.axis :]))
    covered = map_elems * contract.map_block
    if map_elems < 1 or not (elems % covered == 0 or 0 <= covered - elems < contract.map_block):
        message = (
            f"contract on {contract.edge} has a sensitivity map of {map_elems} blocks of {contract.map_block} "
            f"elements, which does not divide the {elems} elements of a sample"
        )
        yield Diagnostic("SCC044", message, where, help_text)


def verify_contracts(contracts: Iterable[Contract]) -> None:
    """Raises: CompileError SCC043 with every finding."""
    if found := [finding for contract in contracts for finding in check_contract(contract)]:
        raise CompileError(found)


# ---- JSON ------------------------------------------------------------------------------------------------------------


def to_json(contracts: Sequence[Contract]) -> str:
    """The contracts as text, in their order; what this returns, ``from_json`` reads."""
    verify_contracts(contracts)
    tree = {"schema": SCHEMA, "contracts": [dataclasses.asdict(contract) for contract in contracts]}
    return json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str | bytes, name: str = "contracts.json") -> tuple[Contract, ...]:
    """Read untrusted contracts; ``name`` is what errors call the file.

    Raises: CompileError (SCC043 a value out of range, SCC045 not contracts, SCC046 a newer schema).
    """
    try:
        tree = cast(object, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise _unreadable(name, f"is not valid JSON: {error}") from error
    fields = _object(name, "the top", tree)
    schema = fields.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise CompileError.of(
            "SCC046",
            f"{name} has schema {schema}; this sparsecc reads up to schema {SCHEMA}",
            help="upgrade sparsecc, or compile the model again with this version",
        )
    entries = fields.get("contracts")
    if schema != SCHEMA or type(schema) is not int or not isinstance(entries, list) or len(fields) != 2:
        raise _unreadable(name, f"is not an object of schema {SCHEMA} and contracts")
    contracts = tuple(_read_contract(name, i, entry) for i, entry in enumerate(cast("list[object]", entries)))
    edges = [contract.edge for contract in contracts]
    if repeated := [edge for i, edge in enumerate(edges) if edge in edges[:i]]:
        raise _unreadable(name, f"has two contracts on {repeated[0]!a}")
    verify_contracts(contracts)
    return contracts


def _read_contract(name: str, index: int, value: object) -> Contract:
    at = f"contracts[{index}]"
    fields = _object(name, at, value)
    key = _read(Key, name, f"{at}.key", _object(name, f"{at}.key", fields.get("key")))
    contract = _read(Contract, name, at, {**fields, "key": key})
    if not contract.edge.isprintable():  # it reaches terminals
        raise _unreadable(name, f"has control characters in {at}.edge: {contract.edge!a}")
    return contract


def _read(kind: type[Record], name: str, at: str, fields: dict[str, object]) -> Record:
    hints = get_type_hints(kind)
    if wrong := set(hints) ^ set(fields):
        field = min(wrong)
        raise _unreadable(name, f"lacks {at}.{field}" if field in hints else f"has an unknown field {field!a} in {at}")
    for field, hint in hints.items():
        if type(fields[field]) is not hint:
            raise _unreadable(name, f"has a {type(fields[field]).__name__} at {at}.{field}, expected {hint.__name__}")
    return kind(**fields)


def _object(name: str, at: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _unreadable(name, f"has no object at {at}")
    return cast("dict[str, object]", value)


def _unreadable(name: str, message: str) -> CompileError:
    return CompileError.of(
        "SCC045",
        f"{name} {message}",
        help="the file was changed after sparsecc wrote it, or is not sparsecc's; compile the model again",
    )
