"""The C runtime: what it refuses and how it says so, threads, what the library needs, which compilers build it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from region_cases import (
    Array,
    Built,
    RegionCase,
    assert_close,
    build_cases,
    onnx_model,
    prune,
    random_array,
    region_case,
    run_native,
    run_onnxruntime,
    runnable_isas,
    session,
)
from torch import nn

from sparsecc.backends.onnxruntime import library
from sparsecc.backends.onnxruntime.library import FLAGS, ZIG_FLAGS, build_library
from sparsecc.backends.onnxruntime.native import own_isa
from sparsecc.diagnostics import CompileError

SOURCES = Path(library.__file__).parent


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(20, 30), nn.Linear(20, 30)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = self.first(x) + self.second(y)
        return z


def small() -> RegionCase:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 10))
    return region_case(prune(layers, 0.4), [torch.randn(2, 3, 7, 7)])


def blocked() -> RegionCase:
    return region_case(prune(nn.Linear(20, 30), 0.4), [torch.randn(2, 20)], lambda _: "bsr4x3")


def two_inputs() -> RegionCase:
    return region_case(prune(TwoInputs(), 0.4), [torch.randn(2, 20), torch.randn(2, 20)])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    cases = {"small": small(), "blocked": blocked(), "two inputs": two_inputs()}
    return build_cases(cases, tmp_path_factory.mktemp("runtime"))


# ---- shapes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((2, 3, 7, 8), "[2, 3, 7, 8]"),
        ((2, 4, 7, 7), "[2, 4, 7, 7]"),
        ((3, 7, 7), "[3, 7, 7]"),
        ((1,) * 9, "[1, 1, 1, 1, 1, 1, 1, 1]"),
    ],
)
def test_another_shape_is_refused(built: Built, shape: tuple[int, ...], found: str) -> None:
    expected = f"sparsecc::Region_0: input 'input_1' has shape {found}, compiled for [?, 3, 7, 7]"
    with pytest.raises(Exception, match=re.escape(expected)):
        run_onnxruntime(built.session("small"), [np.zeros(shape, np.float32)])


def test_inputs_must_agree_on_rows(built: Built) -> None:
    message = "sparsecc::Region_2: input 'y' has 4 rows, the inputs before it have 3"
    with pytest.raises(Exception, match=re.escape(message)):
        run_onnxruntime(built.session("two inputs"), [random_array(3, 20), random_array(4, 20)])


def test_weights_must_be_initializers(built: Built) -> None:
    model = onnx_model(built.cases["small"], built.plans["small"])
    bias = model.graph.initializer.pop(3)
    model.graph.input.add(name=bias.name).type.tensor_type.elem_type = bias.data_type
    with pytest.raises(Exception, match=f"sparsecc::Region_0: input '{bias.name}' must be an initializer"):
        session(model, built.library)


# ---- damaged weights ------------------------------------------------------------------------------------------------


def damaged(case: RegionCase, array: int, change: Callable[[Array], None]) -> RegionCase:
    constants = [a.copy() for a in case.constants]
    change(constants[array])
    return replace(case, constants=tuple(constants))


def put(index: int, value: int) -> Callable[[Array], None]:
    def change(array: Array) -> None:
        array[index] = value

    return change


DAMAGES = {  # region, constant, change, message
    "column too large": ("small", 1, put(3, 27), "input 'p_0_weight_columns' holds column 27 at 3, expected 0 to 26"),
    "block column too large": (
        "blocked",
        1,
        put(0, 7),
        "input 'p_weight_columns' holds column 7 at 0, expected 0 to 6",
    ),
    "rows fall": ("small", 2, put(2, 10_000), "input 'p_0_weight_row_starts' falls from 10000 to"),
    "negative row": ("small", 2, put(1, -5), "input 'p_0_weight_row_starts' falls from 0 to -5 at row 0"),
    "first row": ("small", 2, put(0, 1), "input 'p_0_weight_row_starts' runs from 1 to"),
    "last row": ("small", 2, put(-1, 1), "input 'p_0_weight_row_starts' runs from 0 to 1, expected 0 to"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_refused(built: Built, damage: str) -> None:
    name, array, change, message = DAMAGES[damage]
    case, plan = damaged(built.cases[name], array, change), built.plans[name]
    with pytest.raises(Exception, match=re.escape(message)) as refusal:
        session(onnx_model(case, plan), built.library)
    assert "the artifact is damaged" in str(refusal.value)
    activations = [random_array(1, *(s or 0 for s in plan.inputs[0].shape[1:]))]
    with pytest.raises(ValueError, match=re.escape(message)):
        run_native(case, plan, built.library, activations, "avx2", list(built.cases).index(name))


def test_a_weight_of_another_length_is_refused(built: Built) -> None:
    case = built.cases["small"]
    shorter = replace(case, constants=(case.constants[0][:-1], *case.constants[1:]))
    with pytest.raises(Exception, match=r"input 'p_0_weight_values' has shape \[\d+\], compiled for \[\d+\]"):
        session(onnx_model(shorter, built.plans["small"]), built.library)


# ---- threads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_runs_at_once_on_one_session(built: Built, threads: int) -> None:
    run = built.session("small", threads)
    batches = [random_array(n % 4 + 1, 3, 7, 7, seed=n) for n in range(40)]

    def one(x: Array) -> list[Array]:
        return run_onnxruntime(run, [x])

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(one, batches))
    for x, y in zip(batches, found, strict=True):
        assert_close(y, built.cases["small"].expected(x))


# ---- instruction sets -----------------------------------------------------------------------------------------------


def test_the_instruction_set_can_be_forced(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    x = random_array(2, 3, 7, 7)
    for isa in runnable_isas():
        monkeypatch.setenv("SPARSECC_ISA", isa)
        assert_close(run_onnxruntime(built.session("small"), [x]), built.cases["small"].expected(x))


def test_an_unknown_instruction_set_is_refused(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSECC_ISA", "sse9")
    with pytest.raises(Exception, match="SPARSECC_ISA is 'sse9'; it can be avx2 or avx512"):
        built.session("small")


def test_a_missing_instruction_set_is_refused(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_library([built.plans["blocked"]], tmp_path / "kernels.so", isas=("avx2",))
    x = random_array(5, 20)
    plan = replace(built.plans["blocked"], op_name="Region_1")
    run = session(onnx_model(built.cases["blocked"], plan), tmp_path / "kernels.so")
    assert_close(run_onnxruntime(run, [x]), built.cases["blocked"].expected(x))
    monkeypatch.setenv("SPARSECC_ISA", "avx512")
    with pytest.raises(Exception, match=r"avx512 kernels were asked for, but this kernels\.so has none"):
        session(onnx_model(built.cases["blocked"], plan), tmp_path / "kernels.so")


def test_the_best_instruction_set_is_the_own_one(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARSECC_ISA", raising=False)
    plan, x = built.plans["blocked"], random_array(5, 20)
    build_library([plan], tmp_path / "kernels.so", isas=(own_isa(),))
    found = run_native(built.cases["blocked"], plan, tmp_path / "kernels.so", [x], own_isa())
    assert_close(found, built.cases["blocked"].expected(x))
    assert own_isa() == runnable_isas()[-1]
    for isa in runnable_isas():
        monkeypatch.setenv("SPARSECC_ISA", isa)
        assert own_isa() == isa


# ---- the library ----------------------------------------------------------------------------------------------------


def test_needs_only_libc(built: Built) -> None:
    listed = subprocess.run(["ldd", built.library], capture_output=True, text=True, check=True).stdout
    names = {line.split()[0] for line in listed.splitlines()}
    assert {n for n in names if not n.startswith(("linux-vdso", "libc.so", "/lib64/ld-linux"))} == set()


def test_same_plans_same_bytes(built: Built, tmp_path: Path) -> None:
    for name in ("a.so", "b.so"):
        build_library([built.plans["blocked"]], tmp_path / name, isas=("avx2",))
    assert (tmp_path / "a.so").read_bytes() == (tmp_path / "b.so").read_bytes()


def compilers() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [(name,) for name in ("gcc", "clang") if shutil.which(name)]
    zig = (sys.executable, "-m", "ziglang", "cc", *ZIG_FLAGS)
    return [*found, zig] if importlib.util.find_spec("ziglang") else found


@pytest.mark.parametrize("compiler", compilers(), ids=lambda c: c[2] if len(c) > 2 else c[0])
def test_compiles_without_warnings(compiler: tuple[str, ...], tmp_path: Path) -> None:
    for source in library.SOURCES:
        arguments = [*FLAGS, "-c", "-Werror", str(SOURCES / source), "-o", str(tmp_path / "x.o")]
        subprocess.run([*compiler, *arguments], check=True)


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang is not installed")
def test_ziglang_serves_where_there_is_no_compiler(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", " ".join((sys.executable, "-m", "ziglang", "cc", *ZIG_FLAGS)))
    build_library([built.plans["blocked"]], tmp_path / "kernels.so", isas=("avx2",))
    x = random_array(33, 20)
    found = run_native(built.cases["blocked"], built.plans["blocked"], tmp_path / "kernels.so", [x], "avx2")
    assert_close(found, built.cases["blocked"].expected(x))


def test_without_a_compiler_the_way_out_is_named(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(library, "c_compilers", lambda: ())
    with pytest.raises(CompileError) as error:
        build_library([built.plans["blocked"]], tmp_path / "kernels.so")
    assert str(error.value) == (
        "error[SCC050]: no working C compiler was found ($CC, cc, gcc, clang and the ziglang package were tried)\n"
        "  help: `pip install ziglang` brings one, or set CC"
    )
    assert not (tmp_path / "kernels.so").exists()
