"""Trials that FAILED are no trials that were worse: no number and no choice rests on the others without a word."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch.nn.functional as F
from sqlalchemy import text
from support.sessions import session_for
from support.shell import tuner
from support.study_files import write_study

from tuner.analysis.frames import study_frames
from tuner.analysis.questions.adoption import adoption_finding
from tuner.analysis.questions.budget_curve import BudgetCurve, budget_curve_finding
from tuner.analysis.sweep_records import sweep_records
from tuner.cli.exit_codes import Exit
from tuner.design.objective import minimize
from tuner.design.points import Point
from tuner.design.study_file import load_campaign
from tuner.errors import TrialsFailed
from tuner.records import State
from tuner.records.sweep_outcomes import Fitted
from tuner.rounds.adoption import contest, run_contest, trial_at_place
from tuner.rounds.budgets import budget_of_round
from tuner.rounds.launch import launch_study, required_round
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.rounds.proposals import Known, _ranked_values
from tuner.rounds.sweep import run_sweep

__all__ = ["tuner"]
REASON = "OSError: the mount went away\nwith more lines"


class Breaking:
    """A backend of which trial 0 of some studies FAILED when it has trained: so many times by the end of their name."""

    def __init__(self, backend, times):
        self.backend = backend
        self.times = times
        self.trained = []

    def run(self, job, listener, stop):
        self.backend.run(job, listener, stop)
        ledger, row = job.ledger, job.row
        self.trained.append(row.study.name)
        for stage in [stage for stage, times in self.times.items() if times and stage in row.study.name]:
            self.times[stage] -= 1
            fail(ledger, row, 0)


def fail(ledger, row, number):
    """As a trial is left that was given up: FAILED, with its state and its curve."""
    with ledger._database.writing() as connection:
        failed = text(
            "UPDATE trial SET state = 'failed', reason = :reason WHERE study_id = :study AND number = :number"
        )
        connection.execute(failed, {"reason": REASON, "study": row.study_id, "number": number})


STAGES = ("probe", "grid", "refined", "seeds")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    grid = [("log_grid(1e-3, 1.0)", "log_grid(1e-3, 1e-1)")]
    study = write_study(folder, trials=3, steps=40, replace=grid)
    return replace(load_campaign(study)[1], evaluations=5)


@pytest.fixture(scope="module")
def whole(campaign, tmp_path_factory):
    """What an undisturbed sweep finds."""
    with session_for(campaign, tmp_path_factory.mktemp("whole")) as session:
        outcome = run_sweep(session, campaign.sweep)
        stages = {row.study.name.split("-")[2] for row in session.ledger.studies("test")}
    assert isinstance(outcome, Fitted)
    assert stages == set(STAGES)
    return outcome


def broken(session, **times):
    return replace(session, backend=Breaking(session.backend, times))


def test_a_rate_that_failed_is_trained_once_more_and_changes_nothing(campaign, whole, tmp_path):
    with session_for(campaign, tmp_path) as session:
        hurt = broken(session, **dict.fromkeys(STAGES, 1))
        assert run_sweep(hurt, campaign.sweep) == whole
        assert len(hurt.backend.trained) == 2 * len(set(hurt.backend.trained)), "each stage twice"
        assert run_sweep(session, campaign.sweep) == whole
        what_an_older_version_drew_beside_a_failed_rate(campaign, whole, session)


def what_an_older_version_drew_beside_a_failed_rate(campaign, whole, session):
    """No number holds that rests on it: neither as a budget nor as the answer of the sweep."""
    fail(session.ledger, session.ledger.study("test", "sweep-1-grid"), 1)
    no_budget = replace(campaign.rounds[0], max_train_steps=None)
    waiting = replace(session, campaign=replace(campaign, rounds=(no_budget, *campaign.rounds[1:])))
    with pytest.raises(TrialsFailed, match=r"sweep-1-grid trial 1, learning rate .*: OSError"):
        budget_of_round(waiting, 1, "not_compute_bound")
    assert run_sweep(session, campaign.sweep) == whole, "it is trained once more"
    assert budget_of_round(waiting, 1, "not_compute_bound").steps >= whole.steps


def test_a_rate_that_fails_again_leaves_the_sweep_without_a_number_in_any_stage(campaign, whole, tmp_path):
    with session_for(campaign, tmp_path) as session:
        for place, stage in enumerate(STAGES):
            with pytest.raises(TrialsFailed) as raised:
                run_sweep(broken(session, **{stage: 2}), campaign.sweep, retry_failed=place > 0)
            said = str(raised.value)
            assert f"sweep-1-{stage}" in said
            assert "trial 0, learning rate" in said
            assert "OSError: the mount went away\n" in said, "the first line of the reason"
            assert "more lines" not in said
            assert said.endswith("tuner sweep test --retry-failed")
            assert sweep_records(session.ledger, "test") is None, "nothing is concluded"
            calm = broken(session)
            with pytest.raises(TrialsFailed, match=f"sweep-1-{stage}"):
                run_sweep(calm, campaign.sweep)
            assert calm.backend.trained == [], "a second try is made once in the life of a study"
        assert run_sweep(session, campaign.sweep, retry_failed=True) == whole


class Alike(Breaking):
    """A backend of which trials fail alike, so that it stops."""

    def run(self, job, listener, stop):
        super().run(job, listener, stop)
        fail(job.ledger, job.row, 0)
        raise TrialsFailed("3 trials in a row failed alike")


def test_rates_and_trials_that_fail_alike_are_named_too(campaign, tmp_path):
    with session_for(campaign, tmp_path) as session:
        alike = replace(session, backend=Alike(session.backend, {}))
        with pytest.raises(TrialsFailed, match=r"sweep-1-probe-100 trial 0, learning rate [\d.]+: OSError"):
            run_sweep(alike, campaign.sweep)
        with pytest.raises(TrialsFailed, match=r"failed alike\n  round-1 trial 0: OSError: the mount went away$"):
            launched(alike)


def launched(session, **options):
    study = study_of_round(session.campaign, 1, 40)
    return launch_study(session, study, planned_trials(study), **options)


def test_other_trials_are_tried_again_only_where_a_number_rests_on_each(campaign, tmp_path):
    with session_for(campaign, tmp_path) as session:
        row = launched(broken(session, round=1))
        assert session.ledger.state_counts(row.study_id)[State.FAILED] == 1
        assert launched(session, second_try=True) == row
        assert session.ledger.state_counts(row.study_id)[State.FAILED] == 0


@pytest.mark.parametrize("changed", [False, True])
def test_a_retried_trial_goes_on_from_its_state_unless_the_code_changed(changed, campaign, tmp_path, monkeypatch):
    with session_for(campaign, tmp_path, allow_changed_code=True) as session:
        row = launched(broken(session, round=1))
        before = session.ledger.trial(row.study_id, 0).checkpoints
        assert before
        if changed:
            other = replace(session.loaded.identity_of(row.study), arguments={"width": "another one"})
            monkeypatch.setattr(session.loaded, "identity_of", lambda *_: other)
        seen = []
        look = SimpleNamespace(run=lambda job, *rest: seen.append(job.ledger.trial(job.row.study_id, 0)))
        session = replace(session, backend=look)
        launched(session, retry_failed=True)
        assert [(one.step, one.checkpoints) for one in seen] == [(0, ()) if changed else (40, before)]


def test_a_round_of_which_everything_failed_is_no_ground_for_the_next(campaign, tmp_path):
    with session_for(campaign, tmp_path) as session:
        row = launched(session)
        for number in range(3):
            fail(session.ledger, row, number)
        with pytest.raises(
            TrialsFailed, match=r"no trial of round-1 completed, because 3 FAILED:\n  round-1 trial 0: OSE"
        ):
            required_round(session, 1)


def test_a_contest_with_a_failed_replicate_is_not_decided(campaign, tmp_path):
    with session_for(campaign, tmp_path) as session:
        launched(session)
        candidate, baseline = (trial_at_place(session.ledger, "test", place) for place in ("1/0", "1/1"))
        made = contest(session, candidate, baseline, 3)
        finding = run_contest(broken(session, adopt=1), made)
        assert finding.verdict == "inconclusive"
        assert "--retry-failed" in finding.action
        assert finding.caveats == ("1 replicates of the candidate FAILED: no verdict rests on the others alone",)
        assert run_contest(session, made, retry_failed=True).verdict != "inconclusive"


def test_one_divergence_of_the_candidate_is_no_verdict_beside_a_failed_replicate_of_the_baseline(campaign, tmp_path):
    with session_for(campaign, tmp_path) as session:
        launched(session)
        candidate, baseline = (trial_at_place(session.ledger, "test", place) for place in ("1/0", "1/1"))
        made = contest(session, candidate, baseline, 2)
        run_contest(session, made)
        frames = study_frames(session.ledger, "test", made.study.name)
        frames.trials.loc[0, "state"] = "infeasible"
        assert adoption_finding(frames).verdict == "keep"
        frames.trials.loc[1, "state"] = "failed"
        assert adoption_finding(frames).verdict == "inconclusive"


def test_a_curve_that_lacks_a_length_predicts_nothing():
    lengths = [100, 200, 400, 800, 1600]
    columns = {"length": lengths, "seed": 0, "value": [1 / n for n in lengths]}
    table = pd.DataFrame(columns)
    drawn = BudgetCurve(minimize("validation/loss"), "round-1 trial 0", table)
    assert budget_curve_finding(drawn).verdict != "inconclusive"
    finding = budget_curve_finding(replace(drawn, table=table[:-1], failed=((1600, 0),)))
    assert (finding.verdict, finding.strength) == ("inconclusive", "none")
    assert "1,600 steps (seed 0)" in finding.summary
    assert "--retry-failed" in finding.action


def test_for_cma_es_a_failed_point_is_neither_good_nor_bad():
    point = Point.of({"x": 0.5})
    batch = [Known(point, 3.0), Known(point, None), Known(point, 1.0), Known(point, None, False), Known(point, 2.0)]
    assert _ranked_values("minimize", batch) == [3.0, 3.0, 1.0, float("inf"), 2.0]
    assert _ranked_values("maximize", batch) == [-3.0, -1.0, -1.0, float("inf"), -2.0]
    assert _ranked_values("minimize", [Known(point, None)] * 2) == [0.0, 0.0]


# On the command line

LOSS = "return F.cross_entropy(model(batch[0]), batch[1])\n"
BREAKS = """
        F.calls = getattr(F, "calls", 0) + 1
        mark = __import__("pathlib").Path(__file__).with_name("broken")
        if mark.exists() and F.calls > 40 and mark.read_text() in ("all", repr(point["dropout"])):
            raise RuntimeError(f"dropout {point['dropout']} cannot be read\\nand more")
        """
NO_SWEEP = ("sweep=Sweep(learning_rate=log_grid(1e-3, 1.0), start_steps=100, max_steps=800, seeds=2),", "")


@pytest.fixture
def train(tuner, monkeypatch):
    """A command that trains; what is checked before the training never breaks."""

    def run(*arguments):
        monkeypatch.setattr(F, "calls", 0, raising=False)
        return tuner(*arguments, "--fuse", "off")

    return run


@pytest.fixture
def study(tmp_path):
    """A study of three trials, of which the second breaks while a file lies beside it (or all of them do)."""
    file = write_study(tmp_path, trials=3, replace=[(LOSS, f"{BREAKS}{LOSS}"), NO_SWEEP])
    trials = planned_trials(study_of_round(load_campaign(file)[1], 1, 60))
    (tmp_path / "broken").write_text(repr(trials[1].point["dropout"]))
    return file


def test_a_launch_that_ends_with_failed_trials_lists_them_and_ends_with_4(tuner, train, study, tmp_path):
    run = train("launch", study)
    assert run.code == 4, run.err
    assert "\n  round-1 trial 1: RuntimeError: dropout " in run.err
    assert "and more" not in run.err.split("1 trial FAILED, not because of its point")[1]
    assert "--retry-failed" in run.err
    assert "next: tuner best-steps tiny" in run.err
    assert train("launch", study).code == 4, "again it is the same"
    assert train("worker", study, "--storage", "runs/tuner.sqlite", "--until", "study").code == 4
    checked = tuner("check", "tiny", "-f", "json")
    assert checked.code == 3
    (told,) = [one for one in json.loads(checked.out)["findings"] if one["question"] == "failed_trials"]
    assert told["verdict"] == "some_failed"
    assert "1 of 3 trials FAILED" in told["summary"]
    assert tuner("check", "tiny", "--fail-on", "some_failed").code == 3
    for verb in ("best-steps", "boundaries"):
        assert "note: 1 of 3 trials FAILED" in tuner(verb, "tiny").err
    (tmp_path / "broken").unlink()
    healed = train("launch", study, "--retry-failed")
    assert healed.code == 0, healed.err


def test_a_launch_of_which_everything_failed_points_to_no_results(train, study, tmp_path):
    (tmp_path / "broken").write_text("all")
    run = train("launch", study)
    assert run.code == 4, run.err
    assert "3 trials in a row failed alike" in run.err
    again = train("launch", study)
    assert again.code == 4
    assert "3 trials FAILED" in again.err
    assert "best-steps" not in again.err
    assert "next: tuner trials tiny --round 1" in again.err


def test_a_run_tries_failed_trials_once_more_and_then_ends_with_4(train, study, tmp_path):
    run = train("run", study, "--yes")
    assert run.code == 4, run.err
    assert "failed trials of round-1: some_failed" in run.err
    assert "round-1 trial 1: RuntimeError" in run.err
    (tmp_path / "broken").unlink()
    assert train("run", study, "--yes").code == 4, "a second try is made once"
    healed = train("run", study, "--yes", "--retry-failed")
    assert healed.code == 0, healed.err
    assert "trial 1: complete" in healed.err
    assert re.search(r"round-2 was started from trials [02], [02] of\s+round-1\s+and\s+stays\s+so", healed.err)


def test_each_exit_code_says_what_it_means_and_whether_to_start_again(tuner):
    assert [(code.value, code.requeue) for code in Exit] == [
        (0, False), (1, False), (2, False), (3, False), (4, False), (75, True), (130, True),
    ]  # fmt: skip
    shown = " ".join(tuner("--help").out.split())
    assert all(f"{code.value} {code.meaning}" in shown for code in Exit)
