"""Adoption: an interval that keeps its level, and verdicts that count no lucky run."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.adoption_rates import adopted, welch
from benchmarks.synthetic import frames, study
from tuner.analysis.questions.adoption import adoption_finding, adoption_frame
from tuner.analysis.replicates import welch_difference
from tuner.design.hyperparameters import uniform
from tuner.design.objective import maximize
from tuner.design.space import SearchSpace


def contest(candidate, baseline, **changes):
    """A contest of these values, interleaved as its trials are; NaN diverged."""
    values = [value for pair in zip(candidate, baseline, strict=True) for value in pair]
    declared = replace(
        study(SearchSpace(x=uniform(0.0, 1.0))), name="adopt", kind="adoption",
        lineage=(("round-2", "0"), ("round-1", "12")), **changes,
    )  # fmt: skip
    return frames(declared, pd.DataFrame({"x": [0.5] * len(values)}), np.array(values))


def test_welch_by_hand():
    """Means 4 and 2, variances 1 and 4 of three each: error sqrt(5/3), freedom (5/3)^2 / (1/18 + 16/18) = 50/17."""
    found = welch_difference([3, 4, 5], [0, 2, 4], 0.9)
    reach = stats.t.ppf(0.95, 50 / 17) * math.sqrt(5 / 3)
    assert (found.gain, found.low, found.high) == pytest.approx((2, 2 - reach, 2 + reach))


def test_welch_is_scipys_interval():
    one, other = [1.0, 1.5, 0.7, 2.2, 1.1], [0.1, 0.4, -0.8, 0.9, 3.0]
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.8)
    found = welch_difference(one, other, 0.8)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_without_any_spread_the_difference_is_known():
    assert welch_difference([2, 2], [1, 1], 0.8) == welch_difference([2, 2, 2], [1, 1], 0.99)
    assert welch_difference([2, 2], [1, 1], 0.8).low == 1


@pytest.mark.parametrize(
    ("candidate", "baseline", "verdict"),
    [
        ([0.10, 0.11, 0.12, 0.11, 0.10], [0.20, 0.21, 0.22, 0.20, 0.19], "adopt"),
        ([0.20, 0.21, 0.22, 0.20, 0.19], [0.10, 0.11, 0.12, 0.11, 0.10], "keep"),
        ([0.10, 0.30, 0.20, 0.25, 0.15], [0.11, 0.28, 0.21, 0.24, 0.17], "tie"),
        ([0.10, math.nan, 0.12, 0.11, 0.10], [0.20, 0.21, 0.22, 0.20, 0.19], "keep"),
        ([0.10, 0.11, 0.12, 0.11, 0.10], [0.20, math.nan, 0.22, 0.20, 0.19], "adopt"),
        ([0.10, math.nan, 0.12, 0.11, 0.10], [0.20, math.nan, 0.22, 0.20, 0.19], "tie"),
        ([0.10, 0.11], [0.2, math.nan], "inconclusive"),
    ],
)
def test_verdicts_of_a_loss(candidate, baseline, verdict):
    assert adoption_finding(contest(candidate, baseline)).verdict == verdict


def test_more_is_better_where_the_objective_says_so():
    made = contest([0.9, 0.91, 0.92], [0.8, 0.81, 0.8], objective=maximize("validation/loss"))
    finding = adoption_finding(made)
    assert finding.verdict == "adopt"
    assert finding.evidence["worst"].tolist() == [0.9, 0.8]


def test_a_small_gain_has_to_earn_its_complexity():
    made = contest([0.10, 0.11, 0.12, 0.11, 0.10], [0.20, 0.21, 0.22, 0.20, 0.19])
    assert adoption_finding(made, minimum_gain=0.09).verdict == "adopt"
    finding = adoption_finding(made, minimum_gain=0.2)
    assert finding.verdict == "tie"
    assert "smaller than the 0.2" in finding.caveats[0]


def test_the_finding_shows_its_numbers():
    made = contest([0.1, 0.2, 0.3], [0.4, 0.6, 0.8])
    table = adoption_frame(made)
    assert table["from"].tolist() == ["round-2 trial 0", "round-1 trial 12"]
    assert table["median"].tolist() == [0.2, 0.6]
    assert table["sd"].tolist() == pytest.approx([0.1, 0.2])
    finding = adoption_finding(made, level=0.9)
    assert finding.thresholds["level"] == 0.9
    assert finding.evidence["gain"].iloc[0] == pytest.approx(0.4)
    assert "better by 0.4 (90% interval" in finding.summary


def test_unfinished_replicates_decide_nothing():
    made = contest([0.10, 0.11, 0.12], [0.20, 0.21, 0.22])
    made.trials.loc[5, ["state", "best_value"]] = ["waiting", math.nan]
    assert adoption_finding(made).verdict == "inconclusive"


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_without_a_difference_it_adopts_no_more_often_than_it_says(level):
    """3,000 cases: the standard error of a rate of 10 % is 0.55 points."""
    stated = (1 - level) / 2
    for noise in ("normal", "skewed to the bad", "rounded to 1 sd"):
        rate = adopted(welch, noise, cases=3000, level=level)
        assert rate <= stated + 3 * math.sqrt(stated * (1 - stated) / 3000), noise


def test_a_difference_of_two_deviations_is_found_by_five_against_five():
    assert adopted(welch, "normal", cases=2000, shift=2.0) >= 0.8


def test_the_best_of_twenty_looks_better_than_it_is():
    """D41: chosen as the best of 20 equal trials and compared with one other run, it wins in 19 or 20 of 20 cases."""
    rng = np.random.default_rng(0)
    best = rng.standard_normal((4000, 20)).max(axis=1)
    assert 0.93 < np.mean(best > rng.standard_normal(4000)) < 0.97
