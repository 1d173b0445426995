"""An artifact for target scu without a compiler: 64 floats cross the link, of which the greatest 16 arrive."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser

from sparsecc.artifact import Artifact, golden_npz, write
from sparsecc.backends.scu import container
from sparsecc.backends.scu.codecs import Codec, Dtype, worst_case_bytes
from sparsecc.backends.scu.descriptor import Descriptor, Op, Queue, flags
from sparsecc.backends.scu.files import KERNELS, PROGRAM, REPORT, TARGET
from sparsecc.backends.scu.machine import scu_v1, to_json
from sparsecc.backends.scu.report_file import Figure, Figures
from sparsecc.backends.scu.unit_program import UnitProgram
from sparsecc.manifest import Check, Distance, Manifest, Value

ELEMS, KEPT = 64, 16
MACHINE = scu_v1()
M = {name: memory.address for name, memory in MACHINE.memory.items()}
BLOCK_BYTES = worst_case_bytes(Codec.BITMASK, ELEMS, KEPT, Dtype.FLOAT32)
_IN, _OUT = flags(Queue.IN), flags(Queue.OUT)
_PLAIN = {"run_bytes": 4 * ELEMS, "reps1": 1, "reps2": 1}
_BLOCKS = {"dtype": Dtype.FLOAT32, "codec": Codec.BITMASK, "k": KEPT, "tile_n": ELEMS, "tiles": 1, **_PLAIN}
OUTPUT = M["dram"] + 4 * ELEMS
CHECK = Check(0.05, kernels=None, portable=1e-7, reference=0.0, unit=2e-7, original={"y": Distance(0.25, 2, 1)})


def port(name: str, address: int) -> dict[str, object]:
    return {"name": name, "address": address, "dtype": "float32", "shape": [1, ELEMS]}


CODE = (
    Descriptor(Op.COPY, _IN, src=M["dram"], dst=M["tile0"], **_PLAIN, rel_sem=0, rel_add=1),
    Descriptor(Op.SEND, _OUT, **_BLOCKS, src=M["tile0"], dst=M["link"], dst_st1=BLOCK_BYTES,
               acq_sem=0, acq_ge=1, rel_sem=1, rel_add=1),
    Descriptor(Op.RECV, _IN, **_BLOCKS, src=M["link"], dst=M["tile1"], src_st1=BLOCK_BYTES,
               acq_sem=1, acq_ge=1, rel_sem=2, rel_add=1),
    Descriptor(Op.COPY, _OUT, src=M["tile1"], dst=OUTPUT, **_PLAIN, acq_sem=2, acq_ge=1),
    Descriptor(Op.END),
)  # fmt: skip
UNIT_PROGRAM = UnitProgram(
    CODE, meta={"inputs": [port("x", M["dram"])], "outputs": [port("y", OUTPUT)], "edges": ["relu_1"]}
)


def sample(seed: int = 0, count: int = 2) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What the unit sends as it is: 16 of 64 are not 0."""
    rng = np.random.default_rng(seed)
    x = np.zeros((count, ELEMS), np.float32)
    for row in x:
        row[rng.permutation(ELEMS)[:KEPT]] = rng.uniform(1, 2, KEPT)
    return x


def figure(scale: int) -> Figure:
    return Figure(
        link_bytes=BLOCK_BYTES * scale,
        dram_bytes=512,
        descriptor_bytes=320,
        cycles=1000 * scale,
        lower_bound_cycles=800 * scale,
        energy_pj=40_000.0 * scale,
        energy_by_component_pj={"dram read": 30_000.0, "link": 10_000.0 * scale},
        overlap=1.5,
        compute_share=0.25,
    )


def report_tree() -> dict[str, Any]:
    """report.json, with a log of the negotiation."""
    edge = {
        "edge": "relu_1", "elems": ELEMS, "tile_elems": ELEMS, "dtype": "float32",
        "proposed_q16": 1 << 15, "adjusted_q16": 3 << 14, "lo_q16": 1 << 12, "hi_q16": 1 << 16, "settled_q16": 1 << 14,
        "binding": "receive buffer", "degradation": 0.00125, "dense_bytes": 256, "settled_bytes": BLOCK_BYTES,
    }  # fmt: skip
    log = {
        "loss": "cross-entropy to the labels",
        "quality": "accuracy",
        "dense": {"value": 0.91, "low": 0.891, "high": 0.926, "samples": 1000},
        "settled": {"value": 0.904, "low": 0.884, "high": 0.921, "samples": 1000},
        "edges": [edge],
    }
    return {
        "schema": 1,
        "settlement": log,
        "schedule": {"makespan_cycles": 1000, "lower_bound_cycles": 800, "method": "CP-SAT"},
        "figures": Figures(figure(1), figure(4), figure(2)).to_json(),
    }


def scu_artifact(
    path: Path, manifest: Manifest, report: object = None, program: UnitProgram = UNIT_PROGRAM
) -> Artifact:
    """An artifact as `compile --target scu` writes it; its model.onnx is the identity, as is the unit on ``sample``."""
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]> g (float[batch, {ELEMS}] x) => (float[batch, {ELEMS}] y)'
        "{ y = Identity (x) }"
    )
    tree = report_tree() if report is None else report
    values = [(Value(name, "float32", ("batch", ELEMS)),) for name in ("x", "y")]
    files = {
        "model.onnx": model.SerializeToString(),
        "golden.npz": golden_npz({"x": sample()}, {"y": sample()}),
        PROGRAM: container.write(program, MACHINE),
        TARGET: to_json(MACHINE).encode(),
        KERNELS: b"/* no kernels */\n",
        REPORT: tree if isinstance(tree, bytes) else json.dumps(tree).encode(),
    }
    made_for = replace(manifest, target="scu", inputs=values[0], outputs=values[1], layers={}, regions=(), speed=None)
    made_for = replace(made_for, check=CHECK)
    return write(path, files, made_for)
