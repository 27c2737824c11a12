"""Sixteen processes drain ten thousand claims, and no trial is given out twice."""

import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest
from storage.processes import drained_by

from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.records import State
from tuner.storage.store import Ledger


@pytest.mark.slow
@pytest.mark.timeout(9000)
def test_sixteen_processes_drain_ten_thousand_claims_each_once(
    url: str,
    ledger: Ledger,
    study: Study,
    make_trial: Callable[..., Trial],
    process: Callable[..., subprocess.Popen[str]],
) -> None:
    row = ledger.start_study("drain", replace(study, num_trials=10_000), "code and data")
    ledger.plan_trials(row.study_id, [make_trial(number) for number in range(10_000)])
    drained = drained_by([process("drain", url, row.study_id) for _ in range(16)])
    assert sorted(number for numbers in drained for number in numbers) == list(range(10_000))
    assert ledger.state_counts(row.study_id)[State.COMPLETE] == 10_000
