import math
from array import array
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from analysis.handmade import METRIC, SPACE, curve, frames_of_curves, frames_of_values, record, study

from tuner.analysis.checklist import checklist_findings
from tuner.analysis.frames import frames_of, selected_steps, study_frames
from tuner.design.hyperparameters import log_uniform, uniform
from tuner.design.names import TRIAL_COLUMNS
from tuner.design.objective import Objective, maximize, minimize
from tuner.design.space import SearchSpace, branches
from tuner.records import State
from tuner.rounds.importances import importances
from tuner.storage.curves import Measurements, StoredCurve

NAN, INF = math.nan, math.inf


def selected(values: list[float], direction: str = "minimize") -> tuple[float, object, float]:
    """best_value, best_step, last_value of one curve measured at steps 10, 20, ..."""
    made = frames_of(study(direction=direction), [record(0)], curve(0, range(10, 10 * len(values) + 1, 10), values))
    row = made.trials.iloc[0]
    return row["best_value"], row["best_step"], row["last_value"]


def test_a_trial_is_worth_its_best_value_over_training_and_keeps_the_last_beside_it():
    assert selected([0.5, 0.2, 0.4]) == (0.2, 20, 0.4)


def test_ties_go_to_the_earlier_step():
    assert selected([0.5, 0.2, 0.2, 0.2]) == (0.2, 20, 0.2)


def test_the_direction_is_explicit():
    assert selected([0.5, 0.9, 0.9, 0.1], "maximize") == (0.9, 20, 0.1)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_what_is_not_finite_never_wins(bad, direction):
    best_value, best_step, last_value = selected([bad, 0.3, bad], direction)
    assert (best_value, best_step) == (0.3, 20)
    assert not math.isfinite(last_value)


def test_a_curve_without_a_finite_value_has_no_best_step():
    best_value, best_step, last_value = selected([NAN, INF])
    assert math.isnan(best_value)
    assert best_step is pd.NA
    assert last_value == INF


def test_a_trial_without_measurements_is_there_with_nothing_selected():
    made = frames_of(study(), [record(0), record(1, state=State.WAITING)], curve(0, [10], [0.5]))
    assert made.trials["trial"].tolist() == [0, 1]
    assert made.trials["state"].tolist() == ["complete", "waiting"]
    assert made.trials["best_step"].isna().tolist() == [False, True]


def test_a_study_without_measurements_has_empty_curves():
    empty = pd.DataFrame({"trial": [], "step": [], "metric": [], "value": []})
    made = frames_of(study(), [record(0)], empty)
    assert made.trials["best_value"].isna().all()
    assert made.complete.empty


def test_a_step_measured_twice_keeps_the_later_row():
    twice = pd.concat([curve(0, [10, 20, 30], [0.5, 0.1, 0.4]), curve(0, [20, 30], [0.3, 0.2])])
    row = frames_of(study(), [record(0)], twice).trials.iloc[0]
    assert (row["best_value"], row["best_step"], row["last_value"]) == (0.2, 30, 0.2)


def test_only_the_metric_of_the_objective_selects():
    both = pd.concat([curve(0, [10, 20], [0.5, 0.4]), curve(0, [10, 20], [0.0, 0.1], "training/loss")])
    assert frames_of(study(), [record(0)], both).trials.loc[0, "best_step"] == 20


def test_an_infeasible_trial_keeps_its_best_value_and_is_not_complete():
    made = frames_of_curves(study(), [[0.5, 0.3, NAN], [0.6, 0.5, 0.4]], {0: State.INFEASIBLE})
    assert made.trials["best_value"].tolist() == [0.3, 0.4]
    assert made.complete["trial"].tolist() == [1]


