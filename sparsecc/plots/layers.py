"""What the kernels of target cpu cost beside dense ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecc.diagnostics import CompileError
from sparsecc.manifest import Manifest
from sparsecc.program import DENSE_KERNELS, Candidate, Layer
from sparsecc.report.text import ratio

from .drawing import BLUE, GREY, PALE, drawing, head, height_of, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THICK = 0.34  # of a row


def plot_layers(manifest: Manifest, path: Path) -> None:
    """Per layer the zeros of its weight, and the time of the kernel that computes it beside the fastest dense one.

    Raises: CompileError as verify_drawable; SCC126 when no layer has times.
    """
    layers = [layer for layer in manifest.layers.values() if layer.kernel in _times(layer)]
    if not layers:
        raise CompileError.of(
            "SCC126",
            f"there is nothing to plot: {'no layer has times' if manifest.layers else 'the model has no layers'}",
            help="compile the model with --target cpu, without a --pipeline of your own",
        )
    with drawing(path, height_of(len(layers), 1.5)) as figure:
        zeros, times = panels(figure, [layer.weight for layer in layers], (0.25, 0.75))
        zeros.barh(range(len(layers)), [100 * layer.sparsity for layer in layers], 0.62, color=PALE)
        zeros.set(xlim=(0, 100), xlabel="zeros, %", xticks=range(0, 101, 25))
        _draw_times(times, layers, inside_regions=bool(manifest.regions))
        sparse = sum(layer.is_sparse for layer in layers)
        head(figure, f"{len(layers)} layers, {sparse} of them sparse", *times.get_legend_handles_labels())


def _draw_times(panel: Axes, layers: Sequence[Layer], *, inside_regions: bool) -> None:
    """A bar for what computes each layer, and below that of a sparse kernel the fastest dense one.

    What a candidate takes on top by estimate is hatched; without regions, no dense layer has to leave one.
    """
    sparse, dense = dict[float, Candidate](), dict[float, Candidate]()  # by the position of their bars
    texts = list[str]()
    for row, layer in enumerate(layers):
        chosen = _times(layer)[layer.kernel]
        if layer.is_sparse:
            others = [c for c in layer.candidates if c.kernel in DENSE_KERNELS]
            beside = min(others, key=lambda c: c.total_us, default=chosen)
            sparse[row - THICK / 2], dense[row + THICK / 2] = chosen, beside
            texts.append(f"{chosen.kernel}; {beside.kernel} takes {ratio(beside.total_us, chosen.total_us)}")
        else:
            dense[row] = chosen if inside_regions else replace(chosen, estimated_us=0.0)
            texts.append(chosen.kernel)
    most = max(c.total_us for c in (*sparse.values(), *dense.values()))
    unit, name = (1e3, "ms") if most >= 1e3 else (1.0, "µs")
    for bars, color, label in ((sparse, BLUE, "sparse kernel"), (dense, GREY, "dense kernel")):
        if bars:
            panel.barh([*bars], [c.microseconds / unit for c in bars.values()], THICK, color=color, label=label)
    if on_top := {at: c for at, c in (sparse | dense).items() if c.estimated_us}:
        panel.barh(
            [*on_top],
            [c.estimated_us / unit for c in on_top.values()],
            THICK,
            left=[c.microseconds / unit for c in on_top.values()],
            facecolor="none",
            edgecolor=GREY,
            linewidth=0.6,
            hatch="////",
            label="estimated, for leaving a region",
        )
    for row, text in enumerate(texts):
        end = max(c.total_us for at, c in (sparse | dense).items() if abs(at - row) < THICK)
        panel.annotate(text, (end / unit, row), (4, 0), textcoords="offset points", va="center")
    panel.set(xlim=(0, 1.45 * most / unit or 1), xlabel=f"{name} of a call: measured, or with --no-tune predicted")


def _times(layer: Layer) -> dict[str, Candidate]:
    return {candidate.kernel: candidate for candidate in layer.candidates}
