"""What the words of a study file mean to a training that is not ours: one table, in code and in the docs."""

import re
from dataclasses import fields
from pathlib import Path
from types import CodeType

import pytest

from tuner import (
    Campaign,
    OwnLoop,
    Round,
    SearchSpace,
    Sweep,
    Workload,
    at_most,
    branches,
    choice,
    constant,
    cosine,
    epochs,
    examples,
    log_grid,
    log_uniform,
    minimize,
    uniform,
)
from tuner.cli.training_options import TrainingOptions
from tuner.design.words import DOORS, WORDS, door_of, ignored_words
from tuner.design.workload import words_of
from tuner.errors import DeclarationError
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.rounds.sweep import sweep_plan

PAGE = (Path(__file__).parents[2] / "docs/reference/delegated.md").read_text(encoding="utf-8")
PLACES = {
    "Arguments of a C": "Campaign",
    "Arguments of a R": "round",
    "Functions": "function",
    "Attributes": "attribute",
    "Methods": "method",
    "Names": "space",
    "Options": "option",
}
SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1.0), dropout=uniform(0.0, 0.5))


class Loop(OwnLoop):
    select_by = minimize("validation/loss")
    fitted_when = at_most("training/error_rate", 0.0)

    def train(self, trial):
        raise AssertionError("nothing is trained by a declaration")


class OwnRates(Loop):
    follows_schedule = False


def campaign(workload=None, space=SPACE, **changes):
    rounds = [Round("Which?", trials=4, max_train_steps=100, space=space)]
    return Campaign(workload or Loop(), **({"rounds": rounds, "name": "words"} | changes))


def tables():
    """Place and name to the cells of the row."""
    for part in PAGE.split("\n## ")[1:]:
        place = next((one for title, one in PLACES.items() if part.startswith(title)), None)
        for row in re.findall(r"^\| `([^`]+)` \| (.*) \|$", part, re.MULTILINE) if place else ():
            yield (place, row[0]), row[1].split(" | ")


def test_the_page_and_the_records_say_the_same_of_every_word_at_every_door():
    said = {(word.place, word.name): [word.at(door) for door in DOORS] for word in WORDS}
    shown = {}
    for key, cells in tables():
        shown[key] = [cells[0] if cell == "the same" else cell for cell in cells]
    assert shown == said
    assert f"| word | {' | '.join(DOORS.values())} |" in PAGE


def test_every_word_of_the_program_has_a_row():
    known = {place: {word.name for word in WORDS if word.place == place} for place in PLACES.values()}
    assert {one.name for one in fields(Campaign)} - {"workload", "rounds", "name"} <= known["Campaign"]
    attributes, methods = words_of(Workload)
    assert set(attributes) <= known["attribute"]
    assert set(methods) - {"provenance", "num_examples"} <= known["method"]
    ours = {"study", "storage", "checkpoints", "fork_server", "time_limit", "quiet", "workers_per_gpu"}
    ours |= {"torchrun", "ranks"}  # what a starter of processes says in the environment, and no option
    options = {f"--{one.name.replace('_', '-')}" for one in fields(TrainingOptions) if one.name not in ours}
    assert options <= known["option"] | {"--retry-failed"}


def test_every_text_begins_with_what_becomes_of_the_word():
    for word in WORDS:
        for door in DOORS:
            assert re.match("honoured|yours: |refused: ", word.at(door)), word.name


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"optimizer": "adamw"}, r"optimizer = 'adamw' would change nothing, because Loop.train trains; .*torch.optim"),
        ({"sweep": Sweep(log_grid(1e-2, 1), optimizer="sgd")}, "optimizer = 'sgd' would change nothing"),
    ],
)
def test_what_a_loop_decides_itself_is_refused_by_name_with_the_place_to_say_it(changes, told):
    with pytest.raises(DeclarationError, match=told):
        campaign(**changes)


