"""What a search space knows of adapters: families, real alphas, and the words of other tools."""

import pytest
from support.tiny import Tiny

from tuner import (
    Campaign,
    OwnLoop,
    Round,
    SearchSpace,
    branches,
    choice,
    fixed,
    integers,
    log_uniform,
    minimize,
    uniform,
)
from tuner.design.adapters import KOHYA_WORDS
from tuner.errors import DeclarationError


def test_the_names_of_an_adapter_have_families():
    space = SearchSpace(
        rank=choice(2, 4), lora_rank=integers(1, 8), alpha=log_uniform(1, 32), lora_dropout=uniform(0, 0.3)
    )
    assert {h.name: h.family for h in space} == {
        "rank": "architecture", "lora_rank": "architecture", "alpha": "optimizer", "lora_dropout": "regularization",
    }  # fmt: skip
    assert space.off_values() == {"lora_dropout": 0.0}


@pytest.mark.parametrize("name", ["alpha", "lora_alpha"])
@pytest.mark.parametrize("declared", [16, fixed(16), choice(4, 8, 16), integers(4, 16), integers(4, 16, log=True)])
def test_an_alpha_is_a_real_number_however_it_is_written(name, declared):
    space = SearchSpace(**{name: declared})
    values = [space.values_at((unit,) * len(space))[name] for unit in (0.0, 0.4, 1.0)]
    assert all(type(value) is float for value in values)
    assert max(values) == pytest.approx(16.0)
    assert min(values) == pytest.approx(16.0 if len(space) == 0 else 4.0)


def test_an_alpha_inside_a_branch_is_real_too_and_none_stays_none():
    space = SearchSpace(adapter=branches(lora={"alpha": choice(None, 8)}, full={}))
    assert space["lora.alpha"].domain.choices == (None, 8.0)


def test_a_rank_stays_whole():
    assert SearchSpace(rank=4).values_at(())["rank"] == 4
    assert type(SearchSpace(rank=4).values_at(())["rank"]) is int


def campaign_of(workload, name):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1.0), **{name: uniform(1, 2)})
    return Campaign(workload, rounds=[Round("?", trials=4, max_train_steps=10, space=space)])


@pytest.mark.parametrize("name", sorted(KOHYA_WORDS))
def test_kohyas_words_are_refused_with_the_right_one(name):
    with pytest.raises(DeclarationError) as error:
        campaign_of(Tiny(), name)
    assert f"{name} is a word of kohya's trainers" in str(error.value)
    assert KOHYA_WORDS[name] in str(error.value)


def test_a_loop_of_ones_own_has_words_of_its_own():
    class Loop(OwnLoop):
        batch_size, num_examples, select_by = 8, 80, minimize("validation/loss")

        def train(self, trial):
            trial.point["network_dim"]

    campaign_of(Loop(), "network_dim")
