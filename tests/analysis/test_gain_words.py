"""A negative gain is a loss in words, wherever a difference is told."""

import math
import re

import pytest
from analysis.test_adoption import contest
from analysis.test_transfer import promoted, searched

from tuner.analysis.questions.adoption import adoption_finding
from tuner.analysis.questions.longer_training import longer_training_finding
from tuner.analysis.questions.transfer import transfer_findings
from tuner.analysis.replicates import better_or_worse, gained_or_lost, with_interval


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((0.0224, 0.0187, 0.026), "better by 0.0224 (80% interval 0.0187 to 0.026)"),
        ((-0.042, -0.06, -0.02), "worse by 0.042 (80% interval 0.02 to 0.06)"),
        ((0.01, -0.02, 0.04), "better by 0.01 (80% interval from 0.02 worse to 0.04 better)"),
        ((-0.01, -0.04, 0.02), "worse by 0.01 (80% interval from 0.04 worse to 0.02 better)"),
        ((0.0, -0.1, 0.1), "no better (80% interval from 0.1 worse to 0.1 better)"),
        ((-0.5, -math.inf, math.inf), "worse by 0.5"),
    ],
)
def test_an_interval_is_told_in_the_words_of_its_difference(numbers, words):
    gain, low, high = numbers
    assert with_interval(gain, low, high, 0.8) == words


def test_a_loss_is_no_negative_gain():
    assert (better_or_worse(-3.0), gained_or_lost(-3.0), gained_or_lost(2.0)) == ("worse by 3", "lost 3", "gained 2")
    assert gained_or_lost(0.0) == "gained nothing"


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_no_sentence_about_two_rounds_tells_a_negative_gain(direction):
    """Everything gets worse in the second round, and the winner falls behind its rival."""
    sign = 1.0 if direction == "minimize" else -1.0
    before = searched([sign * 0.2, sign * 0.22, sign * 0.3], direction=direction)
    worse = [(0, "same", 0.52), (0, "fresh", 0.5), (1, "fresh", 0.31), (1, "same", 0.33), (0, "fresh", 0.45, 0.5)]
    after = promoted(before, *[(p, s, sign * v, *rate) for p, s, v, *rate in worse], direction=direction)
    found = [longer_training_finding(before, after), *transfer_findings(before, after)]
    told = " ".join(f"{one.summary} {one.action}" for one in found)
    assert "worse by" in told
    assert " lost " in told
    assert not re.search(r"(gained|better by|worse by|lost) -", told), told


def test_a_candidate_that_is_worse_is_told_so():
    """Means 0.31 and 0.21, each with a variance of 0.0001 of three."""
    finding = adoption_finding(contest(candidate=[0.30, 0.31, 0.32], baseline=[0.20, 0.21, 0.22]))
    assert "The candidate is worse by 0.1 (80% interval 0.0875 to 0.113)" in finding.summary
