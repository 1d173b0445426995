"""The options of `sparsecc compile` that say what contracts are wanted, and what they mean together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsecc.diagnostics import CompileError
from sparsecc.registry import suggest

if TYPE_CHECKING:
    from sparsecc.contracts.options import ContractOptions

PANEL = "Contracts (--target scu)"
Calibration = Annotated[
    Path | None,
    typer.Option(
        metavar="X.npz",
        help="Samples under the names of the inputs, and labels if there are any.",
        rich_help_panel=PANEL,
    ),
]
BytesBudget = Annotated[
    float | None, typer.Option(help="Share of the dense bytes that may cross the link.", rich_help_panel=PANEL)
]
AccuracyBudget = Annotated[
    float | None,
    typer.Option(help="Accuracy that may be lost on held-out samples; 0.01 without a budget.", rich_help_panel=PANEL),
]
Keep = Annotated[
    float | None,
    typer.Option(help="Share of every edge that is sent; needs no calibration.", rich_help_panel=PANEL),
]
Sensitivity = Annotated[
    str | None,
    typer.Option(help="How much a neuron matters: taylor (default), product or activation.", rich_help_panel=PANEL),
]
MapBlock = Annotated[
    int | None,
    typer.Option(metavar="N", help="Neurons per entry of a map; the least that fits if absent.", rich_help_panel=PANEL),
]
Period = Annotated[
    int | None,
    typer.Option(metavar="TILES", help="How often k may move at run time; 0: never (default).", rich_help_panel=PANEL),
]
Fill = Annotated[
    str | None,
    typer.Option(
        metavar="zero|mean",
        help="What stands for dropped elements: zero (default) or the edge's mean.",
        rich_help_panel=PANEL,
    ),
]
UpdateMaps = Annotated[
    bool,
    typer.Option("--update-maps", help="Renew sensitivity maps from what crosses the link.", rich_help_panel=PANEL),
]
Codecs = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Codecs to choose from: raw,bitmask,index,run.", rich_help_panel=PANEL),
]
TargetFile = Annotated[
    Path | None,
    typer.Option(metavar="SCU.toml", help="The machine, instead of the built-in scu-v1.", rich_help_panel=PANEL),
]
SENSITIVITIES = ("taylor", "product", "activation")


def contract_options(
    target: str,
    budgets: Mapping[str, float | None],
    calibration: Path | None,
    sensitivity: str | None,
    map_block: int | None,
    period: int | None,
    fill: str | None,
    update_maps: bool,
    codecs: str | None,
    target_file: Path | None,
) -> ContractOptions | None:
    """What was asked of contracts; None if nothing was and the target is not "scu". ``budgets`` are keyed by option.

    Raises: CompileError SCC087.
    """
    others = (calibration, sensitivity, map_block, period, fill, update_maps or None, codecs, target_file)
    if target != "scu" and all(option is None for option in (*budgets.values(), *others)):
        return None
    from sparsecc.contracts.contract import FILLS, MAX_PERIOD_TILES
    from sparsecc.contracts.options import ContractOptions

    given = {name: share for name, share in budgets.items() if share is not None}
    if len(given) > 1:
        raise unusable(f"{' and '.join(given)} exclude each other", f"give one of {', '.join(budgets)}, or none")
    for name, share in given.items():
        if not (0 <= share < 1 if name == "--accuracy-budget" else 0 < share <= 1):
            range_ = "from 0, less than 1" if name == "--accuracy-budget" else "above 0 and at most 1"
            raise unusable(f"{name} is {share:g}, expected a share {range_}", f"3 % is {name} 0.03")
    if sensitivity is not None and sensitivity not in SENSITIVITIES:
        raise unusable(f"there is no sensitivity '{sensitivity}'", suggest(sensitivity, [*SENSITIVITIES]))
    if map_block is not None and map_block < 1:
        raise unusable(
            f"--map-block is {map_block}, expected a number of neurons from 1",
            "leave it out for the least that fits the unit's memory",
        )
    if period is not None and not 0 <= period <= MAX_PERIOD_TILES:
        raise unusable(
            f"--period is {period}, expected a number of tiles from 0 to {MAX_PERIOD_TILES}",
            "with 0, or without the option, k never moves",
        )
    if fill is not None and fill not in FILLS:
        raise unusable(f"there is no fill '{fill}'", suggest(fill, [*FILLS]))
    return ContractOptions(
        calibration=calibration,
        bytes=given.get("--bytes-budget"),
        accuracy=given.get("--accuracy-budget"),
        keep=given.get("--keep"),
        form=sensitivity or SENSITIVITIES[0],
        map_block=map_block,
        period=period or 0,
        fill=fill or FILLS[0],
        update_maps=update_maps,
        codecs=_codecs(codecs) if codecs is not None else (),
        target_file=target_file,
    )


def _codecs(text: str) -> tuple[str, ...]:
    from sparsecc.contracts.contract import CODECS

    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in CODECS]:
        raise unusable(f"--codecs '{text}' names no codec at '{unknown[0]}'", suggest(unknown[0], [*CODECS]))
    return names


def unusable(message: str, help_: str) -> CompileError:
    return CompileError.of("SCC087", message, help=help_)
