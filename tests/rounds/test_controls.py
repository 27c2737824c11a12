"""Controls of a stage: how long they train, what passes over them, and the contest of both starts (C5)."""

from dataclasses import replace
from pathlib import Path

import pytest
from support import planted as planted_module
from support.planted import EQUAL_OWN, EQUAL_TOTAL, INHERITED, SEARCH, Line, planted, stage_session

import tuner
from tuner import Campaign, Round, SearchSpace, Sweep, at_most, log_uniform
from tuner.analysis.questions.control import control_findings
from tuner.analysis.questions.transfer import conclusions_frame
from tuner.analysis.round_frames import main_rounds, rounds_frames, rounds_started
from tuner.design.seeds import derived_seed
from tuner.design.study_file import declared_stage
from tuner.errors import DeclarationError
from tuner.records import State
from tuner.rounds.adoption import baseline_place, contest, run_contest, trial_at_place
from tuner.rounds.controls import evaluated
from tuner.rounds.launch import launch_study
from tuner.rounds.playbook import Playbook
from tuner.rounds.prepared_round import launch_prepared, prepared_round
from tuner.rounds.price import priced_campaign
from tuner.rounds.round_lengths import (
    compute_bound_lengths,
    likely_inherited,
    planned_rounds,
    rounds_for,
    rounds_of_one_length,
)
from tuner.rounds.stage_start import AskedStart, start_of

FINAL = Round("The best again", promote=2, fresh=1)


def launched(session, *numbers):
    return [launch_prepared(session, prepared_round(session, number)) for number in numbers]


def budgets(rows):
    return [(row.study.name, row.study.start, row.study.budget.max_train_steps) for row in rows]


def curves(session, row, number):
    frames = tuner.load(session.name, session.ledger.url).frames(study=row.study.name)
    return frames.curves[frames.curves["trial"] == number].drop(columns="trial").reset_index(drop=True)


def test_a_control_is_as_long_as_what_it_is_compared_with_in_all_or_by_its_own_steps(tmp_path):
    with stage_session(planted(tmp_path, SEARCH, EQUAL_TOTAL, EQUAL_OWN), tmp_path) as session:
        rows = launched(session, 1, 2, 3)
        assert budgets(rows) == [
            ("round-1", "", 12),
            ("round-2", "scratch", 12 + INHERITED),
            ("round-3", "scratch", 12),
        ]
        origin = prepared_round(session, 2).budget
        assert (origin.steps, origin.source) == (42, "round-1")
        assert [len(row.study.budget.evaluation_steps) for row in rows] == [6, 6, 6]
        assert {row.study.schedule for row in rows} == {rows[0].study.schedule}
        first, longer = (session.ledger.trials(row.study_id)[0].schedule for row in rows[:2])
        assert len(longer) - longer.decay_start == round(0.25 * 42), "the decay keeps its share"
        assert len(first) - first.decay_start == 3


def test_evaluations_come_as_near_as_they_can():
    counts = [len(evaluated(steps, 40).evaluation_steps) for steps in (40, 79, 80, 100, 140, 1000)]
    assert counts == [40, 40, 40, 34, 35, 40]
    assert len(evaluated(3, 40).evaluation_steps) == 3


def test_a_round_after_a_control_goes_on_from_the_last_round_that_starts_as_it_does(tmp_path):
    with stage_session(planted(tmp_path, SEARCH, EQUAL_TOTAL, FINAL, EQUAL_OWN), tmp_path) as session:
        rows = launched(session, 1, 2, 3, 4)
        assert {place for place, _ in rows[2].study.lineage} == {"round-1"}
        origins = {record.origin.split(" trial")[0] for record in session.ledger.trials(rows[2].study_id)}
        assert origins == {"round-1"}
        assert prepared_round(session, 3).budget.source in (None, "round-1")
        assert rows[2].study.start == ""
        assert rows[3].study.budget.max_train_steps == rows[2].study.budget.max_train_steps
        assert rounds_started(session.ledger, "line") == [1, 2, 3, 4]
        assert main_rounds(session.ledger, "line") == [1, 3]
        concluded = conclusions_frame(rounds_frames(session.ledger, "line"))
        assert set(concluded["conclusion"]) >= {"winner of round-1", "winner of round-3"}
        assert not concluded["conclusion"].str.contains("round-2|round-4").any()


