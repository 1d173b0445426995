"""What contracts cost in accuracy and bring in traffic, beside dense DMA and lossless zero-compression.

    python benchmarks/contracts.py -o benchmarks/contracts.json --plot docs/contracts.svg
    python benchmarks/contracts.py --from benchmarks/contracts.json --plot docs/contracts.svg    # without measuring
    python benchmarks/contracts.py --only accuracy -o benchmarks/contracts.json    # keeps the other parts

Accuracy: ResNet-20 on the 1,000 test images, contracts negotiated on 256 training images, no fine-tuning; uniform is
the same share on every edge at the same number of bytes; also ranked by sensitivity, with means for what is dropped,
with k that moves, and with payloads of int8.
Traffic: the simulated unit on one sample, for links of 4, 16 and 64 B/cycle, with half of every edge kept; all three
forms of a network are lowered, scheduled and simulated alike. Bytes count headers and padding. Absolute energy is good
to about 2x: compare ratios. Fine-tuning (finetune_contracts.py) takes two hours, the rest a quarter of one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from finetune_contracts import RECIPES, FineTuned, fine_tune
from finetune_contracts import table as fine_tuning_table
from plots import plot_traffic
from torch import nn

import sparsecc
from sparsecc import api, pipelines
from sparsecc.backends.scu.figures import figures
from sparsecc.backends.scu.host import Unit, load_kernels
from sparsecc.backends.scu.machine import Target, load_target
from sparsecc.backends.scu.tile_code import TileCode
from sparsecc.backends.scu.unit import UNIT
from sparsecc.backends.scu.unit_program import UnitProgram
from sparsecc.capture import capture
from sparsecc.contracts import Budget, Settlement, negotiate
from sparsecc.contracts.calibration import from_arrays
from sparsecc.contracts.contract import transmit
from sparsecc.contracts.fills import settle_means
from sparsecc.contracts.measures import Estimate, estimate
from sparsecc.contracts.moving import settle_moving
from sparsecc.contracts.options import ContractOptions
from sparsecc.contracts.procedure import Kind, Options, Routing
from sparsecc.contracts.replay import Replay
from sparsecc.models import data, lenet5, minilm, resnet_cifar
from sparsecc.plots import verify_drawable
from sparsecc.program import Program

LINK_BYTES_PER_CYCLE = (4, 16, 64)
SHARES = (0.5, 0.3)
INT8_SHARE = 0.125
PERIOD = 4  # tiles
FORMS = ("dense", "zero_compression", "contracts")
SCRATCHPAD_BYTES = {"MiniLM, 32 tokens": 0x80000}
"""Networks that need larger tiles than scu-v1 has."""

NETWORKS: dict[str, Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]]] = {
    "LeNet-5": lambda: (lenet5.load_pruned(), lenet5.example_inputs()),
    "ResNet-20": lambda: (resnet_cifar.load_pretrained(20), photograph()),
    "ResNet-56": lambda: (resnet_cifar.load_pretrained(56), photograph()),
    "MiniLM, 32 tokens": lambda: (minilm.load(), minilm.example_inputs(1, 32)),
}


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """``bytes_share`` of the dense bytes of all edges, in the worst case; ``sent_share`` of the values of edges with
    contracts, and the quality with a 95 % interval: of the 1,000 test images.
    """

    contracts: str
    bytes_share: float
    sent_share: float
    quality: Estimate


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Of one form; there is none where the machine has no room for it."""

    network: str
    link_bytes_per_cycle: int
    form: str
    link_bytes: int
    cycles: int
    lower_bound_cycles: int
    energy_pj: float


def photograph() -> tuple[torch.Tensor]:
    """One test image: zeros of noise are not those of pictures."""
    return (resnet_cifar.images(data.cifar10("test", 1)[0]),)


# ---- accuracy --------------------------------------------------------------------------------------------------------


class Counting(Replay):
    """Transmits with numpy, and counts what is sent of the edges that have contracts."""

    sent = total = 0

    def send(self, edge: str, value: torch.Tensor) -> torch.Tensor:
        if self.contracts[edge].keeps_everything:
            return value
        arrived, sent = transmit(value.numpy(), self.sensitivity[edge].numpy(), self.contracts[edge])
        self.sent, self.total = self.sent + int(sent.sum()), self.total + sent.size
        return torch.from_numpy(np.ascontiguousarray(arrived))


