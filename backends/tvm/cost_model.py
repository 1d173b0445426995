"""Predict what a layer costs where nothing can be measured: a foreign machine, or --no-tune."""

from __future__ import annotations

from torch import fx

from sparsecc.passes.choose_formats import Work
from sparsecc.program import DENSE_KERNELS, Candidate, Layer, Program
from sparsecc.reference import shapes

# One core with 512-bit vectors, float32. The first three follow the design page on kernels (AMD Zen 4); the figures for
# one pixel or token and for memory are assumptions.
DENSE_FLOPS_PER_US = 100e3  # matrix products of mature libraries, 100-110 GFLOP/s
BLOCK_FLOPS_PER_US = 110e3  # 4x1 and 16x1 blocks: one load of x serves several rows
CSR_FLOPS_PER_US = 65e3  # 60-80 GFLOP/s of non-zeros
CSR_VECTOR_FLOPS_PER_US = 2e3  # one pixel or token: a non-zero per nanosecond
MEMORY_BYTES_PER_US = 10e3  # dense weights of one token come from memory
CALL_US = 3.0  # an operator call of onnxruntime, 2-5 us
LEAST_US = 0.1  # what even an all-zero layer takes: the bias is written to every output


def predict(program: Program, work: Work) -> dict[fx.Node, list[Candidate]]:
    """Predicted microseconds per candidate on the example inputs; leaves out caches, conversions and threads."""
    sizes = shapes(program)

    def candidate(node: fx.Node, kernel: str, read_elems: int) -> Candidate:
        layer = program.layers[node.name]
        columns = sizes[node.name].numel() / max(layer.rows, 1)  # pixels or tokens: columns of the product
        leaving_us = CALL_US if kernel == "onnxruntime" else 0.0
        return Candidate(kernel, microseconds(layer, kernel, read_elems, columns), leaving_us)

    return {node: [candidate(node, *item) for item in kernels.items()] for node, kernels in work.items()}


def microseconds(layer: Layer, kernel: str, read_elems: int, columns: float) -> float:
    if kernel in DENSE_KERNELS:
        moved = 4 * layer.elems / MEMORY_BYTES_PER_US if columns < 16 else 0.0
        return max(2 * layer.elems * columns / DENSE_FLOPS_PER_US, moved)
    if columns < 16:
        return max(2 * read_elems / CSR_VECTOR_FLOPS_PER_US, LEAST_US)
    rate = CSR_FLOPS_PER_US if kernel == "csr" else BLOCK_FLOPS_PER_US
    return max(2 * read_elems * columns / rate, LEAST_US)
