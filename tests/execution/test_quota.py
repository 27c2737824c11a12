"""A quota for checkpoints: what is deleted first, what never, and that nothing is missed afterwards."""

import re
from dataclasses import replace

import pytest
from support.loaded import loaded
from support.prefixes import bench, longer
from support.study_files import write_study
from support.tiny import tiny_study

from tuner.budget.families import constant
from tuner.budget.step_budget import StepBudget
from tuner.design.objective import minimize
from tuner.design.points import Point
from tuner.design.trial import Trial
from tuner.execution.machine import Quota
from tuner.execution.prefixes import PrefixFinder
from tuner.execution.quota import keep_within, spare
from tuner.records import Checkpoint, State, TrialRecord
from tuner.rounds.plan import planned_trials
from tuner.storage.store import open_ledger
from tuner.storage.verify import study_problems


def record(number, value, state=State.COMPLETE, kinds=("best", "latest", "trunk")):
    kept = tuple(Checkpoint(kind, step, f"{number}/{kind}", "", 10, value) for step, kind in enumerate(kinds, 10))
    trial = Trial(number, Point(()), 0, 0, constant().schedule(20), "")
    return TrialRecord(number + 100, trial, state, "", 20, 1, None, kept)


def order(records, winners=1, needed=()):
    return [kept.file for _, kept in spare(tiny_study(), records, winners, set(needed))]


def test_last_states_go_first_then_trunks_then_weights_and_the_worst_trial_is_the_first():
    records = [record(0, 0.5), record(1, 0.1), record(2, 0.9), record(3, 0.7, State.INFEASIBLE)]
    assert order(records) == [f"{trial}/{kind}" for kind in ("latest", "trunk", "best") for trial in (3, 2, 0)]


def test_the_direction_decides_which_trial_is_the_worst():
    study = replace(tiny_study(), objective=replace(minimize("validation/accuracy"), direction="maximize"))
    kept = [one.file for _, one in spare(study, [record(0, 0.5), record(1, 0.1)], 1, set())]
    assert kept[0] == "1/latest"


def test_winners_unfinished_trials_and_needed_states_stay():
    records = [record(0, 0.5), record(1, 0.1), record(2, 0.9, State.RUNNING), record(3, 0.8, State.WAITING)]
    assert order(records, winners=2) == []
    assert order(records) == ["0/latest", "0/trunk", "0/best"]
    assert order(records, needed=[(100, 12)]) == ["0/latest"], "its trunk, and the weights beside it"


@pytest.fixture
def trained(tmp_path):
    """Three trials with trunks, the longer versions of the worst and the best of them planned."""
    short = tiny_study(budget=StepBudget(24, 5))
    trials = [replace(trial, pins=(18,)) for trial in planned_trials(short)]
    with bench(tmp_path) as made:
        row = made.train(short, trials)
        yield made, row, trials


def finder_of(made, study):
    return loaded(made.workload, made.root).finder(made.ledger, study)


def test_a_trunk_that_a_planned_trial_needs_is_kept_and_used_and_nothing_is_missed(trained):
    made, row, trials = trained
    records = made.ledger.trials(row.study_id)
    ranked = sorted(records, key=lambda one: min(kept.value for kept in one.checkpoints if kept.kind == "best"))
    worst = ranked[-1]
    long = replace(row.study, name="round-2", budget=row.study.budget.lengthened(60, 8), num_trials=1)
    after = longer(trials[worst.number], 60, number=0)
    planned = made.ledger.start_study("test", long, "")
    made.ledger.plan_trials(planned.study_id, [after])
    finder = finder_of(made, row.study)
    assert isinstance(finder, PrefixFinder)
    assert keep_within(Quota(1), finder, row, made.root) > 0
    left = {one.number: [kept.kind for kept in one.checkpoints] for one in made.ledger.trials(row.study_id)}
    assert left[ranked[1].number] == []
    assert sorted(left[ranked[0].number]) == ["best", "best", "latest", "trunk"], "the winner keeps all"
    assert sorted(left[worst.number]) == ["best", "best", "trunk"], "a planned trial starts there"
    on_disk = {path.relative_to(made.root).as_posix() for path in made.root.rglob("trial-*/*") if path.is_file()}
    assert on_disk == {file.path for file in made.ledger.checkpoint_files()}
    assert study_problems(made.ledger, row, made.root, "test/round-1") == []
    assert keep_within(Quota(1), finder, row, made.root) == 0, "nothing more can go"
    assert made.inherited(made.train(long, [after])) == [18]


def test_room_enough_deletes_nothing(trained):
    made, row, _ = trained
    total = made.ledger.checkpoint_bytes(row.study_id)
    assert total == sum(path.stat().st_size for path in made.root.rglob("trial-*/*") if path.is_file())
    assert keep_within(Quota(total), finder_of(made, row.study), row, made.root) == 0
    assert made.ledger.checkpoint_bytes(row.study_id) == total
    assert keep_within(Quota(total - 1), finder_of(made, row.study), row, made.root) == 1, "one file is enough"
    assert made.ledger.checkpoint_bytes(row.study_id) < total


def test_a_launch_keeps_within_its_quota_and_the_winner_can_be_exported(tuner, tmp_path):
    study = write_study(tmp_path, trials=6)
    assert tuner("launch", study, "--keep-checkpoints", "20kB").code == 0
    files = [path for path in (tmp_path / "runs" / "checkpoints").rglob("trial-*/*") if path.is_file()]
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite"), create=False) as ledger:
        row = ledger.study("tiny", "round-1")
        winners = {path.parent.name for path in files}
        assert ledger.state_counts(row.study_id)[State.COMPLETE] == 6
    assert len(winners) == 2, "as many as the next round promotes"
    assert tuner("best", study, "--export", tmp_path / "model.safetensors").code == 0
    assert tuner("verify", study).code == 0
    assert tuner("launch", study, "--round", "2", "--max-train-steps", "90").code == 0


@pytest.mark.parametrize("size", ["much", "0", "-1GB", "GB", "2 apples"])
def test_a_size_that_is_none_is_refused_before_anything_else(size, tuner, tmp_path):
    wrong = tuner("launch", write_study(tmp_path), f"--keep-checkpoints={size}")
    assert wrong.code == 2
    assert re.search(r"--keep-checkpoints is a size like 500MB, 2GB or 1.5GiB, got", wrong.err)
    assert not (tmp_path / "runs").exists()


def test_a_failed_trial_keeps_the_state_from_which_it_is_tried_again():
    assert order([record(0, 0.5), record(1, 0.9, State.FAILED)], winners=0) == ["0/latest", "0/trunk", "0/best"]
