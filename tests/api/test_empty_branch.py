"""A branch without hyperparameters, captions=branches(yes={...}, no={}), goes through everything that a study does."""

import math
import random

import matplotlib.pyplot as plt
import optuna
import pandas as pd
import pytest

import tuner
from tuner import Campaign, OwnLoop, Round, SearchSpace, branches, log_uniform, minimize, uniform
from tuner.design.narrowing import narrowed_space
from tuner.plots.catalog import PLOTS

LOSS, STEPS, TRIALS = "validation/loss", 60, 24
SPACE = SearchSpace(
    learning_rate=log_uniform(1e-4, 1e-1),
    captions=branches(yes={"shuffle_caption": uniform(0.0, 1.0), "caption_dropout": uniform(0.1, 0.5)}, no={}),
)
NOT_THERE = (
    "sweep",
    "budget-curve",
    "stability",
    "schedules",
    "infeasible",
)  # nothing of it was trained, or became of it
CONDITIONAL = ["yes.shuffle_caption", "yes.caption_dropout"]


def campaign_of(name):
    return Campaign(OwnLoop(select_by=minimize(LOSS)), name=name, production_steps=2 * STEPS, evaluations=20, rounds=[
        Round("Do captions help?", trials=TRIALS, max_train_steps=STEPS, scientific=("captions",), space=SPACE),
        Round("The final model", promote=2),
    ])  # fmt: skip


def loss_at(point, step, seed):
    """Captions are worth 0.2, less where they are shuffled; the best rate is 0.003, and more dropout is better."""
    best = 0.3 + 0.1 * (math.log10(point["learning_rate"]) + 2.5) ** 2
    if point["captions"] == "yes":
        best += 0.05 * point["shuffle_caption"] - 0.2 * point["caption_dropout"] - 0.2
    return best + math.exp(-step / 10) + random.Random(f"{seed} {step}").gauss(0, 1e-3)


def told(campaign, number, storage):
    with tuner.asking(campaign, round=number, storage=storage) as study:
        for trial in study:
            steps = [step + 1 for step in range(trial.max_train_steps) if trial.evaluates(step)]
            study.tell(trial, {step: {LOSS: loss_at(trial.point, step, trial.seed)} for step in steps})


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    storage = f"sqlite:///{tmp_path_factory.mktemp('branch')}/records.sqlite"
    for number in (1, 2):
        told(campaign_of("letters"), number, storage)
    return storage


@pytest.fixture(scope="module")
def records(storage):
    return tuner.load("letters", storage=storage)


def test_points_have_what_exists_in_their_branch(records):
    trials = records.frames(round=1).trials
    assert len(trials) == TRIALS
    with_captions = trials["captions"] == "yes"
    assert with_captions.sum() == TRIALS / 2
    for name in CONDITIONAL:
        assert trials[name].notna().equals(with_captions)
    assert trials["learning_rate"].notna().all()


def test_the_comparison_its_effort_and_its_ranges_are_judged(storage):
    found = {(one.question, one.subject): one for one in tuner.check("letters", round=1, storage=storage)}
    assert found["isolation", "captions"].verdict == "leads"
    assert "yes leads" in str(found["isolation", "captions"].summary)
    assert found["effort", "captions"].verdict == "equal"
    assert found["boundary", "yes.caption_dropout"].verdict == "expand_high"
    assert found["boundary", "yes.shuffle_caption"].verdict == "ok"
    assert ("importance", "round-1") in found


@pytest.mark.parametrize("kind", sorted(one.name for one in PLOTS if one.name not in NOT_THERE))
def test_it_is_drawn(kind, storage):
    figure = tuner.plot(kind, "letters", round=None if kind == "transfer" else 1, storage=storage)
    assert figure.axes
    plt.close("all")


def test_it_is_reported_and_its_best_is_known(storage, tmp_path):
    page = tmp_path / "letters.html"
    tuner.write_report("letters", page, storage=storage)
    text = page.read_text(encoding="utf-8")
    assert all(name in text for name in CONDITIONAL)
    best = dict(tuner.best("letters", storage=storage).point)
    assert best["captions"] == "yes"
    assert best.keys() >= set(CONDITIONAL)


@pytest.mark.parametrize("winner", ["yes", "no"])
def test_the_space_around_a_winner_has_what_exists_there(winner):
    point = {"learning_rate": 1e-3, "captions": winner}
    point |= dict.fromkeys(CONDITIONAL, 0.3) if winner == "yes" else {}
    narrowed = narrowed_space(SPACE, point)
    assert [one.name for one in narrowed] == ["learning_rate", *(CONDITIONAL if winner == "yes" else [])]
    assert narrowed.values_at((0.5,) * len(narrowed))["captions"] == winner


def test_it_goes_to_optuna_and_back(storage, tmp_path):
    url = f"sqlite:///{tmp_path}/optuna.db"
    tuner.export("letters", round=1, to="optuna", place=url, storage=storage)
    study = optuna.load_study(study_name="letters-round-1", storage=url)
    assert {frozenset(trial.params) for trial in study.trials} == {
        frozenset(["learning_rate", "captions"]), frozenset(["learning_rate", "captions", *CONDITIONAL])
    }  # fmt: skip
    back = f"sqlite:///{tmp_path}/back.sqlite"
    tuner.import_optuna(url, name="back", storage=back)
    same_points(storage, back)


def test_it_goes_to_tables_and_back(storage, tmp_path):
    tuner.export("letters", round=1, to="csv", place=tmp_path, storage=storage)
    back = f"sqlite:///{tmp_path}/back.sqlite"
    tuner.import_table(tmp_path / "curves.csv", objective=LOSS, direction="minimize", name="back", storage=back)
    same_points(storage, back)


def same_points(storage, back):
    names = ["captions", "learning_rate", *CONDITIONAL]
    there, again = (
        tuner.load(name, storage=place).frames(round=1).trials[[*names, "best_value"]].reset_index(drop=True)
        for name, place in (("letters", storage), ("back", back))
    )
    pd.testing.assert_frame_equal(there, again, check_dtype=False)
    spaces = [
        tuner.load(name, storage=place).frames(round=1).study.space
        for name, place in (("letters", storage), ("back", back))
    ]
    assert [(one.name, one.condition) for one in spaces[0]] == [(one.name, one.condition) for one in spaces[1]]
    verdicts = [
        {one.subject: one.verdict for one in tuner.boundaries(name, round=1, storage=place)}
        for name, place in (("letters", storage), ("back", back))
    ]
    assert verdicts[0] == verdicts[1]
