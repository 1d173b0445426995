"""Every code used in the source is explained, and every code explained is used."""

import re
from pathlib import Path

import pytest

from sparsecc.codes import CODES, explain, lookup
from sparsecc.diagnostics import CompileError

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "sparsecc" / "codes.py"


def used_codes() -> set[str]:
    files = [f for folder in ("sparsecc", "passes", "backends", "models") for f in (ROOT / folder).rglob("*.py")]
    quoted = re.compile(r'"(SCC\d{3})"')
    return {code for f in files if f != TABLE for code in quoted.findall(f.read_text())} | {"SCC088"}  # codes.py's own


def test_every_code_used_is_explained() -> None:
    assert used_codes() - CODES.keys() == set()


def test_every_code_explained_is_used() -> None:
    assert CODES.keys() - used_codes() == set()


def test_codes_are_sorted_and_sentences_end() -> None:
    assert list(CODES) == sorted(CODES)
    for code, entry in CODES.items():
        assert entry.why.endswith("."), code
        assert entry.fix.endswith((".", "?")), code


def test_explain_is_text_for_a_terminal() -> None:
    assert explain("scc013", width=60) == (
        "SCC013: model in training mode\n"
        "\n"
        "The forward pass changes the model's own buffers, as batch\n"
        "normalisation does while training. An inference graph\n"
        "cannot.\n"
        "\n"
        "What to do: Call model.eval() before exporting."
    )


@pytest.mark.parametrize("code", CODES)
def test_explanations_fit_a_terminal(code: str) -> None:
    assert max(map(len, explain(code).splitlines())) <= 100


def test_unknown_code() -> None:
    with pytest.raises(CompileError) as caught:
        lookup("SCC999")
    assert str(caught.value) == "error[SCC088]: there is no code 'SCC999'\n  help: `sparsecc explain` lists them all"