def accuracies() -> Iterator[Accuracy]:
    program, _ = pipelines.parse(pipelines.TIDY).run(
        capture(resnet_cifar.load_pretrained(20), resnet_cifar.example_inputs(), dynamic={"batch": 0})
    )
    pixels, labels = data.cifar10("train", 256)
    samples = from_arrays(program, {"x": resnet_cifar.images(pixels).numpy(), "labels": labels})

    def settled(kind: Kind, value: float, routing: Routing = "magnitude", payloads: str = "float32") -> Settlement:
        options = Options(routing=routing, dtypes=(payloads,))
        return negotiate(program, samples, Budget(kind, value), UNIT.block_bytes(program), options=options)

    yield accuracy(program, "none", settled("keep", 1.0))
    for share in SHARES:
        negotiated = settled("bytes", share)
        low, high = 0.0, 1.0
        for _ in range(12):  # the greatest uniform share that takes no more bytes
            middle = (low + high) / 2
            fits = settled("keep", middle).settled_bytes <= negotiated.settled_bytes
            low, high = (middle, high) if fits else (low, middle)
        forms = {
            "uniform": settled("keep", low),
            "negotiated": negotiated,
            "negotiated, routing sensitivity": settled("bytes", share, "sensitivity"),
            "negotiated, fill mean": settle_means(program, negotiated, samples),
            f"negotiated, period {PERIOD}": settle_moving(program, negotiated, samples, PERIOD),
        }
        for name, settlement in forms.items():
            yield accuracy(program, name, settlement)
        print(f"ResNet-20 at {share:.0%} of the bytes: done", file=sys.stderr)
    yield accuracy(program, "int8, everything", settled("keep", 1.0, payloads="int8"))
    yield accuracy(program, "int8, negotiated", settled("bytes", INT8_SHARE, payloads="int8"))


def accuracy(program: Program, name: str, settlement: Settlement) -> Accuracy:
    images, labels = data.cifar10("test", 1000)
    replay = Counting(program, {c.edge: c for c in settlement.contracts}, settlement.maps)
    right = list[torch.Tensor]()
    with torch.no_grad():
        for x, y in zip(resnet_cifar.images(images).split(125), torch.from_numpy(labels).split(125), strict=True):
            right.append(replay.run(x)[0].argmax(1) == y)
    sent = replay.sent / replay.total if replay.total else 1.0
    return Accuracy(name, settlement.settled_bytes / settlement.dense_bytes, sent, estimate(torch.cat(right).double()))


# ---- traffic ---------------------------------------------------------------------------------------------------------


def traffic(name: str, width: int, folder: Path) -> list[Traffic]:
    model, inputs = NETWORKS[name]()
    program = capture(model, inputs)
    program.facts[Target] = target(name, width, folder)
    program.facts[ContractOptions] = ContractOptions(keep=0.5)
    program, _ = api.run_passes(
        pipelines.parse(f"{pipelines.TIDY},bind-contracts,lower-transfers,schedule-dma"), program
    )
    code: TileCode = program.facts[TileCode]
    unit_program: UnitProgram = program.facts[UnitProgram]
    unit = Unit(unit_program, program.facts[Target], load_kernels(code))
    feeds = {n: x.numpy() for n, x in zip(program.input_names, program.example_inputs, strict=True)}
    found = figures(program, unit, feeds)
    forms = {form: getattr(found, form) for form in FORMS}
    fields = [field.name for field in dataclasses.fields(Traffic)[3:]]
    return [Traffic(name, width, form, *(getattr(f, field) for field in fields)) for form, f in forms.items() if f]


def traffics() -> Iterator[Traffic]:
    for name in NETWORKS:
        for width in LINK_BYTES_PER_CYCLE:
            with tempfile.TemporaryDirectory() as folder:
                yield from traffic(name, width, Path(folder))
            print(f"{name}, {width} B/cycle: done", file=sys.stderr)


def target(name: str, width: int, folder: Path) -> Target:
    text = f'extends = "scu-v1"\nname = "link-{width}"\n[link]\nbytes_per_cycle = {width}\n'
    if name in SCRATCHPAD_BYTES:
        text += "".join(f"[memory.tile{i}]\nbytes = {SCRATCHPAD_BYTES[name]}\n" for i in (0, 1))
    path = folder / "target.toml"
    path.write_text(text)
    return load_target(path)


