"""original.zip: the dense original comes back, its weights come from model.onnx, and nothing is believed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.utils import prune

import sparsecc
from sparsecc import pipelines, reference
from sparsecc.artifact import npz, read_npz
from sparsecc.backends.onnxruntime.emit import emit
from sparsecc.backends.onnxruntime.original import LARGE_BYTES, SCALED_ERROR, load_original, pack_original
from sparsecc.backends.onnxruntime.side_files import pack_entries
from sparsecc.backends.onnxruntime.timing import new_session
from sparsecc.capture import capture
from sparsecc.diagnostics import PassBug
from sparsecc.formats import CSR, Array
from sparsecc.program import Program

PASSES = pipelines.CPU.replace("choose-formats", "choose-formats{costs=predicted}")


class Normalised(nn.Module):
    """A dense and a pruned convolution, whose normalisation both we and torch's exporter fold, rounding differently."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), pruned(nn.Conv2d(16, 24, 3, bias=False))
        self.norms = nn.ModuleList([nn.BatchNorm2d(16), nn.BatchNorm2d(24)])
        for norm in self.norms:
            assert isinstance(norm, nn.BatchNorm2d)
            for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                assert values is not None
                values.data.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.norms
        y: Tensor = second(self.second(torch.relu(first(self.first(x)))))
        return y


class Shared(nn.Module):
    """One weight of two layers, one of them masked in forward."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(48, 48), nn.Linear(48, 48), nn.Linear(48, 48)
        self.again.weight = self.first.weight
        self.register_buffer("mask", (torch.rand(48, 48) < 0.1).float())

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.again(torch.relu(self.first(x))))
        return nn.functional.linear(y, self.last.weight * self.mask, self.last.bias)


class Tokens(nn.Module):
    """Layers on three axes, whose weights torch's exporter stores transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.up, self.down = nn.Embedding(60, 32), nn.Linear(32, 64), nn.Linear(64, 32)
        self.norm = nn.LayerNorm(32)

    def forward(self, ids: Tensor) -> Tensor:
        x: Tensor = self.embedding(ids)
        y: Tensor = self.norm(x + self.down(torch.nn.functional.gelu(self.up(x))))
        return y


class Half(nn.Module):
    """A dense weight in half precision, and a table in bfloat16, which numpy does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.table = nn.Linear(48, 48).half(), nn.Embedding(60, 48).to(torch.bfloat16)

    def forward(self, x: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        return torch.relu(self.linear(x)), self.table(ids).float()


class NoLayer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(x, 1).exp()


def pruned(module: nn.Module) -> nn.Module:
    """A tenth of the weights remain; torch.nn.utils.prune leaves masks, whose products with negative weights are -0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.dtype == torch.float32:
            cast(Any, prune).l1_unstructured(layer, "weight", 0.9)
    return module


@dataclass(frozen=True)
class Case:
    original: Program
    dense: onnx.ModelProto
    compiled: onnx.ModelProto

    @property
    def archive(self) -> bytes:
        return pack_original(self.dense, self.compiled)


def floats(*shape: int) -> Tensor:
    return torch.randn(*shape)


CASES: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "normalised": lambda: (Normalised(), (floats(2, 3, 8, 8),)),
    "shared": lambda: (Shared(), (floats(2, 48),)),
    "tokens": lambda: (pruned(Tokens()), (torch.arange(10).reshape(2, 5),)),
    "half": lambda: (Half(), (floats(2, 48).half(), torch.tensor([3, 5]))),
    "no layer": lambda: (NoLayer(), (floats(2, 48),)),
}


def make(name: str) -> Case:
    torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]  torch does not say what a seed is
    module, inputs = CASES[name]()
    original = capture(module.eval(), inputs, dynamic={"batch": 0})
    program, _ = pipelines.parse(PASSES).run(original)
    masked, _ = pipelines.parse("fold-masks,fold-constants").run(original)
    return Case(original, emit(masked), emit(program))


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return {name: make(name) for name in CASES}


