"""The words of a precision: of a campaign or a search space, and what they decide."""

from dataclasses import replace

import pytest
from support.tiny import Tiny, tiny_study

from tuner import Campaign, OwnLoop, Round, SearchSpace, branches, choice, log_uniform, minimize, uniform
from tuner.design.prefix import base_digest
from tuner.errors import DeclarationError
from tuner.rounds.plan import planned_trials, study_of_round

RATE = {"learning_rate": log_uniform(1e-4, 1e-1)}


def campaign(space=None, workload=None, **given):
    space = space or SearchSpace(**RATE)
    rounds = [Round("test", space=space, trials=8, max_train_steps=20)]
    given |= {} if workload else {"optimizer": "adamw"}
    return Campaign(workload=workload or Tiny(), rounds=rounds, **given)


@pytest.mark.parametrize("name", ["bf16", "fp16", "tf32", "float32"])
def test_a_study_keeps_the_precision_of_its_campaign(name):
    study = study_of_round(campaign(precision=name), 1, 20)
    assert study.precision == name
    assert study.declares_precision
    assert {study.precision_of(trial.point) for trial in planned_trials(study)} == {name}
    plain = study_of_round(campaign(), 1, 20)
    assert (plain.precision, plain.declares_precision) == ("", False)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("bfloat16", "did you mean 'bf16'"),
        ("16-mixed", "'fp16'"),
        (16, "'fp16'"),
        ("BF16", "did you mean 'bf16'"),
        ("int8", "'int8'"),
    ],
)
def test_another_name_is_refused_with_the_right_one(wrong, told):
    with pytest.raises(DeclarationError, match=rf"precision is one of float32, tf32, bf16, fp16, got.*{told}"):
        campaign(precision=wrong)
    with pytest.raises(DeclarationError, match=told):
        campaign(SearchSpace(**RATE, precision=choice("float32", wrong)))
    with pytest.raises(DeclarationError, match=told):
        campaign(SearchSpace(**RATE, precision=wrong))


def test_a_precision_is_no_number_and_said_once():
    with pytest.raises(DeclarationError, match=r'name of a precision and no number: choice\("float32", "bf16"\)'):
        campaign(SearchSpace(**RATE, precision=uniform(8, 16)))
    with pytest.raises(DeclarationError, match="both say it"):
        campaign(SearchSpace(**RATE, precision=choice("float32", "bf16")), precision="bf16")
    with pytest.raises(DeclarationError, match=r"precision is one of.*got None"):
        campaign(SearchSpace(**RATE, precision=choice("bf16", None)))


def test_a_branch_may_search_it_and_the_others_are_float32():
    space = SearchSpace(
        optimizer=branches(
            adamw={"learning_rate": log_uniform(1e-4, 1e-1), "precision": choice("bf16", "fp16")},
            sgd={"learning_rate": log_uniform(1e-3, 1.0)},
        )
    )
    study = study_of_round(campaign(space), 1, 20)
    found = {(trial.point["optimizer"], study.precision_of(trial.point)) for trial in planned_trials(study)}
    assert found == {("adamw", "bf16"), ("adamw", "fp16"), ("sgd", "float32")}
    wrong = SearchSpace(
        optimizer=branches(adamw={**RATE, "precision": choice("bf16", "half")}, sgd={"learning_rate": 0.1})
    )
    with pytest.raises(DeclarationError, match=r"adamw.precision is one of.*'half'; did you mean 'fp16'"):
        campaign(wrong)


def test_each_precision_has_prefixes_and_groups_of_its_own():
    study = study_of_round(campaign(SearchSpace(**RATE, precision=choice("float32", "bf16"))), 1, 20)
    trials = planned_trials(study)
    groups = {study.precision_of(trial.point): trial.shape_group for trial in trials}
    assert len(set(groups.values())) == 2
    first = trials[0]
    digests = {
        name: base_digest(study, replace(first, point=first.point.with_values(precision=name)), "w")
        for name in ("float32", "bf16")
    }
    assert digests["float32"] != digests["bf16"]
    plain = tiny_study()
    trial = planned_trials(plain)[0]
    of_campaign = [base_digest(replace(plain, precision=name), trial, "w") for name in ("", "float32", "bf16", "tf32")]
    assert len(set(of_campaign)) == 4


class Loop(OwnLoop):
    select_by = minimize("validation/loss")

    def train(self, trial):
        raise NotImplementedError


def test_who_trains_in_a_loop_of_their_own_says_it_there():
    with pytest.raises(DeclarationError, match=r"precision = 'bf16' would change nothing.*torch.autocast"):
        campaign(workload=Loop(), precision="bf16")
    found = campaign(SearchSpace(**RATE, precision=choice("double", "half")), workload=Loop())
    assert found.rounds[0].space is not None, "a hyperparameter of theirs, by any values"
