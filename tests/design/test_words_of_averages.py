"""The words about averages of the weights: what is refused, with what to write, and where they hold."""

import re

import pytest
import torch
from support.tiny import Tiny

from tuner import (
    Campaign,
    OwnLoop,
    Round,
    SearchSpace,
    Sweep,
    branches,
    choice,
    integers,
    log_uniform,
    minimize,
    uniform,
)
from tuner.design.campaign import Campaign as Declared
from tuner.design.names import Name
from tuner.errors import DeclarationError
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.rounds.sweep import sweep_plan

RATE = log_uniform(1e-3, 1e-1)
SWEEP = Sweep(learning_rate=(0.01, 0.1, 1.0))


def campaign(more=None, **words):
    space = SearchSpace(**({"learning_rate": RATE} | (more or {})))
    return Campaign(Tiny(), name="tiny", rounds=[Round("a test", trials=4, max_train_steps=100, space=space)], **words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"ema_steps": 0}, "ema_steps must be a whole number of at least 1, got 0"),
        ({"ema_steps": -5}, "at least 1, got -5"),
        ({"ema_steps": 0.999}, "whole number of at least 1, got 0.999"),
        ({"ema_steps": True}, "whole number of at least 1, got True"),
        ({"ema_decay": 0.999}, "ema_steps = 1000 is what ema_decay 0.999 means"),
        ({"ema_decay": 0.99}, "ema_steps = 100 is what ema_decay 0.99 means"),
        ({"optimizer": "schedule_free_adamw", "ema_steps": 5, "schedule": "constant"}, "an average of its own"),
    ],
)
def test_words_of_a_campaign_that_cannot_be_followed(words, message):
    if "schedule" in words:
        from tuner import constant

        words = words | {"schedule": constant()}
    with pytest.raises(DeclarationError, match=re.escape(message)):
        campaign(**words)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"ema_steps": uniform(5, 50)}, "ema_steps is a number of steps, whole and at least 1, or None"),
        ({"ema_steps": log_uniform(5, 50)}, "declare integers(50, 500, log=True)"),
        ({"ema_steps": integers(0, 50)}, "got 0"),
        ({"ema_steps": choice(None, 10, 20.0)}, "got 20.0"),
        ({"ema_steps": choice("off", 10)}, "got 'off'"),
        ({"ema_steps": 0}, "got 0"),
        ({"ema_decay": uniform(0.9, 0.99)}, "ema_steps = 10 is what ema_decay 0.9 means"),
        ({"ema_decay": 0.999}, "ema_steps = 1000 is what ema_decay 0.999 means"),
        ({"model_ema_decay": choice(0.99, 0.999)}, "ema_steps = 100 is what model_ema_decay 0.99 means"),
    ],
)
def test_words_of_a_space_that_cannot_be_followed(space, message):
    with pytest.raises(DeclarationError, match=re.escape(message)):
        campaign(space)


def test_the_campaign_and_a_space_cannot_both_say_it():
    with pytest.raises(DeclarationError, match="both say it"):
        campaign({"ema_steps": integers(2, 9)}, ema_steps=5)


def test_in_the_branches_of_other_optimizers_averages_may_be_searched():
    made = {"adamw": {"learning_rate": RATE, "ema_steps": integers(2, 9)}, "sgd": {"learning_rate": RATE}}
    space = SearchSpace(optimizer=branches(**made))
    rounds = [Round("a test", trials=8, max_train_steps=100, space=space)]
    declared = Campaign(Tiny(), name="tiny", rounds=rounds)
    study = study_of_round(declared, 1, 100)
    found = {str(trial.point["optimizer"]): study.ema_steps_of(trial.point) for trial in planned_trials(study)}
    assert found["sgd"] == 0 < found["adamw"]


@pytest.mark.parametrize("domain", [integers(2, 9, log=True), choice(None, 4), 4])
def test_they_are_searched_like_any_hyperparameter_of_the_optimizer(domain):
    study = study_of_round(campaign({"ema_steps": domain}), 1, 100)
    families = {one.name: one.family for one in study.hyperparameters} | {n: c.family for n, c in study.fixed}
    assert families["ema_steps"] == "optimizer"
    trials = planned_trials(study)
    for trial in trials:
        assert study.ema_steps_of(trial.point) == (trial.point["ema_steps"] or 0)
    assert len({trial.shape_group for trial in trials}) == 1, "they may train as one stacked model"


def test_names():
    assert not Name.of("adamw.ema_steps").is_shown
    assert Name.of("adamw.ema_steps").is_of_the_averages
    assert not Name.of("warmup_steps").is_shown
    assert Name.of("learning_rate").is_shown


@pytest.mark.parametrize("words", [{"ema_steps": 5}, {}])
def test_a_sweep_evaluates_the_weights_themselves(words):
    """It asks how many steps the training needs; averages come there later, and make none of them unnecessary."""
    declared = campaign({} if words else {"ema_steps": integers(2, 9)}, sweep=SWEEP, **words)
    plan = sweep_plan(declared, SWEEP)
    study = plan.study("sweep", plan.budget(100), 3)
    assert "ema_steps" not in dict(plan.values)
    assert [study.ema_steps_of(trial.point) for trial in plan.trials(study, SWEEP.learning_rate)] == [0, 0, 0]


def test_an_own_loop_is_told_where_to_say_it():
    class Loop(OwnLoop):
        batch_size = 8
        select_by = minimize("validation/loss")

        def train(self, trial):
            torch.zeros(trial.point["ema_steps"])

    space = SearchSpace(learning_rate=RATE, ema_steps=integers(2, 9))
    rounds = [Round("a test", trials=4, max_train_steps=100, space=space)]
    assert isinstance(Campaign(Loop(), name="loop", rounds=rounds), Declared), "a word of its own in a space"
    with pytest.raises(DeclarationError, match=r"AveragedModel, kept by trial\.keep"):
        Campaign(
            Loop(),
            name="loop",
            rounds=[Round("a", trials=4, max_train_steps=9, space=SearchSpace(learning_rate=RATE))],
            ema_steps=5,
        )
