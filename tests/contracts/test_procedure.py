"""From a small network and samples to settled contracts, for every kind of budget; and to files and back."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import program, run

from sparsecc import pipelines
from sparsecc.contracts import (
    WHOLE,
    Budget,
    Contract,
    EdgeLimits,
    Options,
    load_contracts,
    negotiate,
    save_settlement,
    verify_contracts,
)
from sparsecc.contracts.calibration import from_arrays
from sparsecc.contracts.replay import outputs
from sparsecc.diagnostics import CompileError
from sparsecc.models import data, resnet_cifar

from .nets import bytes_of, samples, small_program

PROGRAM = small_program()
DENSE_BYTES = (512 + 512 + 8) * 4


@pytest.mark.parametrize("share", [0.2, 0.35, 0.7])
def test_bytes(share: float) -> None:
    settlement = negotiate(PROGRAM, samples(), Budget("bytes", share), bytes_of)
    assert settlement.dense_bytes == DENSE_BYTES
    assert settlement.settled_bytes <= share * DENSE_BYTES
    assert settlement.settled_bytes > share * DENSE_BYTES - 16  # and it is used
    exact = [bytes_of(n, c.share_q16) for n, c in zip((512, 512, 8), settlement.contracts, strict=True)]
    assert [record.settled_bytes for record in settlement.log] == exact
    verify_contracts(settlement.contracts)
    assert [c.order for c in settlement.contracts] == ["channels-last", "channels-last", "rows"]


def test_a_budget_of_bytes_that_is_too_small() -> None:
    with pytest.raises(CompileError) as caught:
        negotiate(PROGRAM, samples(), Budget("bytes", 0.01), bytes_of)
    found = re.fullmatch(
        r"error\[SCC059\]: the contracts may take 41 bytes, but what every receiver needs at least takes (\d+) "
        rf"\(most of all edge relu_1: \d+\), and all of the dense bytes are {DENSE_BYTES}\n"
        r"  help: give --bytes-budget (0\.\d+) or more",
        str(caught.value),
    )
    assert found
    advised = float(found[2])
    assert advised - 0.001 < int(found[1]) / DENSE_BYTES <= advised
    negotiate(PROGRAM, samples(), Budget("bytes", advised), bytes_of)


def test_a_budget_of_bytes_that_nothing_meets() -> None:
    """Headers of 4,000 B: what every receiver needs takes more than dense tensors."""
    with pytest.raises(CompileError) as caught:
        negotiate(PROGRAM, samples(), Budget("bytes", 1), lambda n, share_q16, _: 4000 + bytes_of(n, share_q16))
    assert re.fullmatch(
        rf"error\[SCC059\]: the contracts may take {DENSE_BYTES} bytes, but what every receiver needs at least takes "
        rf"\d+ \(most of all edge relu_1: \d+\), and all of the dense bytes are {DENSE_BYTES}\n"
        "  help: blocks have headers, and those of small tensors outweigh what is left out: give "
        "--accuracy-budget instead",
        str(caught.value),
    )


def cycles(elems: int, share_q16: int, _: str) -> int:
    return 100 + elems * share_q16 // WHOLE


def makespan(contracts: Mapping[str, Contract], _: object) -> int:
    """1,000 cycles of arithmetic, and all blocks one after the other."""
    sizes = {"relu": 512, "relu_1": 512}
    return 1000 + sum(cycles(sizes.get(c.edge, 8), c.share_q16, "float32") for c in contracts.values())


@pytest.mark.parametrize("share", [0.75, 0.9])
def test_cycles(share: float) -> None:
    settlement = negotiate(PROGRAM, samples(), Budget("cycles", share), bytes_of, cycles=cycles, makespan=makespan)
    dense = 1000 + 300 + 1032
    spent = makespan({c.edge: c for c in settlement.contracts}, {})
    assert share * dense - 1032 // 64 < spent <= share * dense  # and it is used


def test_a_budget_of_cycles_for_everything() -> None:
    settlement = negotiate(PROGRAM, samples(), Budget("cycles", 1), bytes_of, cycles=cycles, makespan=makespan)
    assert all(c.keeps_everything for c in settlement.contracts)


def test_a_budget_of_cycles_that_is_too_small() -> None:
    with pytest.raises(CompileError) as caught:
        negotiate(PROGRAM, samples(), Budget("cycles", 0.5), bytes_of, cycles=cycles, makespan=makespan)
    found = re.fullmatch(
        r"error\[SCC059\]: the program may take 1166 cycles, but with what every receiver needs at least it takes "
        r"(\d+), and 2332 if everything is sent\n"
        r"  help: give --cycles-budget (0\.\d{3}) or more, or a faster link in the target file",
        str(caught.value),
    )
    assert found
    assert float(found[2]) - 0.002 < int(found[1]) / 2332 <= float(found[2])
    negotiate(PROGRAM, samples(), Budget("cycles", float(found[2])), bytes_of, cycles=cycles, makespan=makespan)


@pytest.mark.parametrize("labels", [False, True])
def test_accuracy(labels: bool) -> None:
    settlement = negotiate(PROGRAM, samples(120, labels=labels), Budget("accuracy", 0.1), bytes_of)
    assert settlement.quality == ("accuracy" if labels else "agreement with the dense model")
    assert settlement.to_tree()["loss"] == ("cross-entropy to the labels" if labels else "KL to the model's own output")
    assert settlement.dense.value == 1
    assert settlement.settled.value >= 0.9
    assert settlement.settled.low < settlement.settled.value <= settlement.settled.high
    assert settlement.settled_bytes < 0.7 * DENSE_BYTES


def test_an_accuracy_that_limits_rule_out() -> None:
    limits = {"relu": EdgeLimits(max_payload_bytes=150), "relu_1": EdgeLimits(max_payload_bytes=150)}
    with pytest.raises(CompileError) as caught:
        negotiate(PROGRAM, samples(60), Budget("accuracy", 0.0), bytes_of, limits)
    message = str(caught.value)
    assert message.startswith(
        "error[SCC059]: on held-out data the greatest shares that senders and receivers agree on lose 0."
    )
    assert message.endswith(
        "of 1.0000, more than the 0.0000 allowed\n"
        "  help: allow a greater drop, or give buffers and links more room in the target file"
    )


def test_keep_and_agreed() -> None:
    limits = {"relu": EdgeLimits(max_payload_bytes=300)}
    keep = negotiate(PROGRAM, samples(), Budget("keep", 0.5), bytes_of, limits)
    assert [c.share_q16 for c in keep.contracts][1:] == [WHOLE // 2] * 2
    assert bytes_of(512, keep.contracts[0].share_q16) <= 300
    assert keep.log[0].binding == "payload"
    agreed = negotiate(PROGRAM, samples(), Budget("agreed"), bytes_of, limits)
    assert [r.settled_q16 for r in agreed.log] == [r.adjusted_q16 for r in agreed.log]
    assert agreed.log[0].binding == "payload"


def test_an_edge_without_a_contract_names_its_line() -> None:
    with pytest.raises(CompileError, match=r"SCC048.*no contract suits edge relu_1:[^$]*nets\.py:\d+, node %relu_1"):
        negotiate(PROGRAM, samples(), Budget("keep", 0.5), bytes_of, {"relu_1": EdgeLimits(max_payload_bytes=20)})


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    settlement = negotiate(PROGRAM, samples(), Budget("bytes", 0.4), bytes_of, options=Options(routing="sensitivity"))
    save_settlement(settlement, tmp_path / "contracts")
    contracts, maps = load_contracts(tmp_path / "contracts")
    assert contracts == settlement.contracts
    x = samples(5).inputs
    by_edge = {c.edge: c for c in contracts}
    assert torch.equal(outputs(PROGRAM, x, by_edge, maps)[0], outputs(PROGRAM, x, by_edge, settlement.maps)[0])
    log = json.loads((tmp_path / "contracts" / "settlement.json").read_text())
    assert [edge["edge"] for edge in log["edges"]] == ["relu", "relu_1", "mean"]
    assert log["settled"]["samples"] == 12
    with pytest.raises(CompileError, match="SCC076"):
        load_contracts(tmp_path)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """On a busy machine, threads of torch wait for each other longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(
    not (data.available("cifar10") and data.available("resnet_cifar10")), reason="the data sets are not here"
)
def test_negotiated_beats_uniform_on_a_real_network() -> None:

    model = resnet_cifar.load_pretrained(20)
    tidied, _ = run(pipelines.TIDY, program(model, *resnet_cifar.example_inputs(2), dynamic={"batch": 0}))
    pixels, labels = data.cifar10("train", 96)
    calibration = from_arrays(tidied, {"x": resnet_cifar.images(pixels).numpy(), "labels": labels})
    uniform = negotiate(tidied, calibration, Budget("keep", 0.3), bytes_of)
    budget = Budget("bytes", uniform.settled_bytes / uniform.dense_bytes)
    negotiated = negotiate(tidied, calibration, budget, bytes_of)
    assert negotiated.settled_bytes <= uniform.settled_bytes
    pixels, labels = data.cifar10("test", 100)
    images = resnet_cifar.images(pixels)
    right = list[float]()
    for settled in (uniform, negotiated):
        (logits,) = outputs(tidied, [images], {c.edge: c for c in settled.contracts}, settled.maps)
        right.append(float(np.mean(logits.argmax(1).numpy() == labels)))
    assert right[1] > right[0]


