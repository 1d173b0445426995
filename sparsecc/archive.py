"""torch.export archives, without the code that a hostile one could make torch run.

torch (2.13) trusts them: it unpickles payloads, evaluates the expressions of sizes with sympy, looks up operators by
any name under ``torch``, writes names and guards into Python source that it executes, and imports modules named in the
structure of the inputs. So everything is compared here with what an exporter writes before torch sees it; whoever has
an archive that needs more may trust it with ``--allow-pickle``.
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive._package import PT2ArchiveReader, load_pt2

from sparsecc.capture import quiet
from sparsecc.diagnostics import CompileError

MODEL = "models/model.json"
WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
PICKLES = ("data/weights/model.pt", "data/constants/model.pt", "data/sample_inputs/model.pt")
"""Read with weights_only first; torch goes on without it where that fails. The first two are of older torches."""


LONGEST_REASON = 300


def load_archive(data: bytes, name: str, *, trusted: bool = False) -> ExportedProgram:
    """The program of an archive; unless ``trusted``, one that can do nothing but compute.

    Raises: CompileError (SCC016 something in it could run code; SCC024 torch cannot read it).
    """
    try:
        # not torch.export.load: after an error it reads a second, older layout, which nobody has looked at
        reader = PT2ArchiveReader(io.BytesIO(data))
        if not trusted and (danger := next(dangers(reader), None)):
            raise CompileError.of(
                "SCC016",
                f"{name} could run code when it is loaded: {danger}",
                help="export the model again from plain tensors and operators, "
                "or add --allow-pickle if you trust whoever made the file",
            )
        with quiet():
            program = load_pt2(io.BytesIO(data)).exported_programs["model"]
    except CompileError:
        raise
    except Exception as error:  # whatever torch's deserializer meets
        raise CompileError.of(
            "SCC024",
            f"torch {torch.__version__} cannot read the export archive {name}: {_reason(error)}",
            help="export the model again with this version of torch, importing first whatever it needs",
        ) from error
    if not trusted:
        # source text of checks on the inputs, which torch would execute; sparsecc checks inputs itself
        vars(program)["_guards_code"] = []
    return program


def _reason(error: Exception) -> str:
    """The first line, or the last of the traceback that torch puts into its errors about nodes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = lines[-1] if len(lines) > 1 and "Traceback" in str(error) else lines[0]
    return line if len(line) <= LONGEST_REASON else line[:LONGEST_REASON] + "..."


def dangers(reader: PT2ArchiveReader) -> Iterator[str]:
    """What in the archive is not plain tensors and operators, most telling first. Reads as torch will read."""
    files = reader.get_file_names()
    for file in files:
        if file.startswith("data/aotinductor/"):
            yield f"{file} is compiled code"
        if file.startswith("models/") and file != MODEL:
            yield f"{file} is a second model"
    for file in PICKLES:
        if file in files and not _holds_tensors_only(reader.read_bytes(file)):
            yield f"{file} is a pickle of more than tensors"
    for file in (WEIGHTS, CONSTANTS):
        if file in files:
            yield from (f"{file}: {danger}" for danger in _payload_dangers(json.loads(reader.read_string(file))))
    yield from (f"{MODEL}: {danger}" for danger in _tree_dangers(json.loads(reader.read_string(MODEL)), "", ""))


def _holds_tensors_only(pickled: bytes) -> bool:
    try:
        with quiet():
            torch.load(io.BytesIO(pickled), weights_only=True)
    except Exception:  # whatever the reason, torch would now try without weights_only
        return False
    return True


def _payload_dangers(config: object) -> Iterator[str]:
    for tensor, entry in cast("dict[str, dict[str, Any]]", cast(Any, config)["config"]).items():
        if entry.get("use_pickle") is not False:
            yield f"'{tensor}' is a pickle"
        elif not re.fullmatch(r"(weight|tensor)_\d+", str(entry.get("path_name"))):
            yield f"'{tensor}' is not a tensor"
        elif not NAME.fullmatch(tensor):
            yield f"{tensor!a} is not a name"


# ---- models/model.json -----------------------------------------------------------------------------------------------

NAME = re.compile(r"[\w. /:+\-]*")
"""Names of nodes, parameters and inputs, types, versions: torch writes some of them into Python source."""
OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|sparsecc|torchvision|torchao|quantized_decomposed)\.(?!from_file\b|save\b)\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(associative_scan|cond|flex_attention|invoke_subgraph|map_impl|scan|while_loop)"
    r"|torch\.ops\.higher_order\.wrap(_with_autocast|_with_set_grad_enabled)?"
    r"|_operator\.(add|and_|eq|floordiv|ge|getitem|gt|le|lshift|lt|mod|mul|ne|neg|or_|pos|pow|rshift|sub|truediv)"
    r"|math\.(ceil|floor|sqrt|trunc)|torch\.sym_(float|int|ite|max|min|not|sqrt)"
)
"""Operators that only compute; aten.from_file and aten.save open files."""
FREE_TEXT = ("metadata", "as_string", "as_strings", "guards_code")
"""Fields that torch prints, passes on as a value, or (guards) that are removed."""


