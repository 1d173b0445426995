"""nn.Module or ExportedProgram -> Program: a flat, functional ATen graph that keeps the user's source lines."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import re
import traceback
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from sparsecc import reference
from sparsecc.diagnostics import CompileError, Diagnostic, Where
from sparsecc.program import Program, where

Inputs = Sequence[torch.Tensor] | Mapping[str, torch.Tensor]


def capture(
    model: nn.Module | ExportedProgram,
    example_inputs: Inputs | None = None,
    *,
    dynamic: Mapping[str, int] | None = None,
) -> Program:
    """Trace ``model`` in evaluation mode on the example inputs.

    ``dynamic`` names axes that may change from run to run, e.g. {"batch": 0, "sequence": 1}: the axis of that number
    of every input that has it. An ExportedProgram brings its own.
    Raises: CompileError (SCC011 export fails, with the user's line; SCC012 no example inputs; SCC013 exported in
    training mode; SCC014 inputs or outputs that are not arrays; SCC019 NaN or infinite weights; SCC026 random outputs).
    """
    if isinstance(model, ExportedProgram):
        exported = model
        if dynamic:
            raise CompileError.of(
                "SCC012",
                "dynamic axes were asked for, but an exported program has fixed its axes already",
                help="export it again: sparsecc.save(module, example_inputs, 'model.pt', dynamic={'batch': 0})",
            )
        if example_inputs is None and exported.example_inputs is None:
            raise CompileError.of(
                "SCC012",
                "the exported program carries no example inputs",
                help="give them: --inputs x.npz, or sparsecc.compile(program, example_inputs)",
            )
    else:
        if example_inputs is None:
            raise CompileError.of(
                "SCC012",
                "a module needs example inputs to be traced",
                help="give them: --inputs x.npz, or sparsecc.compile(module, example_inputs); "
                "sparsecc.save(module, example_inputs, 'model.pt') keeps both in one file",
            )
        exported = export(model, example_inputs, dynamic=dynamic)
    with quiet():
        functional = exported.run_decompositions({})
    if isinstance(model, ExportedProgram) and example_inputs is None:
        args, kwargs = cast("tuple[tuple[Any, ...], dict[str, Any]]", exported.example_inputs)
    else:
        args, kwargs = _arguments(cast(Inputs, example_inputs))
        if isinstance(model, ExportedProgram):
            args, kwargs = _in_order(exported, args, kwargs), {}
    program = _flatten(functional, args, kwargs, dynamic or {})
    _check_examples(program)
    _check_weights(program)
    _check_repeatable(program)
    return program


def export(module: nn.Module, example_inputs: Inputs, *, dynamic: Mapping[str, int] | None = None) -> ExportedProgram:
    """torch.export in evaluation mode; a dynamic axis is traced at size 2 or more, or torch would fix it at 1."""
    args, kwargs = _arguments(example_inputs)
    axes = frozenset((dynamic or {}).values())

    def spec(x: object) -> object:
        return {a: Dim.DYNAMIC for a in axes if a < x.dim()} if isinstance(x, torch.Tensor) else None

    def wider(x: object) -> object:
        # torch.export marks the tensors it traces as dynamic, and would for the next model: not the user's own
        return widen(x, axes).detach() if isinstance(x, torch.Tensor) else x

    wide = pytree.tree_map(wider, (args, kwargs))
    parameters = inspect.signature(module.forward)
    try:
        by_parameter = parameters.bind(*wide[0], **wide[1]).arguments
    except TypeError as error:
        raise CompileError.of(
            "SCC012",
            f"the example inputs do not fit forward{parameters} of {type(module).__name__}: {error}",
            help="give one array per parameter, in their order or under their names",
        ) from error
    was_training = {m for m in module.modules() if m.training}
    module.eval()
    try:
        shapes = pytree.tree_map(spec, dict(by_parameter)) if axes else None
        with quiet():
            exported = torch.export.export(module, *wide, dynamic_shapes=shapes)
    except Exception as error:
        raise _export_error(error, module) from error
    finally:
        for m in was_training:
            m.training = True
    exported.example_inputs = args, kwargs  # of the sizes to compile and measure for
    return exported


def widen(x: torch.Tensor, axes: Iterable[int]) -> torch.Tensor:
    """Double the given axes where they have size 1: torch.export takes a traced 1 for a constant."""
    for axis in axes:
        if axis < x.dim() and x.shape[axis] == 1:
            x = torch.cat([x, x], axis)
    return x


def dynamic_axes(module: fx.GraphModule) -> list[dict[int, Any]]:
    """What torch.export needs to know to keep the symbolic sizes of a flat graph's inputs symbolic."""
    sizes = [node.meta["val"].shape for node in module.graph.find_nodes(op="placeholder")]
    return [{axis: Dim.DYNAMIC for axis, s in enumerate(shape) if isinstance(s, torch.SymInt)} for shape in sizes]