def test_each_door_is_told_its_own_place():
    doors = {door: type(door.title(), (Loop,), {"door": door})() for door in DOORS if door != "asking"}
    told = {}
    for door, workload in {**doors, "asking": OwnLoop(select_by=minimize("validation/loss"))}.items():
        assert door_of(workload) == door
        with pytest.raises(DeclarationError) as refused:
            campaign(workload, optimizer="adamw")
        told[door] = str(refused.value)
    assert "configure_optimizers" in told["lightning"]
    assert 'args={"optim": ...}' in told["trainer"]
    assert "in the command" in told["command"]
    assert "in your own code" in told["asking"]


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": cosine()}, {"schedule": constant()}, {"warmup": 0.05}, {"warmup_steps": 5},
        {"sweep": Sweep(log_grid(1e-2, 1.0))},
        {"rounds": [Round("a", trials=4, max_train_steps=9, space=SPACE), Round("b", promote=1, transfer="rescale")]},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_words_of_a_schedule_are_refused_where_the_training_has_its_own(changes):
    with pytest.raises(DeclarationError, match="OwnRates trains by a schedule of its own"):
        campaign(OwnRates(), **changes)
    campaign(**changes)


def test_what_is_not_given_is_not_in_the_study():
    study = study_of_round(campaign(OwnRates()), 1, 100)
    assert (study.optimizer, study.batch_size, study.num_examples) == (None, 0, None)
    assert study.schedule.name == "own"
    assert study_of_round(campaign(), 1, 100).schedule.name == "constant_then_decay"
    assert campaign().optimizer is None


@pytest.mark.parametrize("name", [word.name for word in WORDS if word.place == "attribute" and word.instead("loop")])
def test_an_attribute_of_a_workload_that_nothing_reads_is_refused_and_one_that_the_loop_reads_is_its_own(name):
    value = {"no_decay": "vectors", "not_averaged": ("score",)}.get(name, 4)
    with pytest.raises(DeclarationError, match=rf"Mine.{name} = .* would change nothing, because Mine.train trains"):
        campaign(type("Mine", (Loop,), {name: value})())

    def train(self, trial):
        return lambda: self.standing

    outer = train.__code__
    inner = next(one for one in outer.co_consts if isinstance(one, CodeType))
    reading = inner.replace(co_names=(name,))  # as if it were written `lambda: self.data_workers`
    train.__code__ = outer.replace(co_consts=tuple(reading if one is inner else one for one in outer.co_consts))
    campaign(type("Mine", (Loop,), {name: value, "train": train})())


def test_a_method_of_a_workload_that_nothing_calls_is_told_and_one_that_is_called_is_not():
    class Helped(Loop):
        def train(self, trial):
            return self.loss(1)

        def loss(self, batch):
            return batch

        def metrics(self, model, batch):
            return {}

    campaign(Helped())
    assert [line.partition(",")[0] for line in ignored_words(Helped())] == ["nothing calls Helped.metrics"]


def test_misspelt_names_are_told():
    def wrong(**declared):
        return type("Wrong", (OwnLoop,), declared)()

    def train(self, trial): ...

    objective = minimize("validation/loss")
    with pytest.raises(DeclarationError, match=r"OwnLoop declares no select_by; give it: OwnLoop\(\.\.\., select_by="):
        campaign(OwnLoop())
    with pytest.raises(DeclarationError, match=r"declares no select_by; .*in place of selectby"):
        campaign(wrong(selectby=objective, train=train))
    with pytest.raises(
        DeclarationError, match=r"no train\(self, trial\), and nothing calls Wrong.trian: call it train"
    ):
        campaign(wrong(select_by=objective, trian=train))
    fitted = wrong(select_by=objective, fitted_wen=at_most("training/loss", 0.1), train=train)
    campaign(fitted)
    assert ignored_words(fitted) == [
        "nothing reads Wrong.fitted_wen; did you mean fitted_when? Rename it if it is your own"
    ]
    with pytest.raises(DeclarationError, match="in place of fitted_wen"):
        campaign(fitted, sweep=Sweep(log_grid(1e-2, 1.0)))


def test_an_optimizer_in_the_space_may_have_any_texts_and_branches():
    space = SearchSpace(
        optimizer=branches(
            my_sgd={"learning_rate": log_uniform(1e-2, 1.0), "nesterov": choice(True, False)},
            my_adam={"learning_rate": log_uniform(1e-4, 1e-2), "clip_norm": choice(0.0, 1.0)},
        ),
        weight_decay=log_uniform(1e-5, 1e-1),
    )
    declared = campaign(space=space, sweep=Sweep(log_grid(1e-2, 1.0)))
    points = [dict(trial.point) for trial in planned_trials(study_of_round(declared, 1, 100))]
    assert {point["optimizer"] for point in points} == {"my_sgd", "my_adam"}
    for point in points:
        own = "nesterov" if point["optimizer"] == "my_sgd" else "clip_norm"
        assert set(point) == {
            "optimizer",
            f"{point['optimizer']}.learning_rate",
            f"{point['optimizer']}.{own}",
            "weight_decay",
        }
    assert dict(sweep_plan(declared, declared.sweep).values) == {
        "optimizer": "my_sgd", "nesterov": False, "weight_decay": 0.0,
    }  # fmt: skip
    chosen = Sweep(log_grid(1e-2, 1.0), values={"optimizer": "my_adam"})
    assert dict(sweep_plan(campaign(space=space, sweep=chosen), chosen).values) == {
        "optimizer": "my_adam", "clip_norm": 1.0, "weight_decay": 0.0,
    }  # fmt: skip


