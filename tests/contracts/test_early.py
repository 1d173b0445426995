"""What is wrong with options of contracts, known before a model is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sparsecc
from sparsecc.contracts.early import verify_calibrated, verify_data
from sparsecc.contracts.options import ContractOptions
from sparsecc.diagnostics import CompileError

ADD = "add --calibration calib.npz, samples under the names of the inputs; or"


def refused(**options: Any) -> str:
    """By `sparsecc.compile` as well, which does not look at the model."""
    asked = ContractOptions(**options)

    def check() -> None:
        verify_calibrated(asked)
        verify_data(asked)

    with pytest.raises(CompileError) as caught:
        check()
    with pytest.raises(CompileError) as by_compile:
        sparsecc.compile("no such model.pt", target="scu", contracts=asked)
    assert str(by_compile.value) == str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0.5, "period": 4},
         "error[SCC123]: --period 4 moves k by how much of the key mass a contract usually keeps, which calibration "
         f"data tell, and there are none\n  help: {ADD} leave out --period"),
        ({"keep": 0.5, "fill": "mean"},
         "error[SCC124]: --fill mean puts the mean of what an edge drops in its place, which calibration data tell, "
         f"and there are none\n  help: {ADD} leave out --fill"),
        ({"keep": 0.5, "update_maps": True},
         "error[SCC124]: --update-maps is about maps that are measured on calibration data, and there are none\n"
         f"  help: {ADD} leave out --update-maps"),
        ({"keep": 0.5, "map_block": 8},
         "error[SCC124]: --map-block 8 is about maps that are measured on calibration data, and there are none\n"
         f"  help: {ADD} leave out --map-block"),
        ({"keep": 0.5, "form": "product"},
         "error[SCC124]: --sensitivity product is about maps that are measured on calibration data, and there are "
         f"none\n  help: {ADD} leave out --sensitivity"),
        ({"keep": 0.5, "routing": "sensitivity"},
         "error[SCC124]: --routing sensitivity is about maps that are measured on calibration data, and there are "
         f"none\n  help: {ADD} leave out --routing"),
        ({"keep": 0.5, "payload_dtype": "int8"},
         "error[SCC124]: --payload-dtype int8 needs the range of what every edge carries, which calibration data tell, "
         f"and there are none\n  help: {ADD} leave out --payload-dtype"),
        ({"bytes": 0.5},
         "error[SCC116]: contracts are negotiated on calibration data, and there is none\n"
         f"  help: {ADD} --keep 0.5 for the same share everywhere"),
    ],
)  # fmt: skip
def test_what_needs_calibration_data(options: dict[str, Any], message: str) -> None:
    assert refused(**options) == message


def test_nothing_is_missing() -> None:
    verify_calibrated(ContractOptions(keep=0.5))
    data: dict[str, Any] = {"x": np.zeros((2, 3))}
    asked = ContractOptions(data, period=4, fill="mean", update_maps=True, map_block=8, routing="sensitivity")
    verify_calibrated(asked)
    verify_data(asked)


def test_calibration_data_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    write_it = "  help: write it with numpy: np.savez('x.npz', name=array)"
    assert refused(calibration=path) == f"error[SCC076]: {path} cannot be read: No such file or directory\n{write_it}"
    np.savez(path, x=np.array([{}], dtype=object))
    why = "it is damaged, or holds something else than arrays of numbers"
    assert refused(calibration=path) == f"error[SCC076]: {path} cannot be read: {why}\n{write_it}"
    torch.save({"weight": torch.zeros(3)}, path)
    assert refused(calibration=path) == f"error[SCC076]: {path} cannot be read: {why}\n{write_it}"
    different = {"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}
    along = "  help: give one entry along axis 0 per sample"
    np.savez(path, a=different["a"], b=different["b"])
    assert refused(calibration=path) == (
        f"error[SCC058]: {path} holds different numbers of samples: 3 of a, 4 of b\n{along}"
    )
    assert refused(calibration=different) == (
        f"error[SCC058]: the calibration data holds different numbers of samples: 3 of a, 4 of b\n{along}"
    )
    np.savez(path, a=np.zeros((3, 2)), labels=np.zeros(4, np.int64))
    assert refused(calibration=path) == (
        f"error[SCC058]: {path} holds labels of shape [4] and type int64 for 3 samples\n"
        "  help: give one integer per sample, its class, or no labels"
    )


def test_contracts_and_target_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert refused(settled=tmp_path) == (
        f"error[SCC076]: {tmp_path / 'contracts.json'} cannot be read: No such file or directory\n"
        "  help: name the folder that contracts were saved in, or an artifact that was compiled with --target scu"
    )
    asked = ContractOptions(keep=0.5, target_file=tmp_path / "my.toml")
    with pytest.raises(CompileError) as caught:
        sparsecc.compile("no such model.pt", target="scu", contracts=asked)
    assert str(caught.value).startswith(
        f"error[SCC089]: target file {tmp_path / 'my.toml'} cannot be read: No such file"
    )
    (tmp_path / "my.toml").write_text('extends = "scu-v1"\nname = "mine"\ncodecs = ["raw", "bitmask"]\n')
    (tmp_path / "floats.toml").write_text('extends = "scu-v1"\nname = "floats"\ndtypes = ["float32"]\n')
    asked = ContractOptions({"x": np.zeros((2, 3))}, payload_dtype="int8", target_file=tmp_path / "floats.toml")
    with pytest.raises(CompileError) as caught:
        sparsecc.compile("no such model.pt", target="scu", contracts=asked)
    assert str(caught.value) == (
        "error[SCC120]: floats cannot send int8: its `dtypes` or its register key_base are missing\n"
        "  help: leave out --payload-dtype, or give the target file both"
    )
    asked = ContractOptions(keep=0.5, target_file=tmp_path / "my.toml", codecs=("index",))
    with pytest.raises(CompileError, match=r"^error\[SCC120\]: mine has no codec 'index', only raw, bitmask\n"):
        sparsecc.compile("no such model.pt", target="scu", contracts=asked)
