"""A Program: one flat torch.fx graph of ATen ops, its constants, and what the compiler knows about its layers."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import torch
from torch import fx
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import statically_known_true, sym_eq
from torch.fx.node import Argument
from torch.utils.weak import WeakTensorKeyDictionary

from sparsecc.diagnostics import Where

DENSE_KERNELS = ("dense", "onnxruntime")
"""The kernels of a layer that read every weight: inside a region, and as onnxruntime's own operator."""


Fact = TypeVar("Fact")


@dataclass(frozen=True)
class Candidate:
    """One way to run a layer: microseconds per call, measured on this machine or predicted by the cost model.

    ``estimated_us`` is what comes on top that nobody measured: leaving a region for onnxruntime's operator.
    """

    kernel: str
    microseconds: float
    estimated_us: float = 0.0

    @property
    def total_us(self) -> float:
        return self.microseconds + self.estimated_us


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
    def is_sparse(self) -> bool:
        """Whether a sparse kernel computes the layer; one that is only stored sparsely is computed densely."""
        return self.kernel not in DENSE_KERNELS

    @property
    def elems(self) -> int:
        return self.rows * self.cols

    @property
    def has_zeros(self) -> bool:
        return self.nonzeros < self.elems

    @property
    def sparsity(self) -> float:
        return 1 - self.nonzeros / self.elems if self.elems else 0.0


@dataclass
class Program:
    """``module`` takes and returns flat positional tensors; its parameters and buffers are never written to.

    ``layers`` is keyed by the name of the layer's node; ``dims`` names the symbols of dynamic sizes; ``facts`` hold
    what the passes of one target know, under its type.
    """

    module: fx.GraphModule
    example_inputs: tuple[torch.Tensor, ...]
    output_names: tuple[str, ...]
    dims: Mapping[str, str] = field(default_factory=dict[str, str])
    layers: dict[str, Layer] = field(default_factory=dict[str, Layer])
    facts: dict[type[Any], Any] = field(default_factory=dict[type[Any], Any])

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
        return replace(self, module=copy_module(self.module), layers=dict(self.layers), facts=dict(self.facts))

    def fact(self, kind: type[Fact]) -> Fact | None:
        """The fact of a type, if it is known."""
        return cast("Fact | None", self.facts.get(kind))

    def fingerprint(self) -> str:
        """A digest of graph, constants and facts: equal exactly if nothing changed."""
        digest = hashlib.blake2b(digest_size=16)
        for module in (self.module, *(m for m in self.module.children() if isinstance(m, fx.GraphModule))):
            digest.update(str(module.graph).encode())
        for node in self.constants:
            digest.update(f"{node.target}={_tensor_digest(cast(torch.Tensor, self._attribute(node)))}".encode())
        digest.update(repr(sorted(self.layers.items())).encode())
        digest.update(repr(sorted(f"{kind} {id(fact)}" for kind, fact in self.facts.items())).encode())
        return digest.hexdigest()

    # ---- constants -----------------------------------------------------------------------------------------------

    @property
    def constants(self) -> tuple[fx.Node, ...]:
        """The get_attr nodes of tensors; the bodies of torch.cond are get_attr nodes too, but of modules."""
        return tuple(filter(self.is_constant, self.graph.find_nodes(op="get_attr")))

    def constant(self, node: fx.Node) -> torch.Tensor:
        """The tensor behind a get_attr node."""
        return cast(torch.Tensor, self._attribute(node)).detach()

    def is_constant(self, node: object) -> bool:
        return isinstance(node, fx.Node) and node.op == "get_attr" and isinstance(self._attribute(node), torch.Tensor)

    def _attribute(self, node: fx.Node) -> object:
        value: object = self.module
        for name in str(node.target).split("."):
            value = getattr(value, name)
        return value

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
        values = (node.meta.get("val") for node in self.graph.nodes)
        return next(v.fake_mode for v in values if isinstance(v, FakeTensor))

    def add_call(
        self, before: fx.Node, target: OpOverload, *args: Argument, like: fx.Node, **kwargs: Argument
    ) -> fx.Node:
        """Insert ``target(*args, **kwargs)`` before a node, with its shape computed and the source line of ``like``."""
        with self.graph.inserting_before(before):
            node = self.graph.call_function(target, args, dict(kwargs))
        node.meta = {k: v for k, v in like.meta.items() if k in ("stack_trace", "nn_module_stack")}
        with self.fake_mode:
            node.meta["val"] = target(*fx.map_arg(args, lambda n: n.meta["val"]), **kwargs)
        return node

    def tidy(self) -> None:
        """Drop what nothing uses any more, and make the module match its graph."""
        self.graph.eliminate_dead_code()
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


def schema(target: OpOverload) -> torch.FunctionSchema:
    return target._schema  # pyright: ignore[reportPrivateUsage]  torch gives it no public name


def arguments(node: fx.Node) -> dict[str, object]:
    """Those of a call of an ATen operator by their names, defaults included."""
    known = schema(cast(OpOverload, node.target)).arguments
    bound: dict[str, object] = {a.name: a.default_value for a in known if a.has_default_value()}
    bound.update({a.name: value for a, value in zip(known, node.args, strict=False)})
    return bound | dict(node.kwargs)


def same_sizes(a: Sequence[int | torch.SymInt], b: Sequence[int | torch.SymInt]) -> bool:
    """Equal for every value of the symbols; `==` would answer for the example inputs."""
    return len(a) == len(b) and statically_known_true(sym_eq(tuple(a), tuple(b)))


def copy_module(module: fx.GraphModule) -> fx.GraphModule:
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    (old,), (new,) = module.graph.find_nodes(op="output"), graph.find_nodes(op="output")
    new.meta = copy.copy(old.meta)
    return fx.GraphModule(module, graph)


_digests: MutableMapping[torch.Tensor, tuple[int, str]] = WeakTensorKeyDictionary()


def _tensor_digest(tensor: torch.Tensor) -> str:
    """Content digest, remembered per tensor and version, so that unchanged weights are read once."""
    written = tensor._version  # pyright: ignore[reportPrivateUsage]  torch counts writes and gives it no public name
    version, digest = _digests.get(tensor, (-1, ""))
    if version != written:
        flat = tensor.detach().reshape(-1)
        content = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        digest = f"{tensor.dtype}{list(tensor.shape)}{hashlib.blake2b(content, digest_size=16).hexdigest()}"
        _digests[tensor] = (written, digest)
    return digest