def _tree_dangers(tree: object, key: str, at: str) -> Iterator[str]:
    """Compare every name and string with what belongs in its field; ``key`` is the field, ``at`` its path."""
    if key in FREE_TEXT:
        return
    if key == "as_custom_obj":
        yield f"{at} is an object"
    if isinstance(tree, dict):
        for name, value in cast("dict[str, object]", tree).items():
            if not NAME.fullmatch(name):
                yield f"{at} has the name {name!a}"
            yield from _tree_dangers(value, name, f"{at}.{name}" if at else name)
    elif isinstance(tree, list):
        for i, value in enumerate(cast("list[object]", tree)):
            yield from _tree_dangers(value, key, f"{at}[{i}]")
    elif isinstance(tree, str) and not _harmless(key, tree):
        yield f"{at} is {tree!a}"


def _harmless(key: str, text: str) -> bool:
    match key:
        case "target" | "as_operator":
            return OPERATOR.fullmatch(text) is not None
        case "name" | "as_name" | "forward_arg_names":  # written into source as they are
            return re.fullmatch(r"\w*", text) is not None
        case "expr_str":
            return is_size_expression(text)
        case "in_spec" | "out_spec":
            return _is_plain_structure(text)
        case _:
            return NAME.fullmatch(text) is not None


def _is_plain_structure(text: str) -> bool:
    """A treespec of containers without classes to import; "" where there is none."""
    if not text:
        return True
    try:
        _, spec = json.loads(text)
        return _is_plain_node(spec)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _is_plain_node(node: Any) -> bool:
    kind, context = node["type"], node["context"]
    if not (kind is None or NAME.fullmatch(kind)) or kind == "collections.defaultdict":
        return False
    names: Any = json.loads(context) if isinstance(context, str) else context
    return all(map(_is_key, names or [])) and all(map(_is_plain_node, node["children_spec"]))


def _is_key(key: object) -> bool:
    return isinstance(key, int) or (isinstance(key, str) and NAME.fullmatch(key) is not None)


# ---- expressions of sizes --------------------------------------------------------------------------------------------

FUNCTIONS = frozenset(
    """
    Integer Rational Add Mul Pow Max Min Mod Abs And Or Not Piecewise ExprCondPair
    Eq Equality Ne Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan
    FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural FloatPow
    FloatTrueDiv IntTrueDiv TruncToFloat TruncToInt RoundToInt RoundDecimal ToFloat Identity
    IsNonOverlappingAndDenseIndicator
    """.split()  # noqa: SIM905  a list literal takes a page
)
"""Of sympy, and of torch.utils._sympy.functions as torch's deserializer offers them."""
POWERS = frozenset({"Pow", "PowByNatural", "FloatPow", "LShift"})
LARGEST_EXPONENT = 64
LONGEST_EXPRESSION = 10_000


def is_size_expression(text: str) -> bool:
    """Whether sympy may evaluate it: calls of FUNCTIONS on symbols and numbers, and arithmetic without powers."""
    if len(text) > LONGEST_EXPRESSION:
        return False
    try:
        return _is_expression(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_expression(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=bool() | int() | float()):
            return True
        case ast.Name(id=name):
            return name in ("true", "false", "oo", "int_oo") or re.fullmatch(r"[a-z]{1,4}\d+", name) is not None
        case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert(), operand=operand):
            return _is_expression(operand)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.FloorDiv() | ast.Mod()):
            return _is_expression(left) and _is_expression(node.right)
        case ast.Compare(left=left, comparators=others):
            return all(map(_is_expression, [left, *others]))
        case ast.Call(func=ast.Name(id="Symbol" | "Float"), args=[ast.Constant(value=str(text))], keywords=options):
            return re.fullmatch(r"[\w.+\-]+", text) is not None and all(map(_is_option, options))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return all(map(_is_expression, args)) and (name not in POWERS or all(map(_is_small, args[1:])))
        case _:
            return False


def _is_option(option: ast.keyword) -> bool:
    return isinstance(option.value, ast.Constant) and isinstance(option.value.value, int)


def _is_small(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=int(value)):
            return abs(value) <= LARGEST_EXPONENT
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_small(operand)
        case ast.Call(func=ast.Name(id="Integer" | "Rational"), args=args):
            return all(map(_is_small, args))
        case _:
            return False