def _arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, torch.Tensor):
        return (inputs,), {}
    return ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})


def _in_order(exported: ExportedProgram, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Example inputs as an exported program takes them, one after the other."""
    names = [str(name) for name in exported.graph_signature.user_inputs]
    takes = f"the exported program takes {', '.join(names)}"
    if kwargs and set(kwargs) != set(names):
        raise CompileError.of("SCC012", f"the example inputs are {', '.join(kwargs)}, but {takes}", help=_EXAMPLES)
    given = tuple(kwargs[name] for name in names) if kwargs else args
    if (count := len(pytree.tree_leaves(given))) != len(names):
        raise CompileError.of("SCC012", f"there are {count} example inputs, but {takes}", help=_EXAMPLES)
    return given


_EXAMPLES = "give one array per input, in their order or under their names"


def _check_examples(program: Program) -> None:
    """Shapes and types of the example inputs against those that the graph was traced with."""
    for node, x in zip(program.graph.find_nodes(op="placeholder"), program.example_inputs, strict=True):
        traced: torch.Tensor = node.meta["val"]
        sizes = [program.dims.get(str(s), str(s)) if isinstance(s, torch.SymInt) else s for s in traced.shape]
        fits = len(sizes) == x.dim() and all(isinstance(a, str) or a == b for a, b in zip(sizes, x.shape, strict=True))
        if not fits or x.dtype != traced.dtype:
            kind = f"{str(x.dtype).removeprefix('torch.')}[{', '.join(map(str, x.shape))}]"
            wanted = f"{str(traced.dtype).removeprefix('torch.')}[{', '.join(map(str, sizes))}]"
            raise CompileError.of(
                "SCC012",
                f"example input '{node.name}' is {kind}, and the model was exported for {wanted}",
                help="give such an array, or export the model again with the sizes you need: "
                "sparsecc.save(module, example_inputs, 'model.pt', dynamic={'batch': 0}) leaves the first axis free",
            )


_FIXED_AXIS = re.compile(r"L\['(\w+)'\](\[[^\]]+\])*\.size\(\)\[(\d+)\] .* to be a constant \((\d+)\)")


def user_line(error: BaseException) -> Where | None:
    """The innermost frame of an exception that is neither torch's nor ours: the user's."""
    libraries = (str(Path(file).parent) for file in (torch.__file__, importlib.__file__, __file__))
    foreign = (*libraries, "<")  # "<string>": code that torch generates
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(foreign)]
    return Where(None, f"{own[-1].filename}:{own[-1].lineno}") if own else None


def _innermost_module(error: BaseException, module: nn.Module) -> str:
    """The submodule in whose forward an exception was raised, as " in '0.conv' (Conv2d)"."""
    modules = cast("Iterator[tuple[str, nn.Module]]", module.named_modules())
    names = {m: name for name, m in modules if name}
    owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    within = [owner for owner in owners if isinstance(owner, nn.Module) and owner in names]
    return f" in '{names[within[-1]]}' ({type(within[-1]).__name__})" if within else ""


def _export_error(error: Exception, module: nn.Module) -> CompileError:
    """Say where in the user's code tracing stopped, and in which of the user's modules."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if lines[0].startswith("Constraints violated"):  # the next line tells which, and then advises torch's own callers
        found = _FIXED_AXIS.search(lines[1])
        which = "axis {2} of input '{0}{1}' has always size {3}".format(*found.groups("")) if found else lines[1]
        return CompileError.of(
            "SCC011",
            f"{type(module).__name__} fixes the size of an axis that should be dynamic: {which}",
            help="leave that axis out of the dynamic ones, or free the model of its size",
        )
    return CompileError.of(
        "SCC011",
        f"torch.export cannot trace {type(module).__name__}{_innermost_module(error, module)}: {lines[0]}",
        where=user_line(error),
        help="make the forward pass free of data-dependent Python (torch.where, torch.cond), and the example inputs "
        "valid; torch.export.export(model, inputs) alone shows the whole story",
    )


def _flatten(exported: ExportedProgram, args: object, kwargs: object, dynamic: Mapping[str, int]) -> Program:
    """One graph of flat tensors in and out, without guards, and with names for inputs, outputs and dynamic sizes."""
    for trained in _signs_of_training(exported):
        raise CompileError.of(
            "SCC013", f"{trained} (exported in training mode?)", help="call model.eval() before exporting"
        )
    with quiet():
        source = exported.module()
    flat_inputs = pytree.tree_leaves((args, kwargs))
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    examples = list[torch.Tensor]()
    placeholders = iter(flat_inputs)
    for node in source.graph.nodes:
        if node.op == "placeholder":
            example = next(placeholders)
            if not isinstance(example, torch.Tensor):
                if node.users and any(u.op != "call_module" for u in node.users):
                    raise CompileError.of(
                        "SCC014",
                        f"input '{node.name}' is a {type(example).__name__}, not a tensor",
                        help="close over it in the module, or pass it as a tensor",
                    )
                continue
            examples.append(example)
        if node.op not in ("call_module", "output"):  # modules: the guards of torch.export
            copies[node] = graph.node_copy(node, copies.__getitem__)
    outputs = _outputs(exported, source.graph.output_node())
    graph.output(tuple(copies[node] for node in outputs.values()))
    program = Program(fx.GraphModule(source, graph), tuple(examples), tuple(outputs))
    program.tidy()
    program.dims = _name_dims(program, dynamic)
    _check_ends(program)
    return program


def _signs_of_training(exported: ExportedProgram) -> Iterator[str]:
    for buffer in exported.graph_signature.buffers_to_mutate.values():
        yield f"the model changes its own buffer '{buffer}' when it runs"
    for node in exported.graph.find_nodes(op="call_function", target=torch.ops.aten.native_dropout.default):
        if node.args[2]:
            yield "the model drops values at random when it runs"


def _outputs(exported: ExportedProgram, output: fx.Node) -> dict[str, fx.Node]:
    """The tensors that are returned, by name; None is left out."""
    leaves = pytree.tree_leaves(output.args[0])
    named = dict(zip(_output_names(exported, len(leaves)), leaves, strict=True))
    for name, leaf in named.items():
        if leaf is not None and not (isinstance(leaf, fx.Node) and _is_tensor(leaf)):
            raise CompileError.of("SCC014", f"output '{name}' is not a tensor", help="return tensors only")
    return {name: leaf for name, leaf in named.items() if leaf is not None}


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _output_names(exported: ExportedProgram, count: int) -> list[str]:
    spec = exported.call_spec.out_spec
    if spec is None or count == 1:
        return ["output"] * count
    paths, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(range(count), spec))
    names = ["_".join(re.findall(r"[^\W_]\w*", pytree.keystr(path))) for path, _ in paths]
    taken = {*exported.graph_signature.user_inputs}
    usable = [bool(name) and not name.isdigit() and name not in taken for name in names]
    free = [name if usable[i] else f"output_{i}" for i, name in enumerate(names)]
    return free if len(set(free)) == count else [f"output_{i}" for i in range(count)]