def test_the_result_of_a_campaign_is_never_a_control(tmp_path):
    campaign = planted(tmp_path, kind="bad")  # training from scratch is better here
    result = tuner.run(campaign, yes=True, storage=str(tmp_path / "runs.sqlite"), progress=False)
    records = result.records
    assert result.best.row.study.name == records.best().row.study.name == records.final().row.study.name == "round-1"
    assert records.best(2).row.study.name == "round-2"
    assert records.best(2).value < records.best(1).value
    assert records.frames().study.name == records.searched().study.name == "round-1"
    assert [one.subject for one in records.check() if one.question == "control"] == ["round-2"]
    page = result.report.read_text()
    assert "trained from scratch, reached" in page
    assert "42 steps from scratch, and nothing of an earlier stage" in page


def test_lengths_of_a_compute_bound_campaign_grow_without_its_controls(tmp_path):
    search = replace(SEARCH, max_train_steps=None)
    campaign = planted(tmp_path, search, EQUAL_TOTAL, replace(FINAL), EQUAL_TOTAL, production_steps=1000)
    assert compute_bound_lengths(campaign, 30) == (100, 130, 1000, 1030)
    assert [one.relevance for one in planned_rounds(campaign, 30)] == [0.1, 0.13, 1.0, 1.03]
    growing = planted(tmp_path, search, FINAL, production_steps=1000)
    controls = 6 * 130 + 6 * 1030
    planned, without = rounds_for(campaign, 20_000, None, 30), rounds_for(growing, 20_000 - controls)
    assert planned[:2] == without
    assert [(one.number, one.trials, one.max_train_steps) for one in planned[2:]] == [(3, 6, 130), (4, 6, 1030)]
    assert sum(one.steps for one in planned) <= 20_000
    equal = rounds_of_one_length(planted(tmp_path, SEARCH, EQUAL_TOTAL), 12, 12 * 30 + 6 * 42, None, 30)
    assert [(one.trials, one.max_train_steps) for one in equal] == [(30, 12), (6, 42)]


def test_a_dry_run_prices_a_control(tmp_path):
    with stage_session(planted(tmp_path, SEARCH, EQUAL_TOTAL, EQUAL_OWN), tmp_path) as session:
        plans = list(priced_campaign(session))
    assert [(len(one.trials), one.study.budget.max_train_steps) for one in plans] == [(6, 12), (6, 42), (6, 12)]
    assert [one.study.start for one in plans] == ["", "scratch", "scratch"]


def test_a_control_with_fewer_trials_is_told_to_be_unfair(tmp_path):
    few = replace(EQUAL_TOTAL, trials=5)
    with stage_session(planted(tmp_path, SEARCH, few, EQUAL_TOTAL), tmp_path) as session:
        launched(session, 1)
        warned = [one for one in prepared_round(session, 2).warnings if "by luck alone" in one]
        assert warned == [
            "round-2 is a control of 5 trials, and 6 were searched that start from the weights: the best of more is "
            "better by luck alone, here the start from the weights (B15, D41); trials=6 compares them fairly"
        ]
        assert not any("by luck alone" in one for one in prepared_round(session, 3).warnings)


