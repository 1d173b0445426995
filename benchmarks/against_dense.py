"""Compile real networks at several sparsities and measure each against its dense original in stock onnxruntime.

    python benchmarks/against_dense.py -o results.json

Pruning is by magnitude, layer by layer, without retraining: speed and size do not depend on what the weights are worth.
Networks whose data is not on this machine are reported as missing. One thread, interleaved; run it on an idle machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

import sparsecc
from sparsecc.machine import cpu_name
from sparsecc.models import lenet5, minilm, pruning, resnet_cifar

SPARSITIES = (0.5, 0.8, 0.9)
Network = tuple[nn.Module, tuple[torch.Tensor, ...], dict[str, int]]  # module, example inputs, dynamic axes


def multilayer_perceptron() -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))
    return model, (torch.randn(32, 784),), {"batch": 0}


NETWORKS: dict[str, Callable[[], Network]] = {
    "LeNet-5, 1 digit": lambda: (lenet5.load_pruned(), lenet5.example_inputs(), {"batch": 0}),
    "MLP 784-1024-1024-10, batch 32": multilayer_perceptron,
    "ResNet-20, batch 1": lambda: (resnet_cifar.load_pretrained(20), resnet_cifar.example_inputs(), {"batch": 0}),
    "ResNet-56, batch 1": lambda: (resnet_cifar.load_pretrained(56), resnet_cifar.example_inputs(), {"batch": 0}),
    "MiniLM, 128 tokens": lambda: (minilm.load(), minilm.example_inputs(), {"batch": 0, "sequence": 1}),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """``ratio`` is the median over pairs of calls, dense over compiled; bytes are those of the ONNX files."""

    network: str
    sparsity: float
    dense_ms: float
    compiled_ms: float
    ratio: float
    dense_bytes: int
    compiled_bytes: int
    sparse_layers: int
    layers: int
    compile_s: float


def nonzeros(model: nn.Module) -> float:
    """The share of non-zero values in the weights of convolutions and linear layers."""
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)


def measure(name: str, sparsity: float, folder: Path) -> Row:
    model, inputs, dynamic = NETWORKS[name]()
    pruning.prune_by_magnitude(model, sparsity)
    zeros = 1 - nonzeros(model)
    start = time.perf_counter()
    compiled = sparsecc.compile(model, inputs, dynamic=dynamic)
    compile_s = time.perf_counter() - start
    result = sparsecc.bench(compiled.save(folder / "m.sparsecc"), threads=1)
    layers = compiled.manifest.layers.values()
    return Row(
        name,
        round(zeros, 3),
        result.dense.median_ms,
        result.compiled.median_ms,
        result.ratio_median,
        result.dense_bytes,
        result.compiled_bytes,
        sum(layer.is_sparse for layer in layers),
        len(layers),
        compile_s,
    )


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| network | zeros | dense ms | compiled ms | faster | file | sparse layers |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        size = f"{r.dense_bytes / 1e6:.2f} -> {r.compiled_bytes / 1e6:.2f} MB"
        times = f"{r.dense_ms:.3f} | {r.compiled_ms:.3f} | {r.ratio:.2f}x"
        lines.append(f"| {r.network} | {r.sparsity:.0%} | {times} | {size} | {r.sparse_layers} of {r.layers} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write the rows as JSON")
    parser.add_argument("--networks", default=",".join(n.split(",")[0] for n in NETWORKS), help="names, by commas")
    options = parser.parse_args(arguments)
    wanted = options.networks.split(",")
    rows = list[Row]()
    for name in (n for n in NETWORKS if n.split(",")[0] in wanted):
        for sparsity in (0.9,) if name.startswith("LeNet-5") else SPARSITIES:  # LeNet-5 comes pruned to 90 %
            try:
                with tempfile.TemporaryDirectory() as folder:
                    rows.append(measure(name, sparsity, Path(folder)))
            except sparsecc.CompileError as missing:
                print(f"{name} is left out: {missing}", file=sys.stderr)
                break
            print(f"{name} at {sparsity:.0%}: {rows[-1].ratio:.2f}x", file=sys.stderr)
    versions = {"torch": torch.__version__, "sparsecc": sparsecc.__version__, "python": platform.python_version()}
    if options.output:
        report = {"cpu": cpu_name(), "versions": versions, "rows": [dataclasses.asdict(row) for row in rows]}
        options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{cpu_name()}, one thread\n\n{table(rows)}")


if __name__ == "__main__":
    main()
