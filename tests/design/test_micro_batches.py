"""Slices and micro-batches as they are declared."""

import pytest

from tuner import Campaign, Round, SearchSpace, Workload, choice, log_uniform, minimize
from tuner.design.names import is_of_portions
from tuner.design.points import Point
from tuner.design.prefix import base_digest
from tuner.errors import DeclarationError
from tuner.rounds.plan import planned_trials, study_of_round


def workload(**declared):
    body = {"batch_size": 256, "select_by": minimize("validation/loss"), **declared}
    return type("Toy", (Workload,), body)()


def campaign(space=(), **declared):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), **dict(space))
    return Campaign(workload(**declared), [Round("a test", trials=4, max_train_steps=10, space=space)])


def study_for(space=(), **declared):
    return study_of_round(campaign(space, **declared), 1, 10)


@pytest.mark.parametrize(
    ("declared", "slices", "words"),
    [
        ({}, 1, ""),
        ({"slices": 8}, 8, "8 slices of 32 examples"),
        ({"micro_batch_size": 32}, 8, "8 slices of 32 examples"),
        ({"slices": 8, "micro_batch_size": 64}, 8, "8 slices of 32 examples"),
        ({"micro_batch_size": 256}, 1, ""),
    ],
)
def test_slices_are_declared_or_follow_from_the_micro_batch(declared, slices, words):
    study = study_for(**declared)
    assert study.slices_of(Point.of({"learning_rate": 0.1})) == slices
    assert study.slices_in_words == words


def test_a_searched_batch_size_has_slices_of_one_size():
    study = study_for({"batch_size": choice(64, 128)}, micro_batch_size=32)
    assert [study.slices_of(Point.of({"batch_size": size})) for size in (64, 128)] == [2, 4]
    assert study.slices_in_words == "slices of 32 examples"


@pytest.mark.parametrize(
    ("declared", "space", "message"),
    [
        ({"slices": 3}, {}, "batch_size = 256 cannot be cut into Toy.slices = 3 equal parts"),
        ({"slices": 0}, {}, "Toy.slices must be a whole number of at least 1"),
        ({"slices": True}, {}, "Toy.slices must be a whole number of at least 1"),
        ({"micro_batch_size": 0}, {}, "Toy.micro_batch_size must be a whole number of at least 1"),
        ({"micro_batch_size": "32"}, {}, "Toy.micro_batch_size must be a whole number of at least 1"),
        ({"micro_batch_size": 512}, {}, "micro_batch_size = 512 is larger than batch_size = 256"),
        ({"micro_batch_size": 48}, {}, "batch_size = 256 is no multiple of Toy.micro_batch_size = 48"),
        ({"slices": 8, "micro_batch_size": 16}, {}, "16 is no multiple of 32, the examples of one of the 8 slices"),
        ({"slices": 8}, {"batch_size": choice(64, 100)}, "batch_size = 100 cannot be cut into Toy.slices = 8"),
        ({"micro_batch_size": 32}, {"batch_size": 80}, "batch_size = 80 is no multiple of"),
    ],
)
def test_parts_that_are_not_equal_are_refused(declared, space, message):
    with pytest.raises(DeclarationError, match=message):
        campaign(space, **declared)


NAMES = [
    "micro_batch_size", "slices", "gradient_accumulation_steps", "accumulate_grad_batches", "accumulation_steps",
    "grad_accum", "per_device_train_batch_size", "gradientAccumulation",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [choice(2, 4), 4])
def test_how_a_batch_is_computed_is_not_searched(name, value):
    with pytest.raises(
        DeclarationError, match=f"{name} cannot be searched.*batch_size is what is tuned; micro_batch_s"
    ):
        campaign({name: value})


def test_other_names_may_be_searched():
    assert not any(map(is_of_portions, ["batch_size", "num_layers", "patch_size", "accumulate", "sliced"]))


def test_only_the_trial_that_is_cut_has_another_digest():
    def digest(**declared):
        study = study_for(**declared)
        return base_digest(study, planned_trials(study)[0], "a workload")

    assert digest(slices=1) == digest() == digest(micro_batch_size=256)
    assert digest(slices=8) == digest(micro_batch_size=32) == digest(slices=8, micro_batch_size=64)
    assert digest(slices=8) != digest()
