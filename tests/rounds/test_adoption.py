"""`tuner adopt`: fresh seeds for both, the selection run left out, resumable, in the log and in the report."""

import json
from dataclasses import replace

import pytest
from support.sessions import StopAfter, session_for
from support.shell import tuner
from support.study_files import write_study

from tuner import load
from tuner.design.study_file import load_campaign
from tuner.errors import DeclarationError, Interrupted
from tuner.records import State
from tuner.records.conclusions import Adoption
from tuner.rounds.adoption import Side, baseline_place, contest, run_contest, trial_at_place
from tuner.rounds.launch import launch_study
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.rounds.prepared_round import prepared_round

__all__ = ["tuner"]


@pytest.fixture
def campaign(tmp_path):
    return load_campaign(write_study(tmp_path, trials=3, steps=40))[1]


def launched(session):
    study = study_of_round(session.campaign, 1, 40)
    return launch_study(session, study, planned_trials(study))


def sides(session, places=("1/0", "round-1/1")) -> tuple[Side, Side]:
    candidate, baseline = (trial_at_place(session.ledger, "test", place) for place in places)
    return candidate, baseline


def test_both_are_trained_again_with_seeds_that_nobody_had(campaign, tmp_path):
    with session_for(campaign, tmp_path) as session:
        row = launched(session)
        one, other = sides(session)
        made = contest(session, one, other, 4)
        assert [trial.point for trial in made.trials] == [one.record.point, other.record.point] * 4
        selection = {(record.seed, record.data_seed) for record in session.ledger.trials(row.study_id)}
        fresh = {(trial.seed, trial.data_seed) for trial in made.trials}
        assert len(fresh) == 8
        assert not {seed for pair in fresh for seed in pair} & {seed for pair in selection for seed in pair}
        assert all(trial.schedule == one.record.schedule for trial in made.trials[::2])
        finding = run_contest(session, made)
        assert finding.evidence["replicates"].tolist() == [4, 4]
        numbers = {
            record.number for record in session.ledger.trials(session.ledger.study("test", made.study.name).study_id)
        }
        assert numbers == set(range(8)), "the selection runs are no part of the study"


@pytest.mark.parametrize(("word", "value", "told"), [("precision", "bf16", "not declared"), ("ema_steps", 5, "0")])
def test_a_round_is_trained_as_its_campaign_says_now_and_not_compared_with_another_way(word, value, told, tmp_path):
    """A contest is one study, so its baseline would be trained in the candidate's precision, or averaged like it."""
    file = write_study(tmp_path, trials=2, steps=20)
    with session_for(load_campaign(file)[1], tmp_path) as session:
        launched(session)
    file = write_study(tmp_path, trials=2, steps=20, more=f"{word}={value!r}, keep_best=2,")
    with session_for(load_campaign(file)[1], tmp_path) as session:
        made = prepared_round(session, 2)
        assert (getattr(made.study, word), made.study.keep_best) == (value, 2)
        launch_study(session, made.study, made.trials)
        one, other = sides(session, ("2/0", "1/0"))
        with pytest.raises(DeclarationError, match=rf"2/0 and round-1/0 differ in {word} \({value} and {told}\)"):
            contest(session, one, other, 2)
    file = write_study(tmp_path, trials=2, steps=20, more=f"{word}={value!r}, keep_best=3,")
    with session_for(load_campaign(file)[1], tmp_path) as session:
        assert prepared_round(session, 2).study == made.study, "a round that was begun goes on as it was"


def test_an_interrupted_contest_goes_on_and_more_replicates_extend_it(campaign, tmp_path):
    with session_for(campaign, tmp_path / "whole") as session:
        launched(session)
        whole = run_contest(session, contest(session, *sides(session), 4))
    with session_for(campaign, tmp_path / "parts", stop=StopAfter(260)) as session:
        launched(session)
        with pytest.raises(Interrupted):
            run_contest(session, contest(session, *sides(session), 3))
    with session_for(campaign, tmp_path / "parts") as session:
        run_contest(session, contest(session, *sides(session), 3))
        parts = run_contest(session, contest(session, *sides(session), 4))
        assert parts.evidence.equals(whole.evidence), "the same bits"
        study = session.ledger.study("test", "adopt-round-1-0-over-round-1-1")
        assert session.ledger.state_counts(study.study_id)[State.COMPLETE] == 8


