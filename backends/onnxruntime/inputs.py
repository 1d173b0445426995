"""What a model takes, and what is wrong with what it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sparsecc.diagnostics import CompileError, Diagnostic
from sparsecc.manifest import Value
from sparsecc.reference import Array
from sparsecc.registry import suggest


def verify_inputs(expected: Sequence[Value], inputs: Mapping[str, Array]) -> None:
    """Raises: CompileError with everything that ``check_inputs`` finds (SCC070 names; SCC071 shapes; SCC072 dtypes)."""
    if problems := list(check_inputs(expected, inputs)):
        raise CompileError(problems)


def check_inputs(expected: Sequence[Value], inputs: Mapping[str, Array]) -> Iterator[Diagnostic]:
    """Everything that is wrong with the inputs, in the words of the manifest."""
    names = [value.name for value in expected]
    takes = f"the model takes {', '.join(map(_signature, expected))}"
    for name in (name for name in inputs if name not in names):
        yield Diagnostic("SCC070", f"the model has no input '{name}'", help=suggest(name, names))
    sizes = dict[str, tuple[int, str]]()
    for value in expected:
        if value.name not in inputs:
            yield Diagnostic("SCC070", f"input '{value.name}' is missing", help=takes)
            continue
        array = inputs[value.name]
        if str(array.dtype) != value.dtype:
            message = f"input '{value.name}' is {array.dtype}, expected {value.dtype}"
            yield Diagnostic("SCC072", message, help=f"convert it: array.astype('{value.dtype}')")
        for problem in _shape_problems(value, array.shape, sizes):
            found = f"input '{value.name}' has shape {_shape(array.shape)}, expected {_shape(value.shape)}"
            yield Diagnostic("SCC071", f"{found}: {problem}", help=_axes(value, alone=len(expected) == 1))


def _shape_problems(value: Value, shape: tuple[int, ...], sizes: dict[str, tuple[int, str]]) -> Iterator[str]:
    """``sizes`` remembers what each free axis turned out to be, and in which input."""
    if len(shape) != len(value.shape):
        yield f"the number of axes is {len(shape)}, not {len(value.shape)}"
        return
    for axis, (size, wanted) in enumerate(zip(shape, value.shape, strict=True)):
        if isinstance(wanted, int):
            if size != wanted:
                yield f"axis {axis} is {size}, not {wanted}"
        elif size < 1:
            yield f"axis {axis} ({wanted}) is {size}, and must be at least 1"
        elif sizes.setdefault(wanted, (size, value.name))[0] != size:
            other, where = sizes[wanted]
            yield f"axis {axis} ({wanted}) is {size}, but {other} in '{where}'"


def _axes(value: Value, *, alone: bool) -> str:
    """Which axes of an input are fixed, and which are free."""
    fixed = [(axis, size) for axis, size in enumerate(value.shape) if isinstance(size, int)]
    free = [size for size in dict.fromkeys(value.shape) if isinstance(size, str)]
    if not free:
        return (
            "all its axes are fixed; to leave the first one free, compile with --dynamic batch, or where the model "
            "file is an export, save it again with dynamic={'batch': 0}"
        )
    sizes = f"{' and '.join(free)} may have any size from 1{'' if alone else ', the same in all inputs'}"
    if not fixed:
        return sizes
    return f"{', '.join(f'axis {axis} is fixed at {size}' for axis, size in fixed)}; {sizes}"


def _shape(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _signature(value: Value) -> str:
    return f"{value.name}: {value.dtype}{_shape(value.shape)}"