def _name_dims(program: Program, dynamic: Mapping[str, int]) -> dict[str, str]:
    """A name for every symbolic size of the inputs: the user's, else batch, sequence, or where it first appears."""
    by_axis = {axis: name for name, axis in dynamic.items()}
    names = dict[str, str]()
    for node in program.graph.find_nodes(op="placeholder"):
        for axis, size in enumerate(node.meta["val"].shape):
            if isinstance(size, torch.SymInt) and str(size) not in names:
                usual = "batch" if axis == 0 else "sequence" if not node.meta["val"].is_floating_point() else None
                name = by_axis.get(axis, usual) or f"{node.name}_axis{axis}"
                names[str(size)] = name if name not in names.values() else f"{node.name}_axis{axis}"
    return names


def _check_ends(program: Program) -> None:
    """numpy, and with it onnxruntime in Python, has no bfloat16."""
    values = [*program.graph.find_nodes(op="placeholder"), *program.output_nodes]
    names = [*program.input_names, *program.output_names]
    bad = [name for name, node in zip(names, values, strict=True) if node.meta["val"].dtype is torch.bfloat16]
    if bad:
        raise CompileError.of(
            "SCC014",
            f"'{bad[0]}' is bfloat16, which arrays cannot hold",
            help="take and return float32, and convert inside the model: x.to(torch.bfloat16)",
        )


def _check_weights(program: Program) -> None:
    if bad := [n for n in program.constants if not bool(torch.isfinite(program.constant(n)).all())]:
        raise CompileError(
            [
                Diagnostic(
                    "SCC019",
                    f"the weight '{n.target}' holds NaN or infinite values",
                    where(next(iter(n.users), n)),
                    "the training run diverged, or the file is damaged; load a good checkpoint",
                )
                for n in bad
            ]
        )


def _check_repeatable(program: Program) -> None:
    """Run it twice: what is random cannot be compared with the compiled model."""
    first, second = reference.run(program), reference.run(program)
    if reference.largest_error(second, first) <= reference.tolerance(program):
        return
    random = (n for n in program.graph.nodes if torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ()))
    source = next(random, None)
    raise CompileError.of(
        "SCC026",
        "the model gives different outputs for equal inputs"
        + (f": {source.target} draws random numbers" if source is not None else ""),
        where=where(source) if source is not None else None,
        help="pass what is random as an input, or draw it once in __init__ and keep it with register_buffer",
    )


QUIETED = ("torch.export", "torch._export", "torch.onnx", "torch.fx", "torch._subclasses.fake_tensor")


@contextlib.contextmanager
def quiet() -> Generator[None, None, None]:
    """torch.export talks about its own business; its warnings are not the user's to act on."""
    loggers = [logging.getLogger(name) for name in QUIETED]
    levels = [logger.level for logger in loggers]
    nowhere = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
