"""What the machine can do at best: a dense matrix product in onnxruntime."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from race import Worker

SIZES = (256, 384, 512, 1024)
"""Rows and columns of the products: the fastest counts. Short ones are over before a busy machine interrupts them."""


def peak_flops(threads: int, runs: int, folder: Path) -> float:
    """FLOPs per second of the fastest of ``runs`` products of every size.

    Raises: race.Failed.
    """
    return max(_product_flops(size, threads, runs, folder) for size in SIZES)


def _product_flops(size: int, threads: int, runs: int, folder: Path) -> float:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    value = helper.make_tensor_value_info
    given, made = (value(name, onnx.TensorProto.FLOAT, [size, size]) for name in "xy")
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([product], "peak", [given], [made], [numpy_helper.from_array(w, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "peak.onnx")
    np.savez(folder / "x.npz", x=x)
    np.savez(folder / "y.npz", y=x @ w)
    job = {
        "runtime": "onnxruntime",
        "model": str(folder / "peak.onnx"),
        "inputs": str(folder / "x.npz"),
        "expected": str(folder / "y.npz"),
        "threads": threads,
    }
    with Worker(sys.executable, job) as worker:
        return float(2 * size**3 / min(worker.turn() for _ in range(runs)))
