"""Is anything slower than its dense original? Every network, sparsity, size and number of threads, tuned and not.

    python benchmarks/never_slower.py -o benchmarks/never_slower.json

An artifact is tuned for its example inputs on one thread; here it runs on other batches, lengths and threads as well.
Prints the lowest ratio (dense time over compiled time, median over pairs of calls in turn) of every network, and exits
with status 1 if one is below 0.95.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from against_dense import NETWORKS, SPARSITIES

import sparsecc
from sparsecc.machine import cpu_name
from sparsecc.models import pruning

LEAST = 0.95
RUNS = 60
SIZES: dict[str, Sequence[tuple[int, ...]]] = {"MiniLM": ((1, 16), (1, 128), (4, 37), (1, 384))}
"""Leading axes of the inputs; for the others (1,), (7,) and (32,)."""
THREADS = (1, 2)


@dataclasses.dataclass(frozen=True)
class Row:
    network: str
    sparsity: float
    tuned: bool
    size: tuple[int, ...]
    threads: int
    ratio: float
    dense_ms: float
    compiled_ms: float


def measure(name: str, sparsity: float, tuned: bool, folder: Path) -> list[Row]:
    model, inputs, dynamic = NETWORKS[name]()
    pruning.prune_by_magnitude(model, sparsity)
    artifact = sparsecc.compile(model, inputs, dynamic=dynamic, tune=tuned).save(folder / "m.sparsecc")
    names = [value.name for value in artifact.manifest.inputs]
    rows = list[Row]()
    for size in SIZES.get(name.split(",")[0], ((1,), (7,), (32,))):
        arrays = {n: resized(x, size).numpy() for n, x in zip(names, inputs, strict=True)}
        for threads in THREADS:
            found = sparsecc.bench(artifact, threads=threads, runs=RUNS, inputs=arrays)
            times = found.ratio_median, found.dense.median_ms, found.compiled.median_ms
            rows.append(Row(name, sparsity, tuned, size, threads, *times))
    return rows


def resized(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The same values over and over, until the leading axes have these sizes."""
    for axis, count in enumerate(size):
        x = x.index_select(axis, torch.arange(count) % x.shape[axis])
    return x


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write all rows as JSON")
    options = parser.parse_args(arguments)
    rows = list[Row]()
    for name in NETWORKS:
        for sparsity in (0.9,) if name.startswith("LeNet-5") else SPARSITIES:
            for tuned in (True, False):
                try:
                    with tempfile.TemporaryDirectory() as folder:
                        rows += measure(name, sparsity, tuned, Path(folder))
                except sparsecc.CompileError as missing:
                    print(f"{name} is left out: {missing}", file=sys.stderr)
                    continue
                print(f"{name} at {sparsity:.0%}, {'tuned' if tuned else 'predicted'}: done", file=sys.stderr)
    if options.output:
        versions = {"torch": torch.__version__, "sparsecc": sparsecc.__version__, "python": platform.python_version()}
        report = {"cpu": cpu_name(), "versions": versions, "rows": [dataclasses.asdict(row) for row in rows]}
        options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{cpu_name()}: lowest ratio of {len(rows)}\n")
    for name in dict.fromkeys(row.network for row in rows):
        for tuned in (True, False):
            low = min((row for row in rows if (row.network, row.tuned) == (name, tuned)), key=lambda row: row.ratio)
            where = f"{low.sparsity:.0%} zeros, size {list(low.size)}, {low.threads} threads"
            print(f"{name:32} {'tuned' if tuned else 'predicted':10} {low.ratio:.2f}x  at {where}")
    return int(any(row.ratio < LEAST for row in rows))


if __name__ == "__main__":
    sys.exit(main())
