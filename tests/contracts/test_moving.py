"""The range and the margins of contracts whose k moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sparsecc.contracts import WHOLE, Budget, Options, Settlement, negotiate
from sparsecc.contracts.moving import kept_shares, margins, settle_moving
from sparsecc.diagnostics import CompileError

from .nets import bytes_of, samples, small_program

DATA = samples(labels=True)


def settled() -> Settlement:
    return negotiate(small_program(), DATA, Budget("keep", 0.25), bytes_of, options=Options(tile_elems=64))


def test_k_moves_below_what_was_settled() -> None:
    before = settled()
    after = settle_moving(small_program(), before, DATA, 2)
    images, vector = after.contracts[:2], after.contracts[2]
    for contract in images:  # 512 elements: 8 tiles
        assert (contract.share_q16, contract.share_hi_q16, contract.period) == (WHOLE // 4, WHOLE // 4, 2)
        needed = next(record.lo_q16 for record in before.log if record.edge == contract.edge)
        assert needed is not None
        assert contract.share_lo_q16 == min(WHOLE // 4, max(WHOLE // 8, needed))
        assert 0 < contract.margin_lo_q16 < contract.margin_hi_q16 < WHOLE
    assert vector == before.contracts[2]  # 8 elements: nothing to move
    assert after.log == before.log


def test_margins_surround_what_calibration_data_keep() -> None:
    before = settled()
    edge = before.contracts[0].edge
    contracts = {c.edge: c for c in before.contracts}
    shares = kept_shares(small_program(), DATA, [edge], contracts, before.maps, 4)[edge]
    assert len(shares) == len(DATA) * 2  # periods
    lo, hi = margins(shares)
    assert lo < shares.mean() < hi
    assert hi - lo == pytest.approx(2 * shares.std(), abs=2)
    assert margins(np.array([0, 65_536])) == (0, 65_535)
    assert margins(np.empty(0, np.int64)) == (0, 65_535)


def refused(action: object) -> str:
    assert callable(action)
    with pytest.raises(CompileError) as caught:
        action()
    return str(caught.value)


def test_a_period_that_no_sample_reaches() -> None:
    assert refused(lambda: settle_moving(small_program(), settled(), DATA, 8)) == (
        "error[SCC123]: --period 8 could never move a k: of the edges with a contract, the greatest has 8 whole tiles "
        "in a sample, and k moves after 8\n"
        "  help: give a smaller --period, or a target file with shorter tiles (selector.tile_elems)"
    )


def test_an_accuracy_budget_holds_for_what_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settled()
    worse = replace(before.settled, value=before.dense.value - 0.5)
    monkeypatch.setattr("sparsecc.contracts.joint.Joint.under", lambda *_: worse)
    assert refused(lambda: settle_moving(small_program(), before, DATA, 2, 0.01)).startswith(
        "error[SCC059]: with --period 2, k falls so far that held-out data lose 0.5000 of "
    )
