"""The reference engine: the compiled graph in torch, for every size, and refused with a way out where it is damaged."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

import sparsecc
from sparsecc.artifact import Artifact, write
from sparsecc.backends.onnxruntime.session import Verdict, open_session, run, verify
from sparsecc.backends.onnxruntime.target import CPU
from sparsecc.capture import capture
from sparsecc.diagnostics import CompileError, PassBug
from sparsecc.reference import TOLERANCE, Array, relative_error


def pruned(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in (p for p in module.parameters() if p.dim() == 2):
            weight.mul_(torch.rand(weight.shape, generator=generator) < 0.1)
    return module.eval()


class Tokens(nn.Module):
    """Two inputs, one of them integer; batch and sequence of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.up, self.down = nn.Embedding(20, 48), nn.Linear(48, 96), nn.Linear(96, 48)
        self.norm = nn.LayerNorm(48)

    def forward(self, ids: Tensor, scale: Tensor) -> Tensor:
        x: Tensor = self.embedding(ids) * scale
        y: Tensor = self.norm(x + self.down(torch.nn.functional.gelu(self.up(x))))
        return y


class Between(nn.Module):
    """Two regions with an operator between them that no region takes; outputs by name, one of them an input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 32)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = torch.cumsum(self.first(x), 1)
        return {"sums": y, "logits": self.second(y), "given": x}


class Branches(nn.Module):
    """torch.cond, and a table in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8).to(torch.bfloat16)
        self.positive, self.negative = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids).float()
        y: Tensor = torch.cond(x.sum() > 0, self.positive, self.negative, (x,))
        return y


def compiled(module: nn.Module, path: Path, *examples: Tensor, **dynamic: int) -> Artifact:
    return sparsecc.compile(module, examples, dynamic=dynamic, tune=False).save(path)


