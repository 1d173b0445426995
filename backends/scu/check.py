"""The check of a program against its target, before it is written and again when it is read.

Every number that reaches a memory, a register or a semaphore is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sparsecc.diagnostics import Diagnostic

from .codecs import ALIGN_BYTES, Codec, Dtype, worst_case_bytes
from .descriptor import FIELDS, FLAG_MASK, LAYOUT, NO_FLAG, Descriptor, Flag, Op, Queue, extent
from .machine import DTYPES, LARGEST, NAME, OFFSET_BITS, OFFSET_MASK, Memory, Target
from .unit_program import MAX_OPERANDS, Contract, Kernel, UnitProgram

MAX_DESCRIPTORS = 65_536  # field `next` has 16 bits
SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,30}")
NOTE = re.compile(r"[!-~](?:[ -~]{0,198}[!-~])?")


def check_program(program: UnitProgram, target: Target) -> Iterator[Diagnostic]:
    """Everything in a program that the target cannot do or that means nothing.

    SCC100 a field, SCC101 an address, SCC102 a k or contract, SCC103 a semaphore, SCC104 room for payloads.
    What single descriptors cannot show (deadlock, overlap of live buffers) is the verifier's.
    """
    yield from _check_tables(program, target)
    loaded = dict[int, list[int]]()
    for d in program.code:
        if d.op == Op.CONTRACT and d.k < len(program.contracts):
            loaded.setdefault(d.contract, []).append(program.contracts[d.k].k_hi)
    for i, d in enumerate(program.code):
        yield from _Check(program, target, loaded, d, f"descriptor {i}").findings(i)


# ---- tables ----------------------------------------------------------------------------------------------------------


def _check_tables(program: UnitProgram, target: Target) -> Iterator[Diagnostic]:
    code = program.code
    if not code or code[-1].op != Op.END:
        yield Diagnostic("SCC100", "the program does not end with END")
    if len(code) > MAX_DESCRIPTORS:
        yield Diagnostic(
            "SCC100", f"the program has {len(code)} descriptors, and at most {MAX_DESCRIPTORS} can be named"
        )
    for i, contract in enumerate(program.contracts):
        yield from _check_contract(contract, f"contract {i}", target)
    for i, kernel in enumerate(program.kernels):
        yield from _check_kernel(kernel, f"kernel {i}", program, target)
    writable = {o for r in target.register.values() if r.access == "rw" for o in range(r.offset, r.span.stop, 4)}
    for offset, value in program.config:
        if offset not in writable:
            yield Diagnostic(
                "SCC101", f"section CFG writes offset {offset:#x}, where {target.name} has no register to write"
            )
        if not 0 <= value < 1 << 32:
            yield Diagnostic("SCC100", f"section CFG writes {value}, and a register word has 32 bits")
    for name, data, memory in (
        ("CONST", program.constants, target.the("const")),
        ("SMAP", program.smap, target.the("smap")),
    ):
        if len(data) > memory.bytes:
            yield Diagnostic(
                "SCC101", f"section {name} has {len(data)} B, and its memory in {target.name} {memory.bytes} B"
            )
    for label, place in program.labels.items():
        if not NAME.fullmatch(label) or not 0 <= place < len(code):
            yield Diagnostic("SCC100", f"label {label!a} does not name one of the {len(code)} descriptors")
    for place, note in program.notes.items():
        if not NOTE.fullmatch(note) or not 0 <= place < len(code):
            yield Diagnostic("SCC100", f"note {place} is not one line of at most 200 characters on a descriptor")


def _check_contract(c: Contract, at: str, target: Target) -> Iterator[Diagnostic]:
    most = target.selector.tile_elems
    if not 0 <= c.k_lo <= c.k <= c.k_hi <= most:
        yield Diagnostic(
            "SCC102", f"{at}: k_lo {c.k_lo} <= k {c.k} <= k_hi {c.k_hi} <= {most} elements of a tile does not hold"
        )
    if not 0 <= c.period < 65_536 or not 0 <= c.margin_lo <= c.margin_hi < 65_536:
        yield Diagnostic(
            "SCC102",
            f"{at}: period {c.period}, margins {c.margin_lo} and {c.margin_hi} are not ascending 16-bit numbers",
        )
    if c.period == 0 and (c.k_lo, c.k_hi, c.margin_lo, c.margin_hi) != (c.k, c.k, 0, 0):
        yield Diagnostic("SCC102", f"{at}: a period of 0 fixes k, so k_lo = k = k_hi and no margins")


def _check_kernel(kernel: Kernel, at: str, program: UnitProgram, target: Target) -> Iterator[Diagnostic]:
    sizes = [operand.bytes for operand in kernel.operands]
    if not SYMBOL.fullmatch(kernel.symbol):
        yield Diagnostic("SCC100", f"{at}: {kernel.symbol[:40]!a} is not a C identifier of at most 31 characters")
    if not 0 <= kernel.dtype < len(Dtype) or DTYPES[kernel.dtype] not in target.dtypes:
        yield Diagnostic("SCC100", f"{at}: {target.name} has no dtype {kernel.dtype}")
    if not all(0 <= size < 1 << 32 for size in (kernel.m, kernel.n, kernel.k)):
        yield Diagnostic("SCC100", f"{at}: m, n and k are not 32-bit numbers")
    if len(kernel.operands) > MAX_OPERANDS:
        yield Diagnostic("SCC100", f"{at}: {len(kernel.operands)} operands, and the record holds {MAX_OPERANDS}")
    if not all(1 <= size <= LARGEST for size in (kernel.input_bytes, kernel.output_bytes, *sizes)):
        yield Diagnostic("SCC100", f"{at}: an input, output or operand does not have 1 to 2^48 B")
    for i, operand in enumerate(kernel.operands):
        yield from _check_range(
            f"{at}: operand {i}",
            (operand.address, operand.address + operand.bytes),
            OPERAND_KINDS,
            program,
            target,
            operand.address,
        )


def _check_range(
    what: str, span: tuple[int, int], kinds: tuple[str, ...], program: UnitProgram, target: Target, address: int
) -> Iterator[Diagnostic]:
    """``span`` = [first, end) must lie in the memory of ``address``, and that be of one of ``kinds``."""
    name = target.regions.get(address >> OFFSET_BITS)
    if name is None:
        yield Diagnostic("SCC101", f"{what} is {address:#x}, and {target.name} has no region {address >> OFFSET_BITS}")
        return
    memory = target.memory[name]
    if memory.kind not in kinds:
        yield Diagnostic("SCC101", f"{what} is in {name}, expected {' or '.join(kinds)}")
    first, end = span[0] - memory.address, span[1] - memory.address
    size = _size(memory, program)
    if first < 0 or end > size:
        yield Diagnostic("SCC101", f"{what} reaches bytes {first} to {end - 1} of {name}, which has {size} B")


def _size(memory: Memory, program: UnitProgram) -> int:
    return min(len(program.constants), memory.bytes) if memory.kind == "const" else memory.bytes


# ---- descriptors -----------------------------------------------------------------------------------------------------

OPERAND_KINDS = ("scratchpad", "const", "dram")
ANYWHERE = {"op", "flags", "acq_sem", "acq_ge", "rel_sem", "rel_add", "tag"}
_DENSE_SRC = {"src", "run_bytes", "reps1", "reps2", "src_st1", "src_st2"}
_DENSE_DST = {"dst", "run_bytes", "reps1", "reps2", "dst_st1", "dst_st2"}
_BYTES = {"src", "dst", "run_bytes"}
_TILES = {"dtype", "k", "tile_n", "tiles"}
USES: Mapping[Op, set[str]] = {
    Op.NOP: {"src", "next"},
    Op.COPY: _DENSE_SRC | _DENSE_DST,
    Op.SEND: _DENSE_SRC | _TILES | {"codec", "contract", "smap", "dst", "dst_st1", "dst_st2", "fill"},
    Op.RECV: _DENSE_DST | _TILES | {"codec", "src", "src_st1", "fill"},
    Op.COMPUTE: {"k", "src", "dst"},
    Op.WAIT: set(),
    Op.SIGNAL: set(),
    Op.CFGW: _BYTES,
    Op.SMAP_LOAD: _BYTES,
    Op.SMAP_UPD: _DENSE_SRC | {"dtype", "tile_n", "tiles", "smap", "dst_st2"},
    Op.CONTRACT: {"contract", "k"},
    Op.FENCE: set(),
    Op.END: set(),
}
"""The fields of each operation, beside ANYWHERE; all others are 0."""
FLAGS: Mapping[Op, Flag] = {
    Op.NOP: Flag.PREDICATED,
    Op.SEND: Flag.SKIP_ZERO | Flag.SCORED | Flag.REGISTER | Flag.WIDE_KEYS,
}
SOURCES: Mapping[Op, tuple[str, ...]] = {
    Op.NOP: ("scratchpad", "dram"),
    Op.COPY: ("dram", "scratchpad", "link", "const"),
    Op.SEND: ("scratchpad", "dram"),
    Op.RECV: ("link", "dram", "scratchpad", "const"),
    Op.COMPUTE: ("scratchpad", "const"),
    Op.CFGW: ("const", "dram", "scratchpad"),
    Op.SMAP_LOAD: ("const", "dram", "scratchpad"),
    Op.SMAP_UPD: ("scratchpad", "dram"),
}
DESTINATIONS: Mapping[Op, tuple[str, ...]] = {
    Op.COPY: ("dram", "scratchpad", "link"),
    Op.SEND: ("link", "dram", "scratchpad"),
    Op.RECV: ("scratchpad", "dram"),
    Op.COMPUTE: ("scratchpad",),
    Op.CFGW: ("config",),
    Op.SMAP_LOAD: ("smap",),
}
CONFIGURES = (Op.CFGW, Op.SMAP_LOAD, Op.SMAP_UPD, Op.CONTRACT)


_INFOS = {name: np.iinfo(LAYOUT[name]) for name in FIELDS}
LIMITS = {name: (int(info.min), int(info.max)) for name, info in _INFOS.items()}


def _fits(name: str, value: int) -> bool:
    return LIMITS[name][0] <= value <= LIMITS[name][1]


@dataclass(frozen=True)
class _Check:
    """One descriptor and what its checks look up; ``loaded`` is the k_hi of the entries that go into a register."""

    program: UnitProgram
    target: Target
    loaded: Mapping[int, list[int]]
    d: Descriptor
    at: str

    def findings(self, place: int) -> Iterator[Diagnostic]:
        d = self.d
        if d.op not in USES:
            yield self._bad("SCC100", f"unknown operation {d.op}")
            return
        op = Op(d.op)
        if wide := [name for name, value in vars(d).items() if not _fits(name, value)]:
            yield self._bad("SCC100", f"{wide[0]} is {getattr(d, wide[0])}, which its field cannot hold")
            return
        at_fault = [self._bad("SCC100", text) for text in self._fields(op, place)]
        yield from at_fault
        yield from self._semaphores(op)
        if at_fault:
            return  # ranges follow from the fields
        if op in (Op.SEND, Op.RECV, Op.SMAP_UPD):
            yield from self._tiles(op)
        if op == Op.CONTRACT:
            if d.contract >= self.target.command.contracts:
                yield self._bad("SCC102", f"contract register {d.contract} of {self.target.command.contracts}")
            if d.k >= len(self.program.contracts):
                yield self._bad("SCC102", f"contract {d.k} of {len(self.program.contracts)} in section CNTR")
        if op == Op.COMPUTE and d.k >= len(self.program.kernels):
            yield self._bad("SCC100", f"kernel {d.k} of {len(self.program.kernels)} in section KTAB")
            return
        yield from self._addresses(op)

    def _bad(self, code: str, text: str) -> Diagnostic:
        name = Op(self.d.op).name if self.d.op in USES else "?"
        return Diagnostic(code, f"{self.at} ({name}): {text}")

    def _fields(self, op: Op, place: int) -> Iterator[str]:
        d, t = self.d, self.target
        for name, value in vars(d).items():
            if value and name not in USES[op] and name not in ANYWHERE:
                yield f"{name} is {value}, and {op.name} does not use it"
        if extra := d.flags & FLAG_MASK & ~int(FLAGS.get(op, NO_FLAG)):
            yield f"flags {extra:#x} do not apply"
        if op in CONFIGURES and d.queue != Queue.CONFIG:
            yield f"in queue {d.queue.name}, expected CONFIG"
        if op == Op.END and place != len(self.program.code) - 1:
            yield "descriptors follow"
        if op == Op.NOP and d.has(Flag.PREDICATED) != (d.next > 0):
            yield "PREDICATED and next belong together"
        if op == Op.NOP and (d.src > 0) != d.has(Flag.PREDICATED):
            yield "PREDICATED and src belong together"
        if d.next and not place < d.next < len(self.program.code):
            yield f"next is {d.next}, expected {place + 1} to {len(self.program.code) - 1}: only forward"
        if "run_bytes" in USES[op] and d.run_bytes == 0:
            yield "moves no bytes"
        if "reps1" in USES[op] and 0 in (d.reps1, d.reps2):
            yield "repeats 0 times"
        for side in ("src", "dst"):
            for axis in (1, 2):
                stride, reps = getattr(d, f"{side}_st{axis}"), getattr(d, f"reps{axis}")
                if (
                    stride
                    and reps == 1
                    and (side, op) not in (("dst", Op.SEND), ("dst", Op.SMAP_UPD), ("src", Op.RECV))
                ):
                    yield f"{side}_st{axis} is {stride}, and reps{axis} is 1"
        if "dtype" in USES[op] and (d.dtype >= len(Dtype) or DTYPES[d.dtype] not in t.dtypes):
            yield f"{t.name} has no dtype {d.dtype}"
        if "codec" in USES[op] and (d.codec >= len(Codec) or Codec(d.codec).name.lower() not in t.codecs):
            yield f"{t.name} has no codec {d.codec}"
        if op == Op.SEND and d.codec == Codec.HUFFMAN:
            yield "HUFFMAN is for constants: it is received only"
        if op == Op.SEND and d.contract and not d.has(Flag.REGISTER):
            yield f"contract is {d.contract} without REGISTER"
        if op == Op.SEND and (d.smap or d.dst_st2) and not d.has(Flag.SCORED):
            yield "a map entry without SCORED"
        if (op == Op.SMAP_UPD or d.has(Flag.SCORED)) and d.dst_st2 < 1:
            yield f"{d.dst_st2} elements share a map entry"
        if "fill" in USES[op] and d.dtype == Dtype.INT8 and d.fill > 255:
            yield f"fill is {d.fill}, and an int8 has 8 bits"

    def _semaphores(self, op: Op) -> Iterator[Diagnostic]:
        d, command = self.d, self.target.command
        for side, semaphore, amount in (("acquires", d.acq_sem, d.acq_ge), ("releases", d.rel_sem, d.rel_add)):
            if semaphore >= command.semaphores:
                yield self._bad("SCC103", f"{side} semaphore {semaphore} of {command.semaphores}")
            if amount > command.semaphore_most:
                yield self._bad("SCC103", f"{side} {amount}, and a semaphore counts to {command.semaphore_most}")
            if semaphore and not amount:
                yield self._bad("SCC103", f"{side} nothing of semaphore {semaphore}")
        if (op == Op.WAIT and not d.acq_ge) or (op == Op.SIGNAL and not d.rel_add):
            yield self._bad("SCC103", "names no semaphore")

    def _tiles(self, op: Op) -> Iterator[Diagnostic]:
        d, most = self.d, self.target.selector.tile_elems
        if not (1 <= d.tile_n <= most and d.tiles):
            yield self._bad(
                "SCC102", f"{d.tiles} tiles of {d.tile_n} elements; a tile of {self.target.name} has 1 to {most}"
            )
            return
        dtype = Dtype(d.dtype)
        wanted = d.tiles * d.tile_n * dtype.width_bytes
        if d.dense_bytes != wanted:
            yield self._bad("SCC100", f"moves {d.dense_bytes} B, and its tiles have {wanted} B")
        if op == Op.SMAP_UPD:
            return
        if d.k > d.tile_n or (d.codec == Codec.RAW and d.k != d.tile_n):
            yield self._bad("SCC102", f"keeps {d.k} of {d.tile_n} elements with codec {Codec(d.codec).name}")
            return
        if d.has(Flag.REGISTER):
            held = self.loaded.get(d.contract, [])
            if not held or max(held) > d.k:
                text = f"is loaded with a k_hi of {max(held)}" if held else "is never loaded"
                yield self._bad("SCC102", f"k is {d.k}, and contract register {d.contract} {text}")
        room = d.dst_st1 if op == Op.SEND else d.src_st1
        least = ALIGN_BYTES if op == Op.RECV else worst_case_bytes(Codec(d.codec), d.tile_n, d.k, dtype)
        if room < least or room % ALIGN_BYTES:
            yield self._bad(
                "SCC104", f"reserves {room} B for a block, expected a multiple of {ALIGN_BYTES} from {least} B"
            )

    def _addresses(self, op: Op) -> Iterator[Diagnostic]:
        d, t = self.d, self.target
        reps = (d.reps1, d.reps2)
        source = (d.src, d.src + self._linear_bytes(op, "src"))
        target = (d.dst, d.dst + self._linear_bytes(op, "dst"))
        if op in (Op.COPY, Op.SEND, Op.SMAP_UPD):
            source = extent(d.src, d.run_bytes, reps, (d.src_st1, d.src_st2))
        if op in (Op.COPY, Op.RECV):
            target = extent(d.dst, d.run_bytes, reps, (d.dst_st1, d.dst_st2))
        if op in SOURCES and (op != Op.NOP or d.has(Flag.PREDICATED)):
            yield from _check_range(f"{self.at} ({op.name}): src", source, SOURCES[op], self.program, t, d.src)
        if op in DESTINATIONS:
            yield from _check_range(f"{self.at} ({op.name}): dst", target, DESTINATIONS[op], self.program, t, d.dst)
        if op == Op.CFGW:
            first = d.dst & OFFSET_MASK
            writable = [r.span for r in t.register.values() if r.access == "rw"]
            if (
                not any(first in span and first + d.run_bytes <= span.stop for span in writable)
                or (first | d.run_bytes) % 4
            ):
                yield self._bad("SCC101", f"offset {first:#x}, {d.run_bytes} B: not words of registers to write")
        if op == Op.SMAP_UPD or d.has(Flag.SCORED):
            entries = -(-d.tiles * d.tile_n // d.dst_st2)
            if d.smap + entries > t.the("smap").bytes:
                yield self._bad("SCC101", f"map entries {d.smap} to {d.smap + entries - 1} of {t.the('smap').bytes}")

    def _linear_bytes(self, op: Op, side: str) -> int:
        """Bytes without gaps: payloads, a kernel's operands, plain copies."""
        d = self.d
        if op == Op.COMPUTE:
            kernel = self.program.kernels[d.k]
            return kernel.input_bytes if side == "src" else kernel.output_bytes
        if op in (Op.SEND, Op.RECV):
            return d.tiles * max(d.dst_st1 if op == Op.SEND else d.src_st1, 0)
        return 1 if op == Op.NOP else d.run_bytes
