"""Files are what they hold; whatever could run code is refused before torch sees it."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import onnx
import onnx.parser
import pytest
import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.nn.utils import prune

from sparsecc.archive import is_size_expression
from sparsecc.diagnostics import CompileError
from sparsecc.loading import load_model

Tree = Any
AGAIN = "copy or download it again, or write the model with sparsecc.save(module, example_inputs, 'model.pt')"
X = torch.randn(6, 4)


class Net(nn.Module):
    """A bit of everything that an archive stores: parameters, buffers, a constant, sizes, structures."""

    def __init__(self, features: int = 3) -> None:
        super().__init__()
        self.fc = nn.Linear(4, features)
        self.norm = nn.BatchNorm1d(features)
        self.constant = torch.ones(features)

    def forward(self, x: torch.Tensor, more: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        y = nn.functional.gelu(self.norm(self.fc(x)) + self.constant, approximate="tanh")
        y = torch.cat([y, more["rows"]], 0)
        return {"half": y[: x.shape[0] // 2 + 1], "flat": y.reshape(y.shape[0] * y.shape[1])}


def archive_of(module: nn.Module, *inputs: object, dynamic: object = None) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(module.eval(), inputs, dynamic_shapes=dynamic), buffer)  # type: ignore[arg-type]  # Any
    return buffer.getvalue()


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def archive() -> bytes:
    sizes = ({0: Dim.DYNAMIC}, {"rows": {0: Dim.DYNAMIC}})
    return archive_of(Net(), X, {"rows": torch.randn(5, 3)}, dynamic=sizes)


Put = Callable[[bytes], Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def put(data: bytes) -> Path:
        (tmp_path / "model.pt").write_bytes(data)
        return tmp_path / "model.pt"

    return put


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(CompileError) as caught:
        load_model(path, **options)
    return str(caught.value)


# ---- what is accepted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.pt", "model.pt2", "model.onnx", "weights.safetensors", "model"])
def test_an_archive_is_loaded_whatever_its_name(
    tmp_path: Path, archive: bytes, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(archive)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program = load_model(tmp_path / name)
    assert isinstance(program, ExportedProgram)
    assert capfd.readouterr() == ("", "")
    rows = torch.randn(7, 3)
    original = torch.export.load(io.BytesIO(archive)).module()(X, {"rows": rows})
    for key, expected in program.module()(X, {"rows": rows}).items():
        torch.testing.assert_close(expected, original[key])


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        y: torch.Tensor = cast(Any, torch).cond(x.sum() > 0, torch.sin, torch.cos, (x,))
        return torch.einsum("ij,kj->ik", y, x), [nn.functional.pad(y, (1, 2)), x.to(torch.float16)]


class Sizes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, cols = x.shape
        return x[: max(rows // 3, 1) + rows % 5].repeat(1, 2)[:, : cols + 1] * (rows * cols) / (rows + 2)


@pytest.mark.parametrize(
    ("module", "inputs", "dynamic"),
    [
        (Branching(), (torch.randn(3, 4),), None),
        (Sizes(), (torch.randn(11, 4),), ({0: Dim.AUTO, 1: Dim.AUTO},)),
        (nn.Linear(4, 3), (torch.randn(11, 4),), ({0: Dim("rows", min=2, max=512)},)),
        (
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            (torch.randn(2, 5, 8),),
            ({0: Dim.AUTO, 1: Dim.AUTO},),
        ),
        (nn.LSTM(4, 3), (torch.randn(5, 2, 4),), None),
        (nn.ModuleDict({"conv 1/a-b": nn.Conv2d(2, 3, 3)})["conv 1/a-b"], (torch.randn(1, 2, 6, 6),), None),
        (nn.Conv2d(2, 4, 3, groups=2, padding="same"), (torch.randn(2, 2, 6, 6),), ({0: Dim.AUTO, 2: Dim.AUTO},)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_exporters_write_is_not_taken_for_an_attack(
    put: Put, module: nn.Module, inputs: tuple[torch.Tensor, ...], dynamic: object
) -> None:
    program = load_model(put(archive_of(module, *inputs, dynamic=dynamic)))
    assert isinstance(program, ExportedProgram)
    torch.testing.assert_close(program.module()(*inputs), module(*inputs))


State = dict[str, torch.Tensor]


def bare(state: State) -> State:
    return dict(state)


def checkpoint(state: State) -> dict[str, object]:
    return {"epoch": 3, "state_dict": dict(state)}


def data_parallel(state: State) -> State:
    return {f"module.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("wrap", [bare, checkpoint, data_parallel])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_goes_into_the_module_of_the_factory(
    put: Put, wrap: Callable[[State], object], legacy: bool
) -> None:
    original, buffer = nn.LayerNorm(5), io.BytesIO()
    nn.init.normal_(original.weight)
    torch.save(wrap(original.state_dict()), buffer, _use_new_zipfile_serialization=not legacy)
    module = load_model(put(buffer.getvalue()), factory=f"{__name__}:make_norm")
    assert isinstance(module, nn.LayerNorm)
    assert torch.equal(module.weight, original.weight)


def make_norm() -> nn.Module:
    return nn.LayerNorm(5)


def make_linear() -> nn.Module:
    return nn.Linear(4, 3)


def test_masks_of_prune_are_applied(put: Put) -> None:
    pruned = nn.Linear(4, 3)
    cast(Any, prune).l1_unstructured(pruned, "weight", 0.5)
    module = load_model(put(saved(pruned.state_dict())), factory=f"{__name__}:make_linear")
    assert isinstance(module, nn.Linear)
    assert torch.equal(module.weight, pruned.weight)
    assert int((module.weight == 0).sum()) == 6


def test_the_factory_is_found_in_the_current_directory(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(saved(nn.Linear(4, 3).state_dict()))
    (path.parent / "my_networks.py").write_text(
        "from torch import nn\nclass Nets:\n    small = lambda: nn.Linear(4, 3)\n"
    )
    monkeypatch.chdir(path.parent)
    before = list(sys.path)
    assert isinstance(load_model(path, factory="my_networks:Nets.small"), nn.Linear)
    assert sys.path == before


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]], header: bytes | None = None) -> bytes:
    entries, body = dict[str, object]({"__metadata__": {"format": "pt"}}), b""
    for name, (dtype, shape, data) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(entries).encode() if header is None else header
    return len(text).to_bytes(8, "little") + text + body


def test_safetensors_are_a_state_dict(put: Put) -> None:
    data = {
        "weight": ("F32", [3, 4], struct.pack("<12f", *range(12))),
        "bias": ("F64", [3], struct.pack("<3d", *range(3))),
    }
    module = load_model(put(safetensors(data)), factory=f"{__name__}:make_linear")
    assert isinstance(module, nn.Linear)
    assert torch.equal(module.weight, torch.arange(12.0).reshape(3, 4))
    assert torch.equal(module.bias, torch.arange(3.0))
    assert module.bias.dtype == torch.float32


def test_a_pickled_module_is_loaded_if_allowed(put: Put) -> None:
    module = load_model(put(saved(Net())), allow_pickle=True)
    assert isinstance(module, Net)


# ---- what is no model ------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there(tmp_path: Path, put: Put) -> None:
    assert refusal(tmp_path / "nothing") == (
        f"error[SCC010]: {tmp_path / 'nothing'} does not exist\n  help: check the path"
    )
    put(b"x")
    assert refusal(tmp_path / "modle.pt") == (
        f"error[SCC010]: {tmp_path / 'modle.pt'} does not exist\n  help: did you mean '{tmp_path / 'model.pt'}'?"
    )
    assert refusal(tmp_path / "model.pt/x") == (
        f"error[SCC010]: {tmp_path / 'model.pt/x'} cannot be read: Not a directory\n  help: check the path"
    )


def test_directories_and_onnx_are_told_apart(tmp_path: Path, put: Put) -> None:
    assert refusal(tmp_path) == (
        f"error[SCC020]: {tmp_path} is a directory, not a model file\n  help: give a file in it; "
        "load a model of transformers in Python and write it with sparsecc.save(module, example_inputs, 'model.pt')"
    )
    (tmp_path / "manifest.json").write_text("{}")
    assert refusal(tmp_path) == (
        f"error[SCC020]: {tmp_path} is a compiled artifact, not a model file\n"
        f"  help: it is compiled already: sparsecc run {tmp_path} --inputs x.npz"
    )
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 20]> g (float x) => (float y) { y = Neg (x) }')
    path = put(model.SerializeToString())
    assert refusal(path) == (
        f"error[SCC020]: {path} is an ONNX file, and sparsecc compiles PyTorch models\n"
        "  help: export the PyTorch module it came from: sparsecc.save(module, example_inputs, 'model.pt')"
    )


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, "hello")
    return buffer.getvalue()


OUTSIDE = "is damaged: 'a' lies outside the file, or its size is not its shape's"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello", "is not a PyTorch file, or is damaged"),
        (b"\x08\x07 not protobuf", "is not a PyTorch file, or is damaged"),
        (b"\x80\x02 not a pickle", "is truncated or damaged"),
        (b"PK\x03\x04 not a zip", "is truncated or damaged"),
        (zipped("a/readme.txt"), "is a zip file, but not one of torch.save or torch.export"),
        (saved({"a": torch.zeros(3)})[:-100], "is truncated or damaged"),
        (saved([1, 2]), "holds a list, neither a module nor weights"),
        (saved({}), "holds a dict, neither a module nor weights"),
        (pickle.dumps({"a": 1})[:-3], "is truncated or damaged"),
        (safetensors({}, b"{nonsense"), "is damaged: Expecting property name enclosed in double quotes: "
         "line 1 column 2 (char 1)"),
        (safetensors({"a": ("F32", [3], b"1234")}), OUTSIDE),
        (safetensors({"a": ("F32", [-1], b"")}), OUTSIDE),
        (safetensors({"a": ("F99", [], b"")}), "is damaged: 'a' is not described as a tensor"),
        (safetensors({}, b'{"a": []}'), "is damaged: 'a' is not described as a tensor"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_refused(put: Put, data: bytes, message: str) -> None:
    path = put(data)
    assert refusal(path) == f"error[SCC015]: {path} {message}\n  help: {AGAIN}"


def test_any_truncation_of_an_archive_is_refused(put: Put, archive: bytes) -> None:
    for length in range(1, len(archive), 997):
        assert refusal(put(archive[:length])).startswith("error[SCC015]")


def test_a_changed_byte_is_found(put: Put, archive: bytes) -> None:
    position = archive.index(b"torch.ops.aten.cat.default")
    path = put(archive[:position] + b"X" + archive[position + 1 :])
    assert refusal(path) == (
        f"error[SCC015]: {path} is damaged: archive/models/model.json has changed\n  help: {AGAIN}"
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_is_named(put: Put) -> None:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(make_linear(), X), buffer)  # type: ignore[no-untyped-call]  # torch's
    path = put(buffer.getvalue())
    for options in ({}, {"allow_pickle": True}):
        assert refusal(path, **options) == (
            f"error[SCC018]: {path} is TorchScript, which torch.export replaces\n  help: load the original module in "
            "Python and write it with sparsecc.save(module, example_inputs, 'model.pt')"
        )


# ---- state dicts that do not fit -------------------------------------------------------------------------------------


def test_a_state_dict_needs_a_factory(put: Put) -> None:
    path = put(saved(make_linear().state_dict()))
    assert refusal(path) == (
        f"error[SCC017]: {path} is a state dict: weights without the module they belong to\n"
        "  help: name the function or class that builds the module: --model package.module:factory"
    )


def test_a_state_dict_that_does_not_fit_says_where(put: Put) -> None:
    tensors = {"weight": torch.zeros(3, 5), **{f"layers.{i}.scale": torch.zeros(1) for i in range(7)}}
    path = put(saved(tensors))
    assert refusal(path, factory=f"{__name__}:make_linear") == (
        f"error[SCC017]: {path} does not fit the module that {__name__}:make_linear builds: missing: bias; "
        "unexpected: layers.0.scale, layers.1.scale, layers.2.scale, layers.3.scale, layers.4.scale and 2 more; "
        "shapes: weight is [3, 5], not [3, 4]\n"
        "  help: build the module with the arguments it was trained with, or give another --model"
    )


def make_nothing() -> None:
    pass


def make_trouble() -> float:
    return 1 / len(())


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("make_linear", "--model 'make_linear' is not of the form package.module:factory"),
        (":make", "--model ':make' is not of the form package.module:factory"),
        (
            "no_such_module:make",
            "--model no_such_module:make: the module 'no_such_module' cannot be imported: "
            "ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("math:make", "--model math:make: module 'math' has no attribute 'make'"),
        (
            "math:sqrt",
            "--model math:sqrt fails when it is called: TypeError: math.sqrt() takes exactly one argument (0 given)",
        ),
        (f"{__name__}:make_nothing", f"--model {__name__}:make_nothing returns a NoneType, not a torch.nn.Module"),
        (
            f"{__name__}:make_trouble",
            f"--model {__name__}:make_trouble fails when it is called: ZeroDivisionError: division by zero\n"
            f"  --> {__file__}:{make_trouble.__code__.co_firstlineno + 1}",
        ),
    ],
)
def test_a_factory_that_fails_says_how(put: Put, factory: str, message: str) -> None:
    path = put(saved(make_linear().state_dict()))
    assert refusal(path, factory=factory) == (
        f"error[SCC022]: {message}\n"
        "  help: --model takes package.module:factory, a function or class without required arguments"
    )


# ---- files that would run code ---------------------------------------------------------------------------------------


class Bomb:
    """Leaves a directory behind if anybody unpickles it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_is_refused_and_not_run(put: Put, trace: Path, legacy: bool) -> None:
    buffer = io.BytesIO()
    torch.save({"weight": Bomb(trace)}, buffer, _use_new_zipfile_serialization=not legacy)
    path = put(buffer.getvalue())
    found = "" if legacy else " (posix.mkdir)"
    assert refusal(path, factory=f"{__name__}:make_linear") == (
        f"error[SCC016]: {path} is a pickle of Python objects{found}: loading it runs whatever code its author put in\n"
        "  help: write the model with sparsecc.save(module, example_inputs, 'model.pt') where you trust the file, "
        "or add --allow-pickle here"
    )
    assert not trace.exists()
    with pytest.raises(CompileError):
        load_model(path, allow_pickle=True)
    assert trace.exists()


