"""The 64 bytes of a descriptor."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecc.backends.scu.descriptor import DESCRIPTOR_BYTES, LAYOUT, Descriptor, Op, extent, pack, unpack

GOLDEN = Descriptor(
    op=1, flags=2, dtype=3, codec=4, contract=0x0605, k=0x0807, acq_sem=9, acq_ge=10, rel_sem=11, rel_add=12,
    tile_n=0x0E0D, tiles=0x100F, src=0x1817161514131211, dst=0x201F1E1D1C1B1A19, run_bytes=0x24232221, reps1=0x2625,
    reps2=0x2827, src_st1=0x2C2B2A29, dst_st1=0x302F2E2D, src_st2=0x34333231, dst_st2=0x38373635, smap=0x3A39,
    fill=0x3C3B, next=0x3E3D, tag=0x403F,
)  # fmt: skip


def test_every_field_is_where_the_specification_puts_it() -> None:
    assert pack([GOLDEN]) == bytes(range(1, 65))
    assert unpack(bytes(range(1, 65))) == (GOLDEN,)


def test_offsets_of_the_specification() -> None:
    offsets = {name: field[1] for name, field in (LAYOUT.fields or {}).items()}
    wanted = {"op": 0, "contract": 4, "acq_sem": 8, "tile_n": 12, "src": 16, "dst": 24, "run_bytes": 32}
    wanted |= {"reps1": 36, "src_st1": 40, "dst_st1": 44, "src_st2": 48, "dst_st2": 52, "smap": 56, "tag": 62}
    assert {name: offsets[name] for name in wanted} == wanted
    assert LAYOUT.itemsize == DESCRIPTOR_BYTES


@given(st.lists(st.binary(min_size=64, max_size=64), max_size=4).map(b"".join))
def test_any_bytes_round_trip(data: bytes) -> None:
    assert pack(unpack(data)) == data


def test_numbers_beyond_their_fields() -> None:
    with pytest.raises(OverflowError):
        pack([Descriptor(Op.NOP, tag=65_536)])
    with pytest.raises(ValueError, match="buffer size must be a multiple"):
        unpack(bytes(63))


STRIDES = st.tuples(st.integers(-9, 9), st.integers(-9, 9))


@given(st.integers(1, 5), st.tuples(st.integers(1, 4), st.integers(1, 4)), STRIDES)
def test_extent_is_that_of_all_bytes(run: int, reps: tuple[int, int], strides: tuple[int, int]) -> None:
    touched = [
        100 + i * strides[0] + j * strides[1] + b
        for i, j, b in itertools.product(range(reps[0]), range(reps[1]), range(run))
    ]
    assert extent(100, run, reps, strides) == (min(touched), max(touched) + 1)
