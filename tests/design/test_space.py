"""A search space never holds the budget or the seed, and a hyperparameter under another parent is another one."""

import pytest

from tuner.design.hyperparameters import Constant, Hyperparameter, Range, choice, fixed, integers, log_uniform, uniform
from tuner.design.points import Point
from tuner.design.space import SearchSpace, branches
from tuner.errors import DeclarationError

LEARNING_RATE = log_uniform(1e-4, 1e-1)
BUDGETS = [
    "max_train_steps",
    "max_steps",
    "num_steps",
    "n_steps",
    "total_steps",
    "training_steps",
    "num_training_steps",
    "steps",
    "maxTrainSteps",
    "epochs",
    "num_epochs",
    "n_epochs",
    "max_epochs",
    "num_train_epochs",
    "epoch",
    "EPOCHS",
    "T_max",
    "t_max",
    "iterations",
    "max_iter",
    "n_iter",
    "total_iters",
    "train_iters",
    "training_iterations",
    "num_updates",
    "total_timesteps",
    "max_batches",
    "train_time",
    "steps_per_epoch",
]
SEEDS = [
    "seed",
    "SEED",
    "random_seed",
    "seeds",
    "seed_value",
    "rng",
    "random_state",
    "randomState",
    "data_seed",
    "torch_manual_seed",
]
INNOCENT = [
    "warmup_steps",
    "decay_fraction",
    "learning_rate",
    "batch_size",
    "momentum",
    "step_size",
    "num_layers",
    "width",
    "hidden_dim",
    "optimizer",
    "dropout",
    "time_embedding",
    "decay_steps",
    "timescale",
    "one_minus_beta2",
]


@pytest.mark.parametrize("name", BUDGETS)
@pytest.mark.parametrize("what", [integers(10, 100), 50], ids=["searched", "fixed"])
def test_a_step_budget_is_never_tuned_under_any_name(name, what):
    with pytest.raises(
        DeclarationError, match=rf"^{name} is a step budget and cannot be .* \(A11\); declare it on the"
    ):
        SearchSpace(learning_rate=LEARNING_RATE, **{name: what})


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("what", [integers(0, 9), choice(1, 2), 0], ids=["searched", "chosen", "fixed"])
def test_a_seed_is_never_tuned_under_any_name(name, what):
    with pytest.raises(DeclarationError, match=rf"^{name} is a random seed and is never tuned \(B14\).*Campaign\(seed"):
        SearchSpace(learning_rate=LEARNING_RATE, **{name: what})


@pytest.mark.parametrize("name", ["epochs", "seed"])
def test_a_budget_or_seed_is_not_hidden_in_a_branch_either(name):
    with pytest.raises(DeclarationError, match=f"{name} is a"):
        SearchSpace(optimizer=branches(sgd={name: integers(1, 9)}, adamw={"learning_rate": LEARNING_RATE}))


@pytest.mark.parametrize("name", INNOCENT)
def test_other_names_are_allowed(name):
    assert [h.name for h in SearchSpace(**{name: uniform(0.1, 0.5)})] == [name]


def test_a_dotted_name_belongs_to_branches():
    with pytest.raises(DeclarationError, match=r"'model.width' has a dot, .*; write 'model_width'"):
        SearchSpace(**{"model.width": 128})


@pytest.mark.parametrize("what", [[0.1, 0.2], {"min": 0, "max": 1}, (1, 2), object()])
def test_what_is_no_range_is_refused(what):
    with pytest.raises(DeclarationError, match=rf"dropout is declared as {type(what).__name__}; .* uniform\(...\)"):
        SearchSpace(dropout=what)


def test_a_name_declared_twice_is_refused():
    width = Hyperparameter("width", integers(1, 8))
    with pytest.raises(DeclarationError, match="declared twice in one search space: width"):
        SearchSpace.of((width, width))
    with pytest.raises(DeclarationError, match="declared twice in one search space: width"):
        SearchSpace.of((width,), (("width", Constant(3)),))


# --- a hyperparameter under another parent is another one (B13)