def test_a_raw_pickle_is_refused_and_not_run(put: Put, trace: Path) -> None:
    for protocol in (2, 4, 5):
        message = refusal(put(pickle.dumps(Bomb(trace), protocol)))
        assert message.startswith(
            f"error[SCC016]: {trace.parent / 'model.pt'} is a pickle of Python objects (posix.mkdir)"
        )
    assert not trace.exists()


def test_the_class_of_a_pickled_module_is_named(put: Put) -> None:
    path = put(saved(Net()))
    assert f"{path} is a pickle of Python objects ({__name__}.Net, torch.nn.modules.linear.Linear, " in refusal(path)


def test_a_pickled_class_of_a_script_says_so(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    script = type("OfAScript", (nn.Linear,), {"__module__": "__main__"})
    monkeypatch.setattr("__main__.OfAScript", script, raising=False)
    path = put(saved(script(4, 3)))
    monkeypatch.undo()
    assert refusal(path, allow_pickle=True) == (
        f"error[SCC023]: {path} needs a class of the script that saved it (__main__), which no other program can "
        "import\n  help: let that script write the module with sparsecc.save(module, example_inputs, 'model.pt'); or "
        "let it save the state dict, move the class into a file of its own and name what builds it: "
        "--model module:factory"
    )


def test_a_module_that_cannot_be_imported_is_named_with_its_line(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_nets.py").write_text("\nlayers = 0 + '1'\n")
    monkeypatch.chdir(tmp_path)
    message = refusal(put(saved(make_linear().state_dict())), factory="broken_nets:make")
    assert message.startswith(
        "error[SCC022]: --model broken_nets:make: the module 'broken_nets' cannot be imported: "
        "TypeError: unsupported operand type(s) for +: 'int' and 'str'\n"
        f"  --> {tmp_path / 'broken_nets.py'}:2\n  help: "
    )


def test_a_pickled_class_that_is_not_here_is_named(put: Put) -> None:
    data = saved(Net()).replace(__name__.encode(), b"x" * len(__name__))
    buffer, old = io.BytesIO(), zipfile.ZipFile(io.BytesIO(saved(Net())))
    with zipfile.ZipFile(buffer, "w") as new:  # again, for valid checksums
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(__name__.encode(), b"x" * len(__name__)))
    assert data != saved(Net())
    path = put(buffer.getvalue())
    assert refusal(path, allow_pickle=True) == (
        f"error[SCC023]: {path} needs code that cannot be imported here: No module named '{'x' * len(__name__)}'\n"
        "  help: run from the directory of that code, or load the module in Python there and write it with "
        "sparsecc.save(module, example_inputs, 'model.pt')"
    )


MODEL = "models/model.json"
WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"


def rewritten(archive: bytes, changes: dict[str, bytes | Callable[[Tree], object]]) -> bytes:
    """The archive with members replaced, added, or (for a function) changed as JSON."""
    buffer, old = io.BytesIO(), zipfile.ZipFile(io.BytesIO(archive))
    with zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            data, change = old.read(name), changes.get(name.partition("/")[2])
            if callable(change):
                tree = json.loads(data)
                change(tree)
                data = json.dumps(tree).encode()
            new.writestr(name, change if isinstance(change, bytes) else data)
        for name, change in changes.items():
            if isinstance(change, bytes) and f"archive/{name}" not in old.namelist():
                new.writestr(f"archive/{name}", change)
    return buffer.getvalue()


def first_node(operator: str) -> Callable[[Tree], Tree]:
    return lambda model: next(n for n in model["graph_module"]["graph"]["nodes"] if n["target"] == operator)


def attacks(trace: Path) -> dict[str, tuple[dict[str, bytes | Callable[[Tree], object]], str]]:
    """By name: changes to an archive, and what the refusal says about them."""
    bomb, raw = saved(Bomb(trace)), pickle.dumps(Bomb(trace))
    raw += b"\0" * (-len(raw) % 4)  # torch loads raw constants of whole float32 only; pickle stops before the padding
    code = f"__import__('os').mkdir({str(trace)!r})"
    cat = first_node("torch.ops.aten.cat.default")

    more_than = "is a pickle of more than tensors"

    def constant(config: Tree) -> Tree:
        return config["config"]["constant"]

    def signature(model: Tree) -> Tree:
        return model["graph_module"]["module_call_graph"][0]["signature"]

    def expression(model: Tree, text: str) -> None:
        values = model["graph_module"]["graph"]["tensor_values"]
        values["x"]["sizes"][0]["as_expr"]["expr_str"] = text

    def call(model: Tree, target: str) -> None:
        cat(model).update(target=target, inputs=[{"name": "", "arg": {"as_string": f"mkdir {trace}"}, "kind": 1}])

    def pass_to_cat(model: Tree, argument: Tree) -> None:
        cat(model)["inputs"].append({"name": "f", "arg": argument, "kind": 1})

    def rename(model: Tree, name: str) -> None:
        text = json.dumps(model).replace('"more_rows"', json.dumps(name))
        model.clear()
        model.update(json.loads(text))

    def spec(model: Tree, kind: str, context: object) -> None:
        node: Tree = {"type": kind, "context": json.dumps(context), "children_spec": []}
        signature(model)["in_spec"] = json.dumps([1, node])

    return {
        "weight": (
            {WEIGHTS: lambda c: c["config"]["fc.bias"].update(use_pickle=True), "data/weights/weight_1": bomb},
            f"{WEIGHTS}: 'fc.bias' is a pickle",
        ),
        "constant": (
            {CONSTANTS: lambda c: constant(c).update(use_pickle=True), "data/constants/tensor_0": bomb},
            f"{CONSTANTS}: 'constant' is a pickle",
        ),
        "opaque object": (
            {CONSTANTS: lambda c: constant(c).update(path_name="opaque_obj_0"), "data/constants/opaque_obj_0": raw},
            f"{CONSTANTS}: 'constant' is not a tensor",
        ),
        "custom object": (
            {CONSTANTS: lambda c: constant(c).update(path_name="custom_obj_0"), "data/constants/custom_obj_0": bomb},
            f"{CONSTANTS}: 'constant' is not a tensor",
        ),
        "old weights": ({"data/weights/model.pt": bomb}, f"data/weights/model.pt {more_than}"),
        "old constants": ({"data/constants/model.pt": bomb}, f"data/constants/model.pt {more_than}"),
        "sample inputs": (
            {"data/sample_inputs/model.pt": bomb}, f"data/sample_inputs/model.pt {more_than}",
        ),
        "raw sample inputs": (
            {"data/sample_inputs/model.pt": raw}, f"data/sample_inputs/model.pt {more_than}",
        ),
        "compiled code": (
            {"data/aotinductor/m/m.so": b"\x7fELF"}, "data/aotinductor/m/m.so is compiled code",
        ),
        "second model": ({"models/b.json": b"{}"}, "models/b.json is a second model"),
        "size": (
            {MODEL: lambda m: expression(m, code)},
            f"{MODEL}: graph_module.graph.tensor_values.x.sizes[0].as_expr.expr_str is {code!a}",
        ),
        "call": (
            {MODEL: lambda m: call(m, "torch.os.system")},
            "].target is 'torch.os.system'",
        ),
        "library": (
            {MODEL: lambda m: call(m, "torch.ops.load_library")},
            "].target is 'torch.ops.load_library'",
        ),
        "file": (
            {MODEL: lambda m: call(m, "torch.ops.aten.from_file.default")},
            "].target is 'torch.ops.aten.from_file.default'",
        ),
        "operator as argument": (
            {MODEL: lambda m: pass_to_cat(m, {"as_operator": "torch.os.system"})},
            "].inputs[1].arg.as_operator is 'torch.os.system'",
        ),
        "object as argument": (
            {MODEL: lambda m: pass_to_cat(m, {"as_custom_obj": {"name": "o"}})},
            "].inputs[1].arg.as_custom_obj is an object",
        ),
        "name": (
            {MODEL: lambda m: rename(m, f"more_rows={code}")},
            f"as_tensor.name is {f'more_rows={code}'!a}",
        ),
        "default factory": (
            {MODEL: lambda m: spec(m, "collections.defaultdict", ["a"])},
            f"{MODEL}: graph_module.module_call_graph[0].signature.in_spec is "
            """'[1, {"type": "collections.defaultdict", "context": "[\\\\"a\\\\"]", "children_spec": []}]'""",
        ),
        "enum": (
            {MODEL: lambda m: spec(m, "builtins.dict", [{"__enum__": True, "fqn": "antigravity:a", "name": "b"}])},
            f"{MODEL}: graph_module.module_call_graph[0].signature.in_spec is ",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("attack", sorted(attacks(Path())))
def test_an_archive_that_could_run_code_is_refused_and_does_not(
    put: Put, trace: Path, archive: bytes, attack: str
) -> None:
    changes, danger = attacks(trace)[attack]
    path = put(rewritten(archive, changes))
    message = refusal(path)
    assert message.startswith(f"error[SCC016]: {path} could run code when it is loaded: ")
    assert danger in message
    assert message.endswith(
        "\n  help: export the model again from plain tensors and operators, "
        "or add --allow-pickle if you trust whoever made the file"
    )
    assert not trace.exists()


@pytest.mark.parametrize(
    "attack", ["weight", "constant", "opaque object", "old weights", "sample inputs", "size", "name"]
)
def test_the_attacks_are_real(put: Put, trace: Path, archive: bytes, attack: str) -> None:
    changes, _ = attacks(trace)[attack]
    try:
        program = load_model(put(rewritten(archive, changes)), allow_pickle=True)
        assert isinstance(program, ExportedProgram)
        program.module()(X, {"rows": torch.randn(5, 3)})
    except Exception:  # what torch makes of the ruins does not matter
        pass
    assert trace.exists()


def test_guards_are_not_executed(put: Put, trace: Path, archive: bytes) -> None:
    guard = f"__import__('os').mkdir({str(trace)!r}) is None"
    path = put(rewritten(archive, {MODEL: lambda m: m.update(guards_code=[guard])}))
    inputs = X, {"rows": torch.randn(5, 3)}
    safe, trusted = load_model(path), load_model(path, allow_pickle=True)
    assert isinstance(safe, ExportedProgram)
    assert isinstance(trusted, ExportedProgram)
    safe.module()(*inputs)
    cast(Any, safe).run_decompositions({}).module()(*inputs)
    assert not trace.exists()
    trusted.module()(*inputs)
    assert trace.exists()


def test_the_older_layout_is_not_a_way_around(put: Put, trace: Path, archive: bytes) -> None:
    """torch.export.load goes on with these members if reading the others fails."""
    bomb = saved(Bomb(trace))
    data = rewritten(
        archive, {"archive_version": b"99", "serialized_state_dict.pt": bomb, "serialized_constants.pt": bomb}
    )
    assert refusal(put(data)).startswith("error[SCC024]")
    assert not trace.exists()


def test_an_archive_that_torch_cannot_read_says_why(put: Put, archive: bytes) -> None:
    path = put(rewritten(archive, {"archive_version": b"99"}))
    assert refusal(path) == (
        f"error[SCC024]: torch {torch.__version__} cannot read the export archive {path}: "
        "Saved archive version 99 does not match our current archive version 0.\n"
        "  help: export the model again with this version of torch, importing first whatever it needs"
    )
    unknown = rewritten(
        archive,
        {MODEL: lambda m: first_node("torch.ops.aten.cat.default")(m).update(target="torch.ops.aten.meow.default")},
    )
    assert "We failed to resolve torch.ops.aten.meow.default to an operator." in refusal(put(unknown))
    for broken in (b"[]", b"{}", b"nonsense", b"[" * 100_000):
        assert refusal(put(rewritten(archive, {MODEL: broken}))).startswith("error[SCC024]")


@pytest.mark.parametrize(
    "text",
    [
        "s0", "2*s0 + 1", "s0//2 - (u1 % 3)", "s0 >= 2", "-s3", "Max(1, s0)", "7",
        "Symbol('s77', positive=True, integer=True)",
        "Add(Mul(Integer(-1), Symbol('s0', integer=True)), Integer(1))",
        "FloorDiv(Symbol('s0'), Integer(2))", "Float('0.5', precision=53)", "Pow(Symbol('s0'), Integer(-1))",
    ],
)  # fmt: skip
def test_expressions_of_sizes_are_accepted(text: str) -> None:
    assert is_size_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "exit()", "__import__('os')", "s0.__class__", "s0[0]", "lambda: 0", "(s0 := 1)", "[s0 for s0 in s1]",
        "Symbol", "Symbol('a b')", "Symbol(s0)", "Symbol('s0', integer=exit())", "Max(*s0)", "Max(s0, key=exit)",
        "'text'", "f'{exit()}'", "eval('1')", "2**9**9", "Pow(Integer(9), Integer(999999))", "Pow(2, Pow(9, 9))",
        "s0 if s1 else s2", "s0; s1", "s0\ns1", "(" * 5000, "1" + " + 1" * 5000, "\x00",
    ],
)  # fmt: skip
def test_other_expressions_are_refused(text: str) -> None:
    assert not is_size_expression(text)
