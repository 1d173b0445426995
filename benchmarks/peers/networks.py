"""The networks of the comparison: built, pruned, exported dense-with-zeros for the peers, and their FLOPs counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sparsecc.capture import quiet
from sparsecc.diagnostics import CompileError
from sparsecc.models import minilm, pruning, resnet_cifar

PEER_OPSET = 13
"""DeepSparse 1.8.0 fuses what this opset spells out (layer normalisation is one operator from 17 on)."""


@dataclass(frozen=True)
class Network:
    """``inputs(batch, length)`` are example inputs by name; ``length`` is None where the network has no tokens."""

    title: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int, int | None], dict[str, Tensor]]
    length: int | None = None


class Logits(nn.Module):
    """The image classifiers of transformers, without their record of outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x).logits
        return logits


class Encoder(nn.Module):
    """The encoders of transformers: the last hidden states."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden


def resnet50() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    configuration = ResNetConfig()
    configuration.num_labels = 1000
    return Logits(ResNetForImageClassification(configuration))


def bert4() -> nn.Module:
    from transformers import BertConfig, BertModel

    return Encoder(BertModel(BertConfig(num_hidden_layers=4), add_pooling_layer=False))


def trained_or_random(load: Callable[[], nn.Module], build: Callable[[], nn.Module]) -> nn.Module:
    """Speed does not depend on what the weights are worth."""
    try:
        return load()
    except CompileError:
        return build()


def tokens(batch: int, length: int | None) -> dict[str, Tensor]:
    ids, mask = minilm.example_inputs(batch, length or 128)
    return {"input_ids": ids, "attention_mask": mask}


NETWORKS: dict[str, Network] = {
    "resnet50": Network("ResNet-50, 224x224", resnet50, lambda batch, _: {"x": noise(batch, 3, 224, 224)}),
    "bert4": Network("4 BERT-base layers", bert4, tokens, 128),
    "minilm": Network("MiniLM 6x384", lambda: trained_or_random(minilm.load, minilm.build), tokens, 128),
    "resnet56": Network(
        "CIFAR ResNet-56",
        lambda: trained_or_random(lambda: resnet_cifar.load_pretrained(56), lambda: resnet_cifar.build(56)),
        lambda batch, _: {"x": resnet_cifar.example_inputs(batch)[0]},
    ),
    "linear": Network(
        "linear 4096 -> 4096", lambda: nn.Linear(4096, 4096), lambda batch, _: {"input": noise(batch, 4096)}
    ),
}


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def build(network: Network, sparsity: float, pattern: str) -> nn.Module:
    """The network in evaluation mode, its layers pruned by magnitude; a first convolution and embeddings stay dense.

    ``pattern``: "unstructured", or the rows x columns of a block, such as "4x1".
    """
    torch.manual_seed(0)
    model = network.build().eval()
    if pattern == "unstructured":
        pruning.prune_by_magnitude(model, sparsity, skip_first_conv=True)
        return model
    block_rows, block_cols = map(int, pattern.split("x"))
    every, rest = pruning.prunable_weights(model), pruning.prunable_weights(model, skip_first_conv=True)
    kept = {name: weight.clone() for name, weight in every.items() if name not in rest}
    pruning.prune_blocks(model, sparsity, block_rows, block_cols)
    for name, weight in kept.items():
        every[name].copy_(weight)
    return model


def plain_attention(model: nn.Module) -> None:
    """Attention as matrix products and a softmax, which older opsets can say and FLOPs can be counted of."""
    for module in model.modules():
        if hasattr(module, "set_attn_implementation"):
            cast(Any, module).set_attn_implementation("eager")


def export_dense(model: nn.Module, inputs: dict[str, Tensor], path: Path) -> None:
    """What peers load: float32 ONNX of fixed shapes, the zeros stored, batch normalisation folded."""
    plain_attention(model)
    with quiet(), torch.no_grad():
        torch.onnx.export(
            model,
            tuple(inputs.values()),
            str(path),
            dynamo=False,
            opset_version=PEER_OPSET,
            input_names=list(inputs),
            output_names=["output"],
        )


@dataclass(frozen=True)
class Flops:
    """Of one inference: ``nonzero`` of pruned layers, products with zeros left out; ``rest`` of everything else that
    is a matrix product or a convolution (the first convolution, attention). Element-wise work is not counted."""

    nonzero: int
    rest: int


def count_flops(model: nn.Module, inputs: dict[str, Tensor]) -> Flops:
    plain_attention(model)
    pruned = set(pruning.prunable_weights(model, skip_first_conv=True))
    nonzero = dense = 0

    def count(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, _: Any, output: Tensor) -> None:
            nonlocal nonzero, dense
            weight = cast(Tensor, module.weight)
            uses = 2 * output.numel() // weight.shape[0]  # every weight serves each pixel or token once
            nonzero += uses * int(weight.count_nonzero())
            dense += uses * math.prod(weight.shape)

        return hook if f"{name}.weight".lstrip(".") in pruned else lambda *_: None

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [module.register_forward_hook(count(name)) for name, module in layers]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*inputs.values())
    for handle in handles:
        handle.remove()
    return Flops(nonzero, counter.get_total_flops() - dense)
