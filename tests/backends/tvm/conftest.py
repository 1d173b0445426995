"""Which instruction sets this machine runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsecc.backends.tvm.codegen import MACHINES
from sparsecc.backends.tvm.kernels.spec import Isa

NEEDS: dict[Isa, set[str]] = {
    "avx2": {"avx2", "fma", "bmi2"},
    "avx512": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}


@pytest.fixture(params=list(MACHINES))
def isa(request: pytest.FixtureRequest) -> Isa:
    name: Isa = request.param
    if not NEEDS[name] <= set(Path("/proc/cpuinfo").read_text().split()):
        pytest.skip(f"this CPU has no {name}")
    return name
