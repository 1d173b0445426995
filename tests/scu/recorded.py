"""What a program did on the simulated unit, edge by edge, and the Program that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from torch import nn

import sparsecc
from sparsecc import pipelines
from sparsecc.artifact import Artifact
from sparsecc.backends.scu.codecs import Codec, Dtype, Header
from sparsecc.backends.scu.descriptor import Descriptor, Op
from sparsecc.backends.scu.host import Unit, load_kernels, open_unit
from sparsecc.backends.scu.machine import OFFSET_BITS, Target
from sparsecc.backends.scu.schedule import Schedule
from sparsecc.backends.scu.simulator import Outcome, operations
from sparsecc.backends.scu.target import PASSES, SCU, SCUTarget
from sparsecc.backends.scu.tile_code import TileCode
from sparsecc.backends.scu.unit_program import UnitProgram
from sparsecc.capture import Inputs, capture
from sparsecc.contracts.options import ContractOptions
from sparsecc.program import Program
from sparsecc.reference import Array

Floats = npt.NDArray[np.float32]
Values = npt.NDArray[Any]
"""float32, or int8 where that travels."""
ARRAYS = {Dtype.FLOAT32: np.float32, Dtype.INT8: np.int8}


@dataclass(frozen=True)
class Network:
    """An artifact, and the Program that it was made from: contracts are bound in both."""

    program: Program
    artifact: Artifact


def compiled(model: nn.Module, inputs: Inputs, path: Path, options: ContractOptions, *, batch: bool = False) -> Network:
    programs = list[Program]()
    build = SCUTarget.build

    def noted(self: SCUTarget, program: Program, *args: Any, **kwargs: Any) -> Any:
        programs.append(program)
        return build(self, program, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SCUTarget, "build", noted)
        dynamic = {"batch": 0} if batch else None
        made = sparsecc.compile(model, inputs, target="scu", dynamic=dynamic, contracts=options)
    return Network(programs[0], made.save(path))


@dataclass(frozen=True)
class Chunk:
    """What a SEND read from the scratchpad, [tiles, tile_n], and the blocks that it made of it."""

    codec: Codec
    dense: Values
    blocks: tuple[bytes, ...]


@dataclass(frozen=True)
class Edge:
    """A tensor on its way: what was sent and what arrived, flat, in the order of its elements."""

    chunks: tuple[Chunk, ...]
    sent: Values
    received: Values


@dataclass(frozen=True)
class Recording:
    edges: Mapping[str, Edge]  # by the name of the node whose result they carry
    outcome: Outcome


def record(artifact: Artifact, inputs: Mapping[str, Array]) -> Recording:
    """Run the program of an artifact on one sample, and look at the memories at every SEND and RECV."""
    unit = open_unit(artifact)
    under_way = dict[int, Chunk]()  # by the address of its blocks
    arrivals = list[tuple[Descriptor, Chunk, Values]]()

    class Observed(operations.Unit):
        def run(self, d: Descriptor) -> int:
            dense = self.memories.view(d.src, d.run_bytes).copy() if d.op == Op.SEND else None
            moved_bytes = super().run(d)
            if dense is not None:
                rooms = [self.memories.view(d.dst + i * d.dst_st1, d.dst_st1).tobytes() for i in range(d.tiles)]
                blocks = tuple(room[: Header.parse(room[:16]).block_bytes] for room in rooms)
                under_way[d.dst] = Chunk(
                    Codec(d.codec), dense.view(ARRAYS[Dtype(d.dtype)]).reshape(d.tiles, d.tile_n), blocks
                )
            if d.op == Op.RECV and d.src in under_way:  # else of constants
                found = self.memories.view(d.dst, d.run_bytes).copy().view(ARRAYS[Dtype(d.dtype)])
                arrivals.append((d, under_way[d.src], found))
            return moved_bytes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparsecc.backends.scu.simulator.run.Unit", Observed)
        outcome = unit.simulate(inputs)
    names = cast("list[str]", unit.program.meta["edges"])
    edges = {name: _edge([a for a in arrivals if a[0].tag == tag]) for tag, name in enumerate(names)}
    return Recording(edges, outcome)


def _edge(arrivals: list[tuple[Descriptor, Chunk, Values]]) -> Edge:
    """The chunks in the order of their places at a reader; all readers got the same."""
    edges = list[Edge]()
    for memory in sorted({d.dst >> OFFSET_BITS for d, *_ in arrivals}):
        here = sorted((a for a in arrivals if a[0].dst >> OFFSET_BITS == memory), key=lambda a: a[0].dst)
        places = [d.dst for d, *_ in here]
        ends = [d.dst + d.run_bytes for d, *_ in here]
        assert places[1:] == ends[:-1]  # without gaps
        chunks = tuple(chunk for _, chunk, _ in here)
        sent = np.concatenate([chunk.dense.reshape(-1) for chunk in chunks])
        edges.append(Edge(chunks, sent, np.concatenate([found for *_, found in here])))
    for other in edges[1:]:
        assert [id(chunk) for chunk in other.chunks] == [id(chunk) for chunk in edges[0].chunks]
        assert same_bits(other.received, edges[0].received)
    return edges[0]


def same_bits(a: Values, b: Values) -> bool:
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def scheduled(model: nn.Module, inputs: Inputs, options: ContractOptions) -> tuple[Unit, Schedule]:
    """What the passes of target scu make, without an artifact and its baselines."""
    program = capture(model, inputs)
    SCU.prepare(program, options)
    program, _ = pipelines.parse(PASSES).run(program)
    unit = Unit(program.facts[UnitProgram], program.facts[Target], load_kernels(program.facts[TileCode]))
    return unit, program.facts[Schedule]