def test_trials_have_the_documented_columns_and_one_for_each_hyperparameter():
    space = SearchSpace(
        optimizer=branches(
            sgd={"learning_rate": log_uniform(1e-2, 10)}, adamw={"learning_rate": log_uniform(1e-4, 0.1)}
        ),
        dropout=uniform(0.0, 0.5),
        width=64,
    )
    points = [
        {"optimizer": "adamw", "adamw.learning_rate": 1e-3, "dropout": 0.1, "width": 64},
        {"optimizer": "sgd", "sgd.learning_rate": 0.5, "dropout": 0.2, "width": 64},
    ]
    made = frames_of(study(space), [record(1, points[1]), record(0, points[0])], curve(0, [10], [0.5]))
    names = ["optimizer", "sgd.learning_rate", "adamw.learning_rate", "dropout"]
    assert made.trials.columns.tolist() == [*TRIAL_COLUMNS, *names]
    assert made.trials["trial"].tolist() == [0, 1]
    assert made.trials["adamw.learning_rate"].tolist()[0] == 1e-3
    assert made.trials["sgd.learning_rate"].isna().tolist() == [True, False]


def test_curves_are_sorted_by_trial_metric_and_step():
    mixed = pd.concat(
        [curve(1, [20, 10], [1.0, 2.0]), curve(0, [10], [3.0]), curve(0, [20, 10], [4.0, 5.0], "training/loss")]
    )
    made = frames_of(study(), [record(0), record(1)], mixed).curves
    assert made["value"].tolist() == [5.0, 4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize("objective", [minimize(METRIC), maximize(METRIC)])
def test_selection_of_all_trials_at_once_is_that_of_each_curve(objective: Objective):
    rng = np.random.default_rng(3)
    values = np.round(rng.standard_normal((200, 30)), 1)  # rounded: many ties
    values[rng.random(values.shape) < 0.2] = NAN
    values[rng.random(values.shape) < 0.1] = -INF
    values[7] = NAN
    steps = np.arange(10, 310, 10)
    curves = pd.concat([curve(trial, steps.tolist(), row.tolist()) for trial, row in enumerate(values)])
    found = selected_steps(curves.reset_index(drop=True), objective)
    for trial, row in enumerate(values):
        expected = objective.best(zip(steps.tolist(), row.tolist(), strict=True))
        if expected is None:
            assert found.loc[trial, "best_step"] is pd.NA
        else:
            assert (found.loc[trial, "best_step"], found.loc[trial, "best_value"]) == expected


def test_study_frames_reads_one_study_of_a_ledger():
    asked = []

    class Ledger:
        def study(self, campaign, name):
            asked.append((campaign, name))
            return SimpleNamespace(study_id=5, study=study())

        def trials(self, study_id):
            asked.append(study_id)
            return [record(0)]

        def measurements(self, study_id):
            asked.append(study_id)
            return Measurements((StoredCurve(0, METRIC, array("q", [10, 20])),), array("d", [0.5, 0.25]))

        def launches(self, study_id):
            return []

    made = study_frames(Ledger(), "digits", "round-1")
    assert asked == [("digits", "round-1"), 5, 5]
    assert made.hyperparameters == [h.name for h in SPACE]
    assert made.trials.loc[0, "best_step"] == 20
    assert made.curve(0, METRIC)["value"].tolist() == [0.5, 0.25]


@pytest.mark.parametrize("damaged", [-7.0, 0, "fast", INF, True])
def test_a_point_that_no_range_can_hold_fails_its_trial_and_no_question(damaged):
    """A rate of -7 on a log scale has no place; the trials beside it are read as before."""
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1.0), dropout=uniform(0.0, 0.5))
    points = [{"learning_rate": 10.0 ** -(1 + number / 8), "dropout": 0.1} for number in range(20)]
    points[7]["learning_rate"] = damaged
    frames = frames_of_values(study(space), points, [0.5 + number / 100 for number in range(20)])
    assert len(frames.complete) == 19
    row = frames.trials.set_index("trial").loc[7]
    assert row["state"] == "failed"
    assert row["reason"].startswith("trial 7 is unreadable in the Ledger: learning_rate = ")
    findings = [*checklist_findings(frames), *importances(frames)]
    assert {one.question for one in findings} >= {"boundary", "importance"}


def test_a_value_outside_its_range_is_read_where_the_scale_has_a_place_for_it():
    """Half the winner's rate may lie below the range that was searched."""
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1.0))
    frames = frames_of_values(study(space), [{"learning_rate": 5e-5}, {"learning_rate": 2}], [0.5, 0.6])
    assert frames.complete["learning_rate"].tolist() == [5e-5, 2.0]
