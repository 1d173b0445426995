"""What each operation does to the unit's memories, exactly. Normative, with sparsecc.contracts for keys and selection.

Register key_base of a dtype: its low 16 bits, signed, are the base of a float's key and the zero point of int8. Of
key_shift the low 4 bits count. SEND without SCORED ranks with the greatest sensitivity, 255, everywhere. With SCORED,
element j of the descriptor, counted across its tiles, has the map's entry ``smap + j // dst_st2``. With codec RAW
everything is kept: no keys, no register moves.

A descriptor reads all of its source before it writes. SEND writes the block of each tile, and leaves the rest of what
is reserved for it as it is. RECV refuses a block of another codec, dtype or tile length than its own, or with more than
k elements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from sparsecc.backends.scu.codecs import HEADER_BYTES, Codec, Dtype, Header, decode, encode
from sparsecc.backends.scu.descriptor import Descriptor, Flag, Op
from sparsecc.backends.scu.machine import DTYPES, OFFSET_MASK, Target
from sparsecc.backends.scu.timing import memory_at
from sparsecc.backends.scu.unit_program import UnitProgram
from sparsecc.contracts.keys import Key, Keys, make_keys
from sparsecc.contracts.topk import Mask, fill_dropped, first_k
from sparsecc.diagnostics import CompileError

from .memory import Bytes, Memories
from .registers import ContractRegisters, MapAverages

KernelFunction: TypeAlias = Callable[..., Any]
"""``f(src, dst, *operands)``: uint8 views of the simulated memories, of the bytes that section KTAB gives."""

_BFLOAT16 = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
ARRAYS = (np.dtype("<i1"), np.dtype("<f2"), _BFLOAT16, np.dtype("<f4"))
"""The numpy types whose values are those of a Dtype."""
_UNSCORED = np.array([255], np.uint8)
_TILES_AT_ONCE = 1024  # bounds the memory that keys take
_NO_KEY = 1 << 16  # greater than every key


@dataclass
class Counters:
    """The performance registers of the same names; the elements are those of SENDs."""

    bytes_dense: int = 0  # what SEND and COPY to the link would have moved without codecs
    bytes_link: int = 0  # what they moved, with headers and padding
    elems_kept: int = 0  # in the blocks
    elems_zero: int = 0  # equal to 0 or the zero point before anything is dropped
    elems_tied: int = 0  # dropped with the key of the last one kept
    key_mass_kept: int = 0  # sum of the keys of what the selector kept
    key_mass_total: int = 0


@dataclass
class Unit:
    """The state of the unit. ``run`` is the whole of a descriptor's effect, its semaphores aside."""

    program: UnitProgram
    target: Target
    kernels: Mapping[str, KernelFunction]
    load: Mapping[int, bytes]  # what memories but const hold before the start, by address
    memories: Memories = field(init=False)
    counters: Counters = field(init=False, default_factory=Counters)

    def __post_init__(self) -> None:
        self.memories = Memories(self.program, self.target)
        for address, data in self.load.items():
            self.memories.view(address, len(data))[:] = np.frombuffer(data, np.uint8)
        self._contracts = ContractRegisters(self.memories, self.target)
        self._averages = MapAverages(self.memories.smap)
        self._bases = self.memories.registers(self.target, "key_base", "<u4", len(Dtype))
        self._shifts = self.memories.registers(self.target, "key_shift", "<u4", len(Dtype))

    def run(self, d: Descriptor) -> int:
        """Bytes of the blocks of a SEND or RECV, else 0.

        Raises: CompileError SCC096 to SCC099 for a block, SCC100 for a kernel that does not exist, SCC101.
        """
        effect = EFFECTS.get(Op(d.op))
        return (effect(self, d) or 0) if effect else 0

    @property
    def averages(self) -> bytes:
        return self._averages.values()

    def predicate(self, d: Descriptor) -> bool:
        """Whether the program goes on after a PREDICATED NOP, and not at its ``next``."""
        return bool(self.memories.view(d.src, 1)[0])

    # ---- transfers ---------------------------------------------------------------------------------------------------

    def send(self, d: Descriptor) -> int:
        dtype = Dtype(d.dtype)
        x = self._source(d).view(ARRAYS[dtype]).reshape(d.tiles, d.tile_n)
        starts = range(0, d.tiles, _TILES_AT_ONCE)
        moved_bytes = sum(self._send_tiles(d, x[start : start + _TILES_AT_ONCE], start) for start in starts)
        self._count_link(d, x.nbytes, moved_bytes)
        return moved_bytes

    def _send_tiles(self, d: Descriptor, x: npt.NDArray[Any], start: int) -> int:
        """Tiles x [tiles, tile_n] of a SEND from tile ``start`` on: bytes of their blocks."""
        dtype = Dtype(d.dtype)
        base, shift = self._key_numbers(dtype)
        kept = np.ones(x.shape, np.bool_)
        if d.codec != Codec.RAW:
            bits = 16 if d.has(Flag.WIDE_KEYS) else 8
            is_int8 = dtype == Dtype.INT8
            key = Key(DTYPES[dtype], bits, shift, 0 if is_int8 else base, base if is_int8 else 0)
            kept = self._select(d, self._keys(d, x, start, key))
        values, sent = fill_dropped(x, kept, fill_of(d), d.has(Flag.SKIP_ZERO))
        marked = kept if d.codec == Codec.RAW else sent
        moved_bytes = 0
        for i, (row, mask) in enumerate(zip(values.view(dtype.array), marked, strict=True), start):
            block = np.frombuffer(encode(Codec(d.codec), row, mask, dtype), np.uint8)
            self.memories.view(d.dst + i * d.dst_st1, len(block))[:] = block
            moved_bytes += len(block)
        self.counters.elems_kept += int(np.count_nonzero(marked))
        self.counters.elems_zero += int(np.count_nonzero(_is_zero(x, dtype, base)))
        return moved_bytes

    def _keys(self, d: Descriptor, x: npt.NDArray[Any], start: int, key: Key) -> Keys:
        sensitivity = _UNSCORED
        if d.has(Flag.SCORED):
            first = start * d.tile_n
            sensitivity = self.memories.smap[d.smap + np.arange(first, first + x.size) // d.dst_st2]
        return make_keys(x.reshape(-1), sensitivity, 1, key).reshape(x.shape)

    def _select(self, d: Descriptor, keys: Keys) -> Mask:
        """What is kept of keys [tiles, tile_n], with the registers and counters that follow."""
        kept = np.empty(keys.shape, np.bool_)
        totals = keys.sum(axis=1, dtype=np.int64)
        start = 0
        while start < len(keys):
            k, stop = d.k, len(keys)
            if d.has(Flag.REGISTER):
                k = min(d.k, self._contracts.k(d.contract))
                stop = start + self._contracts.tiles_left(d.contract, len(keys) - start)
            kept[start:stop] = first_k(keys[start:stop], k)
            if d.has(Flag.REGISTER):
                mass = int(keys[start:stop].sum(where=kept[start:stop], dtype=np.int64))
                self._contracts.account(d.contract, stop - start, mass, int(totals[start:stop].sum()))
            start = stop
        least = np.where(kept, keys, _NO_KEY).min(axis=1, keepdims=True)
        self.counters.elems_tied += int(np.count_nonzero(~kept & (keys == least)))
        self.counters.key_mass_kept += int(keys.sum(where=kept, dtype=np.int64))
        self.counters.key_mass_total += int(totals.sum())
        return kept

    def receive(self, d: Descriptor) -> int:
        dtype = Dtype(d.dtype)
        dense = np.empty((d.tiles, d.tile_n), dtype.bits)
        dense[:] = fill_of(d).view(dtype.bits)
        moved_bytes = 0
        for i in range(d.tiles):
            reserved = self.memories.view(d.src + i * d.src_st1, d.src_st1)
            header = Header.parse(reserved[:HEADER_BYTES].tobytes())
            _check_header(d, header)
            tile = decode(reserved[: header.block_bytes].tobytes())
            dense[i, tile.indices] = tile.values.view(dtype.bits)
            moved_bytes += header.block_bytes
        flat = dense.reshape(-1).view(np.uint8)
        self.memories.scatter(d.dst, d.run_bytes, (d.reps1, d.reps2), (d.dst_st1, d.dst_st2), flat)
        return moved_bytes

    def copy(self, d: Descriptor) -> None:
        data = self._source(d)
        self.memories.scatter(d.dst, d.run_bytes, (d.reps1, d.reps2), (d.dst_st1, d.dst_st2), data)
        self._count_link(d, len(data), len(data))

    def _source(self, d: Descriptor) -> Bytes:
        return self.memories.gather(d.src, d.run_bytes, (d.reps1, d.reps2), (d.src_st1, d.src_st2))

    def _count_link(self, d: Descriptor, dense_bytes: int, moved_bytes: int) -> None:
        if memory_at(d.dst, self.target).kind == "link":
            self.counters.bytes_dense += dense_bytes
            self.counters.bytes_link += moved_bytes

    # ---- the rest ----------------------------------------------------------------------------------------------------

    def compute(self, d: Descriptor) -> None:
        kernel = self.program.kernels[d.k]
        function = self.kernels.get(kernel.symbol)
        if function is None:
            raise CompileError.of(
                "SCC100",
                f"the program calls kernel '{kernel.symbol}', which the compute tiles' code does not have",
                help="use the program together with the code that was compiled with it",
            )
        operands = [self.memories.view(operand.address, operand.bytes) for operand in kernel.operands]
        source = self.memories.view(d.src, kernel.input_bytes)
        function(source, self.memories.view(d.dst, kernel.output_bytes), *operands)

    def configure(self, d: Descriptor) -> None:
        self.memories.view(d.dst, d.run_bytes)[:] = self.memories.view(d.src, d.run_bytes)

    def load_map(self, d: Descriptor) -> None:
        self._averages.load(d.dst & OFFSET_MASK, self.memories.view(d.src, d.run_bytes))

    def update_map(self, d: Descriptor) -> None:
        dtype = Dtype(d.dtype)
        zero_point = self._key_numbers(dtype)[0] if dtype == Dtype.INT8 else 0
        x = self._source(d).view(ARRAYS[dtype])
        with np.errstate(invalid="ignore"):  # converting a signalling NaN warns
            self._averages.update(d.smap, d.dst_st2, np.abs(x.astype(np.float64) - zero_point))

    def load_contract(self, d: Descriptor) -> None:
        self._contracts.load(d.contract, self.program.contracts[d.k])

    def _key_numbers(self, dtype: Dtype) -> tuple[int, int]:
        """Base or zero point, and shift."""
        base, shift = int(self._bases[dtype]) & 0xFFFF, int(self._shifts[dtype]) & 15
        return base - (base >> 15 << 16), shift


EFFECTS: Mapping[Op, Callable[[Unit, Descriptor], int | None]] = {
    Op.COPY: Unit.copy,
    Op.SEND: Unit.send,
    Op.RECV: Unit.receive,
    Op.COMPUTE: Unit.compute,
    Op.CFGW: Unit.configure,
    Op.SMAP_LOAD: Unit.load_map,
    Op.SMAP_UPD: Unit.update_map,
    Op.CONTRACT: Unit.load_contract,
}


def fill_of(d: Descriptor) -> npt.NDArray[Any]:
    """[1]: the element that field ``fill`` stands for, in the type whose values it has."""
    dtype = Dtype(d.dtype)
    bits = d.fill << 16 if dtype == Dtype.FLOAT32 else d.fill
    return np.array([bits], dtype.bits).view(ARRAYS[dtype])


def _is_zero(x: npt.NDArray[Any], dtype: Dtype, zero_point: int) -> Mask:
    if dtype == Dtype.INT8:
        return np.asarray(x.astype(np.int32) == zero_point)
    return np.asarray(x.view(dtype.bits) << dtype.bits.type(1) == 0)  # without the sign


def _check_header(d: Descriptor, header: Header) -> None:
    wanted = (Codec(d.codec), Dtype(d.dtype), d.tile_n)
    if (header.codec, header.dtype, header.n) != wanted or header.count > d.k:
        raise CompileError.of(
            "SCC099",
            f"a {header.codec.name} block holds {header.count} of {header.n} {header.dtype.name} elements, and RECV "
            f"expects at most {d.k} of {d.tile_n} {wanted[1].name} elements in a {wanted[0].name} block",
            help="copy the file again as a whole, or compile the model again",
        )