def no_cycles_saved(elems: int, *_: object) -> int:
    return elems


@pytest.mark.parametrize("budget", [Budget("accuracy", 0.1), Budget("cycles", 1.0)])
def test_edges_that_save_no_cycles_stay_whole_and_say_so(budget: Budget) -> None:
    settlement = negotiate(PROGRAM, samples(), budget, bytes_of, cycles=no_cycles_saved, makespan=makespan)
    assert [(c.share_q16, r.binding) for c, r in zip(settlement.contracts, settlement.log, strict=True)] == [
        (WHOLE, "RAW: a contract saves no cycles")
    ] * 3
    assert settlement.settled == settlement.dense


@pytest.mark.parametrize("budget", [Budget("bytes", 0.5), Budget("keep", 0.5)])
def test_an_order_about_bytes_is_one_whatever_the_cycles(budget: Budget) -> None:
    settlement = negotiate(PROGRAM, samples(), budget, bytes_of, cycles=no_cycles_saved)
    assert settlement.settled_bytes < 0.6 * DENSE_BYTES


def test_edges_that_no_codec_makes_smaller_stay_whole_and_say_so() -> None:
    def only_large(elems: int, share_q16: int, _: str) -> int:
        return bytes_of(elems, share_q16 if elems > 8 else WHOLE)

    settlement = negotiate(PROGRAM, samples(), Budget("keep", 0.5), only_large)
    assert [r.binding for r in settlement.log] == ["budget of keep"] * 2 + ["RAW: no codec makes it smaller"]
    assert [c.share_q16 for c in settlement.contracts] == [WHOLE // 2] * 2 + [WHOLE]
