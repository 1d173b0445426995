"""What contracts cost in accuracy and bring in traffic, beside dense DMA and lossless zero-compression.

    python benchmarks/contracts.py -o benchmarks/contracts.json --plot docs/contracts.svg
    python benchmarks/contracts.py --from benchmarks/contracts.json --plot docs/contracts.svg    # without measuring

Accuracy: ResNet-20 on the 1,000 test images, contracts negotiated on 256 training images, no fine-tuning; uniform is
the same share on every edge at the same number of bytes. Traffic: the simulated unit on one sample, for links of 4, 16
and 64 B/cycle, with half of every edge kept; all three forms of a network are lowered, scheduled and simulated alike.
Bytes count headers and padding. Absolute energy is good to about 2x: compare ratios.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from plots import plot_traffic
from torch import nn

import sparsecc
from sparsecc import api, pipelines, reference
from sparsecc.backends.scu.figures import figures
from sparsecc.backends.scu.host import Unit, load_kernels
from sparsecc.backends.scu.machine import Target, load_target
from sparsecc.backends.scu.tile_code import TileCode
from sparsecc.backends.scu.unit import UNIT
from sparsecc.backends.scu.unit_program import UnitProgram
from sparsecc.capture import capture
from sparsecc.contracts import Budget, Options, Settlement, negotiate
from sparsecc.contracts.binding import insert_contracts
from sparsecc.contracts.calibration import from_arrays
from sparsecc.contracts.measures import Estimate, estimate
from sparsecc.contracts.options import ContractOptions
from sparsecc.models import data, lenet5, minilm, resnet_cifar
from sparsecc.plots import verify_drawable
from sparsecc.program import Program

LINK_BYTES_PER_CYCLE = (4, 16, 64)
SHARES = (0.5, 0.3)
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
    """``bytes_share`` of the dense bytes of all edges; estimates are of the 1,000 test images with 95 % intervals."""

    bytes_share: float
    uniform_share: float
    dense: Estimate
    uniform: Estimate
    negotiated: Estimate


@dataclasses.dataclass(frozen=True)
class Traffic:
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


def accuracies() -> list[Accuracy]:
    program, _ = pipelines.parse(pipelines.TIDY).run(
        capture(resnet_cifar.load_pretrained(20), resnet_cifar.example_inputs(), dynamic={"batch": 0})
    )
    pixels, labels = data.cifar10("train", 256)
    samples = from_arrays(program, {"x": resnet_cifar.images(pixels).numpy(), "labels": labels})
    block_bytes, options = UNIT.block_bytes(program), Options()
    dense = accuracy(program)
    rows = list[Accuracy]()
    for share in SHARES:
        settled = negotiate(program, samples, Budget("bytes", share), block_bytes, options=options)
        low, high = 0.0, 1.0
        for _ in range(12):  # the greatest uniform share that takes no more bytes
            middle = (low + high) / 2
            uniform = negotiate(program, samples, Budget("keep", middle), block_bytes, options=options)
            low, high = (middle, high) if uniform.settled_bytes <= settled.settled_bytes else (low, middle)
        uniform = negotiate(program, samples, Budget("keep", low), block_bytes, options=options)
        found = accuracy(under(program, uniform)), accuracy(under(program, settled))
        rows.append(Accuracy(settled.settled_bytes / settled.dense_bytes, low, dense, *found))
        print(f"ResNet-20 at {share:.0%} of the bytes: done", file=sys.stderr)
    return rows


def under(program: Program, settlement: Settlement) -> Program:
    bound = program.clone()
    insert_contracts(bound, {c.edge: c for c in settlement.contracts}, settlement.maps)
    return bound


def accuracy(program: Program) -> Estimate:
    images, labels = data.cifar10("test", 1000)
    batches = zip(resnet_cifar.images(images).split(125), np.split(labels, 8), strict=True)
    right = [reference.run(program, [x])[0].argmax(1) == y for x, y in batches]
    return estimate(torch.from_numpy(np.concatenate(right)).double())


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
    found: Mapping[str, Mapping[str, float]] = dataclasses.asdict(figures(program, unit, feeds))
    fields = [field.name for field in dataclasses.fields(Traffic)[3:]]
    return [Traffic(name, width, form, *(f[field] for field in fields)) for form, f in found.items()]  # type: ignore[arg-type]


def target(name: str, width: int, folder: Path) -> Target:
    text = f'extends = "scu-v1"\nname = "link-{width}"\n[link]\nbytes_per_cycle = {width}\n'
    if name in SCRATCHPAD_BYTES:
        text += "".join(f"[memory.tile{i}]\nbytes = {SCRATCHPAD_BYTES[name]}\n" for i in (0, 1))
    path = folder / "target.toml"
    path.write_text(text)
    return load_target(path)


# ---- tables ----------------------------------------------------------------------------------------------------------


def accuracy_table(rows: Sequence[Accuracy]) -> str:
    def text(e: Estimate) -> str:
        return f"{100 * e.value:.1f} ({100 * e.low:.1f} to {100 * e.high:.1f})"

    lines = ["| bytes of all edges | uniform share | dense | uniform | negotiated |", "|---|---|---|---|---|"]
    for r in rows:
        values = " | ".join(map(text, (r.dense, r.uniform, r.negotiated)))
        lines.append(f"| {r.bytes_share:.1%} | {r.uniform_share:.1%} | {values} |")
    return "\n".join(lines)


def traffic_table(rows: Sequence[Traffic]) -> str:
    lines = [
        "| network | link B/cycle | link kB: dense, without zeros, contracts | cycles: the same | "
        "faster than dense | faster than without zeros | energy of dense |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, width in dict.fromkeys((r.network, r.link_bytes_per_cycle) for r in rows):
        by_form = {r.form: r for r in rows if (r.network, r.link_bytes_per_cycle) == (name, width)}
        three = [by_form[form] for form in ("dense", "zero_compression", "contracts")]
        kilobytes = ", ".join(f"{r.link_bytes / 1e3:.1f}" for r in three)
        cycles = ", ".join(f"{r.cycles}" for r in three)
        dense, lossless, contracts = three
        ratios = f"{dense.cycles / contracts.cycles:.2f}x | {lossless.cycles / contracts.cycles:.2f}x"
        energy = f"{contracts.energy_pj / dense.energy_pj:.3f}"
        lines.append(f"| {name} | {width} | {kilobytes} | {cycles} | {ratios} | {energy} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write all rows as JSON")
    parser.add_argument("--from", dest="stored", type=Path, help="take rows that -o wrote, measure nothing")
    parser.add_argument("--plot", type=Path, help="draw cycles and energy against the link: .svg, .png or .pdf")
    options = parser.parse_args(arguments)
    try:
        if options.plot:
            verify_drawable(options.plot)  # before minutes of work
        kept, moved = read(options.stored) if options.stored else measure()
        if options.output:
            tree = {"accuracy": [*map(dataclasses.asdict, kept)], "traffic": [*map(dataclasses.asdict, moved)]}
            options.output.write_text(json.dumps(tree, indent=1) + "\n")
        if options.plot:
            plot_traffic(moved, options.plot)
    except sparsecc.CompileError as error:
        sys.exit(str(error))
    print(f"{accuracy_table(kept)}\n\n{traffic_table(moved)}")


def read(path: Path) -> tuple[list[Accuracy], list[Traffic]]:
    tree = json.loads(path.read_text())
    estimates = ("dense", "uniform", "negotiated")
    kept = [Accuracy(**{**row, **{name: Estimate(**row[name]) for name in estimates}}) for row in tree["accuracy"]]
    return kept, [Traffic(**row) for row in tree["traffic"]]


def measure() -> tuple[list[Accuracy], list[Traffic]]:
    """All rows; networks without their data or weights are left out, and the reason goes to stderr."""
    torch.set_num_threads(2)
    moved, kept = list[Traffic](), list[Accuracy]()
    for name in NETWORKS:
        for width in LINK_BYTES_PER_CYCLE:
            try:
                with tempfile.TemporaryDirectory() as folder:
                    moved += traffic(name, width, Path(folder))
            except sparsecc.CompileError as missing:
                print(f"{name} is left out: {missing}", file=sys.stderr)
                break
            print(f"{name}, {width} B/cycle: done", file=sys.stderr)
    try:
        kept = accuracies()
    except sparsecc.CompileError as missing:
        print(f"accuracy is left out: {missing}", file=sys.stderr)
    return kept, moved


if __name__ == "__main__":
    main()
