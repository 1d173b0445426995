"""A reference of the unit in plain Python, written from ../scu.md alone (chapters 3 to 9): what programs do, not when.

A program is a dict: code (dicts of descriptor fields), contracts, kernels, config, const, smap, meta, labels, notes.
Memories are one dict from address to byte; what is absent is 0.
"""

from __future__ import annotations

import struct
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

from elements import FLOAT32, INT8, RAW, decode, encode, first_k, join, key, split, value

Op = IntEnum("Op", "NOP COPY SEND RECV COMPUTE WAIT SIGNAL CFGW SMAP_LOAD SMAP_UPD CONTRACT FENCE END", start=0)
PREDICATED, SKIP_ZERO, SCORED, REGISTER, WIDE_KEYS = 1, 2, 4, 8, 16
COUNTERS = (
    "bytes_dense", "bytes_link", "elems_kept", "elems_zero", "elems_tied", "key_mass_kept", "key_mass_total",
)  # fmt: skip
Program = Mapping[str, Any]
Fields = Mapping[str, int]
Kernel = Callable[..., bytes]


def copy_add_i8(source: bytes, operand: bytes) -> bytes:
    """The one kernel of the vectors."""
    return bytes((a + b) % 256 for a, b in zip(source, operand, strict=True))


KERNELS: Mapping[str, Kernel] = {"copy_add_i8": copy_add_i8}