BRANCHED = SearchSpace(
    optimizer=branches(
        sgd={"learning_rate": log_uniform(1e-2, 10), "momentum": 0.9},
        adamw={"learning_rate": log_uniform(1e-5, 1e-2), "weight_decay": log_uniform(1e-4, 1e-1)},
    ),
    dropout=uniform(0, 0.5),
    width=64,
)


def test_the_same_word_under_another_parent_is_another_hyperparameter():
    names = ["optimizer", "sgd.learning_rate", "adamw.learning_rate", "adamw.weight_decay", "dropout"]
    assert [h.name for h in BRANCHED] == names
    assert BRANCHED["sgd.learning_rate"].domain == log_uniform(1e-2, 10)
    assert BRANCHED["adamw.learning_rate"].condition == ("optimizer", "adamw")
    assert BRANCHED["adamw.learning_rate"].short_name == "learning_rate"
    assert {h.name: h.family for h in BRANCHED} == dict(
        zip(names, ["optimizer", "optimizer", "optimizer", "regularization", "regularization"], strict=True)
    )


def test_a_point_has_only_the_hyperparameters_of_its_own_branch():
    sgd = BRANCHED.values_at((0.0, 0.5, 0.5, 0.5, 0.5))
    adamw = BRANCHED.values_at((0.9, 0.5, 0.5, 0.5, 0.5))
    assert list(sgd) == ["optimizer", "sgd.learning_rate", "dropout", "sgd.momentum", "width"]
    assert list(adamw) == ["optimizer", "adamw.learning_rate", "adamw.weight_decay", "dropout", "width"]
    assert (sgd["optimizer"], sgd["sgd.momentum"], sgd["width"]) == ("sgd", 0.9, 64)


def test_a_point_finds_the_learning_rate_of_its_branch():
    sgd = Point.of(BRANCHED.values_at((0.0, 0.5, 0.5, 0.5, 0.5)))
    adamw = Point.of(BRANCHED.values_at((0.9, 0.5, 0.5, 0.5, 0.5)))
    assert sgd["learning_rate"] == sgd["sgd.learning_rate"] == pytest.approx(10**-0.5)
    assert adamw["learning_rate"] == adamw["adamw.learning_rate"] == pytest.approx(10**-3.5)
    assert adamw["weight_decay"] == pytest.approx(10**-2.5)
    assert "weight_decay" not in sgd
    assert sgd.get("weight_decay", 0.0) == 0.0


def test_a_branch_survives_the_fixing_of_its_parent():
    """As when a promoted round keeps the winner's optimizer."""
    varied = tuple(h for h in BRANCHED if h.name != "optimizer")
    space = SearchSpace.of(varied, (("optimizer", Constant("adamw")), *BRANCHED.fixed))
    values = space.values_at((0.5, 0.5, 0.5, 0.5))
    assert list(values) == ["adamw.learning_rate", "adamw.weight_decay", "dropout", "optimizer", "width"]


def test_a_fixed_value_of_a_branch_belongs_to_its_own_parent_only():
    with pytest.raises(DeclarationError, match=r"small.depth exists for the value 'small', which model and data can"):
        SearchSpace(model=branches(small={"depth": 2}, big={"depth": 4}), data=choice("small", "large"))


@pytest.mark.parametrize(
    "declared",
    [
        {"learning_rate": LEARNING_RATE, "optimizer": branches(sgd={"learning_rate": LEARNING_RATE}, adamw={})},
        {"optimizer": branches(sgd={"learning_rate": LEARNING_RATE}, adamw={}),
         "model": branches(mlp={"learning_rate": LEARNING_RATE}, cnn={})},
        {"learning_rate": 0.1, "optimizer": branches(sgd={"learning_rate": 0.2}, adamw={})},
    ],
)  # fmt: skip
def test_a_short_name_that_could_mean_two_things_is_refused(declared):
    with pytest.raises(
        DeclarationError, match=r"learning_rate can exist twice at one point: .* \(B13\); declare it in"
    ):
        SearchSpace(**declared)


