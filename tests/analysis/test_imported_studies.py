"""What a question's record says for imported studies: caveats of the sample, of pruning, and the owner's next step."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import frames_of_values, study

from tuner.analysis.elsewhere import for_elsewhere, more_trials
from tuner.analysis.finding import QUESTIONS, Finding
from tuner.design.hyperparameters import log_uniform, uniform
from tuner.design.space import SearchSpace

SPACE = SearchSpace(rate=log_uniform(1e-4, 1e-1), dropout=uniform(0.0, 0.5))


def imported(source="Optuna study mine", pruned=0, chosen=""):
    rng = np.random.default_rng(0)
    points = [{"rate": float(10 ** rng.uniform(-4, -1)), "dropout": float(rng.uniform(0, 0.5))} for _ in range(20)]
    frames = frames_of_values(replace(study(SPACE), source=source), points, rng.random(20).tolist())
    trials = frames.trials.assign(origin=f"{source}{chosen}")
    trials.loc[: pruned - 1, ["state", "reason"]] = ["cancelled", "pruned"]
    return replace(frames, trials=trials)


def answer(question, verdict, *, strength="strong", evidence=None, action="Original.", urgent=False):
    table = pd.DataFrame() if evidence is None else evidence
    return Finding(question, "rate", verdict, strength, "s", table, {}, action, needs_action=urgent)


def advised(frames, finding):
    (found,) = for_elsewhere(frames, [finding])
    return found


ROUND = [question for question in QUESTIONS if question.scope == "round"]


@pytest.mark.parametrize("question", ROUND, ids=lambda question: question.name)
def test_a_caveat_of_the_sample_stands_where_the_record_has_one(question):
    verdict = question.verdicts[0].name
    found = advised(imported(chosen=", by TPESampler"), answer(question.name, verdict))
    told = [caveat for caveat in found.caveats if "20 of 20 points were chosen by TPESampler" in caveat]
    assert len(told) == bool(question.uneven)
    assert not told or told[0].endswith(f": {question.uneven}.")
    assert (found.strength == "moderate") == question.weakened


@pytest.mark.parametrize("question", ROUND, ids=lambda question: question.name)
def test_a_caveat_of_pruning_stands_where_the_record_has_one(question):
    verdict = question.verdicts[0].name
    found = advised(imported(pruned=8), answer(question.name, verdict))
    told = [caveat for caveat in found.caveats if caveat.startswith("8 of 20 trials were pruned")]
    assert len(told) == bool(question.pruned)
    assert not told or told[0] == f"8 of 20 trials were pruned: {question.pruned}."


@pytest.mark.parametrize("question", ROUND, ids=lambda question: question.name)
def test_what_was_trained_here_keeps_its_advice(question):
    finding = answer(question.name, question.verdicts[0].name)
    assert advised(replace(imported(), study=study(SPACE)), finding) is finding


def test_what_asks_for_an_action_keeps_its_strength():
    frames = imported(chosen=", by TPESampler")
    urgent = answer("enough_points", "sparse", urgent=True)
    assert advised(frames, urgent).strength == "strong"
    assert advised(frames, answer("enough_points", "enough")).strength == "moderate"


def test_points_on_a_grid_have_the_caveat_of_what_lies_between():
    found = advised(imported(chosen=", on a grid"), answer("boundary", "ok"))
    assert "The points lie on a grid: what lies between them is not seen." in found.caveats


def test_curves_are_recorded_by_the_tool_that_trained():
    assert "trial.report(value, step)" in advised(imported(), answer("regime", "no_curves", strength="none")).action
    other = advised(imported("W&B sweep x"), answer("regime", "no_curves", strength="none"))
    assert "your logger" in other.action


def test_more_trials_are_spread_by_the_tool_that_searched():
    assert "QMCSampler" in more_trials(imported())
    assert "quasi-random" in more_trials(imported("a table"))
    assert more_trials(imported()) in advised(imported(), answer("boundary", "inconclusive", strength="none")).action
    assert more_trials(imported()) in advised(imported(), answer("enough_points", "sparse")).action


def test_a_wider_range_is_a_line_to_paste():
    edges = pd.DataFrame({"edge": ["low", "high"], "expand": [False, True], "next_bound": [1e-5, 1.0]})
    found = advised(imported(), answer("boundary", "expand_high", evidence=edges))
    assert found.action == (
        'Search rate from 1e-4 to 1.0 instead of 1e-4 to 0.1: paste `rate = trial.suggest_float("rate", 1e-4, 1.0, '
        "log=True)`."
    )


def test_a_longer_run_names_the_trial_its_steps_and_its_values():
    frames = imported()
    found = advised(frames, answer("best_steps", "maybe_too_short", evidence=pd.DataFrame({"trial": [3]})))
    assert "train the configuration of trial 3 again for 2,000 steps instead of 1,000" in found.action
    assert "rate = " in found.action
    assert "dropout = " in found.action
    assert advised(frames, answer("best_steps", "ok", evidence=pd.DataFrame({"trial": [3]}))).action == "Original."


def test_failed_trials_are_trained_again_by_their_owner():
    assert "in your own code" in advised(imported(), answer("failed_trials", "some_failed")).action


def test_trials_that_the_data_spoiled_are_imported_again():
    spoiled = answer("infeasible", "many_infeasible", action="Correct the data, then launch again; the space is right.")
    assert advised(imported(), spoiled).action == (
        "Correct the data, train again in your own code, and import; the space is right."
    )
