"""Assembly: a program as text, one line per descriptor, and back. Both ways are exact.

    .target scu-v1 d7e02c8f...                       # name and digest: another target is refused
    .meta {"model":"lenet5"}                         # JSON
    .cfg 0x500 = 0x10                                # register word
    .const 00010203...                               # hexadecimal bytes, any number of lines
    .smap ff80...
    .contract k=256 k_lo=200 k_hi=256 period=16 margin_lo=60000 margin_hi=64000
    .kernel conv1 dtype=int8 m=64 n=16 k=27 input_bytes=1728 output_bytes=1024 operands=const+0x0:432,tile0+0x100:64

    copy.in src=dram+0x40 dst=tile0+0x0 run_bytes=1024 reps1=1 reps2=1 rel=3+1      ; load the image
    nop.in predicated acq=3>=1 src=tile0+0x10 next=skip
    compute.in src=tile0+0x0 dst=tile0+0x800
    skip:
    end.in

A line is an operation and its queue, flags, then the fields that are not 0 under their names (descriptor.py).
Addresses are memory+offset; ``acq=s>=n`` and ``rel=s+n`` name semaphores; ``name:`` marks the next descriptor; text
after ``;`` is a note, kept in the program; lines that begin with ``#`` are not kept. Numbers are decimal or 0x
hexadecimal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from sparsecc.diagnostics import CompileError

from .descriptor import FIELDS, FLAG_MASK, Descriptor, Flag, Op, Queue, flags
from .machine import CODECS, DTYPES, OFFSET_BITS, OFFSET_MASK, Target, canonical_json
from .unit_program import Contract, Kernel, Operand, UnitProgram

HEX_BYTES_PER_LINE = 32
_ACQUIRE, _RELEASE = re.compile(r"(\w+)>=(\w+)"), re.compile(r"(\w+)\+(\w+)")
_ADDRESS = re.compile(r"([A-Za-z_][\w.-]*)\+(\w+)")
_LABEL = re.compile(r"([A-Za-z_][\w.-]*):")
_NUMBER = re.compile(r"-?(0x[0-9a-fA-F]{1,16}|[0-9]{1,20})")
_ADDRESSES = ("src", "dst")
_SEMAPHORES = ("acq_sem", "acq_ge", "rel_sem", "rel_add")


# ---- program -> text -------------------------------------------------------------------------------------------------


def disassemble(program: UnitProgram, target: Target) -> str:
    """The text of a program that ``check_program`` accepts."""
    lines = [f".target {target.name} {target.digest.hex()}", f".meta {canonical_json(dict(program.meta)).decode()}"]
    lines += [f".cfg {offset:#x} = {value:#x}" for offset, value in program.config]
    for section, data in ((".const", program.constants), (".smap", program.smap)):
        rows = range(0, len(data), HEX_BYTES_PER_LINE)
        lines += [f"{section} {data[at : at + HEX_BYTES_PER_LINE].hex()}" for at in rows]
    lines += [f".contract {' '.join(f'{name}={value}' for name, value in vars(c).items())}" for c in program.contracts]
    lines += [_kernel_line(kernel, target) for kernel in program.kernels]
    lines.append("")
    names = dict[int, list[str]]()
    for label, place in sorted(program.labels.items()):
        names.setdefault(place, []).append(label)
    for place, descriptor in enumerate(program.code):
        lines += [f"{label}:" for label in names.get(place, [])]
        line = f"    {descriptor_line(descriptor, target, names)}"
        lines.append(f"{line}  ; {program.notes[place]}" if place in program.notes else line)
    return "\n".join(lines) + "\n"


def descriptor_line(d: Descriptor, target: Target, names: Mapping[int, list[str]] | None = None) -> str:
    """One descriptor as text; ``names`` are the labels by place."""
    words = [f"{Op(d.op).name.lower()}.{d.queue.name.lower()}"]
    words += [flag.name.lower() for flag in Flag if d.has(flag) and flag.name]
    if d.acq_sem or d.acq_ge:
        words.append(f"acq={d.acq_sem}>={d.acq_ge}")
    if d.rel_sem or d.rel_add:
        words.append(f"rel={d.rel_sem}+{d.rel_add}")
    for name in FIELDS[2:]:
        value = cast(int, getattr(d, name))
        if value and name not in _SEMAPHORES:
            words.append(f"{name}={_spelled(name, value, target, names or {})}")
    return " ".join(words)


def _spelled(name: str, value: int, target: Target, names: Mapping[int, list[str]]) -> str:
    if name in _ADDRESSES:
        return _address_text(value, target)
    if name == "next" and value in names:
        return names[value][0]
    table = {"dtype": DTYPES, "codec": CODECS}.get(name, ())
    return table[value] if 0 <= value < len(table) else str(value)


def _address_text(address: int, target: Target) -> str:
    memory = target.regions.get(address >> OFFSET_BITS)
    return f"{memory}+{address & OFFSET_MASK:#x}" if memory else f"{address:#x}"


def _kernel_line(kernel: Kernel, target: Target) -> str:
    words = [f".kernel {kernel.symbol} dtype={DTYPES[kernel.dtype]}"]
    words += [f"{name}={getattr(kernel, name)}" for name in _KERNEL_NUMBERS]
    if kernel.operands:
        words.append("operands=" + ",".join(f"{_address_text(o.address, target)}:{o.bytes}" for o in kernel.operands))
    return " ".join(words)


_KERNEL_NUMBERS = ("m", "n", "k", "input_bytes", "output_bytes")


# ---- text -> program -------------------------------------------------------------------------------------------------


def assemble(text: str, target: Target, name: str = "program") -> UnitProgram:
    """The program of a text; what it asks of the target is checked by ``container.write``, not here.

    Raises: CompileError SCC094 with the line that cannot be read, SCC092 for a ``.target`` with another digest.
    """
    source = _Source(name, target)
    for source.line, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("."):
            source.directive(*stripped.split(maxsplit=1))
        elif stripped and not stripped.startswith("#"):
            source.code_line(stripped)
    return source.program()


@dataclass
class _Source:
    """What has been read so far."""

    name: str
    target: Target
    line: int = 0
    meta: dict[str, Any] = field(default_factory=dict[str, Any])
    config: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    constants: bytearray = field(default_factory=bytearray)
    smap: bytearray = field(default_factory=bytearray)
    contracts: list[Contract] = field(default_factory=list[Contract])
    kernels: list[Kernel] = field(default_factory=list[Kernel])
    code: list[dict[str, int]] = field(default_factory=list[dict[str, int]])
    labels: dict[str, int] = field(default_factory=dict[str, int])
    notes: dict[int, str] = field(default_factory=dict[int, str])
    jumps: dict[int, tuple[int, str]] = field(default_factory=dict[int, tuple[int, str]])

    def program(self) -> UnitProgram:
        for place, (line, label) in self.jumps.items():
            self.line = line
            if label not in self.labels:
                self.refuse(f"there is no label {label!a}")
            self.code[place]["next"] = self.labels[label]
        return UnitProgram(
            tuple(Descriptor(**fields) for fields in self.code),
            tuple(self.contracts),
            tuple(self.kernels),
            tuple(self.config),
            bytes(self.constants),
            bytes(self.smap),
            self.meta,
            self.labels,
            self.notes,
        )

    def refuse(self, what: str) -> NoReturn:
        raise CompileError.of(
            "SCC094", f"{self.name}:{self.line}: {what}", help="`sparsecc scu disasm` of a program shows every form"
        )

    def directive(self, word: str, rest: str = "") -> None:
        match word:
            case ".target":
                self.check_target(rest)
            case ".meta":
                self.meta = self.json_object(rest)
            case ".cfg":
                offset, _, value = rest.partition("=")
                self.config.append((self.number(offset.strip()), self.number(value.strip())))
            case ".const" | ".smap":
                try:
                    data = bytes.fromhex(rest)
                except ValueError:
                    self.refuse(f"{word} is followed by hexadecimal bytes, not {rest[:40]!a}")
                (self.constants if word == ".const" else self.smap).extend(data)
            case ".contract":
                fields = {name: self.number(value) for name, value in self.pairs(rest.split())}
                if not {"k", "k_lo", "k_hi"} <= fields.keys() <= set(Contract.__dataclass_fields__):
                    self.refuse("a contract is k, k_lo, k_hi and perhaps period, margin_lo, margin_hi")
                self.contracts.append(Contract(**fields))
            case ".kernel":
                self.kernels.append(self.kernel(rest.split()))
            case _:
                self.refuse(f"unknown directive {word[:40]!a}")

    def check_target(self, rest: str) -> None:
        digest = rest.split()[-1] if rest else ""
        if digest != self.target.digest.hex():
            raise CompileError.of(
                "SCC092",
                f"{self.name}:{self.line}: written for a target with digest {digest[:16]}, and {self.target.name} has "
                f"{self.target.digest.hex()[:16]}",
                help="give the target it was written for, or remove the line",
            )

    def json_object(self, text: str) -> dict[str, Any]:
        try:
            tree: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            self.refuse(f".meta is not JSON: {error}")
        return cast("dict[str, Any]", tree) if isinstance(tree, dict) else self.refuse(".meta is not a JSON object")

    def kernel(self, words: list[str]) -> Kernel:
        fields = dict(self.pairs(words[1:]))
        if not {"dtype", *_KERNEL_NUMBERS} <= fields.keys() <= {"dtype", "operands", *_KERNEL_NUMBERS}:
            self.refuse(f"a kernel is a symbol, dtype, {', '.join(_KERNEL_NUMBERS)} and perhaps operands")
        operands = list[Operand]()
        for item in fields["operands"].split(",") if "operands" in fields else []:
            address, _, size = item.rpartition(":")
            operands.append(Operand(self.address(address), self.number(size)))
        numbers = {name: self.number(fields[name]) for name in _KERNEL_NUMBERS}
        return Kernel(words[0], self.choice("dtype", fields["dtype"], DTYPES), operands=tuple(operands), **numbers)

    def code_line(self, line: str) -> None:
        body, _, note = line.partition(";")
        words = body.split()
        while words and (label := _LABEL.fullmatch(words[0])):
            if label[1] in self.labels:
                self.refuse(f"label {label[1]} is already taken")
            self.labels[label[1]] = len(self.code)
            words = words[1:]
        if words:
            if note.strip():
                self.notes[len(self.code)] = note.strip()
            self.code.append(self.descriptor(words))
        elif note.strip():
            self.refuse("a note stands behind a descriptor; a line of its own begins with '#'")

    def descriptor(self, words: list[str]) -> dict[str, int]:
        op, _, queue = words[0].partition(".")
        fields = {"op": self.choice("operation", op, tuple(o.name.lower() for o in Op))}
        own = Queue(self.choice("queue", queue, tuple(q.name.lower() for q in Queue)))
        named = {flag.name.lower(): flag for flag in Flag if flag.name}
        plain = [word for word in words[1:] if "=" not in word]
        if unknown := [word for word in plain if word not in named]:
            self.refuse(f"unknown flag {unknown[0][:40]!a}; there are {', '.join(named)}")
        fields["flags"] = flags(own, Flag(sum({named[word] for word in plain}) & FLAG_MASK))
        for name, text in self.pairs([word for word in words[1:] if "=" in word]):
            match name:
                case "acq":
                    fields["acq_sem"], fields["acq_ge"] = self.two(text, _ACQUIRE, "acq=semaphore>=count")
                case "rel":
                    fields["rel_sem"], fields["rel_add"] = self.two(text, _RELEASE, "rel=semaphore+count")
                case "src" | "dst":
                    fields[name] = self.address(text)
                case "next" if not _NUMBER.fullmatch(text):
                    self.jumps[len(self.code)] = self.line, text
                case "dtype" | "codec" if not _NUMBER.fullmatch(text):
                    fields[name] = self.choice(name, text, DTYPES if name == "dtype" else CODECS)
                case _ if name in FIELDS[2:] and name not in _SEMAPHORES:
                    fields[name] = self.number(text)
                case _:
                    self.refuse(f"unknown field {name[:40]!a}")
        return fields

    def pairs(self, words: list[str]) -> list[tuple[str, str]]:
        pairs = [(name, value) for name, _, value in (word.partition("=") for word in words)]
        names = [name for name, _ in pairs]
        if repeated := [name for i, name in enumerate(names) if name in names[:i]]:
            self.refuse(f"{repeated[0][:40]!a} is given twice")
        return pairs

    def two(self, text: str, form: re.Pattern[str], shown: str) -> tuple[int, int]:
        found = form.fullmatch(text) or self.refuse(f"{text[:40]!a} is not of the form {shown}")
        return self.number(found[1]), self.number(found[2])

    def address(self, text: str) -> int:
        found = _ADDRESS.fullmatch(text)
        if not found:
            return self.number(text)
        if found[1] not in self.target.memory:
            self.refuse(f"{self.target.name} has no memory {found[1][:40]!a}; it has {', '.join(self.target.memory)}")
        offset = self.number(found[2])
        if offset > OFFSET_MASK:
            self.refuse(f"offset {found[2]} is beyond {OFFSET_BITS} bits")
        return self.target.memory[found[1]].address | offset

    def choice(self, what: str, text: str, names: tuple[str, ...]) -> int:
        if text not in names:
            self.refuse(f"unknown {what} {text[:40]!a}; there are {', '.join(names)}")
        return names.index(text)

    def number(self, text: str) -> int:
        if not _NUMBER.fullmatch(text):
            self.refuse(f"{text[:40]!a} is not a number")
        return int(text, 16 if "x" in text else 10)
