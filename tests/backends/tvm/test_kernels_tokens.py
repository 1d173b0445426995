"""Token panels, layer norm, activations and sums against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_calls import (
    ELEMENTWISE,
    EPILOGUES,
    Placement,
    assert_untouched,
    call,
    epilogue,
    guarded,
    split_points,
    uniform,
)

from sparsecc.backends.tvm.kernels.parameters import (
    ElementwiseParameters,
    LayerNormParameters,
    TokensParameters,
    VectorNormParameters,
    float_bits,
)
from sparsecc.backends.tvm.kernels.spec import (
    Elementwise,
    Epilogue,
    Function,
    Isa,
    LayerNorm,
    LoadTokens,
    StoreTokens,
    VectorNorm,
)

PLACEMENTS: tuple[Placement, ...] = ("begin", "end")
FEATURES = [1, 7, 8, 9, 31, 32, 33, 127]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 15, 16])
def test_tokens_to_a_panel_and_back(tokens: int, isa: Isa, placement: Placement) -> None:
    for features in FEATURES:
        p = TokensParameters(features, pitch=16)
        x = guarded(uniform(tokens, features), placement)
        for splits in ([], split_points(tokens)):
            panel = guarded(np.full((features, 16), 7, np.float32), placement)
            call(LoadTokens(), isa, p, tokens, x=x, y=panel, splits=splits)
            np.testing.assert_array_equal(panel[:, :tokens], x.T)
            np.testing.assert_array_equal(panel[:, tokens:], 7)
            back = guarded(np.zeros((tokens, features), np.float32), placement)
            call(StoreTokens(), isa, p, tokens, x=panel, y=back, splits=splits)
            np.testing.assert_array_equal(back, x)
            assert_untouched(panel, placement)
            assert_untouched(back, placement)


@pytest.mark.parametrize("channels", FEATURES)
def test_layer_norm(channels: int, isa: Isa) -> None:
    pitch, epsilon = 48, 1e-5
    x = uniform(channels, pitch) + np.float32(3)
    weight, bias = uniform(channels, seed=1), uniform(channels, seed=2)
    exact = x.astype(np.float64)
    expected = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + epsilon) * weight[:, None] + bias[:, None]
    p = LayerNormParameters(channels, pitch, float_bits(epsilon))
    y, parts = guarded(x), guarded(x)
    call(LayerNorm(), isa, p, 3, x=y, y=y, values=guarded(weight), bias=guarded(bias))
    call(LayerNorm(), isa, p, 3, x=parts, y=parts, values=weight, bias=bias, splits=split_points(3))
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(parts, y)
    assert_untouched(y, "end")


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("channels", FEATURES)
def test_vector_norm(channels: int, isa: Isa, placement: Placement) -> None:
    x, weight, bias = (guarded(uniform(channels, seed=seed), placement) for seed in range(3))
    exact = x.astype(np.float64)
    expected = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5) * weight + bias
    y = guarded(np.zeros(channels, np.float32), placement)
    for out in (y, x):
        call(
            VectorNorm(), isa, VectorNormParameters(channels, float_bits(1e-5)), 1, x=x, y=out, values=weight, bias=bias
        )
        np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-5)
        assert_untouched(out, placement)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("spec", ELEMENTWISE, ids=lambda spec: spec.symbol)
def test_elementwise(spec: Elementwise, isa: Isa, placement: Placement) -> None:
    for elements in (1, 15, 16, 17, 127, 128):
        x, z = guarded(uniform(elements) * 3, placement), guarded(uniform(elements, seed=1), placement)
        expected = epilogue(spec.epilogue, x.astype(np.float64), z)
        p, units = ElementwiseParameters(elements, block=32), -(-elements // 32)
        y, parts = (guarded(np.zeros(elements, np.float32), placement) for _ in range(2))
        call(spec, isa, p, units, x=x, y=y, z=z)
        call(spec, isa, p, units, x=x, y=parts, z=z, splits=split_points(units))
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=5e-7)
        np.testing.assert_array_equal(parts, y)
        assert_untouched(y, placement)
        if spec.epilogue.add:
            added = guarded(z, placement)
            call(spec, isa, p, units, x=x, y=added, z=added)
            np.testing.assert_array_equal(added, y)
        call(spec, isa, p, units, x=x, y=x, z=z)
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("function", ["gelu", "gelu_tanh"])
def test_gelu_is_exact_to_float32(function: Function, isa: Isa) -> None:
    """2.5e-7 of the larger of 1 and |x|, and exactly 0 or x far out."""
    x = np.concatenate([np.linspace(-10, 10, 100_000), [-1e30, -50, 50, 1e30]]).astype(np.float32)
    x = x[: x.size // 16 * 16]
    y = np.zeros_like(x)
    assert Epilogue(function) in EPILOGUES
    call(Elementwise(Epilogue(function)), isa, ElementwiseParameters(x.size, 1024), -(-x.size // 1024), x=x, y=y)
    exact = epilogue(Epilogue(function), x.astype(np.float64), x)
    assert np.abs((y - exact) / np.maximum(1, np.abs(x))).max() <= 2.5e-7
