"""Run a Program as its contracts make it: every edge that has one carries what is kept of it.

What edges carry under contracts: the values that the stages see, and the outputs that follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx

from sparsecc.program import Program

from .contract import Contract
from .maps import SensitivityMap
from .op import transmit

Values = dict[fx.Node, Any]


class Replay(fx.Interpreter):
    """Every value stays in ``env``; ``produced`` holds those of the edges as they are before they are sent."""

    def __init__(self, program: Program, contracts: Mapping[str, Contract], maps: Mapping[str, SensitivityMap]) -> None:
        super().__init__(program.module, garbage_collect_values=False)
        self.contracts = contracts
        self.sensitivity = {edge: torch.from_numpy(maps[edge].gradient) for edge in contracts}
        self.produced = dict[str, Tensor]()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name not in self.contracts:
            return value
        self.produced[n.name] = value
        return self.send(n.name, value)

    def send(self, edge: str, value: Tensor) -> Tensor:
        contract = self.contracts[edge]
        return value if contract.keeps_everything else transmit(value, self.sensitivity[edge], contract)


def outputs(
    program: Program,
    inputs: Sequence[Tensor],
    contracts: Mapping[str, Contract],
    maps: Mapping[str, SensitivityMap],
) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return cast("tuple[Tensor, ...]", Replay(program, contracts, maps).run(*inputs))


def followers(node: fx.Node) -> set[fx.Node]:
    """The nodes whose values depend on the node's, itself included."""
    found, frontier = {node}, [node]
    while frontier:
        for user in frontier.pop().users:
            if user not in found:
                found.add(user)
                frontier.append(user)
    return found
