"""Put settled contracts into a graph: the producer of an edge is followed by ``keep_top``, which all others read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import fx

from sparsecc.diagnostics import CompileError
from sparsecc.program import Program

from .contract import Contract, check_contract_fits
from .maps import SensitivityMap
from .op import KEEP_TOPS, attributes, op_of, travelling
from .stages import assign_stages, edges

EDGE = "edge"
"""Key of a ``keep_top``'s meta: the name of its edge, which is not always that of the node it reads."""


def insert_contracts(program: Program, contracts: Mapping[str, Contract], maps: Mapping[str, SensitivityMap]) -> None:
    """What other stages read of an edge becomes what its contract sends; some send everything, and change nothing.

    Both are keyed by the name of the edge's node.
    Raises: CompileError SCC044 for a contract that does not fit its edge, or is on none.
    """
    found = {edge.name: edge for edge in edges(assign_stages(program.graph))}
    if unknown := sorted(set(contracts) - set(found)):
        raise CompileError.of(
            "SCC044",
            f"a contract is on {unknown[0]}, which is no edge of this model",
            help=f"its edges: {', '.join(found)}; negotiate the contracts again: compile the model again",
        )
    for name, contract in contracts.items():
        edge, sensitivity = found[name], maps[name].gradient
        value: torch.Tensor = edge.node.meta["val"]
        # a map never spans an axis of open size
        shape = [1 if isinstance(size, torch.SymInt) else size for size in value.shape]
        dtype = str(value.dtype).removeprefix("torch.")
        if misfits := list(check_contract_fits(contract, shape, dtype, len(sensitivity))):
            raise CompileError(misfits)
        if contract.keeps_everything:
            continue
        s = program.add_constant(f"{name}_sensitivity", torch.as_tensor(sensitivity))
        fill_dtype = travelling(contract, value.dtype)
        fill = program.add_constant(f"{name}_fill", torch.full((1,), contract.dropped, dtype=fill_dtype))
        sent = _insert(program, edge.node, contract, s, fill)
        sent.meta[EDGE] = name
        for reader in edge.readers:
            arrived = _turned_back(program, reader, sent, contract.axis, edge.node) if _turned(contract) else sent
            reader.replace_input_with(edge.node, arrived)
    program.tidy()


def _insert(program: Program, x: fx.Node, contract: Contract, sensitivity: fx.Node, fill: fx.Node) -> fx.Node:
    """``keep_top`` after x, in the order of the contract's traversal."""
    after = x.next
    source = _moved(program, after, x, contract.axis, -1, x) if _turned(contract) else x
    numbers = attributes(contract).values()
    return program.add_call(after, op_of(contract), source, sensitivity, fill, *numbers, like=x)


def _turned(contract: Contract) -> bool:
    return contract.order == "channels-last"


def _turned_back(program: Program, reader: fx.Node, sent: fx.Node, axis: int, like: fx.Node) -> fx.Node:
    """Every reader turns its own copy back: so the payload travels, not the turned tensor."""
    strided, layout = _moved(program, reader, sent, -1, axis, like), _memory_format(like.meta["val"])
    # readers may take views
    return program.add_call(reader, torch.ops.aten.contiguous.default, strided, like=like, memory_format=layout)


def _memory_format(value: torch.Tensor) -> torch.memory_format:
    last = torch.channels_last
    return last if value.dim() == 4 and value.is_contiguous(memory_format=last) else torch.contiguous_format


def _moved(program: Program, before: fx.Node, x: fx.Node, source: int, target: int, like: fx.Node) -> fx.Node:
    axes = list(range(x.meta["val"].dim()))
    axes.insert(target % len(axes), axes.pop(source))
    return program.add_call(before, torch.ops.aten.permute.default, x, axes, like=like)


def without_contracts(program: Program) -> Program:
    """The same network sending everything."""
    program = program.clone()
    for node in [node for node in program.graph.nodes if node.target in KEEP_TOPS]:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        for reader in [user for user in node.users if _turns_back(user, source)]:
            for copy in [user for user in reader.users if user.target is torch.ops.aten.contiguous.default]:
                copy.replace_all_uses_with(reader)
            reader.replace_all_uses_with(source.all_input_nodes[0])
        node.replace_all_uses_with(source)
    program.tidy()
    return program


def _turns_back(node: fx.Node, source: fx.Node) -> bool:
    """Whether two permutations, first that of ``source``, then that of ``node``, change nothing."""
    if not (source.target is node.target is torch.ops.aten.permute.default):
        return False
    axes, back = cast("tuple[list[int], list[int]]", (source.args[1], node.args[1]))
    return [axes[axis] for axis in back] == list(range(len(axes)))
