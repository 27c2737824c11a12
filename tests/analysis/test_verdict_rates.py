"""A small part of benchmarks/verdict_rates.py, on seeds of its own: verdicts are right often enough."""

import pytest

from benchmarks.boundary_cases import KINDS
from benchmarks.checklist_cases import QUESTIONS, Size, checklist_case
from benchmarks.verdict_rates import best_step_rates, boundary_rates, boundary_rows, kind_rows, regime_rates

SEED = 5_000_000


def test_boundary_verdicts_are_right():
    rows = boundary_rows(SEED, 7, (0.02,), (30, 100))
    rates = boundary_rates(rows, ["trials"])
    assert (rates["wrong_ok"] <= 4).all()
    assert (rates["false_alarm"] <= 2).all()
    assert rates.loc[30, "inconclusive"] <= 20
    assert rates.loc[100, "inconclusive"] <= 5


def test_boundary_verdicts_of_what_real_tuning_brings_are_right():
    """A few studies of each kind; docs/about/verdict-rates.md has 300 of each."""
    rows = kind_rows(SEED, 3, [kind for kind in KINDS if kind != "model_based"])
    outcomes = rows.groupby("kind")["outcome"].value_counts(normalize=True).unstack(fill_value=0.0)
    assert (rows["outcome"] == "wrong").sum() <= 2
    hard = outcomes.index.str.startswith(("ridge", "luck"))
    assert outcomes["open"][~hard].mean() <= 0.20
    assert outcomes["open"][hard].mean() <= 0.40
    ridges = rows[rows["on_ridge"] & (rows["kind"] == "ridge_flat")]
    assert ridges["named"].all()


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_best_step_verdicts_are_right(noise):
    rows = best_step_rates(SEED, 6, (noise,))
    shares = rows.groupby("outcome")["count"].sum() / rows["count"].sum()
    assert shares.get("wrong", 0.0) <= 0.03
    assert shares.get("open", 0.0) <= 0.10


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_regime_verdicts_are_right(noise):
    rows = regime_rates(SEED, 6, (noise,))
    shares = rows.groupby("outcome")["count"].sum() / rows["count"].sum()
    assert shares.get("wrong", 0.0) <= 0.02
    assert shares.get("open", 0.0) <= 0.10


@pytest.mark.parametrize("question", QUESTIONS)
def test_other_questions_are_seldom_answered_wrongly(question):
    """Seeds that no threshold was chosen by; `python benchmarks/verdict_rates.py` has the whole table."""
    size = Size(30, 50, 0.02)
    cases = [checklist_case(question, seed, size) for seed in range(SEED, SEED + 24)]
    verdicts = [(QUESTIONS[question][1](case.frames).verdict, case.truth) for case in cases]
    assert {truth for _, truth in verdicts} <= {verdict for verdict, _ in verdicts}, "every verdict is given"
    assert sum(verdict not in (truth, "inconclusive", "tie") for verdict, truth in verdicts) <= 1
