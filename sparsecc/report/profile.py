"""The tables of `bench --profile`."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from sparsecc.backends.onnxruntime.profile import KernelTime, Profile

from .text import count, data_size, duration, table


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
    speed = "-" if kernel.gflops is None else f"{kernel.gflops:.1f}"
    share = "-" if kernel.peak_share is None else f"{kernel.peak_share:.0%}"
    times = duration(kernel.ms * 1e-3), f"{kernel.share:.1%}"
    bound = duration(kernel.bound_ms * 1e-3)
    return (kernel.region, kernel.step, kernel.kernel, *times, data_size(kernel.touched_bytes), speed, share, bound)