def test_points_without_a_rate_are_for_loops_that_ask_for_none():
    space = SearchSpace(width=choice(8, 16))
    study_of_round(campaign(space=space), 1, 100)
    study_of_round(campaign(OwnRates(), space=space), 1, 100)
    some = SearchSpace(optimizer=branches(a={"learning_rate": log_uniform(1e-2, 1.0)}, b={"size": choice(1, 2)}))
    study_of_round(campaign(OwnRates(), space=some), 1, 100)
    with pytest.raises(DeclarationError, match="points without a learning_rate"):
        study_of_round(campaign(space=some), 1, 100)
    follows = type("Follows", (Loop,), {"follows_schedule": True})()
    with pytest.raises(DeclarationError, match="points without a learning_rate"):
        study_of_round(campaign(follows, space=space), 1, 100)
    arms = [Round("a", trials=4, max_train_steps=9, space=space), Round("b", promote=1, rate_arms=(1.0, 0.5))]
    with pytest.raises(DeclarationError, match="rate_arms of round 'b' are multiples of learning_rate"):
        campaign(rounds=arms)


@pytest.mark.parametrize(
    ("declared", "steps", "told"),
    [
        ({"batch_size": 64, "num_examples": 1000}, epochs(2), 30),
        ({"batch_size": 50}, examples(1000), 20),
        (
            {"batch_size": 64},
            epochs(2),
            r"production_steps = epochs\(2\) needs the number of training examples.*num_ex",
        ),
        ({"num_examples": 1000}, epochs(2), r"epochs\(2\) needs the number of examples in an update.*batch_size = 64"),
        ({}, examples(1000), "needs the number of examples in an update"),
    ],
)
def test_lengths_in_epochs_need_what_only_the_loop_knows(declared, steps, told):
    workload = type("Sized", (Loop,), declared)()
    made = campaign(workload, production_steps=steps, rounds=[Round("Which?", trials=4, space=SPACE)])
    if isinstance(told, int):
        assert made.in_steps(workload.num_examples or None).production_steps == told
        return
    with pytest.raises(DeclarationError, match=told):
        made.in_steps(workload.num_examples or None)


def test_a_number_of_examples_is_a_number():
    with pytest.raises(DeclarationError, match=r"Loop.num_examples must be a whole number of at least 0, got 'many'"):
        campaign(Loop(num_examples="many"))


def test_the_words_that_a_campaign_has_not_yet_have_a_place_in_the_table():
    rows = {word.name: word for word in WORDS if word.place == "Campaign"}
    for name in ("precision", "ema_steps"):
        assert all(rows[name].instead(door) for door in DOORS)


@pytest.mark.parametrize("declared", [{"slices": 4}, {"micro_batch_size": 32}])
def test_a_loop_cuts_its_batches_itself(declared):
    with pytest.raises(DeclarationError, match=r"would change nothing, because Cut\.train trains"):
        campaign(type("Cut", (Loop,), declared)())


@pytest.mark.parametrize("name", ["wd", "beta2", "batchSize", "optim"])
def test_a_loop_reads_hyperparameters_by_the_names_that_it_likes(name):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1.0), **{name: uniform(0.1, 0.5)})
    assert campaign(space=space).rounds[0].space == space


def test_the_rate_of_a_loop_has_the_name_that_the_schedule_needs():
    space = SearchSpace(lr=log_uniform(1e-3, 1.0))
    for workload in (Loop(), OwnLoop(select_by=minimize("validation/loss"))):
        with pytest.raises(DeclarationError, match=r"^lr is not known to the study, .* write learning_rate"):
            campaign(workload, space=space)
    assert campaign(OwnRates(), space=space).rounds[0].space == space, "its rates are its own"
