"""Edge by edge on equal inputs engines agree to the bit; layer by layer the tiles' kernels agree with float64.

End to end they need not: engines round sums differently, and an element at the edge of k may be swapped for its equal.
So every edge and every layer is compared on what the simulated unit had there.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper
from recorded import Edge, Floats, Network, Recording, record, same_bits
from small_networks import SMALL
from torch import fx

from sparsecc.backends.scu.codecs import Dtype, decode, encode
from sparsecc.contracts.op import KEEP_TOP
from sparsecc.reference import Array

LARGEST_ERROR = 1e-4
"""Of a layer's results, as a share of the greatest of them."""


@pytest.fixture(scope="module", params=["lenet5_half", "resnet20", "minilm_half", *SMALL])
def network(request: pytest.FixtureRequest) -> Network:
    return cast(Network, request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def inputs(network: Network) -> dict[str, Array]:
    """One sample."""
    return {name: x[:1] for name, x in network.artifact.golden()[0].items()}


@pytest.fixture(scope="module")
def recording(network: Network, inputs: dict[str, Array]) -> Recording:
    return record(network.artifact, inputs)


# ---- edges -----------------------------------------------------------------------------------------------------------


class Contracts:
    """The KeepTop nodes of a model.onnx, each alone with its function and constants."""

    def __init__(self, model: onnx.ModelProto) -> None:
        (function,) = (f for f in model.functions if f.name == "KeepTop_float32")
        function.output.append("sent")  # the mask, which the function has but does not return
        self.function, self.opsets = function, model.opset_import
        self.nodes = [node for node in model.graph.node if node.op_type == function.name]
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def run(self, place: int, x: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """What onnxruntime sends of x: the values that arrive, and which of them were not dropped; both flat."""
        node = onnx.NodeProto()
        node.CopyFrom(self.nodes[place])
        node.input[0], node.output[:] = "x", ["arrived", "sent"]
        value = helper.make_tensor_value_info
        shape = [f"axis{i}" for i in range(x.ndim)]
        results = [value("arrived", TensorProto.FLOAT, shape), value("sent", TensorProto.BOOL, ["rows", "elems"])]
        constants = [self.constants[name] for name in node.input[1:]]
        graph = helper.make_graph([node], "edge", [value("x", TensorProto.FLOAT, shape)], results, constants)
        model = helper.make_model(graph, opset_imports=self.opsets, functions=[self.function], ir_version=10)
        session: Any = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        arrived, sent = session.run(None, {"x": x})
        return arrived.reshape(-1), sent.reshape(-1)


def contracts_of(network: Network) -> list[fx.Node]:
    return network.program.graph.find_nodes(op="call_function", target=KEEP_TOP)


def edges_of(network: Network, recording: Recording) -> dict[fx.Node, Edge]:
    """By the node that sends: a contract, or what travels whole. All edges of the recording."""
    nodes, edges = {node.name: node for node in network.program.graph.nodes}, dict(recording.edges)
    found = dict[fx.Node, Edge]()
    for contract in contracts_of(network):
        source = contract.all_input_nodes[0]  # the edge's tensor, or that with its axes in another order
        names = {source.name, source.all_input_nodes[0].name} & edges.keys()
        found[contract] = edges.pop(source.name if source.name in names else names.pop())
    return found | {nodes[name]: edge for name, edge in edges.items()}


def test_every_edge_is_selected_as_in_onnxruntime(network: Network, recording: Recording) -> None:
    """The same indices and bits, and the blocks are the encoder's of what onnxruntime kept."""
    engine = Contracts(onnx.load(network.artifact.file("model.onnx")))
    edges, contracts = edges_of(network, recording), contracts_of(network)
    assert len(contracts) == len(engine.nodes) > 0
    encoded_bytes = 0
    for place, contract in enumerate(contracts):
        edge = edges.pop(contract)
        arrived, sent = engine.run(place, edge.sent.reshape(1, *map(int, contract.meta["val"].shape[1:])))
        assert 0 < np.count_nonzero(sent) < sent.size, contract
        start = 0
        for chunk in edge.chunks:
            for block, row in zip(chunk.blocks, chunk.dense, strict=True):
                here = slice(start, start + row.size)
                np.testing.assert_array_equal(decode(block).indices, np.flatnonzero(sent[here]))
                assert block == encode(chunk.codec, row, sent[here], Dtype.FLOAT32), contract
                start += row.size
                encoded_bytes += len(block)
        assert same_bits(edge.received, arrived), contract
    for node, whole in edges.items():
        assert same_bits(whole.received, whole.sent), node
        encoded_bytes += sum(len(block) for chunk in whole.chunks for block in chunk.blocks)
    assert recording.outcome.link_bytes == recording.outcome.counters.bytes_link == encoded_bytes


# ---- layers ----------------------------------------------------------------------------------------------------------


class Float64(fx.Interpreter):
    """The Program in float64, that reads at every edge what the unit received there; ``errors`` of what was sent."""

    def __init__(self, network: Network, recording: Recording) -> None:
        super().__init__(network.program.module)
        self.edges = edges_of(network, recording)
        self.errors = dict[str, float]()

    def run_node(self, n: fx.Node) -> Any:
        if n.target is KEEP_TOP:
            return self._sent(n, self.env[n.all_input_nodes[0]])
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            value = value.double()
        return self._sent(n, value) if n in self.edges else value

    def _sent(self, n: fx.Node, value: torch.Tensor) -> torch.Tensor:
        self.errors[n.name] = relative_error(self.edges[n].sent, value)
        return torch.from_numpy(self.edges[n].received).double().reshape(value.shape)


def relative_error(found: Floats, expected: torch.Tensor) -> float:
    right = expected.numpy().reshape(-1)
    return float(np.abs(found - right).max() / np.abs(right).max())


def test_every_layer_computes_what_float64_does(
    network: Network, recording: Recording, inputs: dict[str, Array]
) -> None:
    float64 = Float64(network, recording)
    with torch.inference_mode():
        results = float64.run(*(torch.from_numpy(inputs[name]) for name in network.program.input_names))
    assert len(float64.errors) == len(recording.edges)
    ports = zip(recording.outcome.outputs, results, strict=True)
    errors = float64.errors | {f"output {i}": relative_error(np.frombuffer(data, np.float32), y)
                               for i, (data, y) in enumerate(ports)}  # fmt: skip
    assert max(errors.values()) < LARGEST_ERROR, errors
    assert max(errors.values()) > 0  # not the same computation twice
