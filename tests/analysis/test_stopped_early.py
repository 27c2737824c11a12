"""Trials that stopped early: they are selected and listed, and no verdict about steps rests on them."""

from dataclasses import replace

import pandas as pd
import pytest
from analysis.handmade import curve, planned, record, study
from analysis.test_study_progress import ledger_of

from tuner.analysis.checklist import checklist_findings, no_curves_finding
from tuner.analysis.elsewhere import for_elsewhere
from tuner.analysis.finding import NO_CURVES, QUESTIONS
from tuner.analysis.frames import frames_of
from tuner.analysis.headline import headline
from tuner.analysis.questions.best_steps import best_steps_finding, proposed_budget
from tuner.analysis.questions.longer_training import longer_training_finding
from tuner.analysis.questions.regime import regime_finding
from tuner.analysis.questions.transfer import transfer_findings
from tuner.analysis.replicates import transfer_pairs
from tuner.analysis.stage_chain import RecordedStage, chain_frame
from tuner.analysis.study_frames import ranked_results, ranked_trials
from tuner.analysis.study_progress import in_words, standing
from tuner.analysis.trial_curves import has_curves, top_curves_frame
from tuner.plots.best_steps import BEST_STEPS
from tuner.plots.curves import CURVES
from tuner.plots.schedules import SCHEDULES
from tuner.records import STOPPED_EARLY, State
from tuner.report.material import regime_of

STEPS, EVERY, PATIENCE = 1000, 20, 200


def falling(best_step, level):
    """A curve that falls to `level` at its best step, and rises again."""
    return [level + abs(step - best_step) / STEPS for step in range(EVERY, STEPS + 1, EVERY)]


