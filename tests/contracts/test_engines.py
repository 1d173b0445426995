"""numpy as specified = fast numpy = torch = stock onnxruntime: the same elements, the same bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from sparsecc.contracts import Contract, Key, transmit
from sparsecc.contracts import op as torch_op
from sparsecc.contracts.keys import DTYPES
from sparsecc.contracts.portable import grid_functions, keep_top_function

from .cases import (
    ENGINES,
    KINDS,
    SIZES,
    activations,
    assert_same_bits,
    contracts,
    in_onnxruntime,
    onnx_model,
    reference,
    run_model,
)

SCALE = float(np.float32(0.01))


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data(), kind=st.sampled_from(KINDS), elems=st.sampled_from(SIZES), seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_engines_agree(dtype: str, data: st.DataObject, kind: str, elems: int, seed: int) -> None:
    contract = data.draw(contracts(dtype))
    x = activations(kind, dtype, 2, elems, seed)
    random = np.random.default_rng(seed)
    s = random.integers(0, 256, data.draw(st.sampled_from((1, 5, 3000)))).astype(np.uint8)
    fill = random.choice([77, -3, 0], data.draw(st.sampled_from((1, 4)))).astype("int8" if contract.scale else x.dtype)
    expected = reference(x, s, contract, fill, 10)
    for name, engine in ENGINES.items():
        note(name)
        assert_same_bits(engine(x, s, contract, fill, 10), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("elems", SIZES)
def test_engines_agree_on_every_kind_and_size(dtype: str, kind: str, elems: int) -> None:
    share = 19_661
    contract = Contract("x", Key(dtype, zero_point=5 if dtype == "int8" else 0), share, share, share)
    x = activations(kind, dtype, 2, elems, elems)
    s = np.random.default_rng(0).integers(0, 256, elems).astype(np.uint8)
    fill = np.array([77], x.dtype)
    expected = reference(x, s, contract, fill, 1)
    for engine in ENGINES.values():
        assert_same_bits(engine(x, s, contract, fill, 1), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("elems", SIZES)
def test_engines_agree_on_a_k_that_moves(dtype: str, kind: str, elems: int) -> None:
    """Three samples of up to 30 tiles, whose k goes its own way in each."""
    key = Key(dtype, zero_point=5 if dtype == "int8" else 0)
    contract = Contract("x", key, 19_661, 6_000, 40_000, 100, 1, 1, 2, 20_000, 24_000)
    x = activations(kind, dtype, 3, elems, elems)
    s = np.random.default_rng(0).integers(0, 256, elems).astype(np.uint8)
    fill = np.array([77], x.dtype)
    expected = reference(x, s, contract, fill, 1)
    for engine in ENGINES.values():
        assert_same_bits(engine(x, s, contract, fill, 1), expected)


def test_k_moves_as_the_text_says() -> None:
    """Of tiles whose keys are 255 times 1, 2, 4, 8, the first k hold 8/15, 12/15, 14/15, 15/15."""
    x = np.tile(np.array([1, 2, 4, 8], np.int8), 6)[None]
    s, quarter = np.full(1, 255, np.uint8), 1 << 14
    falls = Contract("x", Key("int8"), 2 * quarter, quarter, 3 * quarter, 4, period=2, margin_hi_q16=40_000)
    rises = replace(falls, margin_lo_q16=60_000, margin_hi_q16=65_535)
    stays = replace(falls, margin_lo_q16=52_428, margin_hi_q16=52_428)  # 12/15 is just that
    for contract, counts in ((falls, [2, 2, 1, 1, 1, 1]), (rises, [2, 2, 3, 3, 3, 3]), (stays, [2] * 6)):
        _, sent = transmit(x, s, contract)
        assert sent.reshape(6, 4).sum(1).tolist() == counts
    _, sent = transmit(np.zeros((1, 24), np.int8), s, rises)  # no mass, no move
    assert sent.reshape(6, 4).sum(1).tolist() == [2] * 6
    _, sent = transmit(x[:, :22], s, falls)  # a short last tile keeps its most
    assert sent[0, 20:].sum() == 1
    two_samples, _ = transmit(np.concatenate([x, x]), s, falls)
    np.testing.assert_array_equal(two_samples[0], two_samples[1])  # the second begins anew


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("error", [-0.9, 0.9])
def test_the_guessed_exponent_is_put_right(dtype: str, error: float) -> None:
    """As with a Log that is off by most of an octave: no library's rounding can change the selection."""
    contract = Contract.fixed("x", Key(dtype), 30_000)
    model = onnx_model(contract, 1, rank=2)
    (first,) = (node.attribute[0].t for node in model.functions[0].node if node.output[0] == "first_f")
    first.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(first) + np.float32(error)))
    s, fill = np.full(1, 255, np.uint8), np.array([77], dtype)
    for kind in KINDS:
        x = activations(kind, dtype, 2, 3000, 1)
        assert_same_bits(run_model(model, x, s, fill), reference(x, s, contract, fill, 1))


@pytest.mark.parametrize("shape", [(0, 8), (2, 0)])
@pytest.mark.parametrize("period", [0, 1])
def test_nothing_to_send(shape: tuple[int, int], period: int) -> None:
    x, s, fill = np.zeros(shape, np.float32), np.ones(1, np.uint8), np.zeros(1, np.float32)
    contract = replace(Contract.fixed("x", Key("float32"), 30_000), period=period)
    for engine in ENGINES.values():
        assert engine(x, s, contract, fill, 1).shape == shape