# ---- fine-tuning -----------------------------------------------------------------------------------------------------


def fine_tuned() -> Iterator[FineTuned]:
    for name, recipe in RECIPES.items():
        for row in fine_tune(name, recipe):
            yield row
            print(f"{name}, {row.ratio:.2f}x, fine-tuning: done", file=sys.stderr)


# ---- tables ----------------------------------------------------------------------------------------------------------


def accuracy_table(rows: Sequence[Accuracy]) -> str:
    lines = ["| contracts | bytes, at most | values sent | accuracy |", "|---|---|---|---|"]
    for r in rows:
        quality = f"{100 * r.quality.value:.1f} ({100 * r.quality.low:.1f} to {100 * r.quality.high:.1f})"
        lines.append(f"| {r.contracts} | {r.bytes_share:.1%} | {r.sent_share:.1%} | {quality} |")
    return "\n".join(lines)


def traffic_table(rows: Sequence[Traffic]) -> str:
    lines = [
        "| network | link B/cycle | link kB: dense, without zeros, contracts | cycles: the same | "
        "faster than dense | faster than without zeros | energy of dense |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, width in dict.fromkeys((r.network, r.link_bytes_per_cycle) for r in rows):
        by_form = {r.form: r for r in rows if (r.network, r.link_bytes_per_cycle) == (name, width)}
        three = [by_form.get(form) for form in FORMS]
        kilobytes = ", ".join(f"{r.link_bytes / 1e3:.1f}" if r else "does not fit" for r in three)
        cycles = ", ".join(f"{r.cycles}" if r else "does not fit" for r in three)
        contracts, dense = by_form["contracts"], by_form.get("dense")
        ratios = " | ".join(f"{r.cycles / contracts.cycles:.2f}x" if r else "-" for r in three[:2])
        energy = f"{contracts.energy_pj / dense.energy_pj:.3f}" if dense else "-"
        lines.append(f"| {name} | {width} | {kilobytes} | {cycles} | {ratios} | {energy} |")
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Part:
    kind: type[Any]
    measure: Callable[[], Iterable[Any]]
    table: Callable[[Sequence[Any]], str]


PARTS = {
    "accuracy": Part(Accuracy, accuracies, accuracy_table),
    "traffic": Part(Traffic, traffics, traffic_table),
    "fine-tuning": Part(FineTuned, fine_tuned, fine_tuning_table),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[*PARTS], help="measure this part; may be repeated")
    parser.add_argument("-o", "--output", type=Path, help="write all rows as JSON; parts not measured are kept")
    parser.add_argument("--from", dest="stored", type=Path, help="take rows that -o wrote, measure nothing")
    parser.add_argument("--plot", type=Path, help="draw cycles and energy against the link: .svg, .png or .pdf")
    options = parser.parse_args(arguments)
    rows = dict[str, list[Any]]()
    try:
        if options.plot:
            verify_drawable(options.plot)  # before minutes of work
        stored = options.stored or options.output
        if stored and stored.exists():
            rows = read(stored)
        for part in () if options.stored else options.only or PARTS:
            rows[part] = []
            for row in PARTS[part].measure():
                rows[part].append(row)
                if options.output:
                    write(rows, options.output)
        if options.plot:
            plot_traffic(rows["traffic"], options.plot)
    except sparsecc.CompileError as error:
        sys.exit(str(error))
    print("\n\n".join(PARTS[part].table(rows[part]) for part in rows))


def read(path: Path) -> dict[str, list[Any]]:
    def row(kind: type[Any], fields: dict[str, Any]) -> Any:
        return kind(**{key: Estimate(**x) if isinstance(x, dict) else x for key, x in fields.items()})

    return {part: [row(PARTS[part].kind, x) for x in found] for part, found in json.loads(path.read_text()).items()}


def write(rows: Mapping[str, Sequence[Any]], path: Path) -> None:
    tree = {part: [dataclasses.asdict(row) for row in found] for part, found in rows.items()}
    path.write_text(json.dumps(tree, indent=1) + "\n")


if __name__ == "__main__":
    main()
