from dataclasses import replace

import pandas as pd
from analysis.handmade import curve, frames_of, record, study

from tuner.analysis.study_frames import ranked_trials
from tuner.analysis.trial_curves import common_curves, top_curves_frame
from tuner.budget.step_budget import StepBudget
from tuner.records import State


def three_trials(direction: str = "minimize"):
    parts = [
        curve(0, [10, 20], [0.5, 0.4]),
        curve(1, [10, 20], [0.2, 0.3]),
        curve(2, [10, 20], [0.4, 0.4]),
        curve(3, [10, 20], [0.0, 0.0]),
        curve(1, [10, 20], [0.1, 0.0], "training/loss"),
        curve(1, [10, 20], [0.9, 0.8], "validation/error_rate"),
    ]
    states = [State.COMPLETE, State.COMPLETE, State.COMPLETE, State.INFEASIBLE]
    records = [record(number, state=state) for number, state in enumerate(states)]
    return frames_of(study(direction=direction), records, pd.concat(parts))


def test_completed_trials_are_ranked_by_best_value_and_equal_ones_by_number():
    assert ranked_trials(three_trials())["trial"].tolist() == [1, 0, 2]
    assert ranked_trials(three_trials("maximize"))["trial"].tolist() == [0, 2, 1]


def test_the_curves_of_the_best_trials_mark_the_chosen_step():
    table = top_curves_frame(three_trials(), top=2)
    assert table.groupby("rank")["trial"].first().to_dict() == {1: 1, 2: 0}
    chosen = table[table["chosen"] & (table["split"] == "validation")]
    assert chosen[["trial", "step", "value"]].to_numpy().tolist() == [[1, 10, 0.2], [0, 20, 0.4]]


def test_training_and_validation_of_the_selecting_metric_are_shown_and_no_other():
    table = top_curves_frame(three_trials(), top=1)
    assert table["split"].unique().tolist() == ["training", "validation"]
    assert table["metric"].unique().tolist() == ["loss"]


def test_a_share_of_a_curve_is_a_share_of_the_budget_where_evaluations_are_denser_at_first():
    made = replace(study(steps=20, evaluations=4), budget=StepBudget(20, 5).lengthened(80, 4))
    curves = curve(0, made.budget.evaluation_steps, [0.5] * 7)
    frames = frames_of(made, [record(0)], curves)
    assert frames.curve(0, "validation/loss")["step"].tolist() == [5, 10, 15, 20, 40, 60, 80]
    found = common_curves(frames, frames.complete["trial"])
    assert found.steps.tolist() == [20, 40, 60, 80]
    assert found.values.shape == (1, 4)
