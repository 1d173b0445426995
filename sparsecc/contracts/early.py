"""What can be known of the options of contracts before there is a Program: nobody waits for a capture to learn it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from sparsecc.arrays import read_arrays
from sparsecc.diagnostics import CompileError

from .calibration import count_samples
from .keys import Array
from .options import PAYLOAD_DTYPES, ROUTINGS, SENSITIVITIES, ContractOptions
from .settled import load_contracts

ADD_SAMPLES = "add --calibration calib.npz, samples under the names of the inputs"


def verify_calibrated(options: ContractOptions) -> None:
    """That there are calibration data if anything is to be measured on them.

    Raises: CompileError (SCC116 a budget, SCC123 a k that moves, SCC124 means, maps or int8, without calibration data).
    """
    if options.calibration is not None or options.settled is not None:
        return
    if options.period:
        raise CompileError.of(
            "SCC123",
            f"--period {options.period} moves k by how much of the key mass a contract usually keeps, which "
            "calibration data tell, and there are none",
            help=f"{ADD_SAMPLES}; or leave out --period",
        )
    if options.fill == "mean":
        raise CompileError.of(
            "SCC124",
            "--fill mean puts the mean of what an edge drops in its place, which calibration data tell, and there are "
            "none",
            help=f"{ADD_SAMPLES}; or leave out --fill",
        )
    if options.payload_dtype != PAYLOAD_DTYPES[0]:
        raise CompileError.of(
            "SCC124",
            f"--payload-dtype {options.payload_dtype} needs the range of what every edge carries, which calibration "
            "data tell, and there are none",
            help=f"{ADD_SAMPLES}; or leave out --payload-dtype",
        )
    about_maps = {
        f"--sensitivity {options.form}": options.form != SENSITIVITIES[0],
        f"--routing {options.routing}": options.routing != ROUTINGS[0],
        f"--map-block {options.map_block}": options.map_block is not None,
        "--update-maps": options.update_maps,
    }
    for option in (text for text, asked in about_maps.items() if asked):
        raise CompileError.of(
            "SCC124",
            f"{option} is about maps that are measured on calibration data, and there are none",
            help=f"{ADD_SAMPLES}; or leave out {option.split()[0]}",
        )
    if options.budget.kind != "keep":
        raise CompileError.of(
            "SCC116",
            "contracts are negotiated on calibration data, and there is none",
            help=f"{ADD_SAMPLES}; or --keep 0.5 for the same share everywhere",
        )


def verify_data(options: ContractOptions) -> None:
    """That calibration data can be read and have as many samples for each input, and that contracts can be read.

    Raises: CompileError (as read_arrays, count_samples and load_contracts).
    """
    data = options.calibration
    if isinstance(data, Path):
        count_samples(read_arrays(data), str(data))
    elif data is not None:
        count_samples(cast("Mapping[str, Array]", data))
    if isinstance(options.settled, Path):
        load_contracts(options.settled)
