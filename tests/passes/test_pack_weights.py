"""pack-weights: the arrays of the format, and the operation that unpacks them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from programs import PREDICTED, Model, before_and_after, called, error, filled, notes, program, run, seeded
from torch import nn

from sparsecc import formats
from sparsecc.diagnostics import CompileError
from sparsecc.formats import CSR

PACK = PREDICTED.removesuffix(",fuse-attention,partition-regions")
X = seeded(2, 64)


def test_golden(golden: Callable[[str, str], None]) -> None:
    golden("pack_weights", before_and_after(PACK, filled(nn.Conv2d(3, 8, 3)), seeded(2, 3, 8, 8)))


@pytest.mark.parametrize("form", ["csr", "bsr4x1", "bsr16x1", "bsr4x4"])
@pytest.mark.parametrize(
    ("layer", "x"), [(nn.Linear(64, 65), X), (nn.Conv2d(3, 65, (3, 1)), seeded(1, 3, 8, 8))], ids=["linear", "conv"]
)
def test_formats_keep_the_meaning(form: str, layer: nn.Linear | nn.Conv2d, x: torch.Tensor) -> None:
    layer = filled(layer)
    with torch.no_grad():
        layer.weight[16:] = 0
        layer.weight[:16] = 1
    option = f"choose-formats{{costs=predicted,formats=('{form}',)}}"
    before = program(layer, x)
    after, records = run(PACK.replace("choose-formats{costs=predicted}", option), before)
    (fact,) = after.layers.values()
    assert fact.format == form
    assert fact.stored_bytes == sum(after.constant(n).nbytes for n in after.constants if n.name != "bias")
    assert notes(records, "pack-weights", done=True) == [
        f"weight: {form}, {4 * fact.elems} B -> {fact.stored_bytes} B",
    ]
    assert error(after, before, seeded(*x.shape, seed=5)) < 1e-6


def test_layers_that_share_a_weight_share_its_arrays() -> None:
    before = program(filled(Model(lambda m, x: m.fc(m.fc(x).relu()), fc=nn.Linear(64, 64)), 0.1), X)
    after, _ = run(PACK, before)
    assert called(after).count("sparsecc.unpack_csr.default") == 2
    assert [n.name for n in after.constants] == [
        "fc_bias",
        "fc_weight_values",
        "fc_weight_columns",
        "fc_weight_row_starts",
    ]
    assert error(after, before) < 1e-6


class Foreign(CSR):
    """As another package would offer it: complete, but for a torch operation."""

    @property
    def name(self) -> str:
        return "foreign"

    @property
    def unpack_op_name(self) -> str:
        return "UnpackForeign"


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("foreign", "no torch operation for its 'UnpackForeign' (sparsecc.ops.UNPACK)"),
        ("dense", "no function that unpacks it in ONNX (unpack_function)"),
    ],
)
def test_a_format_that_compiled_models_cannot_unpack(monkeypatch: pytest.MonkeyPatch, name: str, lacks: str) -> None:
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, Foreign()))
    chosen = PACK.replace("}", f",formats=('{name}',)}}")
    with pytest.raises(CompileError) as caught:
        run(chosen, program(filled(nn.Linear(64, 8)), X))
    assert str(caught.value) == (
        f"error[SCC030]: weights cannot be stored as '{name}': there is {lacks}\n"
        "  help: choose csr or bsr<rows>x<columns>, for instance choose-formats{formats=('csr', 'bsr4x1')}"
    )


def test_a_dense_layer_is_left_alone() -> None:
    before = program(filled(nn.Linear(64, 8), 1), X)
    after, records = run(PACK, before)
    assert called(after) == ["aten.linear.default"]
    assert notes(records, "pack-weights", done=True) == []
