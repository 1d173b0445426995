"""A Program: one flat torch.fx graph of ATen ops, its constants, and what the compiler knows about its layers."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.node import Argument, Target

from sparsecc.diagnostics import Where


@dataclass(frozen=True)
class Candidate:
    """One way to run a layer: microseconds per call, measured on this machine or predicted by the cost model."""

    kernel: str
    microseconds: float


@dataclass(frozen=True)
class Layer:
    """What the compiler knows about one convolution or linear layer, under the name the user gave its weight.

    ``mask`` says where its zeros come from; ``format`` is how the weight is stored, ``kernel`` what computes it
    ("onnxruntime" = the plain dense operator); ``reason`` is the sentence `inspect` prints.
    """

    weight: str
    rows: int
    cols: int
    mask: str = "none"
    nonzeros: int = 0
    format: str = "dense"
    kernel: str = "onnxruntime"
    stored_bytes: int = 0
    candidates: tuple[Candidate, ...] = ()
    reason: str = ""

    @property
    def elems(self) -> int:
        return self.rows * self.cols

    @property
    def sparsity(self) -> float:
        return 1 - self.nonzeros / self.elems if self.elems else 0.0


@dataclass
class Program:
    """``module`` takes and returns flat positional tensors; its parameters and buffers are never written to.

    ``layers`` is keyed by the name of the layer's node; ``dims`` names the symbols of dynamic sizes.
    """

    module: fx.GraphModule
    example_inputs: tuple[torch.Tensor, ...]
    output_names: tuple[str, ...]
    dims: Mapping[str, str] = field(default_factory=dict[str, str])
    layers: dict[str, Layer] = field(default_factory=dict[str, Layer])

    @property
    def graph(self) -> fx.Graph:
        return self.module.graph

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.graph.nodes if node.op == "placeholder")

    @property
    def output_nodes(self) -> tuple[fx.Node, ...]:
        (output,) = self.graph.find_nodes(op="output")
        return cast("tuple[fx.Node, ...]", output.args[0])

    def clone(self) -> Program:
        """A copy whose graph and facts are its own; constants are shared, because nobody writes to them."""
        return replace(self, module=copy_module(self.module), layers=dict(self.layers))

    def fingerprint(self) -> str:
        """A digest of graph, constants and facts: equal exactly if nothing changed."""
        digest = hashlib.blake2b(digest_size=16)
        for module in (self.module, *(m for m in self.module.children() if isinstance(m, fx.GraphModule))):
            digest.update(str(module.graph).encode())
        for node in self.graph.find_nodes(op="get_attr"):
            digest.update(f"{node.target}={_tensor_digest(self.constant(node))}".encode())
        digest.update(repr(sorted(self.layers.items())).encode())
        return digest.hexdigest()

    # ---- constants -----------------------------------------------------------------------------------------------

    def constant(self, node: fx.Node) -> torch.Tensor:
        """The tensor behind a get_attr node."""
        value: object = self.module
        for name in str(node.target).split("."):
            value = getattr(value, name)
        return cast(torch.Tensor, value).detach()

    def is_constant(self, node: object) -> bool:
        return isinstance(node, fx.Node) and node.op == "get_attr"

    def add_constant(self, name: str, value: torch.Tensor) -> fx.Node:
        """A new get_attr node for a new buffer, placed before every computation of the graph."""
        attribute, n = name.replace(".", "_"), 1
        while hasattr(self.module, attribute):
            attribute, n = f"{name.replace('.', '_')}_{n}", n + 1
        self.module.register_buffer(attribute, value.contiguous())
        first = next(node for node in self.graph.nodes if node.op not in ("get_attr", "placeholder"))
        with self.graph.inserting_before(first):
            node = self.graph.get_attr(attribute)
        node.meta["val"] = self.fake_mode.from_tensor(value.contiguous(), static_shapes=True)
        return node

    # ---- nodes ---------------------------------------------------------------------------------------------------

    @property
    def fake_mode(self) -> FakeTensorMode:
        placeholder = next(iter(self.graph.find_nodes(op="placeholder")))
        return cast(FakeTensorMode, placeholder.meta["val"].fake_mode)

    def add_call(self, before: fx.Node, target: Target, *args: Argument, like: fx.Node) -> fx.Node:
        """Insert ``target(*args)`` before a node, with its shape computed and the source line of ``like``."""
        with self.graph.inserting_before(before):
            node = self.graph.call_function(cast("torch._ops.OpOverload", target), args)
        node.meta = {k: v for k, v in like.meta.items() if k in ("stack_trace", "nn_module_stack")}
        with self.fake_mode:
            call = cast("torch._ops.OpOverload", target)
            node.meta["val"] = call(*fx.map_arg(args, lambda n: n.meta["val"]))
        return node

    def tidy(self) -> None:
        """Drop what nothing uses any more, and make the module match its graph."""
        self.graph.eliminate_dead_code()
        for node in self.graph.find_nodes(op="get_attr"):
            if not node.users:
                self.graph.erase_node(node)
        self.module.delete_all_unused_submodules()
        self.module.recompile()
        self.layers = {name: fact for name, fact in self.layers.items() if name in self._names()}

    def _names(self) -> set[str]:
        inner = (m for m in self.module.children() if isinstance(m, fx.GraphModule))
        return {node.name for module in (self.module, *inner) for node in module.graph.nodes}


def calls(program: Program, *targets: object) -> Iterator[fx.Node]:
    """The call_function nodes with one of the targets, in order; safe against changes while iterating."""
    for node in list(program.graph.nodes):
        if node.op == "call_function" and node.target in targets:
            yield node


def where(node: fx.Node) -> Where:
    """The user's line that made a node: the innermost frame outside torch."""
    trace = cast(str, node.meta.get("stack_trace") or "")
    frames = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    own = [f for f in frames if "/torch/" not in f] or frames
    if not own:
        return Where(node.name)
    file, line = own[-1].split(",")[:2]
    return Where(node.name, f"{file.removeprefix('File ').strip(chr(34))}:{line.removeprefix(' line ')}")


def copy_module(module: fx.GraphModule) -> fx.GraphModule:
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    (old,), (new,) = module.graph.find_nodes(op="output"), graph.find_nodes(op="output")
    new.meta = copy.copy(old.meta)
    return fx.GraphModule(module, graph)


_digests: dict[int, tuple[torch.Tensor, int, str]] = {}


def _tensor_digest(tensor: torch.Tensor) -> str:
    """Content digest, remembered per storage and version, so that unchanged weights are read once."""
    known = _digests.get(tensor.data_ptr())
    if known and known[0].shape == tensor.shape and known[0].dtype == tensor.dtype and known[1] == tensor._version:
        return known[2]
    data = tensor.contiguous().view(torch.uint8) if tensor.dim() else tensor.reshape(1).view(torch.uint8)
    digest = hashlib.blake2b(data.numpy().data, digest_size=16).hexdigest()
    _digests[tensor.data_ptr()] = (tensor, tensor._version, digest)
    return digest
