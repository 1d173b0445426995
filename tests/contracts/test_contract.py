"""Contracts as data: ranges, JSON from strangers, whole sentences."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecc.contracts import Contract, Key, check_contract, check_contract_fits, from_json, to_json, transmit
from sparsecc.contracts.contract import fill_in_16_bits
from sparsecc.contracts.keys import DTYPES
from sparsecc.diagnostics import CompileError

from .cases import contracts

GOOD = Contract("conv1", Key("float32"), 19_661, 16_384, 32_768, period=64, margin_lo_q16=50_000, margin_hi_q16=60_000)


def test_k_of_a_tile_and_of_a_ragged_one() -> None:
    assert [(GOOD.k_lo(n), GOOD.k(n), GOOD.k_hi(n)) for n in (1024, 100)] == [(256, 307, 512), (25, 30, 50)]


@given(st.sampled_from(DTYPES).flatmap(contracts))
def test_json_round_trip(contract: Contract) -> None:
    assert from_json(to_json([contract, replace(contract, edge="y")])) == (contract, replace(contract, edge="y"))


def test_json_is_as_published() -> None:
    """Another implementation reads this: changing it needs a new schema."""
    assert json.loads(to_json([GOOD])) == {
        "schema": 4,
        "contracts": [
            {
                "edge": "conv1",
                "key": {"dtype": "float32", "bits": 16, "shift": 0, "base": 0, "zero_point": 0},
                "share_q16": 19_661,
                "share_lo_q16": 16_384,
                "share_hi_q16": 32_768,
                "tile_elems": 1024,
                "map_block": 1,
                "axis": 1,
                "period": 64,
                "margin_lo_q16": 50_000,
                "margin_hi_q16": 60_000,
                "fill": "zero",
                "fill_value": 0.0,
                "skip_zero": False,
                "order": "rows",
                "scale": 0.0,
            }
        ],
    }


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"key": Key("float64")}, "no key is defined for float64, only for int8, float16, bfloat16, float32"),
    ({"key": Key("float32", 12)}, "keys have 8 or 16 bits, not 12"),
    ({"key": Key("float32", shift=16)}, "key shift 16 is not in 0..15"),
    ({"key": Key("float32", base=-1)}, "key base -1 is not in 0..32767"),
    ({"key": Key("int8", base=1)}, "key base 1 is not in 0..0, as int8 has none"),
    ({"key": Key("int8", zero_point=128)}, "int8 cannot have zero point 128"),
    ({"key": Key("float32", zero_point=1)}, "float32 cannot have zero point 1"),
    ({"share_q16": 65_537}, "shares 16384 <= 65537 <= 32768 do not ascend within 0..65536"),
    ({"share_hi_q16": 65_537}, "shares 16384 <= 19661 <= 65537 do not ascend within 0..65536"),
    ({"tile_elems": 0}, "a tile of 0 elements is not in 1..65535"),
    ({"tile_elems": 65_536}, "a tile of 65536 elements is not in 1..65535"),
    ({"map_block": 0}, "a map block of 0 elements is not in 1..2147483647"),
    ({"axis": -1}, "axis -1 is not in 0..7"),
    ({"period": -1}, "a period of -1 tiles is not in 0..65535"),
    ({"margin_lo_q16": 60_001}, "margins 60001 <= 60000 do not ascend within 0..65535"),
    ({"margin_hi_q16": 65_536}, "margins 50000 <= 65536 do not ascend within 0..65535"),
    (
        {"period": 0, "share_lo_q16": 19_661, "share_hi_q16": 19_661},
        "there are margins, but period 0 never compares with them",
    ),
    ({"period": 0, "margin_lo_q16": 0, "margin_hi_q16": 0}, "the share has room to move, but period 0 never moves it"),
    ({"fill": "median"}, "fill 'median' is none of zero, mean"),
    ({"fill": "mean", "fill_value": 0.1}, "a fill of 0.1 is not one of the float32 numbers that 16 bits tell"),
    ({"fill_value": 0.5}, "fill 'zero' has the value 0.5"),
    ({"scale": 0.5}, "float32 travels as it is, and there is a scale of 0.5"),
    ({"key": Key("int8"), "scale": 0.1}, "a scale of 0.1 is no normal float32 number above 0"),
    ({"key": Key("int8"), "scale": -0.5}, "a scale of -0.5 is no normal float32 number above 0"),
    ({"key": Key("int8"), "scale": 2.0**-127}, f"a scale of {2.0**-127!r} is no normal float32 number above 0"),
    ({"key": Key("int8"), "scale": float("inf")}, "a scale of inf is no normal float32 number above 0"),
    ({"order": "columns"}, "order 'columns' is none of rows, channels-last"),
]


def test_a_good_contract_has_no_findings() -> None:
    assert list(check_contract(GOOD)) == []


@pytest.mark.parametrize(("change", "message"), MISTAKES)
def test_values_out_of_range(change: dict[str, Any], message: str) -> None:
    (finding,) = check_contract(replace(GOOD, **change))
    assert str(finding) == (
        f"error[SCC043]: contract on conv1: {message}\n  help: negotiate the contracts again: compile the model again"
    )


@pytest.mark.parametrize(
    ("dtype", "value", "rounded"),
    [
        ("float32", 0.1, 0.10009765625),
        ("float32", 1.00390625, 1.0),  # to even
        ("bfloat16", -3.0, -3.0),
        ("float16", 0.1, 0.0999755859375),
        ("int8", 3.7, 4.0),
        ("int8", 300.0, 127.0),
        ("float32", float("nan"), 0.0),
        ("float16", 1e9, 0.0),
    ],
)
def test_fills_have_16_bits(dtype: str, value: float, rounded: float) -> None:
    assert fill_in_16_bits(dtype, value) == rounded
    contract = replace(GOOD, key=Key(dtype), fill="mean", fill_value=rounded)
    assert list(check_contract(contract)) == []
    x = np.zeros((1, 1024), np.float32 if dtype == "bfloat16" else dtype)
    if dtype != "bfloat16":  # numpy has none
        arrived, sent = transmit(x, np.ones(1, np.uint8), contract)
        assert set(arrived[~sent].tolist()) == {rounded}


def test_contract_and_edge() -> None:
    contract = replace(GOOD, map_block=4)
    for elems, map_elems in ((12, 3), (11, 3), (24, 3)):
        assert not list(check_contract_fits(contract, (2, elems), "float32", map_elems))
    for elems, map_elems in ((13, 3), (8, 3), (4, 0)):
        (finding,) = check_contract_fits(contract, (2, elems), "float32", map_elems)
        assert finding.code == "SCC044"
        assert finding.message == (
            f"contract on conv1 has a sensitivity map of {map_elems} blocks of 4 elements, which does not divide the "
            f"{elems} elements of a sample"
        )
    as_int8 = replace(GOOD, key=Key("int8"), scale=0.5)
    assert not list(check_contract_fits(as_int8, (2, 4), "float32", 4))
    (finding,) = check_contract_fits(as_int8, (2, 4), "int8", 4)
    assert finding.message == "contract on conv1 is for float32, but the edge carries int8"
    (finding,) = check_contract_fits(GOOD, (2, 4), "int8", 4)
    assert finding.message == "contract on conv1 is for float32, but the edge carries int8"
    (finding,) = check_contract_fits(replace(GOOD, axis=3), (2, 4), "float32", 4)
    assert finding.message == "contract on conv1 begins at axis 3, but the edge has 2 axes"


def changed(**fields: object) -> str:
    tree = json.loads(to_json([GOOD]))
    tree["contracts"][0].update(fields)
    return json.dumps(tree)


def without(field: str) -> str:
    tree = json.loads(to_json([GOOD]))
    del tree["contracts"][0][field]
    return json.dumps(tree)


UNREADABLE: list[tuple[str | bytes, str]] = [
    ("[1, 2", "is not valid JSON: "),
    (b"\xff\xfe\xfd", "is not valid JSON: "),
    ("[" * 100_000, "is not valid JSON: "),
    ("[]", "has no object at the top"),
    ("{}", "is not an object of schema 4 and contracts"),
    ('{"schema": true, "contracts": []}', "is not an object of schema 4 and contracts"),
    ('{"schema": 4, "contracts": {}}', "is not an object of schema 4 and contracts"),
    ('{"schema": 4, "contracts": [1]}', "has no object at contracts[0]"),
    (changed(key=3), "has no object at contracts[0].key"),
    (changed(key={}), "lacks contracts[0].key.base"),
    (changed(share_q16=1.5), "has a float at contracts[0].share_q16, expected int"),
    (changed(share_q16=True), "has a bool at contracts[0].share_q16, expected int"),
    (changed(scale=1), "has a int at contracts[0].scale, expected float"),
    (changed(edge=None), "has a NoneType at contracts[0].edge, expected str"),
    (changed(edge="\x1b[2J"), r"has control characters in contracts[0].edge: '\x1b[2J'"),
    (changed(more=1), "has an unknown field 'more' in contracts[0]"),
    (without("order"), "lacks contracts[0].order"),
]


@pytest.mark.parametrize(("text", "message"), UNREADABLE)
def test_json_from_strangers(text: str | bytes, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        from_json(text)
    assert str(caught.value).startswith(f"error[SCC045]: contracts.json {message}")


def test_two_contracts_on_one_edge() -> None:
    with pytest.raises(CompileError, match="has two contracts on 'conv1'"):
        from_json(to_json([GOOD, GOOD]))


def test_a_newer_schema() -> None:
    with pytest.raises(CompileError) as caught:
        from_json('{"schema": 5}', "m.sparsecc/contracts.json")
    assert str(caught.value) == (
        "error[SCC046]: m.sparsecc/contracts.json has schema 5; this sparsecc reads up to schema 4\n"
        "  help: upgrade sparsecc, or compile the model again with this version"
    )


def test_values_are_checked_on_both_sides_of_a_file() -> None:
    with pytest.raises(CompileError, match="SCC043"):
        from_json(changed(tile_elems=0))
    with pytest.raises(CompileError, match="SCC043"):
        to_json([replace(GOOD, tile_elems=0)])
