import pytest
from analysis.handmade import frames_of_values, study

from tuner.analysis.infeasible import infeasible_finding, infeasible_frame
from tuner.design.hyperparameters import log_uniform, uniform
from tuner.design.quasi_random import quasi_random_points
from tuner.design.space import SearchSpace

SPACE = SearchSpace(learning_rate=log_uniform(1e-4, 1.0), dropout=uniform(0.0, 0.5))


def frames_with_threshold(threshold: float, count: int = 40):
    points = quasi_random_points(SPACE, seed=0, start=0, count=count)
    values = [None if point["learning_rate"] > threshold else 0.5 for point in points]
    return frames_of_values(study(SPACE), [dict(point.values_by_name) for point in points], values)


def test_a_planted_divergence_threshold_is_found():
    """B22: everything above a learning rate of 0.1 diverges, a quarter of the range."""
    finding = infeasible_finding(frames_with_threshold(0.1))
    assert finding.verdict == "ok"
    assert "10 of 40 finished trials are infeasible (25%)" in finding.summary
    assert "learning_rate above about 0.1" in finding.summary
    assert "dropout" not in finding.summary


def test_where_infeasible_trials_lie_is_told_per_hyperparameter():
    table = infeasible_frame(frames_with_threshold(0.1)).set_index("hyperparameter")
    assert table.loc["learning_rate", "separation"] == 1.0
    assert abs(table.loc["dropout", "separation"]) < 0.5
    assert table.loc["learning_rate", "feasible_high"] < 0.1 < table.loc["learning_rate", "infeasible_low"]


def test_more_than_half_infeasible_asks_for_another_space():
    finding = infeasible_finding(frames_with_threshold(1e-3))
    assert (finding.verdict, finding.needs_action) == ("many_infeasible", True)
    assert "learning_rate above" in finding.action


@pytest.mark.parametrize("count", [2, 4])
def test_a_handful_of_trials_is_inconclusive(count):
    assert infeasible_finding(frames_with_threshold(1e-3, count)).verdict == "inconclusive"


def test_failed_trials_say_nothing_about_the_space():
    """D44: a bug or a lost worker is not the point's fault."""
    frames = frames_with_threshold(0.1)
    frames.trials.loc[frames.trials["state"] == "infeasible", "state"] = "failed"
    finding = infeasible_finding(frames)
    assert "0 of 30 finished trials are infeasible (0%)." in finding.summary