@pytest.mark.parametrize(("kind", "verdict", "adopted"), [("good", "helps", "adopt"), ("bad", "costs", "keep")])
def test_a_contest_trains_each_side_with_its_own_start_and_its_own_steps(tmp_path, kind, verdict, adopted):
    with stage_session(planted(tmp_path, kind=kind), tmp_path) as session:
        launched(session, 1, 2)
        (weak,) = control_findings(session.ledger, "line", 2)
        assert (weak.verdict, weak.strength) == (verdict, "weak")
        assert "at equal total steps (12 and 30 inherited, against 42)" in weak.summary
        assert weak.evidence["total_steps"].tolist() == [42, 42]
        assert weak.evidence["own_steps"].tolist() == [12, 42]
        sides = tuple(trial_at_place(session.ledger, "line", place) for place in ("1/0", "2/0"))
        made = contest(session, sides[0], sides[1], 5)
        assert [(one.study.start, one.study.budget.max_train_steps) for one in made.parts] == [
            ("", 12),
            ("scratch", 42),
        ]
        assert [[trial.number for trial in one.trials] for one in made.parts] == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
        finding = run_contest(session, made)
        assert finding.verdict == adopted
        assert finding.evidence["replicates"].tolist() == [5, 5]
        assert finding.evidence["inherited_steps"].tolist() == [30, 0]
        assert "12 steps of its own and 30 inherited, 42 in all; the baseline 42 steps from scratch" in finding.summary
        (strong,) = control_findings(session.ledger, "line", 2)
        assert (strong.verdict, strong.strength) == (verdict, "strong")
        log = tuner.load("line", session.ledger.url).adoptions()
        assert log["verdict"].tolist() == [adopted]


@pytest.mark.slow
def test_a_contest_of_equal_starts_shows_no_gain(tmp_path):
    """Nothing is carried: both sides train one configuration alike, with other seeds."""
    with stage_session(planted(tmp_path, SEARCH, EQUAL_OWN, seed=2), tmp_path) as session:
        session.loaded.inherited = None  # both from scratch
        launched(session, 1, 2)
        sides = tuple(trial_at_place(session.ledger, "line", place) for place in ("1/0", "2/0"))
        made = contest(session, sides[0], sides[1], 30)
        point = sides[0].record.point
        same = replace(made.parts[1], trials=tuple(replace(one, point=point) for one in made.parts[1].trials))
        run_contest(session, replace(made, other=same))
        (finding,) = control_findings(session.ledger, "line", 2)
        assert (finding.verdict, finding.strength) == ("no_gain", "moderate")


def test_a_control_that_is_adopted_is_the_result_and_the_start_of_the_next_stage(tmp_path):
    campaign = planted(tmp_path, kind="bad")
    with stage_session(campaign, tmp_path) as session:
        launched(session, 1, 2)
        with pytest.raises(DeclarationError, match=r"or the best of the control: --baseline 2/\d"):
            baseline_place(session.ledger, "line", "round-1/0")
        winner = tuner.load("line", session.ledger.url).best(2).record.number
        sides = tuple(trial_at_place(session.ledger, "line", place) for place in (f"2/{winner}", "1/0"))
        assert run_contest(session, contest(session, sides[0], sides[1], 3)).verdict == "adopt"
        records = tuner.load("line", session.ledger.url)
        assert records.final().row.study.name == "round-2"
        assert records.best().row.study.name == "round-1"
        later = replace(campaign, name="later", start_from=tuner.best_of("line"), rounds=[SEARCH])
        stage = declared_stage(later)
        asked = AskedStart(session.ledger, stage, tmp_path / "checkpoints", tmp_path / "checkpoints")
        (chosen,) = start_of(asked).start.candidates
        assert (chosen.study, chosen.trial, chosen.adopted) == ("round-2", winner, True)
        assert chosen.steps == chosen.step, "a control inherits nothing"


def test_each_side_of_a_contest_has_the_bits_of_a_plain_training_with_its_seeds(tmp_path):
    with stage_session(planted(tmp_path), tmp_path) as session:
        rows = launched(session, 1, 2)
        sides = tuple(trial_at_place(session.ledger, "line", place) for place in ("1/1", "2/1"))
        made = contest(session, sides[0], sides[1], 2)
        run_contest(session, made)
        for part, round_row in zip(made.parts, rows, strict=True):
            trial = part.trials[0]
            name = f"plain-{round_row.study.name}"
            plain = replace(round_row.study, name=name, kind="budget_curve", num_trials=1, round=None)
            row = launch_study(session, plain, [replace(trial, number=0)])
            contested = session.ledger.study("line", part.study.name)
            mine = curves(session, contested, trial.number)
            assert len(mine) > 5
            assert mine.equals(curves(session, row, 0))
        seeds = [trial.seed for part in made.parts for trial in part.trials]
        assert len(set(seeds)) == 4
        assert derived_seed("trial", rows[0].study.seed, 1) not in seeds