def test_a_trained_contest_costs_nothing_and_may_be_asked_at_another_level(campaign, tmp_path):
    with session_for(campaign, tmp_path) as session:
        launched(session)
        made = contest(session, *sides(session), 2)
        wide, narrow = (run_contest(session, made, level=level).evidence.iloc[0] for level in (0.99, 0.6))
        assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]


@pytest.mark.parametrize(
    ("places", "replicates", "told"),
    [
        (("1/0", "1/0"), 5, "candidate and baseline are the same trial round-1/0"),
        (("1/0", "1/1"), 1, r"replicates must lie in 2\.\.1000.*got 1"),
        (("1-0", "1/1"), 5, "named ROUND/TRIAL, like 2/0.*got '1-0'"),
    ],
)
def test_wrong_contests_are_refused(campaign, tmp_path, places, replicates, told):
    with session_for(campaign, tmp_path) as session:
        launched(session)
        with pytest.raises(DeclarationError, match=told):
            contest(session, *sides(session, places), replicates)
        with pytest.raises(DeclarationError, match="nothing of 'test' was adopted yet"):
            baseline_place(session.ledger, "test", "round-1/0")


def test_trials_of_two_lengths_are_not_compared(campaign, tmp_path):
    with session_for(campaign, tmp_path) as session:
        launched(session)
        study = replace(study_of_round(campaign, 1, 60), name="round-2", round=2, num_trials=1)
        launch_study(session, study, planned_trials(study))
        longer = trial_at_place(session.ledger, "test", "2/0")
        with pytest.raises(
            DeclarationError, match=r"differ in budget \(\d+ steps and \d+ steps\) .* name two of round-"
        ):
            contest(session, longer, sides(session)[0], 5)


def test_one_configuration_is_not_compared_with_itself(campaign, tmp_path):
    """A later round trains the point of round-1/0 again, with another seed, at the same length."""
    with session_for(campaign, tmp_path) as session:
        launched(session)
        first = sides(session)[0]
        study = replace(first.row.study, name="round-2", round=2, num_trials=1)
        launch_study(session, study, [replace(planned_trials(study)[0], seed=first.record.seed + 1)])
        again = trial_at_place(session.ledger, "test", "2/0")
        with pytest.raises(DeclarationError, match=r"round-2/0 and round-1/0 train one configuration with different"):
            contest(session, again, first, 5)


def test_the_baseline_of_what_was_adopted_last_is_what_it_was_adopted_over(campaign, tmp_path):
    """Else the command that adopted it, given again without a baseline, would contest a trial against itself."""
    with session_for(campaign, tmp_path) as session:
        launched(session)
        made = contest(session, *sides(session), 2)
        row = session.ledger.start_study("test", made.study, "code and data")
        adopted = Adoption(
            "round-1 trial 0", "round-1 trial 1", "adopt", None, None, None, 0.8, 0.0, 2, "minimize validation/loss"
        )
        session.ledger.conclude("test", adopted, row.study_id)
        assert baseline_place(session.ledger, "test", "round-1/0") == "round-1/1"
        assert baseline_place(session.ledger, "test", "round-1/2") == "round-1/0"


def test_by_the_command_line(tuner, tmp_path):
    path = write_study(tmp_path, trials=3, steps=40)
    assert tuner("launch", path, "-q").code == 0
    dry = tuner("adopt", path, "--candidate", "1/0", "--baseline", "1/1", "--dry-run")
    assert dry.code == 0, dry.err
    assert "adopt-round-1-0-over-round-1-1" in dry.out
    assert "no adoption of tiny yet" in tuner("adoptions", "tiny").err
    done = tuner("adopt", path, "--candidate", "1/0", "--baseline", "1/1", "--replicates", 3, "--fuse", 6, "-q",
                 "--level", 0.6, "-f", "json")  # fmt: skip
    assert done.code == 0, done.err
    (finding,) = json.loads(done.out)["findings"]
    assert finding["verdict"] in ("adopt", "keep", "tie")
    log = json.loads(tuner("adoptions", "tiny", "-f", "json").out)
    assert [(row["candidate"], row["baseline"]) for row in log] == [("round-1 trial 0", "round-1 trial 1")]
    assert load("tiny").adoptions()["verdict"].tolist() == [finding["verdict"]]
    assert tuner("report", "tiny").code == 0
    page = (tmp_path / "runs" / "tiny.html").read_text()
    assert "Is it better by more than trials vary?" in page
    assert "round-1 trial 0 over round-1 trial 1" in page
    assert tuner("adopt", path, "--candidate", "1/0", "--baseline", "1/1", "--level", 1.5).code == 2
