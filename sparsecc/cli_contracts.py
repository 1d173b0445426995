"""The options of `sparsecc compile` that say what contracts are wanted, and what they mean together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from sparsecc.diagnostics import CompileError

if TYPE_CHECKING:
    from sparsecc.contracts.options import ContractOptions
    from sparsecc.contracts.procedure import Routing as RoutingName

PANEL = "Contracts (--target scu)"


def _share(option: str) -> Callable[[str], float]:
    """The number that was given with an option. Raises: CompileError SCC087."""

    def parse(text: str) -> float:
        try:
            return float(text)
        except ValueError as error:
            raise unusable(
                f"{option} '{text}' is no number", f"{option} is a share from 0 to 1: 0.5 is 50 %"
            ) from error

    return parse


def unusable(message: str, help_: str) -> CompileError:
    return CompileError.of("SCC087", message, help=help_)


Calibration = Annotated[
    Path | None,
    typer.Option(
        metavar="X.npz",
        help="Samples under the names of the inputs, and labels if there are any.",
        rich_help_panel=PANEL,
    ),
]
BytesBudget = Annotated[
    float | None,
    typer.Option(
        parser=_share("--bytes-budget"),
        metavar="SHARE",
        help="Share of the dense bytes that may cross the link.",
        rich_help_panel=PANEL,
    ),
]
CyclesBudget = Annotated[
    float | None,
    typer.Option(
        parser=_share("--cycles-budget"),
        metavar="SHARE",
        help="Share of the cycles that the whole program takes when every value is sent.",
        rich_help_panel=PANEL,
    ),
]
AccuracyBudget = Annotated[
    float | None,
    typer.Option(
        parser=_share("--accuracy-budget"),
        metavar="SHARE",
        help="Accuracy that may be lost on held-out samples; without any budget 0.01.",
        rich_help_panel=PANEL,
    ),
]
Keep = Annotated[
    float | None,
    typer.Option(
        parser=_share("--keep"),
        metavar="SHARE",
        help="Share of every edge that is sent; needs no calibration.",
        rich_help_panel=PANEL,
    ),
]
Sensitivity = Annotated[
    str | None,
    typer.Option(help="How much a neuron matters: taylor (default), product or activation.", rich_help_panel=PANEL),
]
Routing = Annotated[
    str | None,
    typer.Option(
        metavar="magnitude|sensitivity",
        help="By what a tile's elements are chosen: |a| (default), or |a| times the gradient part of its map.",
        rich_help_panel=PANEL,
    ),
]
MapBlock = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Neurons per entry of a map; a channel, of vectors and tokens a neuron, if absent.",
        rich_help_panel=PANEL,
    ),
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
PayloadDtype = Annotated[
    str | None,
    typer.Option(
        metavar="float32|int8",
        help="What float32 travels as: float32 (default), or int8 on a grid measured on --calibration.",
        rich_help_panel=PANEL,
    ),
]
UpdateMaps = Annotated[
    bool,
    typer.Option("--update-maps", help="Renew sensitivity maps from what crosses the link.", rich_help_panel=PANEL),
]
Codecs = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Codecs to choose from: raw,bitmask,index.", rich_help_panel=PANEL),
]
Contracts = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Contracts to take as they are: a folder of them, or an artifact that was compiled with some.",
        rich_help_panel=PANEL,
    ),
]
TargetFile = Annotated[
    Path | None,
    typer.Option(metavar="SCU.toml", help="The machine, instead of the built-in scu-v1.", rich_help_panel=PANEL),
]


def contract_options(
    target: str,
    budgets: Mapping[str, float | None],
    calibration: Path | None,
    sensitivity: str | None,
    routing: str | None,
    map_block: int | None,
    period: int | None,
    fill: str | None,
    update_maps: bool,
    payload_dtype: str | None,
    codecs: str | None,
    target_file: Path | None,
    contracts: Path | None,
) -> ContractOptions | None:
    """What was asked of contracts; None if nothing was and the target is not "scu".

    ``budgets`` are fields of ContractOptions. Raises: CompileError SCC119.
    """
    others = (
        calibration,
        sensitivity,
        routing,
        map_block,
        period,
        fill,
        update_maps or None,
        payload_dtype,
        codecs,
        target_file,
        contracts,
    )
    if target != "scu" and all(option is None for option in (*budgets.values(), *others)):
        return None
    from sparsecc.contracts.contract import FILLS
    from sparsecc.contracts.options import PAYLOAD_DTYPES, ROUTINGS, SENSITIVITIES, ContractOptions

    return ContractOptions(
        calibration=calibration,
        **budgets,
        form=SENSITIVITIES[0] if sensitivity is None else sensitivity,
        routing=ROUTINGS[0] if routing is None else cast("RoutingName", routing),  # which ContractOptions checks
        map_block=map_block,
        period=period or 0,
        fill=FILLS[0] if fill is None else fill,
        update_maps=update_maps,
        payload_dtype=PAYLOAD_DTYPES[0] if payload_dtype is None else payload_dtype,
        codecs=() if codecs is None else _names(codecs),
        target_file=target_file,
        settled=contracts,
    )


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise unusable(
            f"--codecs '{text}' names no codec",
            "name those to choose from, --codecs raw,bitmask,index; without the option they are all that the target "
            "has",
        )
    return names