def test_steps_that_are_equal_in_no_way_make_a_weak_answer(tmp_path):
    other = replace(EQUAL_OWN, max_train_steps=20)
    with stage_session(planted(tmp_path, SEARCH, other), tmp_path) as session:
        launched(session, 1, 2)
        (finding,) = control_findings(session.ledger, "line", 2)
        assert "at unequal steps (12 and 30 inherited, against 20)" in finding.summary
        assert any("the difference may be that of the steps" in one for one in finding.caveats)


def test_a_control_is_widened_like_a_round_and_stops_nobody(tmp_path):
    """Its best trials press against the highest rate; there is no decision, and more trials lie beyond."""
    slow = SearchSpace(learning_rate=log_uniform(3e-3, 3e-2))
    search, control = replace(SEARCH, trials=12, space=slow), replace(EQUAL_TOTAL, trials=12, space=slow)
    campaign = planted(tmp_path, search, control, FINAL, kind="bad")
    told = []
    with stage_session(campaign, tmp_path) as session:
        ending = Playbook(session, yes=True, tell=told.append, expand=1).run()
        assert ending.decision is None
        wide = [row for row in session.ledger.studies("line") if row.study.name.startswith("round-2-wide")]
        assert [row.study.start for row in wide] == ["scratch"]
        assert session.ledger.state_counts(wide[0].study_id)[State.COMPLETE] == wide[0].study.num_trials
        assert any("go on to round 3 with the best points" in line for line in told)
        assert not any("round 2 press" in line or "to round 4" in line for line in told)


@pytest.mark.slow
def test_workers_train_a_control_from_scratch(tmp_path):
    """In worker processes, which load the study file, the bits are those of this process."""
    file = tmp_path / "line.py"
    planted(tmp_path)
    text = Path(planted_module.__file__).read_text()
    file.write_text(f"{text}\ncampaign = planted(Path({str(tmp_path)!r}), name=None)\n")
    found = []
    for folder, workers in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        storage = str(tmp_path / folder / "runs.sqlite")
        tuner.run(file, yes=True, workers=workers, storage=storage, progress=False)
        found.append(tuner.load("line", storage).trials(2)[["best_value", "last_value"]])
    assert found[0].equals(found[1])


def test_before_the_earlier_stage_is_trained_its_steps_are_assumed_as_declared(tmp_path, caplog):
    """A dry run of a chain: 60, then twice 20 of an own stage between, and the control counts all of them."""
    plain = Campaign(Line(), name="first", rounds=[replace(SEARCH, max_train_steps=None), FINAL], production_steps=60)
    between = replace(plain, name="between", start_from=tuner.best_of(plain), rounds=[SEARCH], production_steps=None)
    last = replace(between, name="last", start_from=tuner.best_of(between), rounds=[SEARCH, EQUAL_TOTAL])
    table = tuner.plan(last, storage=str(tmp_path / "none.sqlite")).table
    assert table["steps_each"].tolist() == [12, 12 + 12 + 60]
    assert "its control of equal total steps with the 72 inherited steps that are declared" in caplog.text
    sweep = Sweep(start_steps=50, margin=1.5)
    swept = replace(plain, workload=Fits(), sweep=sweep, rounds=[replace(SEARCH, max_train_steps=None)])
    swept = replace(swept, production_steps=None)
    stages = [declared_stage(replace(last, start_from=tuner.best_of(one))) for one in (swept, plain, between)]
    assert [likely_inherited(one) for one in stages] == [150, 60, 72]


class Fits(Line):
    fitted_when = at_most("training/loss", 0.1)