class Unit:
    def __init__(self, program: Program, target: Mapping[str, Any], load: Mapping[int, bytes]) -> None:
        self.program, self.target = program, target
        self.at = {name: memory["region"] << 56 for name, memory in target["memory"].items()}
        by_kind = {memory["kind"]: memory["region"] << 56 for memory in target["memory"].values()}
        self.link, self.smap, self.const, self.config = (by_kind[k] for k in ("link", "smap", "const", "config"))
        self.bytes = defaultdict[int, int](int)
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.semaphores = [0] * target["command"]["semaphores"]
        self.run_descriptors = 0
        self.masses = defaultdict[int, list[int]](lambda: [0, 0, 0])  # per register: tiles, kept, total
        self.gradient, self.average = defaultdict[int, int](int), defaultdict[int, int](int)
        self.write(self.const, program["const"])
        self.load_map(self.smap, program["smap"])
        for place, number in program["config"]:
            self.write(self.config + place, struct.pack("<I", number))
        for address, data in load.items():
            self.write(address, data)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.bytes[address + i] for i in range(size))

    def write(self, address: int, data: bytes) -> None:
        for i, byte in enumerate(data):
            self.bytes[address + i] = byte

    def register(self, name: str, i: int) -> int:
        address = self.config + self.target["register"][name]["offset"] + 4 * i
        return int.from_bytes(self.read(address, 4), "little")

    # ---- order -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        code, depth = self.program["code"], self.target["command"]["queue_descriptors"]
        queues = [deque[Fields]() for _ in range(4)]
        fetched, barrier = 0, False
        while True:
            while fetched < len(code) and not barrier and len(queues[code[fetched]["flags"] >> 6]) < depth:
                d = code[fetched]
                queues[d["flags"] >> 6].append(d)
                barrier = d["op"] == Op.FENCE or bool(d["op"] == Op.NOP and d["flags"] & PREDICATED)
                fetched += 1
            ready = next((queue for queue in queues if queue and self.may_begin(queue[0], queues)), None)
            if ready is None:
                break
            d = ready.popleft()
            self.semaphores[d["acq_sem"]] -= d["acq_ge"]
            self.execute(d)
            self.run_descriptors += 1
            self.semaphores[d["rel_sem"]] += d["rel_add"]
            if d["op"] == Op.FENCE or (d["op"] == Op.NOP and d["flags"] & PREDICATED):
                barrier = False
                if d["op"] == Op.NOP and self.read(d["src"], 1) == b"\0":
                    fetched = d["next"]
        if fetched < len(code) or any(queues):
            raise RuntimeError("the program stands still")

    def may_begin(self, d: Fields, queues: list[deque[Fields]]) -> bool:
        alone = sum(map(len, queues)) == 1
        return self.semaphores[d["acq_sem"]] >= d["acq_ge"] and (d["op"] != Op.FENCE or alone)

    # ---- operations --------------------------------------------------------------------------------------------------

    def execute(self, d: Fields) -> None:
        match d["op"]:
            case Op.COPY:
                data = self.gather(d)
                self.scatter(d, data)
                self.count_link(d, len(data), len(data))
            case Op.SEND:
                self.send(d)
            case Op.RECV:
                self.receive(d)
            case Op.COMPUTE:
                kernel = self.program["kernels"][d["k"]]
                operands = [self.read(address, size) for address, size in kernel["operands"]]
                source = self.read(d["src"], kernel["input_bytes"])
                self.write(d["dst"], KERNELS[kernel["symbol"]](source, *operands))
            case Op.CFGW:
                self.write(d["dst"], self.read(d["src"], d["run_bytes"]))
            case Op.SMAP_LOAD:
                self.load_map(d["dst"], self.read(d["src"], d["run_bytes"]))
            case Op.SMAP_UPD:
                self.update_map(d)
            case Op.CONTRACT:
                record = struct.pack("<6HI", *self.program["contracts"][d["k"]], 0)
                self.write(self.config + self.target["register"]["contracts"]["offset"] + 16 * d["contract"], record)
                self.masses.pop(d["contract"], None)
            case _:
                pass

    def starts(self, d: Fields, side: str) -> list[int]:
        st1, st2 = d[f"{side}_st1"], d[f"{side}_st2"]
        return [d[side] + j * st2 + i * st1 for j in range(d["reps2"]) for i in range(d["reps1"])]

    def gather(self, d: Fields) -> bytes:
        return b"".join(self.read(start, d["run_bytes"]) for start in self.starts(d, "src"))

    def scatter(self, d: Fields, data: bytes) -> None:
        for i, start in enumerate(self.starts(d, "dst")):
            self.write(start, data[i * d["run_bytes"] : (i + 1) * d["run_bytes"]])

    def count_link(self, d: Fields, dense: int, moved: int) -> None:
        if d["dst"] >> 56 == self.link >> 56:
            self.counters["bytes_dense"] += dense
            self.counters["bytes_link"] += moved

    def key_numbers(self, dtype: int) -> tuple[int, int]:
        base = self.register("key_base", dtype) & 0xFFFF
        return (base - 0x1_0000 if base & 0x8000 else base), self.register("key_shift", dtype) & 15

    def send(self, d: Fields) -> None:
        dtype, codec, n = d["dtype"], d["codec"], d["tile_n"]
        data = self.gather(d)
        elements = split(data, dtype)
        fill = d["fill"] << 16 if dtype == FLOAT32 else d["fill"]
        base, shift = self.key_numbers(dtype)
        most, moved = 65_535 if d["flags"] & WIDE_KEYS else 255, 0
        for tile in range(d["tiles"]):
            x = elements[tile * n : (tile + 1) * n]
            kept = list(range(n))
            if codec != RAW:
                keys = []
                for i, bits in enumerate(x):
                    s = 255
                    if d["flags"] & SCORED:
                        s = self.bytes[self.smap + d["smap"] + (tile * n + i) // d["dst_st2"]]
                    keys.append(key(bits, dtype, s, base, shift, most))
                kept = self.select(d, keys)
            sent = kept
            if d["flags"] & SKIP_ZERO:
                sent = [i for i in kept if value(x[i], dtype) != value(fill, dtype)]
            filled = [bits if i in set(sent) else fill for i, bits in enumerate(x)]
            block = encode(codec, filled, sent, dtype)
            self.write(d["dst"] + tile * d["dst_st1"], block)
            moved += len(block)
            self.counters["elems_kept"] += n if codec == RAW else len(sent)
            zero = float(base) if dtype == INT8 else 0.0
            self.counters["elems_zero"] += sum(value(bits, dtype) == zero for bits in x)
        self.count_link(d, len(data), moved)

    def select(self, d: Fields, keys: list[int]) -> list[int]:
        k = d["k"]
        address = self.config + self.target["register"]["contracts"]["offset"] + 16 * d["contract"]
        if d["flags"] & REGISTER:
            k = min(k, int.from_bytes(self.read(address, 2), "little"))
        kept = first_k(keys, k)
        mass = sum(keys[i] for i in kept)
        least = min((keys[i] for i in kept), default=-1)
        self.counters["elems_tied"] += sum(keys[i] == least for i in range(len(keys)) if i not in kept)
        self.counters["key_mass_kept"] += mass
        self.counters["key_mass_total"] += sum(keys)
        if d["flags"] & REGISTER:
            self.move(address, d["contract"], mass, sum(keys))
        return kept

    def move(self, address: int, number: int, kept: int, total: int) -> None:
        k, lo, hi, period, margin_lo, margin_hi = struct.unpack("<6H", self.read(address, 12))
        if period == 0:
            return
        masses = self.masses[number]
        for i, amount in enumerate((1, kept, total)):
            masses[i] += amount
        if masses[0] < period:
            return
        if masses[2]:
            share, step = 65_536 * masses[1] // masses[2], max(1, (hi - lo) // 16)
            if share > margin_hi:
                k = max(lo, k - step)
            elif share < margin_lo:
                k = min(hi, k + step)
            self.write(address, struct.pack("<H", k))
        self.masses[number] = [0, 0, 0]

    def receive(self, d: Fields) -> None:
        fill = d["fill"] << 16 if d["dtype"] == FLOAT32 else d["fill"]
        dense = list[int]()
        for tile in range(d["tiles"]):
            block = self.read(d["src"] + tile * d["src_st1"], d["src_st1"])
            found, _ = decode(block, d["codec"], d["dtype"], d["tile_n"], d["k"])
            dense += [found.get(i, fill) for i in range(d["tile_n"])]
        self.scatter(d, join(dense, d["dtype"]))

    def load_map(self, address: int, entries: bytes) -> None:
        self.write(address, entries)
        for i, entry in enumerate(entries):
            self.gradient[address - self.smap + i] = entry
            self.average[address - self.smap + i] = 0

    def update_map(self, d: Fields) -> None:
        dtype = d["dtype"]
        zero = self.key_numbers(INT8)[0] if dtype == INT8 else 0
        fixed = [_fixed(abs(value(bits, dtype) - zero)) for bits in split(self.gather(d), dtype)]
        products = dict[int, int]()
        for start in range(0, len(fixed), d["dst_st2"]):
            entry, block = d["smap"] + start // d["dst_st2"], fixed[start : start + d["dst_st2"]]
            new, old = sum(block) // len(block), self.average[entry]
            self.average[entry] = old + ((new - old + 4) >> 3)
            products[entry] = self.average[entry] * self.gradient[entry]
        top = max(1, *products.values())
        for entry, product in products.items():
            self.bytes[self.smap + entry] = (255 * product + top // 2) // top


def _fixed(distance: float) -> int:
    if distance != distance or distance >= 256:
        return 65_535
    return int(256 * distance)
