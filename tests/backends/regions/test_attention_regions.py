"""Attention between sparse layers, compiled: portable and with kernels, against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from programs import Model, filled, seeded
from region_cases import assert_close, runnable_isas
from torch import Tensor, nn
from torch.nn import functional

import sparsecc
from sparsecc.artifact import KERNELS, MODEL
from sparsecc.backends.onnxruntime.profile import profile
from sparsecc.backends.onnxruntime.timing import new_session
from sparsecc.backends.tvm.kernels.spec import Isa

FEATURES, SIZE, QUERIES, KEYS = 128, 16, 45, 70


def attend(m: Model, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Of x to y: masked, and once more of the result to itself without a mask."""

    def heads(z: Tensor) -> Tensor:
        return z.reshape(z.shape[0], z.shape[1], -1, SIZE).transpose(1, 2)

    def joined(z: Tensor) -> Tensor:
        return z.transpose(1, 2).reshape(z.shape[0], z.shape[2], -1)

    across = functional.scaled_dot_product_attention(heads(m.q(x)), heads(m.k(y)), heads(m.v(y)), mask, scale=0.4)
    z = m.o(joined(across)) + x
    own = functional.scaled_dot_product_attention(heads(m.a(z)), heads(m.b(z)), heads(m.c(z)))
    result: Tensor = m.d(joined(own))
    return result


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    names = ("q", "k", "v", "o", "a", "b", "c", "d")
    model = filled(Model(attend, **{name: nn.Linear(FEATURES, FEATURES) for name in names}), 0.05)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.4)  # else softmax chooses single keys
    path = tmp_path_factory.mktemp("attention") / "m.sparsecc"
    artifact = sparsecc.compile(model, inputs(3), dynamic={"batch": 0}, tune=False).save(path)
    assert [region.kind for region in artifact.manifest.regions].count("attention") == 2
    return path, model


def inputs(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    mask = seeded(batch, 1, QUERIES, KEYS, seed=batch) > -0.5
    return seeded(batch, QUERIES, FEATURES, seed=1), seeded(batch, KEYS, FEATURES, seed=2), mask


@pytest.mark.parametrize("isa", runnable_isas())
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_kernels(
    compiled: tuple[Path, nn.Module], batch: int, threads: int, isa: Isa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSECC_ISA", isa)
    check(compiled, compiled[0] / KERNELS, batch, threads)


def test_portable(compiled: tuple[Path, nn.Module]) -> None:
    check(compiled, None, 2, 1)


def check(compiled: tuple[Path, nn.Module], library: Path | None, batch: int, threads: int) -> None:
    path, model = compiled
    session = new_session((path / MODEL).read_bytes(), library, threads)
    given = inputs(batch)
    feeds = {i.name: x.numpy() for i, x in zip(session.get_inputs(), given, strict=True)}
    with torch.no_grad():
        expected = np.asarray(model(*given))
    assert_close(session.run(None, feeds), [expected])


def test_its_kernels_are_profiled(compiled: tuple[Path, nn.Module]) -> None:
    kernels = profile(sparsecc.Artifact.open(compiled[0]), runs=2).kernels
    assert [k.kernel for k in kernels if "attention" in k.kernel] == ["attention_16_masked", "attention_16"]
