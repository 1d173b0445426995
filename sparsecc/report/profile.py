"""The tables of `bench --profile`, and what `inspect --profile` adds: what compile expected of every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from sparsecc.backends.onnxruntime.profile import KernelTime, Profile
from sparsecc.program import Layer

from .text import count, data_size, duration, ratio, table


@dataclass(frozen=True)
class LayerTime:
    """A layer in a region: what compile measured or predicted for its kernel, and its steps now, on one thread.

    ``measured_ms`` holds what is fused into the layer and the copies made for it, ``expected_ms`` the layer alone. The
    others are sums over its steps; ``gflops`` and ``peak_share`` are None where it has no non-zeros.
    """

    layer: str
    weight: str
    kernel: str
    expected_ms: float
    measured_ms: float
    gflops: float | None
    peak_share: float | None
    bound_ms: float


def layer_times(profile: Profile, layers: Mapping[str, Layer]) -> list[LayerTime]:
    """Of every layer that kernels compute, in the order of the model. Profile it on the artifact's sample inputs: an
    expectation is for those."""
    times = list[LayerTime]()
    for name, layer in layers.items():
        steps = [kernel for kernel in profile.kernels if kernel.step.split(".")[0] == name]  # "conv2d.shift": a copy
        expected = [c.microseconds for c in layer.candidates if c.kernel == layer.kernel]
        if not steps or not expected:
            continue
        measured_ms, flops = sum(kernel.ms for kernel in steps), sum(kernel.flops for kernel in steps)
        gflops = flops / measured_ms / 1e6 if flops and measured_ms else None
        times.append(
            LayerTime(
                layer=name,
                weight=layer.weight,
                kernel=layer.kernel,
                expected_ms=expected[0] * 1e-3,
                measured_ms=measured_ms,
                gflops=gflops,
                peak_share=None if gflops is None else gflops / profile.peak_gflops,
                bound_ms=sum(kernel.bound_ms for kernel in steps),
            )
        )
    return times


def expectation_tables(profile: Profile, layers: Mapping[str, Layer]) -> tuple[RenderableType, ...]:
    """Layers as `layer_times` sees them, then nodes and kernels."""
    columns = ("weight", "kernel", ">expected", ">measured", ">ratio", ">GFLOP/s", ">of peak", ">bound")
    rows = map(_layer_row, layer_times(profile, layers))
    explanation = (
        "expected: the layer alone, measured or predicted when it was compiled; measured: with what is fused into it "
        "and the copies made for it\n"
    )
    title = "layers, as compile expected them and as measured now, 1 thread"
    return table(title, columns, rows), Text(explanation), profile_tables(profile)


def _layer_row(t: LayerTime) -> tuple[str, ...]:
    expected, measured, bound = (duration(ms * 1e-3) for ms in (t.expected_ms, t.measured_ms, t.bound_ms))
    speeds = _speeds(t.gflops, t.peak_share)
    return t.weight, t.kernel, expected, measured, ratio(t.measured_ms, t.expected_ms), *speeds, bound


def profile_tables(profile: Profile) -> RenderableType:
    """Regions and operators as onnxruntime times them; kernels, the slowest first."""
    nodes = [
        (n.name, "region" if n.region else count(n.nodes, "node"), duration(n.ms * 1e-3), f"{n.share:.1%}")
        for n in profile.nodes
    ]
    slowest = sorted(profile.kernels, key=lambda kernel: -kernel.ms)
    whole, bound = (sum(values) * 1e-3 for values in zip(*((k.ms, k.bound_ms) for k in slowest), strict=True))
    total = ("all", "", "", duration(whole), "100.0%", "", "", "", duration(bound))
    columns = ("region", "step", "kernel", ">time", ">share", ">touches", ">GFLOP/s", ">of peak", ">bound")
    return Group(
        table(f"nodes, {count(profile.threads, 'thread')}", ("", "", ">time", ">share"), nodes),
        table("kernels, 1 thread", columns, [*map(_kernel_row, slowest), total]),
        Text(
            f"medians of {count(profile.runs, 'run')}; FLOPs without zeros and padding; peak {profile.peak_gflops:.0f} "
            "GFLOP/s, the fastest dense product between the runs; bound: FLOPs at the peak, or bytes at the speed of a "
            "copy of as many (at least 256 KiB)"
        ),
    )


def _kernel_row(kernel: KernelTime) -> tuple[str, ...]:
    times = duration(kernel.ms * 1e-3), f"{kernel.share:.1%}"
    speeds, bound = _speeds(kernel.gflops, kernel.peak_share), duration(kernel.bound_ms * 1e-3)
    return kernel.region, kernel.step, kernel.kernel, *times, data_size(kernel.touched_bytes), *speeds, bound


def _speeds(gflops: float | None, peak_share: float | None) -> tuple[str, str]:
    return "-" if gflops is None else f"{gflops:.1f}", "-" if peak_share is None else f"{peak_share:.0%}"