def final_round(*trials, patience=PATIENCE):
    """Trials as (origin, best step, level); each ends where patience ends it, like a training would."""
    made = replace(study(steps=STEPS), name="round-2", round=2, patience_steps=patience)
    records, curves = [], []
    for number, (origin, best, level) in enumerate(trials):
        end = min(STEPS, best + patience) if patience else STEPS
        reason = f"{STOPPED_EARLY} at step {end}" if end < STEPS else ""
        one = planned(record(number), origin=origin)
        records.append(replace(one, step=end, reason=reason))
        curves.append(curve(number, range(EVERY, end + 1, EVERY), falling(best, level)[: end // EVERY]))
    return frames_of(made, records, pd.concat(curves, ignore_index=True))


def first_round(count=8):
    made = replace(study(steps=STEPS), name="round-1", round=1)
    records = [record(number, {"learning_rate": 1e-3 * (number + 1)}) for number in range(count)]
    curves = [
        curve(number, range(EVERY, STEPS + 1, EVERY), falling(500, 0.1 * number + 0.1)) for number in range(count)
    ]
    return frames_of(made, records, pd.concat(curves, ignore_index=True))


FRESH = "round-1 trial {}, fresh seeds"


def mixed():
    """Trial 0 stops at 500 of 1,000 steps, trial 1 at 700, trial 2 trains them all; 0 is the best, 2 the worst."""
    return final_round((FRESH.format(0), 300, 0.1), (FRESH.format(0), 500, 0.2), (FRESH.format(1), 900, 0.3))


def test_trials_of_a_table_are_censored_by_what_it_says_of_them():
    """A table has no patience, and its reasons say which trials stopped: the others just improved late."""
    frames = mixed()
    imported = replace(frames, study=replace(frames.study, patience_steps=0, source="runs.csv"))
    assert imported.stops_early
    assert not has_curves(imported)
    assert best_steps_finding(imported).verdict == "inconclusive"
    (finding,) = [one for one in checklist_findings(imported) if one.question == "improvement"]
    assert finding.summary.startswith("2 of 3 completed trials stopped early: trials of this round are not equally")
    (told, *_) = for_elsewhere(imported, [finding])
    assert told.action.startswith("Train the trials to the end of the budget")


def test_the_record_and_the_frame_tell_them_apart():
    frames = mixed()
    assert frames.trials["steps"].tolist() == [500, 700, 1000]
    assert frames.stopped_early().tolist() == [True, True, False]
    assert frames.selectable["trial"].tolist() == [0, 1, 2]
    assert frames.complete["trial"].tolist() == [2], "its docstring says: that ran their whole budget"
    assert ranked_results(frames)["trial"].tolist() == [0, 1, 2]
    assert ranked_trials(frames)["trial"].tolist() == [2]
    early = replace(record(0), reason=f"{STOPPED_EARLY} at step 500")
    assert early.stopped_early
    assert not replace(early, state=State.INFEASIBLE).stopped_early
    assert not record(0).stopped_early


def test_the_winner_is_selected_among_all_and_says_how_many_of_its_seeds_stopped_early():
    found = headline(mixed())
    assert (found.trial, found.selected_value, found.selected_from) == (0, 0.1, 3)
    assert found.value == pytest.approx(0.15)
    assert [run.stopped_early for run in found.fresh] == [True, True]
    assert "median of 2 fresh seeds (0.1 to 0.2), 2 of 2 stopped early" in found.words


def test_seeds_of_a_study_without_early_stopping_are_no_other_trainings_of_it():
    """They trained longer, so they would be better without any merit of the configuration."""
    contest = replace(first_round(1), study=replace(study(), name="adopt", kind="adoption"))
    origin = contest.trials["origin"].map(lambda _: "replicate of round-2/0")
    contest = replace(contest, trials=contest.trials.assign(origin=origin))
    whole = final_round((FRESH.format(0), 300, 0.3), patience=0)
    assert {run.study for run in headline(whole, [contest]).fresh} == {"round-2", "adopt"}
    assert {run.study for run in headline(final_round((FRESH.format(0), 300, 0.3)), [contest]).fresh} == {"round-2"}


@pytest.mark.parametrize("frames", [mixed(), final_round(*((FRESH.format(n), 300, 0.1 * n) for n in range(6)))])
def test_no_question_about_curves_is_answered_by_such_a_round(frames):
    asked = {question.name for question in QUESTIONS if "curves" in question.needs and question.scope == "round"}
    found = [finding for finding in checklist_findings(frames) if finding.question in asked]
    assert {finding.verdict for finding in found} == {NO_CURVES.name}
    assert all("stopped early (patience_steps=200)" in finding.summary for finding in found)
    assert all("leave patience_steps out" in finding.action for finding in found)
    assert not has_curves(frames)


def test_the_same_curves_without_early_stopping_are_answered():
    frames = final_round(*((FRESH.format(n), 300, 0.1 * n) for n in range(6)), patience=0)
    assert best_steps_finding(frames).verdict != "inconclusive", "else the test before shows nothing"
    assert NO_CURVES.name not in {finding.verdict for finding in checklist_findings(frames)}


def test_the_best_step_of_such_a_round_proposes_no_budget():
    """All six are at their best at 300 of 1,000 steps, and nobody saw what came after 500: not "too long"."""
    frames = final_round(*((FRESH.format(n), 300, 0.1 * n) for n in range(6)))
    finding = best_steps_finding(frames)
    assert (finding.verdict, finding.strength) == ("inconclusive", "none")
    assert "6 of 6 completed trials stopped early" in finding.summary
    assert proposed_budget(frames)[0] == STEPS
    late = final_round(*((FRESH.format(n), 900, 0.1 * n) for n in range(6)))
    assert best_steps_finding(late).verdict == "inconclusive", "those that go on are those that improve: not too short"


def test_a_regime_is_not_read_off_such_a_round():
    first = first_round()
    last = final_round(*((FRESH.format(n), 900, 0.1 * n) for n in range(6)))  # all train all steps
    expected, other = (regime_finding(one).subject for one in (first, last))
    assert (expected, other) == ("round-1", "round-2")
    assert regime_of(None, None, [first, last]).finding.subject == expected


def test_a_conclusion_is_not_confirmed_by_trials_that_stopped_early():
    before = first_round()
    children = [(FRESH.format(0), 800, 0.05), (FRESH.format(0), 800, 0.06)]
    others = [(FRESH.format(1), 800, 0.5), (FRESH.format(1), 800, 0.51)]
    whole = final_round(*children, *others, patience=0)
    winner = {finding.subject: finding for finding in transfer_findings(before, whole)}["winner"]
    assert winner.verdict == "confirmed", "else this shows nothing"
    assert transfer_pairs(before, whole)["complete"].all()
    children[0] = (FRESH.format(0), 300, 0.05)  # one of the four stops at 500
    stopped = final_round(*children, *others)
    pairs = transfer_pairs(before, stopped)
    assert pairs["complete"].tolist() == [False, False, True, True], "the other seed of its point is no fair sample"
    winner = {finding.subject: finding for finding in transfer_findings(before, stopped)}["winner"]
    assert winner.verdict == "unconfirmed"
    assert winner.summary.startswith("1 of 4 completed trials stopped early (patience_steps=200)")
    assert winner.action == "Leave patience_steps out of the round."


def test_a_gain_from_longer_training_is_not_read_off_trials_that_stopped_early():
    before = replace(first_round(), study=replace(first_round().study, budget=study(steps=500).budget))
    fresh = [(FRESH.format(n), 800, 0.01 * n) for n in range(4)]
    assert longer_training_finding(before, final_round(*fresh, patience=0)).verdict == "gained"
    early = [(FRESH.format(n), 300, 0.01 * n) for n in range(4)]
    found = longer_training_finding(before, final_round(*early))
    assert found.verdict == "inconclusive"
    assert "4 of 4 completed trials stopped early" in found.summary


def test_the_plots_mark_them():
    frames = mixed()
    table = top_curves_frame(frames)
    assert table.drop_duplicates("trial")["stopped"].fillna(0).tolist() == [500, 700, 0]
    figure, _ = CURVES.draw(frames)
    titles = [axes.get_title("left") or axes.get_title() for axes in figure.axes]
    assert titles == ["trial 0 (rank 1), stopped early", "trial 1 (rank 2), stopped early", "trial 2 (rank 3)"]
    assert "stopped" not in top_curves_frame(first_round())
    figure, table = BEST_STEPS.draw(frames)
    assert table.groupby("state")["trial"].apply(list).to_dict() == {"complete": [2], "stopped early": [0, 1]}
    assert table.loc[table["state"] == "stopped early", "fraction"].tolist() == [0.5, 0.7]
    assert "stopped early" in [line.get_label() for line in figure.axes[0].lines]


def test_the_standing_counts_them():
    early = replace(record(0), step=500, reason=f"{STOPPED_EARLY} at step 500")
    _, ledger = ledger_of([early, record(1), record(2)])
    table = standing(ledger, ["digits"])
    assert table["stopped_early"].tolist() == [1]
    assert in_words(table)["states"].tolist() == ["3 complete (1 stopped early)"]


def test_a_study_of_which_all_trials_have_ended_is_done():
    early = replace(record(0), step=500, reason=f"{STOPPED_EARLY} at step 500")
    _, ledger = ledger_of([early, record(1)])
    assert standing(ledger, ["digits"])["steps_done"].tolist() == ["100%"]
    _, ledger = ledger_of([early, replace(record(1, state=State.RUNNING), step=500)])
    assert standing(ledger, ["digits"])["steps_done"].tolist() == ["67%"], "1,000 of 1,500 steps"


def test_the_steps_of_a_stage_are_a_limit():
    stopping = RecordedStage("tuned", None, 130, 100, stops_early=True)
    table = chain_frame([stopping, replace(stopping, campaign="whole", stops_early=False)])
    assert table["own"].tolist()[:2] == ["at most 100", "100"]
    assert table["in all"].tolist()[:2] == ["at most 100", "100"]


def test_a_schedule_says_where_its_training_ended():
    _, table = SCHEDULES.draw([mixed()])
    assert table["schedule"].unique().tolist() == [
        "trial 0: 0.001, stopped early at 500", "trial 1: 0.001, stopped early at 700", "trial 2: 0.001",
    ]  # fmt: skip


def test_no_curves_is_told_apart_from_early_stops():
    question = next(one for one in QUESTIONS if "curves" in one.needs)
    assert "stopped early" not in no_curves_finding(first_round(), question).summary
