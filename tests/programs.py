"""What tests of the core and of the passes share: small models, their Programs, and a Program as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from sparsecc import pipelines, reference
from sparsecc.capture import capture
from sparsecc.pass_manager import Pass, Pipeline, Record
from sparsecc.program import Program

PREDICTED = pipelines.CPU.replace("choose-formats", "choose-formats{costs=predicted}")
Forward = Callable[..., object]
M = TypeVar("M", bound=nn.Module)


class Model(nn.Module):
    """``forward(self, *inputs)`` as a function, with the given submodules, parameters and buffers."""

    def __init__(self, function: Forward, **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> object:
        return self.function(self, *inputs)

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name)


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def some(*shape: int, share: float = 0.3) -> Tensor:
    """A bool mask that keeps about this share."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(7)) < share


def filled(module: M, density: float = 0.2) -> M:
    """Reproducible weights, all but a share of each matrix zero; batch norm with statistics of its own."""
    with torch.no_grad():
        for n, (name, value) in enumerate(module.state_dict().items()):
            if value.is_floating_point() and "mask" not in name:
                value.copy_(seeded(*value.shape, seed=n).abs() + 0.1 if "var" in name else seeded(*value.shape, seed=n))
            if value.dim() > 1 and value.is_floating_point() and density < 1:
                value.mul_(some(*value.shape, share=density))
    return module.eval()


def program(module: nn.Module, *inputs: Tensor, dynamic: Mapping[str, int] | None = None) -> Program:
    return capture(module.eval(), inputs, dynamic=dynamic)


def run(passes: str | Sequence[Pass], before: Program) -> tuple[Program, tuple[Record, ...]]:
    """Through the pass manager, which checks invariants and meaning; ``before`` must come out unchanged."""
    pipeline = pipelines.parse(passes) if isinstance(passes, str) else Pipeline(passes)
    untouched = before.fingerprint()
    after, records = pipeline.run(before)
    assert before.fingerprint() == untouched
    return after, records


def notes(records: Sequence[Record], name: str, *, done: bool) -> list[str]:
    return [note.text for record in records if record.name == name for note in record.notes if note.done is done]


def error(actual: Program, expected: Program, *inputs: Tensor) -> float:
    given = inputs or None
    return reference.largest_error(reference.run(actual, given), reference.run(expected, given))


def called(program: Program) -> list[str]:
    """What the graph calls, in order: "aten.linear.default"."""
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


# ---- text ----------------------------------------------------------------------------------------------------------


def text(program: Program) -> str:
    """One line per node, with symbols under the names of their dims; the bodies of regions, then the layers."""
    lines = _graph_lines(program.graph, program.dims)
    for name, module in program.module.named_children():
        if isinstance(module, fx.GraphModule):
            lines += [f"{name}:", *(f"  {line}" for line in _graph_lines(module.graph, program.dims))]
    for name, layer in program.layers.items():
        lines.append(
            f"layer {name}: {layer.weight} {layer.rows}x{layer.cols}, mask: {layer.mask}, {layer.nonzeros} non-zeros, "
            f"{layer.format} on {layer.kernel}, {layer.stored_bytes} B, {layer.reason or 'undecided'}"
        )
    return "\n".join(lines) + "\n"


def before_and_after(passes: str, module: nn.Module, *inputs: Tensor) -> str:
    """The golden text of the last pass: the Program before it, what it says, the Program after it."""
    texts = list[str]()
    pipeline = pipelines.parse(passes)
    after, records = pipeline.run(
        program(module, *inputs, dynamic={"batch": 0}), before=lambda _, reached: texts.append(text(reached))
    )
    said = [f"{n.node}: {'' if n.done else 'refused: '}{n.text}" for n in records[-1].notes]
    return "\n".join([texts[-1], f"{records[-1].name}:", *said, "", text(after)])


def _graph_lines(graph: fx.Graph, dims: Mapping[str, str]) -> list[str]:
    lines = list[str]()
    for node in graph.nodes:
        value = node.meta.get("val")
        sizes = ", ".join(dims.get(str(s), str(s)) for s in value.shape) if isinstance(value, Tensor) else ""
        kind = f": {str(value.dtype).removeprefix('torch.')}[{sizes}]" if isinstance(value, Tensor) else ""
        match node.op:
            case "placeholder":
                lines.append(f"{node.name}{kind} = input")
            case "get_attr":
                lines.append(f"{node.name}{kind} = constant {node.target}")
            case "output":
                lines.append(f"return {', '.join(map(str, node.args[0]))}")
            case _:
                target = getattr(node.target, "__name__", str(node.target))
                arguments = [*map(str, node.args), *(f"{k}={v}" for k, v in node.kwargs.items())]
                lines.append(f"{node.name}{kind} = {target}({', '.join(arguments)})")
    return lines
