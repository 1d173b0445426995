"""A model that computes under its contracts, and can be trained under them.

trained = apply(model, settlement.contracts, settlement.maps)
optimizer = torch.optim.SGD(model.parameters(), 0.01)       # the parameters stay those of the model
loss(trained(x)).backward()
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.export import Dim

from sparsecc.capture import quiet, widen
from sparsecc.diagnostics import CompileError
from sparsecc.program import Program

from .binding import insert_contracts
from .contract import Contract
from .maps import SensitivityMap
from .stages import assign_stages, edges


class Contracted(nn.Module):
    """Forward passes of ``model`` under contracts: the same signature, parameters and buffers, on the CPU.

    Each combination of train() and eval() among the parts of the model is traced when it is first called; batch
    normalisation and dropout behave, and write their statistics, as in the model itself. Gradients pass straight
    through what is sent; what is dropped receives none.

    Raises, when called: CompileError (SCC044 a contract that its edge cannot have, SCC049 another number of edges).
    """

    def __init__(
        self,
        model: nn.Module,
        contracts: Sequence[Contract],
        maps: Mapping[str, SensitivityMap],
        dynamic: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.model = model
        self.contracts = tuple(contracts)
        self.maps = dict(maps)
        self._axes = frozenset(dynamic.values())
        self._traced = dict[tuple[bool, ...], fx.GraphModule]()  # no submodules: their parameters are the model's
        self.train(model.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        modes = tuple(part.training for part in self.model.modules())
        if modes not in self._traced:
            self._traced[modes] = self._trace(args, kwargs)
        return self._traced[modes](*args, **kwargs)

    def _trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.GraphModule:
        def wide(x: object) -> object:
            # a copy: of a view, torch would guard the tensor behind it, which the next call may not have
            return widen(x, self._axes).detach().clone() if isinstance(x, Tensor) else x

        def free(x: object) -> object:
            return {a: Dim.DYNAMIC for a in self._axes if a < x.dim()} if isinstance(x, Tensor) else None

        positional, named = tuple(map(wide, args)), {key: wide(x) for key, x in kwargs.items()}
        bound = inspect.signature(self.model.forward).bind(*positional, **named).arguments
        shapes = {
            key: tuple(map(free, cast("tuple[object, ...]", x))) if isinstance(x, tuple) else free(x)
            for key, x in bound.items()
        }
        with quiet():
            module = torch.export.export(self.model, positional, named, dynamic_shapes=shapes).module()
        self._insert(module)
        return module

    def _insert(self, module: fx.GraphModule) -> None:
        for check in module.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_tensor_metadata.default):
            module.graph.erase_node(check)  # of what was traced; a Program has none of them, nor dead code
        module.graph.eliminate_dead_code()
        cut = [edge for edge in edges(assign_stages(module.graph)) if edge.carries_float32]
        if len(cut) != len(self.contracts):
            raise CompileError.of(
                "SCC049",
                f"there are {len(self.contracts)} contracts, but {type(self.model).__name__} has {len(cut)} edges "
                "that could carry one",
                help="apply contracts to the model that they were settled for",
            )
        pairs = list(zip(cut, self.contracts, strict=True))
        insert_contracts(
            Program(module, (), ()),
            {edge.name: contract for edge, contract in pairs},
            {edge.name: self.maps[contract.edge] for edge, contract in pairs},
        )


def apply(
    model: nn.Module,
    contracts: Sequence[Contract],
    maps: Mapping[str, SensitivityMap],
    dynamic: Mapping[str, int] | None = None,
) -> Contracted:
    """The model under contracts settled for it, which correspond to its edges in their order.

    ``dynamic`` as in capture; without it the batch may change.
    """
    return Contracted(model, contracts, maps, {"batch": 0} if dynamic is None else dynamic)
