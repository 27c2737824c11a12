"""`--workers auto`: as many processes as save more than they take to start."""

import os
from contextlib import closing

import psutil
import pytest
import torch
from support.loaded import loaded
from support.study_files import write_study

from tuner.design.study_file import load_campaign
from tuner.execution import workers as workers_module
from tuner.execution.backend import Job, Silent
from tuner.execution.fork_server import ForkServer, worker_environment
from tuner.execution.workers import Remaining, Workers, num_processes, remaining_work
from tuner.records import State
from tuner.records.conclusions import FusionChoices
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.storage.store import open_ledger

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("trials", "seconds", "cores", "count"),
    [(32, 100.0, 2, 2), (32, 100.0, 8, 8), (3, 100.0, 8, 3), (32, 2.0, 2, 1), (32, 2.9, 2, 1), (32, 3.1, 2, 2),
     (1, 1e6, 8, 1), (0, 0.0, 8, 1)],
)  # fmt: skip
def test_processes_are_started_where_they_save_more_than_their_start_takes(trials, seconds, cores, count, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert num_processes(Remaining(trials, seconds), CPU) == count


@pytest.mark.parametrize("fused", [True, False])
def test_the_remaining_work_is_that_of_the_trials_that_are_left(fused, tmp_path, monkeypatch):
    file = write_study(tmp_path, trials=6, steps=2000)
    _, campaign = load_campaign(file)
    study = study_of_round(campaign, 1, 2000)
    local = loaded(campaign.workload, tmp_path, device="cpu", fuse="auto" if fused else "off")
    with open_ledger(str(tmp_path / "l.sqlite")) as ledger:
        row = ledger.start_study("tiny", study, local.fingerprint())
        ledger.plan_trials(row.study_id, planned_trials(study))
        remaining = remaining_work(ledger, row, local.setup(study), fused=fused)
        assert remaining.num_trials == 6
        step = remaining.seconds / 6 / 2000
        assert 0.0 < step < 10.0, "seconds, on any machine"
        kept = ledger.conclusion("tiny", FusionChoices, row.study_id)
        assert (kept is not None) == fused
        monkeypatch.setattr(workers_module, "best_fusion", lambda *rest, **named: pytest.fail("probed twice"))
        if fused and next(iter(kept.by_group.values())).trials > 1:
            again = remaining_work(ledger, row, local.setup(study), fused=True)
            assert again.num_trials == 6


def test_the_remaining_work_counts_evaluations(tmp_path):
    slow = ("logits = model(batch[0])", "__import__('time').sleep(0.01); logits = model(batch[0])")
    _, campaign = load_campaign(write_study(tmp_path, trials=6, steps=60, replace=[slow]))
    study = study_of_round(campaign, 1, 60)
    local = loaded(campaign.workload, tmp_path, device="cpu")
    with open_ledger(str(tmp_path / "l.sqlite")) as ledger:
        row = ledger.start_study("tiny", study, local.fingerprint())
        ledger.plan_trials(row.study_id, planned_trials(study))
        remaining = remaining_work(ledger, row, local.setup(study), fused=False)
    assert remaining.seconds > 6 * 20 * 2 * 0.01, "trials, evaluations, splits, seconds"


def test_a_fork_server_that_is_not_needed_is_not_kept_while_this_process_trains(tmp_path):
    file = write_study(tmp_path, trials=2, steps=30)
    _, campaign = load_campaign(file)
    study = study_of_round(campaign, 1, 30)
    url = str(tmp_path / "l.sqlite")
    local = loaded(campaign.workload, tmp_path, device="cpu", worker_count=None, study_file=file)
    fork_server = ForkServer(worker_environment(1), str(file))
    fork_server.open()
    with closing(Workers(f"sqlite:///{url}", fork_server)) as workers, open_ledger(url) as ledger:
        row = ledger.start_study("tiny", study, local.fingerprint())
        ledger.plan_trials(row.study_id, planned_trials(study))
        children = psutil.Process().children()
        workers.run(Job(ledger, row, local), Silent(), lambda: False)
        assert ledger.state_counts(row.study_id)[State.COMPLETE] == 2
        gone = [child for child in children if not child.is_running()]
    assert len(gone) == 1
