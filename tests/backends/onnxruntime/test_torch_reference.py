"""reference.zip: the Program comes back, its weights come from model.onnx, and nothing of this machine is in it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from sparsecc import pipelines, reference
from sparsecc.artifact import read_npz
from sparsecc.backends.onnxruntime.emit import emit
from sparsecc.backends.onnxruntime.torch_reference import load_reference, pack_reference
from sparsecc.capture import capture
from sparsecc.program import Program

PASSES = pipelines.CPU.replace("choose-formats", "choose-formats{costs=predicted}")


class Everything(nn.Module):
    """A sparse layer, one that ONNX stores transposed, a scalar, a table in bfloat16, a shared weight."""

    def __init__(self) -> None:
        super().__init__()
        self.sparse, self.dense, self.again = nn.Linear(64, 96), nn.Linear(96, 24), nn.Linear(96, 24)
        self.again.weight = self.dense.weight
        self.table = nn.Embedding(7, 24).to(torch.bfloat16)
        self.register_buffer("scale", torch.tensor(3.0))

    scale: Tensor

    def forward(self, x: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.cumsum(torch.relu(self.sparse(x)), 1)  # which no region takes
        return self.dense(y) * self.scale, torch.cumsum(self.again(y), 2) + self.table(ids).float()


def packed() -> Program:
    torch.manual_seed(0)
    module = Everything().eval()
    with torch.no_grad():
        module.sparse.weight.mul_(torch.rand(96, 64) < 0.1)
    program = capture(module, (torch.randn(1, 4, 64), torch.zeros(1, 4, dtype=torch.int64)), dynamic={"batch": 0})
    return pipelines.parse(PASSES).run(program)[0]


@pytest.fixture(scope="module")
def program() -> Program:
    return packed()


@pytest.fixture(scope="module")
def model(program: Program) -> onnx.ModelProto:
    return emit(program)


@pytest.fixture(scope="module")
def archive(program: Program, model: onnx.ModelProto) -> bytes:
    return pack_reference(program, model)


def entry(archive: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as members:
        return members.read(name)


def constants(archive: bytes) -> dict[str, Any]:
    return dict(json.loads(entry(archive, "constants.json")))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_what_is_loaded_computes_the_same(program: Program, model: onnx.ModelProto, archive: bytes, batch: int) -> None:
    inputs = torch.randn(batch, 4, 64), torch.randint(7, (batch, 4))
    actual = [y.numpy() for y in load_reference(archive, model)(inputs)]
    for found, expected in zip(actual, reference.run(program, inputs), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_every_constant_is_found_in_the_model(program: Program, model: onnx.ModelProto, archive: bytes) -> None:
    found = constants(archive)
    assert list(found) == list(dict.fromkeys(str(node.target) for node in program.constants))
    assert all(found.values())
    assert read_npz(entry(archive, "rest.npz")) == {}
    initializers = {t.name: t for t in model.graph.initializer}
    for node in program.constants:
        home = found[str(node.target)]
        array = numpy_helper.to_array(initializers[home["initializer"]]).astype(np.float32)
        value = program.constant(node).float().numpy()
        np.testing.assert_array_equal(array.T if home["transposed"] else array, value)
    assert {name for name, home in found.items() if home["transposed"]} == {"again.weight"}  # both layers
    assert {"sparse_weight_values", "sparse.bias", "table.weight", "scale"} <= found.keys()


def test_what_the_exporter_rewrote_is_stored_again(program: Program, model: onnx.ModelProto) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        if tensor.dims == [24]:
            tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
    archive = pack_reference(program, other)
    homeless = {name for name, home in constants(archive).items() if home is None}
    assert homeless == {"dense.bias", "again.bias"}
    rest = read_npz(entry(archive, "rest.npz"))
    assert rest.keys() == homeless
    for actual, expected in zip(
        load_reference(archive, other)(program.example_inputs), reference.run(program), strict=True
    ):
        np.testing.assert_array_equal(actual.numpy(), expected)


def test_the_weights_are_those_of_the_model(program: Program, model: onnx.ModelProto, archive: bytes) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(tensor), tensor.name))
    first, _ = load_reference(archive, other)(program.example_inputs)
    assert not first.any()


def test_it_is_small(program: Program, archive: bytes) -> None:
    """A graph of a dozen nodes in some KB, whatever the weights (14 KB here)."""
    assert sum(program.constant(node).nbytes for node in program.constants) > 14_000
    assert len(archive) < 5_000


def test_equal_programs_give_equal_bytes(archive: bytes) -> None:
    again = packed()
    assert pack_reference(again, emit(again)) == archive


def test_it_names_no_file_of_this_machine(archive: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(entry(archive, "graph.pt2"))) as graph:
        for name in graph.namelist():
            assert b"test_torch_reference" not in graph.read(name)
            assert b".py" not in graph.read(name)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positive, self.negative = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.cond(x.sum() > 0, self.positive, self.negative, (x,))
        return y


@pytest.mark.parametrize("sign", [1, -1])
def test_branches_come_back(sign: int) -> None:
    program = capture(Branches().eval(), (torch.ones(1, 8),), dynamic={"batch": 0})
    model = emit(program)
    x = sign * torch.rand(3, 8)
    (actual,) = load_reference(pack_reference(program, model), model)((x,))
    np.testing.assert_array_equal(actual.numpy(), reference.run(program, (x,))[0])


@pytest.mark.parametrize(
    "value", [torch.tensor([1, 2, 3]), torch.tensor([True, False, True]), torch.zeros(3, 0)], ids=str
)
def test_constants_of_every_kind(value: Tensor) -> None:
    class Kept(nn.Module):
        value: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("value", value)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, (x.sum() * self.value).reshape(-1)])

    program = capture(Kept().eval(), (torch.ones(2),))
    model = emit(program)
    (actual,) = load_reference(pack_reference(program, model), model)(program.example_inputs)
    np.testing.assert_array_equal(actual.numpy(), reference.run(program)[0])


def test_a_new_process_knows_the_operators_of_contracts() -> None:
    code = "import sparsecc.backends.onnxruntime.torch_reference, torch; torch.ops.sparsecc.keep_top.default"
    subprocess.run([sys.executable, "-c", code], check=True)
