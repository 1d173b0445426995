"""What a person may ask of the contracts of a compile; from Python and the command line alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsecc.diagnostics import CompileError
from sparsecc.registry import suggest

from .contract import FILLS, MAX_BLOCK_ELEMS, MAX_PERIOD_TILES, Contract
from .maps import SensitivityMap
from .procedure import Budget, Kind, Routing
from .topk import WHOLE

SENSITIVITIES = ("taylor", "product", "activation")
ROUTINGS: tuple[Routing, ...] = ("magnitude", "sensitivity")
PAYLOAD_DTYPES = ("float32", "int8")
BUDGETS: Mapping[Kind, str] = {
    "bytes": "bytes budget",
    "cycles": "cycles budget",
    "accuracy": "accuracy budget",
    "keep": "share to keep",
}
ACCURACY_BUDGET = 0.01
CODECS = ("raw", "bitmask", "index", "run")
FIXED_LENGTH = ("raw", "bitmask", "index")
"""Codecs whose blocks have a length that is known when a model is compiled."""


@dataclass(frozen=True)
class ContractOptions:
    """At most one budget; without one, accuracy = 0.01.

    ``bytes`` is the share of the dense bytes that may cross the link; ``cycles`` of the cycles that the whole program
    takes when everything is sent; ``accuracy`` the accuracy that may be lost on held-out samples, ``keep`` the share of
    every edge that is sent. ``calibration`` are samples by input name, and perhaps "labels", or a file of them;
    ``form``, ``routing``, ``map_block``, ``period``, ``fill``, ``update_maps`` and ``payload_dtype`` int8 need them.
    ``settled`` contracts, or the folder or artifact that holds them, are taken as they are, with the period, the fill
    and the dtype that they have.

    Raises: CompileError SCC119 for what means nothing.
    """

    calibration: Path | Mapping[str, object] | None = None
    bytes: float | None = None
    cycles: float | None = None
    accuracy: float | None = None
    keep: float | None = None
    form: str = SENSITIVITIES[0]
    routing: Routing = ROUTINGS[0]  # within a tile, by |a| or by |a| times the gradient part of the map
    map_block: int | None = None  # elements; None: a channel of images, else one
    period: int = 0  # tiles
    fill: str = FILLS[0]  # "mean": of what each edge drops of the calibration data
    update_maps: bool = False  # the program renews maps from what it moves
    payload_dtype: str = PAYLOAD_DTYPES[0]  # that edges of float32 travel as
    codecs: tuple[str, ...] = ()  # all that the target has
    target_file: Path | None = None
    settled: Path | tuple[Sequence[Contract], Mapping[str, SensitivityMap]] | None = None

    def __post_init__(self) -> None:
        _verify_budgets(self)
        if self.form not in SENSITIVITIES:
            raise _unusable(f"there is no sensitivity '{self.form}'", suggest(self.form, [*SENSITIVITIES]))
        if self.routing not in ROUTINGS:
            raise _unusable(f"there is no routing '{self.routing}'", suggest(self.routing, [*ROUTINGS]))
        if self.map_block is not None and not 1 <= self.map_block <= MAX_BLOCK_ELEMS:
            raise _unusable(
                f"the block of a map is {self.map_block}, expected a number of neurons from 1 to {MAX_BLOCK_ELEMS}",
                "leave it out for an entry per channel of images, and per neuron of vectors and tokens",
            )
        if not 0 <= self.period <= MAX_PERIOD_TILES:
            raise _unusable(
                f"the period is {self.period}, expected a number of tiles from 0 to {MAX_PERIOD_TILES}",
                "with 0, or without the option, k never moves",
            )
        if self.fill not in FILLS:
            raise _unusable(f"there is no fill '{self.fill}'", suggest(self.fill, [*FILLS]))
        if self.payload_dtype not in PAYLOAD_DTYPES:
            known = suggest(self.payload_dtype, [*PAYLOAD_DTYPES])
            raise _unusable(f"payloads cannot have dtype '{self.payload_dtype}'", known)
        if self.update_maps and self.cycles is not None:
            raise _unusable("a cycles budget does not count what updating maps takes", "leave out one of the two")
        if self.update_maps and self.payload_dtype != PAYLOAD_DTYPES[0]:
            raise _unusable(
                f"maps are renewed from float32 that arrives, and a payload dtype of {self.payload_dtype} sends none",
                "leave out one of the two",
            )
        _verify_codecs(self.codecs)

    @property
    def budget(self) -> Budget:
        """The budget that was given, or the default."""
        given = _budgets(self)
        return given[0] if given else Budget("accuracy", ACCURACY_BUDGET)


def _budgets(options: ContractOptions) -> list[Budget]:
    values: dict[Kind, float | None] = {kind: getattr(options, kind) for kind in BUDGETS}
    return [Budget(kind, value) for kind, value in values.items() if value is not None]


def _verify_budgets(options: ContractOptions) -> None:
    given = _budgets(options)
    names = [f"a{'n' * (budget.kind == 'accuracy')} {BUDGETS[budget.kind]}" for budget in given]
    if len(given) > 1:
        raise _unusable(f"{' and '.join(names)} exclude each other", "choose one of them")
    for budget in given:
        from_zero = budget.kind == "accuracy"
        if not (0 <= budget.value < 1 if from_zero else 0 < budget.value <= 1):
            range_ = "from 0, less than 1" if from_zero else "above 0 and at most 1"
            raise _unusable(f"the {BUDGETS[budget.kind]} is {budget.value:g}, expected a share {range_}", "3 % is 0.03")
        if budget.kind == "keep" and round(budget.value * WHOLE) == 0:
            raise _unusable(
                f"the share to keep is {budget.value:g}, so little that nothing is sent",
                f"shares are counted in 1/{WHOLE}: keep at least {1 / WHOLE:.2g}",
            )
    measured = {
        "calibration data": options.calibration is not None,
        "a period": options.period,
        f"fill '{options.fill}'": options.fill != FILLS[0],
        "an update of maps": options.update_maps,
        "a block of maps": options.map_block is not None,
        f"payload dtype '{options.payload_dtype}'": options.payload_dtype != PAYLOAD_DTYPES[0],
        f"sensitivity '{options.form}'": options.form != SENSITIVITIES[0],
        f"routing '{options.routing}'": options.routing != ROUTINGS[0],
    }
    others = [*names, *(name for name, asked in measured.items() if asked)]
    if options.settled is not None and others:
        raise _unusable(
            f"contracts that are given are taken as they are, and {others[0]} is for negotiating new ones",
            "leave out one of the two",
        )


def _verify_codecs(names: Sequence[str]) -> None:
    for name in names:
        if name == "huffman":
            raise _unusable(
                "codec 'huffman' is for constants, and contracts are for what layers send each other",
                f"choose among {', '.join(FIXED_LENGTH)}",
            )
        if name not in CODECS:
            raise _unusable(f"there is no codec '{name}'", suggest(name, [*FIXED_LENGTH]))
        if name not in FIXED_LENGTH:
            raise _unusable(
                f"blocks of codec '{name}' have a length that depends on the data, and schedules need to know it",
                f"choose among {', '.join(FIXED_LENGTH)}",
            )


def _unusable(message: str, help_: str) -> CompileError:
    return CompileError.of("SCC119", message, help=help_)
