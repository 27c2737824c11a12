"""What a sweep trains: everything but the learning rate at one value, one seed for the grid, nested evaluations."""

from dataclasses import replace

import pytest
from support.tiny import Tiny

from tuner import Campaign, Round, SearchSpace, Sweep, branches, choice, fixed, integers, log_grid, log_uniform, uniform
from tuner.errors import DeclarationError
from tuner.rounds.sweep import sweep_plan, sweep_values

SPACE = SearchSpace(
    learning_rate=log_uniform(1e-4, 1e-1),
    dropout=uniform(0.0, 0.5, family="regularization", limits="low"),
    weight_decay=log_uniform(1e-5, 1e-3, family="regularization", off=0.0),
    hidden=integers(16, 64, family="architecture"),
    activation=choice("relu", "tanh", "gelu", family="architecture"),
    warmup_steps=integers(0, 100, family="schedule"),
    momentum=fixed(0.9),
)
BRANCHES = SearchSpace(
    optimizer=branches(
        sgd={"learning_rate": log_uniform(1e-3, 1.0), "momentum": uniform(0.0, 1.0)},
        adamw={"learning_rate": log_uniform(1e-4, 1e-1), "one_minus_beta2": fixed(0.01)},
    )
)
SWEEP = Sweep(learning_rate=log_grid(1e-3, 1.0, per_decade=1), start_steps=100, max_steps=1600)


def plan(sweep=SWEEP, space=SPACE, **campaign):
    rounds = [Round("which rate?", trials=8, space=space, max_train_steps=100), Round("final", promote=1)]
    return sweep_plan(Campaign(Tiny(), rounds, evaluations=20, **{"optimizer": "sgd", **campaign}), sweep)


def test_regularization_is_off_and_everything_else_in_the_middle_of_its_range():
    assert sweep_values(SPACE, "adamw", {}) == {
        "dropout": 0.0,
        "weight_decay": 0.0,
        "hidden": 40,
        "activation": "tanh",
        "momentum": 0.9,
    }


def test_given_values_take_the_place_of_these():
    values = sweep_values(SPACE, "adamw", {"hidden": 16, "dropout": 0.25, "momentum": 0.5})
    assert (values["hidden"], values["dropout"], values["momentum"]) == (16, 0.25, 0.5)
    assert values["activation"] == "tanh"


def test_a_name_that_is_not_declared_is_named():
    with pytest.raises(DeclarationError, match=r"names width, depth, which the first round does not declare"):
        sweep_values(SPACE, "adamw", {"width": 3, "dropout": 0.1, "depth": 2})


@pytest.mark.parametrize(("optimizer", "values"), [("sgd", {"momentum": 0.5}), ("adamw", {"one_minus_beta2": 0.01})])
def test_of_a_branch_only_the_values_of_the_swept_optimizer_are_there(optimizer, values):
    assert sweep_values(BRANCHES, optimizer, {}) == values


def test_the_points_have_the_rate_under_its_short_name_whatever_the_branch():
    made = plan(replace(SWEEP, optimizer="sgd"), BRANCHES, optimizer="adamw")
    study = made.study("sweep-1-grid", made.budget(100), len(made.rates))
    assert study.optimizer == "sgd"
    assert [dict(trial.point.values_by_name) for trial in made.trials(study, (0.01, 0.1))] == [
        {"learning_rate": 0.01, "momentum": 0.5},
        {"learning_rate": 0.1, "momentum": 0.5},
    ]


def test_the_grid_shares_one_seed_and_fresh_seeds_differ_from_it_and_from_each_other():
    made = plan()
    study = made.study("sweep-1-grid", made.budget(100), 4)
    grid, fresh = made.trials(study, made.rates), made.seed_trials(study, 0.1)
    assert len({(trial.seed, trial.data_seed) for trial in grid}) == 1
    assert len({trial.seed for trial in (*grid, *fresh)}) == 1 + len(fresh)
    assert len({trial.data_seed for trial in (*grid, *fresh)}) == 1 + len(fresh)
    assert {trial.point["learning_rate"] for trial in fresh} == {0.1}
    assert [trial.number for trial in fresh] == [0, 1, 2, 3]
    assert [trial.origin for trial in fresh] == ["fresh seed 0", "fresh seed 1", "fresh seed 2", "fresh seed 3"]


def test_a_study_of_a_sweep_is_constant_without_augmentation_and_names_its_declaration():
    made = plan()
    study = made.study("sweep-1-probe-100", made.budget(100), 2)
    (trial,) = made.trials(study, (0.1,))
    assert set(trial.schedule.fractions()) == {1.0}
    assert len(trial.schedule) == 100
    assert (study.augment, study.warmup_steps, study.kind, study.round) == (False, 0, "sweep", None)
    assert dict(study.lineage) == {"sweep": made.digest}
    assert (study.hyperparameters[0].domain.low, study.hyperparameters[0].domain.high) == (1e-3, 1.0)


@pytest.mark.parametrize("steps", [100, 200, 400, 1000, 1600])
def test_a_longer_trial_is_evaluated_wherever_a_shorter_one_is(steps):
    """Else it could not inherit the measurements of the shorter one."""
    made = plan()
    shorter, longer = made.budget(100), made.budget(steps)
    assert set(shorter.evaluation_steps) <= set(longer.evaluation_steps)
    assert longer.evaluation_steps[-1] == longer.max_train_steps == steps
    assert shorter.evaluation_steps == tuple(range(5, 101, 5)), "20 evaluations of 100 steps"


def test_below_the_first_length_the_budget_is_that_of_its_own_steps():
    assert plan().budget(40).evaluation_steps == tuple(range(2, 41, 2))


@pytest.mark.parametrize(
    "changed",
    [
        {"sweep": replace(SWEEP, learning_rate=(1e-3, 1e-2, 1e-1))},
        {"sweep": replace(SWEEP, optimizer="adamw")},
        {"sweep": replace(SWEEP, start_steps=200)},
        {"sweep": replace(SWEEP, max_steps=3200)},
        {"sweep": replace(SWEEP, values={"hidden": 16})},
    ],
)
def test_another_declaration_is_another_sweep(changed):
    assert plan(**changed).digest != plan().digest


def test_the_margin_and_the_seeds_are_no_part_of_what_is_swept():
    """They are read after the grid is trained, so that another margin does not train it again."""
    assert plan(replace(SWEEP, margin=3.0, seeds=9)).digest == plan().digest