Small = tuple[nn.Module, Artifact]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Two sparse layers, x[batch, 64] -> output[batch, 16]."""
    torch.manual_seed(0)
    module = pruned(nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 16)))
    return module, compiled(module, tmp_path_factory.mktemp("small") / "m", torch.randn(3, 64), batch=0)


def assert_as_torch(module: nn.Module, artifact: Artifact, *inputs: Tensor) -> None:
    names = [value.name for value in artifact.manifest.inputs]
    outputs = run(artifact, {n: x.numpy() for n, x in zip(names, inputs, strict=True)}, "reference")
    with torch.inference_mode():
        expected: Any = module(*inputs)
    by_name: dict[str, Tensor] = expected if isinstance(expected, dict) else {"output": expected}
    assert list(outputs) == list(by_name)
    for name, y in by_name.items():
        assert relative_error(outputs[name], y.numpy()) <= TOLERANCE


# ---- what it computes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_every_batch(small: Small, batch: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert_as_torch(*small, torch.randn(batch, 64))
    assert capfd.readouterr() == ("", "")


def test_a_session_serves_many_calls_and_keeps_its_weights(small: Small) -> None:
    _, artifact = small
    session = open_session(artifact, "reference")
    x = np.ones((2, 64), np.float32)
    x.setflags(write=False)
    first = session.run({"input_1": x})["output"].copy()
    np.testing.assert_array_equal(session.run({"input_1": x})["output"], first)


def test_batch_and_sequence(tmp_path: Path) -> None:
    module = pruned(Tokens())
    ids, scale = torch.randint(20, (1, 5)), torch.rand(1, 5, 1)
    artifact = compiled(module, tmp_path / "m", ids, scale, batch=0, sequence=1)
    for batch, sequence in [(1, 1), (1, 7), (3, 2), (2, 40)]:
        assert_as_torch(module, artifact, torch.randint(20, (batch, sequence)), torch.rand(batch, sequence, 1))


def test_outputs_by_name_around_an_operator_of_onnxruntime(tmp_path: Path) -> None:
    module = pruned(Between())
    artifact = compiled(module, tmp_path / "m", torch.randn(1, 64), batch=0)
    assert len(artifact.manifest.regions) == 2
    for batch in (1, 4):
        assert_as_torch(module, artifact, torch.randn(batch, 64))


def test_branches_and_bfloat16(tmp_path: Path) -> None:
    module = Branches().eval()
    artifact = compiled(module, tmp_path / "m", torch.arange(3), batch=0)
    for ids in (torch.zeros(1, dtype=torch.int64), torch.arange(10)):
        assert_as_torch(module, artifact, ids)


def test_torch_uses_the_threads_asked_for_and_has_its_own_again(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = torch.get_num_threads(), list[int]()

    def compute(_: object) -> object:
        seen.append(torch.get_num_threads())
        raise ValueError("enough")

    monkeypatch.setattr("sparsecc.backends.onnxruntime.torch_reference.load_reference", lambda *_: compute)
    with pytest.raises(CompileError, match="enough"):
        run(small[1], {"input_1": np.ones((1, 64), np.float32)}, "reference", threads=before + 1)
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


# ---- verify ----------------------------------------------------------------------------------------------------------


def changed(artifact: Artifact, path: Path, change: Callable[[dict[str, bytes]], None]) -> Artifact:
    """A copy with other files, whose manifest says that they belong there."""
    files = {name: artifact.file(name).read_bytes() for name in artifact.manifest.files}
    change(files)
    return write(path, files, artifact.manifest)


def change_model(edit: Callable[[onnx.ModelProto], None]) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        model = onnx.load_model_from_string(files["model.onnx"])
        edit(model)
        files["model.onnx"] = model.SerializeToString()

    return change


def change_weight(edit: Callable[[Array], Array]) -> Callable[[dict[str, bytes]], None]:
    """Change the stored values of the first layer."""

    def change(model: onnx.ModelProto) -> None:
        (tensor,) = [t for t in model.graph.initializer if t.name.endswith("0_weight_values")]
        tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor)), tensor.name))

    return change_model(change)


def test_verify_compares_every_engine(small: Small) -> None:
    verdicts = verify(small[1])
    assert [(v.engine, v.ok, v.note) for v in verdicts] == [
        ("onnxruntime", True, ""),
        ("portable", True, ""),
        ("reference", True, ""),
    ]


def double(weight: Array) -> Array:
    return np.multiply(weight, np.float32(2))


def test_a_wrong_weight_in_the_model_fails_verify(small: Small, tmp_path: Path) -> None:
    """The reference has no weights of its own that could hide it."""
    artifact = changed(small[1], tmp_path / "m", change_weight(double))
    (verdict,) = verify(artifact, ["reference"])
    assert not verdict.ok
    assert verdict.max_relative_error is not None
    assert verdict.max_relative_error > 0.1


def test_the_reference_does_not_use_the_models_own_unpacking(small: Small, tmp_path: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        for function in model.functions:
            for scatter in (n for n in function.node if n.op_type in ("ScatterElements", "ScatterND")):
                if scatter.output[0] in ("flat", "blocks"):  # scales the zeros: all weights vanish
                    scatter.attribute.append(helper.make_attribute("reduction", "mul"))

    artifact = changed(small[1], tmp_path / "m", change_model(edit))
    assert [(v.engine, v.ok) for v in verify(artifact, ["portable", "reference"])] == [
        ("portable", False),
        ("reference", True),
    ]


# ---- refusals --------------------------------------------------------------------------------------------------------


def entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def rewrite(edit: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files["reference.zip"] = edit(files["reference.zip"])

    return change


def entry(name: str, data: bytes | None) -> Callable[[dict[str, bytes]], None]:
    """Another entry of reference.zip, or none."""
    return rewrite(lambda old: zipped({n: d for n, d in (entries(old) | {name: data}).items() if d is not None}))


def constants(edit: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, bytes]], None]:
    def change(old: bytes) -> bytes:
        members = entries(old)
        tree = json.loads(members["constants.json"])
        edit(tree)
        return zipped(members | {"constants.json": json.dumps(tree).encode()})

    return rewrite(change)


class Returning(nn.Module):
    """Of the signature of the graphs in reference.zip, and without constants."""

    def __init__(self, result: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.result = result

    def forward(self, inputs: tuple[Tensor], _constants: dict[str, Tensor]) -> object:
        return self.result(*inputs)


def graph_of(result: Callable[[Tensor], object]) -> Callable[[dict[str, bytes]], None]:
    def change(old: bytes) -> bytes:
        buffer, batch = io.BytesIO(), torch.export.Dim.DYNAMIC
        shapes: Any = (({0: batch},), {})
        exported = torch.export.export(Returning(result), ((torch.ones(3, 64),), {}), dynamic_shapes=shapes)
        torch.export.save(exported, buffer)
        return zipped(entries(old) | {"graph.pt2": buffer.getvalue(), "constants.json": b"{}"})

    return rewrite(change)


def call(function: str) -> Callable[[dict[str, bytes]], None]:
    """The graph with another function in the place of relu."""

    def change(old: bytes) -> bytes:
        members = entries(old)
        graph = entries(members["graph.pt2"])
        (name,) = [n for n in graph if n.endswith("model.json")]
        assert b"torch.ops.aten.relu.default" in graph[name]
        graph[name] = graph[name].replace(b"torch.ops.aten.relu.default", function.encode())
        return zipped(members | {"graph.pt2": zipped(graph)})

    return rewrite(change)


def archive(module: nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(module, (torch.ones(3, 64),)), buffer)
    return buffer.getvalue()


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="manifest.json")


HOME = {"initializer": "no such name", "transposed": False}
UNREADABLE = f"torch {torch.__version__} cannot read the export archive graph.pt2"
HOMELESS = "the constant '0.bias' is not in the model"
DAMAGES: dict[str, tuple[Callable[[dict[str, bytes]], None], str]] = {
    "empty": (rewrite(lambda _: b""), "File is not a zip file"),
    "truncated": (rewrite(lambda old: old[:-30]), "File is not a zip file"),
    "flipped bits": (rewrite(lambda old: old[:200] + bytes(b ^ 255 for b in old[200:300]) + old[300:]), ""),
    "no graph": (entry("graph.pt2", None), "it has no graph.pt2"),
    "no constants": (entry("constants.json", None), "it has no constants.json"),
    "no rest": (entry("rest.npz", None), "it has no rest.npz"),
    "graph of nothing": (
        entry("graph.pt2", b"PK"),
        f"torch {torch.__version__} cannot read the export archive graph.pt2",
    ),
    "a pickle": (
        entry("graph.pt2", zipped({"archive/data.pkl": b"\x80\x02."})),
        f"torch {torch.__version__} cannot read",
    ),
    "code": (call("os.system"), "graph.pt2 could run code when it is loaded: models/model.json: "),
    "another function": (call("torch.ops.aten.nonsense.default"), UNREADABLE),
    "constants of nothing": (entry("constants.json", b"\xff{"), "'utf-8' codec can't decode byte 0xff in position 0"),
    "a list of constants": (entry("constants.json", b"[]"), "constants.json is not an object"),
    "deep": (entry("constants.json", b"[" * 100_000), "maximum recursion depth exceeded"),
    "constant of no shape": (constants(lambda c: c.update({"0.bias": 3})), HOMELESS),
    "not transposed": (constants(lambda c: c["0.bias"].update(transposed="no")), HOMELESS),
    "unknown initializer": (
        constants(lambda c: c.update({"0.bias": HOME})),
        HOMELESS,
    ),
    "not in the rest": (constants(lambda c: c.update({"0.bias": None})), HOMELESS),
    "one constant less": (constants(lambda c: c.pop("0.bias")), ""),
    "one constant more": (constants(lambda c: c.update({"1.bias": c["0.bias"]})), ""),
    "constants exchanged": (constants(lambda c: c.update({"0.bias": c["2.bias"], "2.bias": c["0.bias"]})), ""),
    "rest of nothing": (entry("rest.npz", b"\x93NUMPY"), "File is not a zip file"),
    "another graph": (entry("graph.pt2", archive(nn.Linear(64, 16))), ""),
    "too many outputs": (graph_of(lambda x: (x, x)), "zip() argument"),
    "no tuple": (graph_of(lambda x: [x]), "its graph does not return a tuple"),
    "a number": (graph_of(lambda _: (3,)), ""),
    "model of nothing": (lambda files: files.update({"model.onnx": b"no model"}), ""),
    "weight of another shape": (change_weight(lambda w: w[:-1]), ""),
    "weight of another type": (change_weight(lambda w: w.astype(np.float64)), ""),
    "weight elsewhere": (change_model(external), " lies in another file"),
}


@pytest.mark.parametrize(("change", "reason"), DAMAGES.values(), ids=list(DAMAGES))
def test_what_is_damaged_is_refused(
    small: Small,
    change: Callable[[dict[str, bytes]], None],
    reason: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    artifact = changed(small[1], tmp_path / "m", change)
    x = np.ones((3, 64), np.float32)
    with pytest.raises(CompileError) as caught:
        run(artifact, {"input_1": x}, "reference")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "SCC074"
    assert diagnostic.message.startswith(f"{artifact.path / 'reference.zip'} does not run in torch: ")
    assert reason in diagnostic.message
    assert "\n" not in diagnostic.message
    assert verify(artifact, ["reference"]) == [
        Verdict("reference", "output", None, TOLERANCE, True, diagnostic.message)
    ]
    assert capfd.readouterr() == ("", "")


def test_the_whole_refusal(small: Small, tmp_path: Path) -> None:
    artifact = changed(small[1], tmp_path / "m", entry("graph.pt2", None))
    with pytest.raises(CompileError) as caught:
        open_session(artifact, "reference")
    assert str(caught.value) == (
        f"error[SCC074]: {artifact.path / 'reference.zip'} does not run in torch: it has no graph.pt2\n"
        "  help: it is damaged, of another torch, or not made for such input; compare with --engine portable instead"
    )


def test_a_target_whose_result_differs_says_so() -> None:
    program = capture(nn.Linear(4, 3), [torch.randn(2, 4)])
    with pytest.raises(PassBug) as caught:
        CPU.build(program, program, [np.ones((2, 3), np.float64)], tune=False)
    assert str(caught.value) == (
        "the compiled model differs from the original\n"
        "error[SCC009]: the reference form differs from the original by inf of its magnitude"
    )