def test_axis_is_where_a_sample_begins() -> None:
    """[batch, tokens, features]: with axis 2 every token is a tile of its own, with axis 1 tokens share tiles."""
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    s, fill = np.full(4, 255, np.uint8), np.zeros(1, np.float32)
    for axis, kept in ((2, [3, 7, 11, 15, 19, 23]), (1, [9, 10, 11, 21, 22, 23])):
        contract = Contract("x", Key("float32"), 16_384, 16_384, 16_384, axis=axis)
        y = torch_op.transmit(torch.from_numpy(x), torch.from_numpy(s), contract)
        assert y[y != 0].tolist() == kept
        np.testing.assert_array_equal(in_onnxruntime(x, s, contract, fill, 1), y.numpy())


@pytest.mark.parametrize("period", [0, 2])
def test_gradient_passes_what_is_sent(period: int) -> None:
    """d(sum of c * y) / dx = c where x is kept, 0 where it is dropped."""
    x = torch.randn(2, 3, 5, requires_grad=True)
    c = torch.randn(2, 3, 5)
    contract = replace(Contract.fixed("x", Key("float32"), 30_000, tile_elems=3), period=period)
    y = torch_op.transmit(x, torch.full((1,), 255, dtype=torch.uint8), contract)
    torch.autograd.backward((y * c).sum())
    assert 0 < int((y == 0).sum()) < y.numel()
    assert x.grad is not None
    assert torch.equal(x.grad, c * (y != 0))


@pytest.mark.parametrize("period", [0, 2])
def test_gradient_passes_what_int8_can_tell(period: int) -> None:
    """c where x arrives as int8 has it; 0 where it is dropped, or beyond the grid, which ends at 1.27 here."""
    x = torch.tensor([[0.3, -0.02, 2.0, 0.1, -1.27, 0.5], [0.0, 0.7, float("nan"), 0.2, -3.0, 0.6]], requires_grad=True)
    c = torch.arange(1.0, 13.0).reshape(2, 6)
    contract = Contract.fixed("x", Key("int8"), 1 << 15, tile_elems=6)
    y = torch_op.transmit(x, torch.full((1,), 255, dtype=torch.uint8), replace(contract, period=period, scale=SCALE))
    torch.autograd.backward((y * c).nansum())
    assert (y != 0).tolist() == [[False, False, True, False, True, True], [False, True, False, False, True, True]]
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 0, 0, 0, 5, 6], [7, 8, 0, 0, 0, 12]]  # what is 0 arrives, sent or not


def test_op_is_well_registered() -> None:
    """torch's own checks: schema, fake kernel, autograd, dynamic shapes."""
    x = torch.randn(3, 4, 5, requires_grad=True)
    s, fill = torch.full((4,), 255, dtype=torch.uint8), torch.zeros(1)
    arguments = (x, s, fill, 30_000, 7, 5, 1, 1, 16, 0, 0, 0, False)
    torch.library.opcheck(torch_op.keep_top, arguments, test_utils=("test_schema", "test_faketensor"))
    torch.library.opcheck(torch_op.keep_top, arguments, test_utils=("test_autograd_registration",))
    moves = (10_000, 40_000, 1, 3, 9)
    torch.library.opcheck(torch_op.keep_top_moving, (*arguments, *moves), test_utils=("test_schema", "test_faketensor"))
    torch.library.opcheck(torch_op.keep_top_moving, (*arguments, *moves), test_utils=("test_autograd_registration",))
    of_int8 = (x, s, fill.to(torch.int8), *arguments[3:], *moves, SCALE)
    torch.library.opcheck(torch_op.keep_top_int8, of_int8, test_utils=("test_schema", "test_faketensor"))
    torch.library.opcheck(torch_op.keep_top_int8, of_int8, test_utils=("test_autograd_registration",))
    transposed = (x.detach().transpose(1, 2), *arguments[1:])
    torch.library.opcheck(torch_op.keep_top, transposed, test_utils=("test_schema", "test_faketensor"))


class Edge(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        contract = Contract.fixed("x", Key("float32"), 30_000)
        return torch_op.transmit(x, torch.full((1,), 255, dtype=torch.uint8), contract) + 1


def test_export_keeps_one_node_and_a_free_batch() -> None:
    exported = torch.export.export(Edge(), (torch.randn(2, 9),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert sum("keep_top" in str(node.target) for node in exported.graph.nodes) == 1
    x = torch.randn(5, 9)
    assert torch.equal(exported.module()(x), Edge()(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("moving", [False, True])
def test_function_uses_standard_operators_only(dtype: str, moving: bool) -> None:
    function = keep_top_function(dtype, moving=moving)
    assert {node.domain for node in function.node} == {""}
    assert [(opset.domain, opset.version) for opset in function.opset_import] == [("", 20)]


def test_grid_functions_use_standard_operators_only() -> None:
    assert {node.domain for function in grid_functions() for node in function.node} == {""}


def test_float64_has_no_key() -> None:
    with pytest.raises(ValueError, match=r"no key is defined for torch\.float64"):
        torch_op.transmit(torch.zeros(1, 2).double(), torch.ones(1).byte(), Contract.fixed("x", Key("float32"), 9))
