"""Do kernels execute more instructions than they did? Counts do not depend on what else the machine does.

    python benchmarks/regression.py            # compare with benchmarks/regression.json
    python benchmarks/regression.py --update   # store what is counted as the new reference

Small layers at 90 % zeros are stepped through instruction by instruction, with AVX2 and AVX-512: that needs no rights
and no performance counters. A count is of generated code, so it is the same on every processor that runs it, but not
with another TVM. Caches and latencies are not seen: times are what the other benchmarks measure. Warnings are on
stderr; exit status 1 if a layer takes 2 % more instructions than stored, or nothing can be compared.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from sparsecc import pipelines
from sparsecc.backends.onnxruntime.emit import regions
from sparsecc.backends.onnxruntime.library import build_library, c_compiler
from sparsecc.backends.onnxruntime.native import AVX512_FLAGS, NativeRegion
from sparsecc.backends.tvm.kernels.spec import Isa
from sparsecc.backends.tvm.lower import lower
from sparsecc.backends.tvm.plan import RegionPlan
from sparsecc.capture import capture
from sparsecc.machine import cpu_flags, cpu_name

REFERENCE = Path(__file__).with_suffix(".json")
MORE_MOST = 1.02  # the code around kernels is a C compiler's: gcc 12 and zig's clang differ by up to 0.7 % of a layer
ISAS: tuple[Isa, ...] = ("avx2", "avx512")
HERE = ISAS if cpu_flags() >= AVX512_FLAGS else ISAS[:1]
SPARSE = pipelines.CPU.replace("choose-formats", "choose-formats{{costs=predicted,margin=-1e9,formats=('{}',)}}")
Counts = dict[str, dict[Isa, int]]  # by layer


def convolutions() -> nn.Module:
    layers = [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1))


NORM = nn.GELU(), nn.LayerNorm(96)
LAYERS: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {  # module, input, format
    "linear 256 to 128, 1 token": (nn.Linear(256, 128), (1, 256), "csr"),
    "linear 128 to 128, 16 tokens": (nn.Linear(128, 128), (16, 128), "csr"),
    "linear 128 to 64, 64 tokens": (nn.Linear(128, 64), (64, 128), "csr"),
    "linear 1024 to 24 in slices, 64 tokens": (nn.Linear(1024, 24), (64, 1024), "csr"),
    "linear 128 to 64, 4x1 blocks, 64 tokens": (nn.Linear(128, 64), (64, 128), "bsr4x1"),
    "linear 128 to 128, 16x1 blocks, 16 tokens": (nn.Linear(128, 128), (16, 128), "bsr16x1"),
    "linear, GELU, norm, 32 tokens": (nn.Sequential(nn.Linear(48, 96), *NORM), (1, 32, 48), "csr"),
    "1x1 convolution 64 to 32, 14x14": (nn.Conv2d(64, 32, 1), (1, 64, 14, 14), "csr"),
    "3x3 convolution 16 to 32, stride 2, 16x16": (nn.Conv2d(16, 32, 3, 2, 1), (1, 16, 16, 16), "csr"),
    "two 3x3 convolutions and pool, 16x16": (convolutions(), (1, 16, 16, 16), "csr"),
    "two 3x3 convolutions and pool, 7x7": (convolutions(), (1, 16, 7, 7), "csr"),
}


class Layer(NamedTuple):
    plan: RegionPlan
    arrays: list[Any]  # all inputs of the region, the activation first
    expected: Any
    nonzeros: int


def prepared(number: int, module: nn.Module, shape: tuple[int, ...], storage: str) -> Layer:
    rng, block_rows = np.random.default_rng(number), int(storage[3:-2] or 1)
    with torch.no_grad():
        for weight in module.parameters():
            values = rng.standard_normal(tuple(weight.shape), np.float32) / np.sqrt(weight[0].numel())
            kept = rng.random((weight.shape[0] // block_rows, *weight.shape[1:])) >= 0.9 * (weight.dim() > 1)
            weight.copy_(torch.from_numpy(values * np.repeat(kept, block_rows, axis=0)))
        x = torch.from_numpy(rng.standard_normal(shape, np.float32))
        expected = module(x).numpy()
    program, _ = pipelines.parse(SPARSE.format(storage)).run(capture(module, (x,)))
    ((region,), (call,)) = regions(program), program.graph.find_nodes(op="call_module")
    arrays = [x.numpy(), *(program.constant(argument).numpy() for argument in call.args[1:])]
    nonzeros = sum(int(w.count_nonzero()) for w in module.parameters() if w.dim() > 1)
    return Layer(lower(region.module, f"Layer{number}"), arrays, expected, nonzeros)


def count(layers: dict[str, Layer], folder: Path) -> Counts:
    """Build all layers, and count. Raises: RuntimeError where a result is wrong, or the processor cannot be stepped."""
    build_library([layer.plan for layer in layers.values()], folder / "kernels.so")
    files = [str(Path(__file__).with_name("instructions.c")), "-o", str(folder / "instructions.so")]
    subprocess.run([*c_compiler(), "-O2", "-fPIC", "-shared", "-mno-red-zone", *files], check=True)
    instructions = ctypes.CDLL(files[-1]).instructions
    instructions.restype = ctypes.c_int64
    counts: Counts = {name: {} for name in layers}
    for number, (name, layer) in enumerate(layers.items()):
        y = np.empty_like(layer.expected)
        rows = len(y) if layer.plan.kind == "image" else y.size // y.shape[-1]
        for isa in HERE:
            with NativeRegion(folder / "kernels.so", number, layer.arrays, isa) as region:
                call = region.bind(layer.arrays[:1], [y], rows)
                call()
                counts[name][isa] = instructions(call.function, *call.arguments)
            if not (np.allclose(y, layer.expected, atol=1e-4) and counts[name][isa] > 0):
                raise RuntimeError(f"{name}, {isa}: {counts[name][isa]} instructions, or a wrong result")
    return counts


def worse(found: Counts, known: Counts, layers: dict[str, Layer]) -> bool:
    """Print the table and the warnings; whether anything takes too many instructions, or nothing was compared."""
    ratios = dict[str, float]()
    print(f"{'instructions per non-zero':50}" + "".join(f"{isa:>10}{'before':>10}" for isa in ISAS))
    for name, layer in layers.items():
        cells = ""
        for isa in ISAS:
            now, before = found[name].get(isa), known.get(name, {}).get(isa)  # None: not counted
            cells += "".join(f"{n / layer.nonzeros:10.2f}" if n else f"{'-':>10}" for n in (now, before))
            if now and before:
                ratios[f"{name}, {isa}"] = now / before
        print(f"{name:50}{cells}")
    for name, ratio in ratios.items():
        if ratio > MORE_MOST:
            print(f"WARNING: {name}: {ratio:.3f} times the instructions", file=sys.stderr)
    for isa in (isa for isa in ISAS if isa not in HERE):
        print(f"{isa} cannot be compared on {cpu_name()}, which has none", file=sys.stderr)
    return max(ratios.values(), default=MORE_MOST + 1) > MORE_MOST


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="store the counts as the reference")
    options = parser.parse_args()
    layers = {name: prepared(n, *layer) for n, (name, layer) in enumerate(LAYERS.items())}
    with tempfile.TemporaryDirectory() as folder:
        found = count(layers, Path(folder))
    here = {"cpu": cpu_name(), "tvm": version("apache-tvm"), "counts": found}
    if options.update:
        REFERENCE.write_text(json.dumps(here, indent=1) + "\n")
    known = json.loads(REFERENCE.read_text())
    for title, made in (("before", known), ("here", here)):
        print(f"{title}: {made['cpu']}, TVM {made['tvm']}")
    return int(worse(found, known["counts"], layers))


if __name__ == "__main__":
    sys.exit(main())