def test_branches_need_two_values_and_do_not_nest():
    with pytest.raises(DeclarationError, match=r"at least two values, got \['sgd'\]"):
        branches(sgd={"learning_rate": LEARNING_RATE})
    inner = branches(a={"x": uniform(0, 1)}, b={})
    with pytest.raises(DeclarationError, match=r"branches inside branches are not supported: a\.x under sgd"):
        SearchSpace(optimizer=branches(sgd={"kind": inner}, adamw={}))


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(DeclarationError, match=r"no hyperparameter 'lr' varies here; there are: optimizer, sgd\.l"):
        BRANCHED["lr"]
    with pytest.raises(KeyError, match="this point has no 'lr'; it has: width"):
        Point.of({"width": 3})["lr"]


def test_a_point_is_a_mapping_whose_values_can_be_replaced_by_their_short_names():
    point = Point.of({"optimizer": "sgd", "sgd.learning_rate": 0.1})
    changed = point.with_values(learning_rate=0.5, dropout=0.0)
    assert dict(changed) == {"optimizer": "sgd", "sgd.learning_rate": 0.5, "dropout": 0.0}
    assert dict(point) == {"optimizer": "sgd", "sgd.learning_rate": 0.1}
    assert len({point, changed, Point.of(dict(point))}) == 2


# --- off values (A22, A23)


def test_known_regularizers_are_off_at_zero_and_others_where_declared():
    space = SearchSpace(
        learning_rate=LEARNING_RATE,
        weight_decay=log_uniform(1e-5, 1e-1),
        dropout=choice(0.1, 0.3),
        label_smoothing=0.1,
        optimizer=branches(sgd={"momentum": uniform(0, 0.9)}, adamw={"mixup": 0.2}),
        crop=choice("none", "random", family="augmentation", off="none"),
        noise=fixed(0.5, family="regularization", off=0.0),
        temperature=uniform(1, 2, family="regularization", off=1.0),
    )
    assert space.off_values() == {
        "weight_decay": 0.0, "dropout": 0.0, "label_smoothing": 0.0, "adamw.mixup": 0.0, "crop": "none",
        "noise": 0.0, "temperature": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "what",
    [
        uniform(0.1, 1, family="regularization"),
        choice("a", "b", family="regularization"),
        fixed(0.5, family="regularization"),
    ],
)
def test_a_regularizer_without_an_off_value_cannot_be_in_a_sweep(what):
    space = SearchSpace(learning_rate=LEARNING_RATE, spectral_penalty=what)
    with pytest.raises(
        DeclarationError, match=r"but spectral_penalty \(regularization\) has no off value .*declare off="
    ):
        space.off_values()


def test_an_augmentation_without_an_off_value_cannot_be_in_a_sweep():
    with pytest.raises(DeclarationError, match=r"crop \(augmentation\) has no off"):
        SearchSpace(crop=uniform(0, 1, family="augmentation")).off_values()


# --- wider spaces


def test_a_widened_space_differs_in_one_range_only():
    wider = BRANCHED.widened("sgd.learning_rate", 1e-3, 10.0)
    assert wider["sgd.learning_rate"].domain == Range(1e-3, 10.0, log=True)
    assert [h for h in wider if h.name != "sgd.learning_rate"] == [h for h in BRANCHED if h.name != "sgd.learning_rate"]
    assert wider.fixed == BRANCHED.fixed
    assert BRANCHED["sgd.learning_rate"].domain.low == 1e-2


def test_only_a_range_that_exists_can_be_widened():
    with pytest.raises(DeclarationError, match="no hyperparameter 'learning_rate' varies here"):
        BRANCHED.widened("learning_rate", 1e-3, 10.0)
    with pytest.raises(DeclarationError, match="optimizer is a choice and has no range to widen"):
        BRANCHED.widened("optimizer", 0, 1)
    with pytest.raises(DeclarationError, match="low < high, got 3 and 1"):
        SearchSpace(width=integers(1, 8)).widened("width", 3, 1)
