"""Sixteen processes drain ten thousand claims, and no trial is given out twice."""

import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest

from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.records import State
from tuner.storage.store import Ledger


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sixteen_processes_drain_ten_thousand_claims_each_once(
    url: str,
    ledger: Ledger,
    study: Study,
    make_trial: Callable[..., Trial],
    process: Callable[..., subprocess.Popen[str]],
) -> None:
    row = ledger.start_study("drain", replace(study, num_trials=10_000), "code and data")
    ledger.plan_trials(row.study_id, [make_trial(number) for number in range(10_000)])
    workers = [process("drain", url, row.study_id) for _ in range(16)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdin is not None
        assert worker.stdout.readline() == "ready\n"
        worker.stdin.write("go\n")
        worker.stdin.flush()
    outputs = [worker.communicate(timeout=1500)[0] for worker in workers]
    claimed = sorted(int(line) for output in outputs for line in output.splitlines())
    assert claimed == list(range(10_000))
    assert ledger.state_counts(row.study_id)[State.COMPLETE] == 10_000