def arrays(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def entries(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as members:
        return {name: members.read(name) for name in members.namelist()}


def homes(archive: bytes) -> dict[str, dict[str, Any]]:
    return dict(json.loads(entries(archive)["weights.json"]))


# ---- real models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_the_original_comes_back_and_computes_the_same(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    restored = load_original(case.archive, case.compiled)
    onnx.checker.check_model(restored)  # pyright: ignore[reportUnknownMemberType]
    before, after = arrays(case.dense), arrays(restored)
    scaled = {weight for weight, home in homes(case.archive).items() if home["scaled"]}
    assert list(after) == list(before)
    for weight, array in before.items():
        if weight in scaled:
            assert np.abs(after[weight] - array).max() <= SCALED_ERROR * np.abs(array).max()
            np.testing.assert_array_equal(after[weight] == 0, array == 0)
        else:
            np.testing.assert_array_equal(after[weight], array, strict=True)
    assert restored.graph.node == case.dense.graph.node
    feeds = dict(zip(case.original.input_names, (x.numpy() for x in case.original.example_inputs), strict=True))
    actual = new_session(restored.SerializeToString(), None).run(None, feeds)
    golden = reference.run(case.original)
    assert reference.largest_error(actual, golden) <= reference.tolerance(case.original)


@pytest.mark.parametrize(
    ("name", "scaled", "transposed", "as_they_are"),
    [
        ("normalised", {"first.weight", "second_weight"}, 0, 0),
        ("shared", set[str](), 0, 2),
        ("tokens", set[str](), 2, 1),
        ("half", set[str](), 0, 2),
        ("no layer", set[str](), 0, 0),
    ],
)
def test_no_large_weight_is_stored_again(
    cases: dict[str, Case], name: str, scaled: set[str], transposed: int, as_they_are: int
) -> None:
    archive = cases[name].archive
    found = homes(archive)
    assert {weight for weight, home in found.items() if home["scaled"]} == scaled
    assert sum(home["transposed"] for home in found.values()) == transposed
    assert len(found) - len(scaled) - transposed == as_they_are
    graph = onnx.load_model_from_string(entries(archive)["graph.onnx"])
    assert all(len(tensor.raw_data) < LARGE_BYTES for tensor in graph.graph.initializer)
    assert read_npz(entries(archive)["scales.npz"]).keys() == scaled
    assert len(archive) < 4000


def test_masks_are_applied(cases: dict[str, Case]) -> None:
    names = {name for case in cases.values() for name in arrays(case.dense)}
    assert not [name for name in names if "mask" in name or "_orig" in name]
    weight = max(arrays(cases["shared"].dense).values(), key=lambda array: np.count_nonzero(array == 0))
    assert 0.85 < np.mean(weight == 0) < 0.95
    assert np.signbit(weight[weight == 0]).any()  # so equal values must be enough to find it


def test_equal_models_give_equal_bytes(cases: dict[str, Case]) -> None:
    assert make("normalised").archive == cases["normalised"].archive


def test_it_names_no_file_of_this_machine(cases: dict[str, Case]) -> None:
    assert b".py" not in entries(cases["tokens"].archive)["graph.onnx"]


def test_an_original_that_computes_something_else_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(data: bytes, compiled: onnx.ModelProto) -> onnx.ModelProto:
        model = load_original(data, compiled)
        for tensor in model.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
        return model

    monkeypatch.setattr("sparsecc.backends.onnxruntime.target.load_original", doubled)
    with pytest.raises(PassBug) as caught:
        sparsecc.compile(nn.Linear(4, 4), (torch.ones(1, 4),), tune=False)
    (diagnostic,) = caught.value.diagnostics
    assert str(diagnostic) == "error[SCC009]: the dense form differs from the original by 1 of its magnitude"


# ---- weights and scales ----------------------------------------------------------------------------------------------

ROWS, COLS = 24, 16


def with_weights(*weights: Array) -> onnx.ModelProto:
    """A model that holds these weights and returns its input."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> m (float[1] x) => (float[1] y) { y = Neg (x) }'
    )
    model.graph.initializer.extend(numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights))
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(f"w{i}") for i in range(len(weights)))
    return model


def with_packed(weight: Array) -> onnx.ModelProto:
    """A model that holds this weight as CSR."""
    rows, cols = weight.shape
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 20, "sparsecc": 1]> m (float[1] x) => (float[{rows}, {cols}] y)
        {{ y = sparsecc.UnpackCSR <rows = {rows}, cols = {cols}> (values, columns, row_starts) }}
    """)
    model.functions.append(CSR().unpack_function())
    packed = CSR().pack(weight.astype(np.float32)).arrays
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in packed.items())
    return model


def sparse(seed: int, density: float = 0.3) -> Array:
    rng = np.random.default_rng(seed)
    weight = np.where(rng.random((ROWS, COLS)) < density, rng.standard_normal((ROWS, COLS)), 0)
    return weight.astype(np.float32)


