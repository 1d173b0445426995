"""One item on several threads: the same bits as on one, whoever comes, in whatever order, and however late."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from threading import Barrier, Thread
from time import sleep

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from region_cases import (
    Array,
    Built,
    RegionCase,
    assert_close,
    build_cases,
    prune,
    random_array,
    region_case,
    run_native,
    run_onnxruntime,
    runnable_isas,
)
from torch import Tensor, nn

from sparsecc.backends.onnxruntime.native import NativeRegion
from sparsecc.backends.tvm.kernels.spec import Isa

HANGS_AFTER_S = 60
POOL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
"""A struct pool of runtime.h holds nothing but a pointer to this."""
Order = Callable[[Sequence[Callable[[], None]]], None]
"""How the tasks of a pool are run: returns when all are done."""


class Stages(nn.Module):
    """Every kind of step: dense and sparse convolutions, frames, shifted copies, padded tails, pools, vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 32, 7, 2, 3), nn.Linear(64, 100)
        self.same = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(4))
        self.smaller, self.point = nn.Conv2d(32, 64, 3, 2, 1), nn.Conv2d(32, 64, 1, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.max_pool2d(F.relu(self.first(x)), 3, 1, 1)
        for conv in self.same:
            x = F.relu(conv(x) + x)
        x = F.relu(self.smaller(x) + self.point(x))
        return x, self.last(F.adaptive_avg_pool2d(x, 1).flatten(1))


def stages() -> RegionCase:
    formats = {"conv2d": "dense", "conv2d_2": "bsr4x1"}
    return region_case(prune(Stages(), 0.3), [torch.randn(2, 3, 61, 61)], lambda name: formats.get(name, "csr"))


def tokens() -> RegionCase:
    layers = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.LayerNorm(512), nn.Linear(512, 256))
    return region_case(prune(layers, 0.3), [torch.randn(2, 256)])


INPUTS = {"stages": lambda rows: random_array(rows, 3, 61, 61), "tokens": lambda rows: random_array(rows, 256)}
ROWS = {"stages": (1, 2, 3, 5), "tokens": (5, 40, 64, 70, 130)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_cases({"stages": stages(), "tokens": tokens()}, tmp_path_factory.mktemp("threads"))


def in_float64(built: Built, name: str, x: Array) -> list[Array]:
    with torch.no_grad():
        results = copy.deepcopy(built.cases[name].module).double()(torch.tensor(x, dtype=torch.float64))
    return [y.numpy() for y in (results if isinstance(results, tuple) else (results,))]


def assert_same_bits(found: Sequence[Array], expected: Sequence[Array]) -> None:
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_array_equal(f.view(np.uint32), e.view(np.uint32))


# ---- onnxruntime's threads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INPUTS)
def test_any_number_of_threads_gives_the_same_bits(built: Built, name: str) -> None:
    sessions = [built.session(name, threads) for threads in (1, 2, 3, 4)]
    for rows in ROWS[name]:
        x = INPUTS[name](rows)
        alone, *others = (run_onnxruntime(session, [x]) for session in sessions)
        assert_close(alone, in_float64(built, name, x))
        for found in others:
            assert_same_bits(found, alone)


@pytest.mark.parametrize("sessions", [1, 2])
def test_calls_at_once(built: Built, sessions: int) -> None:
    """Two callers, of one session whose pool is then busy, or each of its own."""
    x = INPUTS["stages"](1)
    expected = run_onnxruntime(built.session("stages"), [x])
    made = [built.session("stages", threads=2) for _ in range(sessions)]
    found: list[list[Array]] = []

    def call(number: int) -> None:
        found.extend(run_onnxruntime(made[number % sessions], [x]) for _ in range(20))

    at_once([lambda: call(0), lambda: call(1)])
    assert len(found) == 40
    for one in found:
        assert_same_bits(one, expected)


# ---- pools that are slow, or behave badly ---------------------------------------------------------------------------


def at_once(tasks: Sequence[Callable[[], None]]) -> None:
    """Every task on a thread of its own, started together."""
    start = Barrier(len(tasks))

    def run(task: Callable[[], None]) -> None:
        start.wait()
        task()

    threads = [Thread(target=run, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANGS_AFTER_S)
        assert not thread.is_alive(), "hangs"


def one_by_one(tasks: Sequence[Callable[[], None]]) -> None:
    for task in tasks:
        task()


def backwards(tasks: Sequence[Callable[[], None]]) -> None:
    one_by_one(tasks[::-1])


def two_by_two(tasks: Sequence[Callable[[], None]]) -> None:
    """The others find everything done."""
    for first in range(0, len(tasks), 2):
        at_once(tasks[first : first + 2])


ORDERS: dict[str, Order] = {f.__name__: f for f in (at_once, one_by_one, backwards, two_by_two)}


@pytest.mark.parametrize("isa", runnable_isas())
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", INPUTS)
def test_any_order_of_tasks_gives_the_same_bits(built: Built, name: str, order: str, isa: Isa) -> None:
    task_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
    counts: list[int] = []

    def run(_: int, work: int, count: int, job: int) -> None:
        counts.append(count)
        task = task_type(work)
        ORDERS[order]([partial(task, job, i) for i in range(count)])

    pool = ctypes.cast(callback := POOL(run), ctypes.c_void_p)
    case, plan, number = built.cases[name], built.plans[name], list(built.cases).index(name)
    for rows in ROWS[name]:
        x = INPUTS[name](rows)
        expected = run_native(case, plan, built.library, [x], isa, number)
        found = run_native(case, plan, built.library, [x], isa, number, ctypes.addressof(pool))
        assert_same_bits(found, expected)
    assert callback
    assert max(counts) >= 8, "every step was too small to be shared"


@pytest.mark.parametrize("slow", [False, True])
def test_short_phases_are_shared_only_while_that_is_faster(built: Built, slow: bool) -> None:
    task_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
    counts: list[int] = []

    def run(_: int, work: int, count: int, job: int) -> None:
        counts.append(count)
        if slow:  # else nothing is done at all: nothing is faster
            sleep(0.02)
            one_by_one([partial(task_type(work), job, i) for i in range(count)])

    pool = ctypes.cast(callback := POOL(run), ctypes.c_void_p)
    case, number = built.cases["tokens"], list(built.cases).index("tokens")
    with NativeRegion(built.library, number, [None, *case.constants]) as region:
        call = region.bind([random_array(16, 256)], [np.empty((16, 256), np.float32)], 16, ctypes.addressof(pool))
        for _ in range(150):
            call()
    assert callback
    trials, retries = 8, 2  # as in runtime.c, for 150 calls
    assert len(counts) == (trials + retries if slow else 150 - trials - retries)
