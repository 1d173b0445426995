"""What is written is read back; what is read is not trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sparsecc.diagnostics import CompileError
from sparsecc.manifest import Distance, FileRecord, Manifest, Pruned, from_json, to_json

Tree = dict[str, Any]
HELP = "\n  help: the file was changed after sparsecc wrote it, or is not sparsecc's; compile the model again"


def refusal(text: str | bytes) -> str:
    with pytest.raises(CompileError) as caught:
        from_json(text, "m/manifest.json")
    return str(caught.value)


def test_a_manifest_survives_writing_and_reading(manifest: Manifest) -> None:
    full = replace(manifest, pruned=Pruned(0.9, "nothing was retrained"), files={"a": FileRecord("0" * 64, 3)})
    assert from_json(to_json(full), "") == full
    check = replace(manifest.check, unit=1e-6, original={"y": Distance(0.1, 3, 2), "z": Distance(None)})
    changed = replace(manifest, check=check)
    assert from_json(to_json(changed), "") == changed
    bare = replace(manifest, speed=None, layers={}, regions=(), passes=())
    assert from_json(to_json(bare).encode(), "") == bare


def test_the_text_begins_with_the_schema_and_keeps_the_order_of_the_layers(manifest: Manifest) -> None:
    layer = manifest.layers["linear"]
    text = to_json(replace(manifest, layers={"z": layer, "a": layer}))
    assert text.startswith('{\n "schema": 1,\n "versions": {')
    assert list(from_json(text, "").layers) == ["z", "a"]


def test_a_manifest_that_was_written_before_a_field_came_is_read(manifest: Manifest) -> None:
    tree = json.loads(to_json(manifest))
    del tree["source"]["name"], tree["layers"]["linear"]["candidates"][0]["estimated_us"]
    del tree["check"]["unit"], tree["check"]["original"]
    assert from_json(json.dumps(tree), "") == manifest


def test_integers_are_numbers_too(manifest: Manifest) -> None:
    tree = json.loads(to_json(manifest))
    tree["check"]["tolerance"] = 1
    tolerance = from_json(json.dumps(tree), "").check.tolerance
    assert isinstance(tolerance, float)
    assert tolerance == 1.0


def test_what_could_not_be_read_back_is_not_written(manifest: Manifest) -> None:
    with pytest.raises(CompileError, match=r"manifest has control characters in cpu: '\\x1b\[2J'"):
        to_json(replace(manifest, cpu="\x1b[2J"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(replace(manifest, check=replace(manifest.check, kernels=float("nan"))))


def test_a_newer_schema_is_refused_whatever_else_it_holds() -> None:
    assert refusal('{"schema": 7, "new field": 1}') == (
        "error[SCC062]: m/manifest.json has schema 7; this sparsecc reads up to schema 1\n"
        "  help: upgrade sparsecc, or compile the model again with this version"
    )


def delete(name: str) -> Callable[[Tree], object]:
    return lambda tree: tree.pop(name)


def put(value: object, *path: str | int) -> Callable[[Tree], object]:
    def change(tree: Any) -> None:
        for step in path[:-1]:
            tree = tree[step]
        tree[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (delete("schema"), "lacks schema"),
        (delete("check"), "lacks check"),
        (put(0, "schema"), "has schema 0, expected 1 to 1"),
        (put(True, "schema"), "has true or false at schema, expected an integer"),
        (put("1", "schema"), "has a string at schema, expected an integer"),
        (put(1, "surprise"), "has an unknown field 'surprise'"),
        (put(1, "check", "a\nb"), "has an unknown field 'a\\nb' in check"),
        (put(None, "target"), "has null at target, expected a string"),
        (put([], "layers"), "has an array at layers, expected an object"),
        (put({}, "layers", "linear"), "lacks layers['linear'].weight"),
        (put(1.5, "layers", "linear", "rows"), "has a number at layers['linear'].rows, expected an integer"),
        (put("x", "layers", "linear", "candidates", 0, "microseconds"),
         "has a string at layers['linear'].candidates[0].microseconds, expected a number"),
        (put(10**400, "check", "tolerance"), "has a number out of range at check.tolerance"),
        (put([1.0], "inputs", 0, "shape"), "has a number at inputs[0].shape[0], expected an integer or a string"),
        (put([-1], "inputs", 0, "shape"), "has a negative size in inputs[0].shape"),
        (put({"y": {"max_relative_error": 0.1, "rows": 1, "same_argmax": 2}}, "check", "original"),
         "has no valid distance in check.original['y']"),
        (put({"y": {"max_relative_error": -0.1, "rows": 0, "same_argmax": 0}}, "check", "original"),
         "has no valid distance in check.original['y']"),
        (put({"y": 0.1}, "check", "original"), "has a number at check.original['y'], expected an object"),
        (put("fast", "speed"), "has a string at speed, expected an object or null"),
        (put("\x1b[31m", "layers", "linear", "reason"),
         "has control characters in layers['linear'].reason: '\\x1b[31m'"),
        (put("\ud800", "cpu"), "has control characters in cpu: '\\ud800'"),
        (put({"f": {"sha256": "0" * 64, "bytes": -1}}, "files"), "has no valid digest and size in files['f']"),
        (put({"f": {"sha256": "G" * 64, "bytes": 1}}, "files"), "has no valid digest and size in files['f']"),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_is_named(manifest: Manifest, change: Callable[[Tree], object], message: str) -> None:
    tree = json.loads(to_json(manifest))
    change(tree)
    assert refusal(json.dumps(tree)) == f"error[SCC061]: m/manifest.json {message}{HELP}"


def test_two_inputs_of_one_name_are_refused(manifest: Manifest) -> None:
    tree = json.loads(to_json(manifest))
    tree["inputs"] *= 2
    assert refusal(json.dumps(tree)) == f"error[SCC061]: m/manifest.json names two inputs 'x'{HELP}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[]", "is an array, expected an object"),
        ("null", "is null, expected an object"),
        (b"\xff{}", "is not valid JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        ('{"schema": NaN}', "is not valid JSON: NaN is not a JSON number"),
        ('{"schema": 1, "schema": 1}', "is not valid JSON: the name 'schema' is repeated"),
    ],
)
def test_text_that_is_no_manifest_is_refused(text: str | bytes, message: str) -> None:
    assert refusal(text) == f"error[SCC061]: m/manifest.json {message}{HELP}"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema": 1e999}', '{"schema": ' + "9" * 5000 + "}"])
def test_text_made_to_break_the_reader_is_refused(text: str) -> None:
    assert refusal(text).startswith("error[SCC061]: m/manifest.json ")