@given(
    seed=st.integers(0, 99),
    density=st.sampled_from([0.05, 0.5, 1.0]),
    scales=st.lists(st.floats(2**-10, 2**10) | st.floats(-(2**10), -(2**-10)), min_size=ROWS, max_size=ROWS),
    transposed=st.booleans(),
)
def test_rows_that_were_scaled_are_divided_again(
    seed: int, density: float, scales: list[float], transposed: bool
) -> None:
    weight = sparse(seed, density)
    compiled = with_packed((weight * np.array(scales)[:, None]).astype(np.float32))
    original = with_weights(weight.T.copy() if transposed else weight)
    archive = pack_original(original, compiled)
    assert homes(archive)["w0"]["transposed"] == transposed
    (found,) = arrays(load_original(archive, compiled)).values()
    error = np.abs(found - arrays(original)["w0"]).max()
    assert error <= SCALED_ERROR * np.abs(weight).max()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda w: np.where(np.arange(w.size).reshape(w.shape) == 5, 1e-5, w), id="another zero"),
        pytest.param(lambda w: w * (1 + 1e-5 * sparse(7, 1.0)), id="another value"),
        pytest.param(lambda w: w * np.where(np.arange(ROWS) == 3, 0, 1)[:, None], id="a row of zeros"),
        pytest.param(lambda w: w[:, ::-1], id="another order"),
        pytest.param(lambda w: np.where(w == w.max(), np.nan, w), id="not a number"),
        pytest.param(lambda w: np.where(w == w.max(), np.inf, w), id="infinite"),
    ],
)
def test_what_is_not_a_scaled_weight_stays_in_the_graph(change: Callable[[Array], Array]) -> None:
    weight = change(sparse(1)).astype(np.float32)
    compiled = with_packed(sparse(1))
    archive = pack_original(with_weights(weight), compiled)
    assert homes(archive) == {}
    np.testing.assert_array_equal(arrays(load_original(archive, compiled))["w0"], weight)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.int8, np.bool_])
def test_weights_of_every_type_are_found(dtype: type[np.generic]) -> None:
    weight = np.arange(4096).reshape(64, 4, 16).astype(dtype)
    compiled = with_weights(weight[0], weight)
    archive = pack_original(with_weights(weight), compiled)
    assert list(homes(archive)) == ["w0"]
    np.testing.assert_array_equal(arrays(load_original(archive, compiled))["w0"], weight, strict=True)


def test_a_vector_is_no_scale_of_another() -> None:
    vector = sparse(1, 1.0).reshape(-1)
    assert homes(pack_original(with_weights(vector), with_weights(np.abs(vector) * 2))) == {}


def test_strings_and_small_weights_stay_in_the_graph() -> None:
    words = np.array(["a word"] * 1000, dtype=object)
    small = sparse(1)[:2]
    model = with_weights(words, small)
    archive = pack_original(model, model)
    assert homes(archive) == {}
    assert load_original(archive, model) == model


# ---- what cannot be trusted ------------------------------------------------------------------------------------------

Members = dict[str, bytes]


def weights(edit: Callable[[dict[str, Any]], object]) -> Callable[[Members], Members]:
    def change(members: Members) -> Members:
        tree = json.loads(members["weights.json"])
        edit(tree)
        return members | {"weights.json": json.dumps(tree).encode()}

    return change


def graph(edit: Callable[[onnx.ModelProto], object]) -> Callable[[Members], Members]:
    def change(members: Members) -> Members:
        model = onnx.load_model_from_string(members["graph.onnx"])
        edit(model)
        return members | {"graph.onnx": model.SerializeToString()}

    return change


def put(name: str, data: bytes) -> Callable[[Members], Members]:
    return lambda members: members | {name: data}


def leave_out(name: str) -> Callable[[Members], Members]:
    return lambda members: {key: data for key, data in members.items() if key != name}


def external(tensor: onnx.TensorProto) -> None:
    tensor.name = "secret"
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="manifest.json")


def external_constant(model: onnx.ModelProto) -> None:
    """In a branch of a node, where onnxruntime would read it as well."""
    branch = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["c"])], "branch", [], [])
    external(branch.node[0].attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t)
    model.graph.node.append(onnx.helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch))


def many(tree: dict[str, Any]) -> None:
    tree.update({f"more_{i}": tree["w0"] for i in range(10)})


HOMELESS = "the weight 'w0' is not in the model"
SCALELESS = "the weight 'w0' has no scales"
DAMAGES: dict[str, tuple[Callable[[Members], Members], str]] = {
    "no graph": (leave_out("graph.onnx"), "it has no graph.onnx"),
    "no weights": (leave_out("weights.json"), "it has no weights.json"),
    "no scales": (leave_out("scales.npz"), "it has no scales.npz"),
    "graph of nothing": (put("graph.onnx", b"no model"), ""),
    "weights of nothing": (put("weights.json", b"\xff{"), "'utf-8' codec can't decode byte 0xff in position 0"),
    "a list of weights": (put("weights.json", b"[]"), "weights.json is not an object"),
    "deep": (put("weights.json", b"[" * 100_000), "maximum recursion depth exceeded"),
    "scales of nothing": (put("scales.npz", b"\x93NUMPY"), "File is not a zip file"),
    "weight of no shape": (weights(lambda tree: tree.update(w0=3)), HOMELESS),
    "not transposed": (weights(lambda tree: tree["w0"].update(transposed="no")), HOMELESS),
    "unknown weight": (weights(lambda tree: tree["w0"].update(weight="00")), HOMELESS),
    "weight of no name": (weights(lambda tree: tree.update(w9=tree["w0"])), "graph.onnx has no weight 'w9'"),
    "of another shape": (graph(lambda m: m.graph.initializer[0].dims.append(2)), "cannot reshape array of size 384"),
    "of no type": (graph(lambda m: setattr(m.graph.initializer[0], "data_type", 99)), ""),
    "no scale": (put("scales.npz", npz({})), SCALELESS),
    "other scales": (put("scales.npz", npz({"w0": np.ones(ROWS + 1, np.float32)})), SCALELESS),
    "a table of scales": (put("scales.npz", npz({"w0": np.ones((ROWS, 1), np.float32)})), SCALELESS),
    "scales of another type": (put("scales.npz", npz({"w0": np.ones(ROWS)})), SCALELESS),
    "scales of zero": (put("scales.npz", npz({"w0": np.zeros(ROWS, np.float32)})), SCALELESS),
    "weight elsewhere": (graph(lambda m: external(m.graph.initializer.add())), "the tensor 'secret' lies in another"),
    "constant elsewhere": (graph(external_constant), "the tensor 'secret' lies in another file"),
}


def scaled_pair() -> tuple[bytes, onnx.ModelProto]:
    compiled = with_packed(3 * sparse(1))
    archive = pack_original(with_weights(sparse(1)), compiled)
    assert homes(archive)["w0"]["scaled"]
    return archive, compiled


@pytest.mark.parametrize(("change", "reason"), DAMAGES.values(), ids=list(DAMAGES))
def test_what_is_damaged_is_refused(change: Callable[[Members], Members], reason: str) -> None:
    archive, compiled = scaled_pair()
    with pytest.raises(Exception) as caught:  # noqa: PT011  what zipfile, json, numpy and onnx raise has no base class
        load_original(pack_entries(change(entries(archive))), compiled)
    assert reason in str(caught.value)


def test_bytes_of_something_else_are_refused() -> None:
    archive, compiled = scaled_pair()
    for data in (b"", b"PK", archive[:-30]):
        with pytest.raises(zipfile.BadZipFile):
            load_original(data, compiled)


def test_a_compiled_model_with_weights_elsewhere_is_not_read() -> None:
    archive, compiled = scaled_pair()
    external(compiled.graph.initializer[0])
    with pytest.raises(ValueError, match="the tensor 'secret' lies in another file"):
        load_original(archive, compiled)


def test_entries_larger_than_a_graph_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    archive, compiled = scaled_pair()
    monkeypatch.setattr("sparsecc.backends.onnxruntime.side_files.ENTRY_LIMIT_BYTES", 100)
    with pytest.raises(ValueError, match="it is larger than a graph can be"):
        load_original(archive, compiled)


def test_one_weight_under_many_names_is_not_more_than_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = sparse(1)
    compiled = with_weights(weight)
    archive = pack_original(with_weights(*[weight] * 5), compiled)
    monkeypatch.setattr("sparsecc.backends.onnxruntime.original.WEIGHTS_LIMIT_BYTES", 5 * weight.nbytes)
    load_original(archive, compiled)
    monkeypatch.setattr("sparsecc.backends.onnxruntime.original.WEIGHTS_LIMIT_BYTES", 5 * weight.nbytes - 1)
    with pytest.raises(ValueError, match="its weights are larger than a model can be"):
        load_original(archive, compiled)


def test_a_packed_weight_that_claims_to_be_huge_is_not_unpacked() -> None:
    archive, compiled = scaled_pair()
    (cols,) = [a for a in compiled.graph.node[0].attribute if a.name == "cols"]
    cols.i = 1 << 31
    with pytest.raises(ValueError, match="its weights unpack to more than a model can hold"):
        load_original(archive, compiled)
