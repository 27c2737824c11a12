"""A campaign that cannot be is refused when it is declared, with the value, the rule and the way out."""

import math
from dataclasses import replace

import pytest

from tuner.budget.by_share import by_share
from tuner.budget.families import cosine
from tuner.budget.step_budget import epochs, examples
from tuner.design.campaign import Campaign, Sweep
from tuner.design.hyperparameters import choice, fixed, integers, log_uniform, uniform
from tuner.design.objective import at_most, minimize
from tuner.design.optimizers import OPTIMIZERS
from tuner.design.round import Round
from tuner.design.space import Branches, SearchSpace, branches
from tuner.design.workload import Workload
from tuner.errors import DeclarationError


class Toy(Workload):
    batch_size = 8
    select_by = minimize("validation/loss")
    fitted_when = at_most("training/error_rate", 0.0)


def toy(**attributes):
    return type("Toy", (Toy,), attributes)()


SPACE = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1))
FIRST = Round("Which learning rate?", trials=8, space=SPACE)
LAST = Round("The final model", promote=3)


def test_the_smallest_campaign_is_a_workload_and_a_round():
    campaign = Campaign(Toy(), [FIRST])
    assert campaign.rounds == (FIRST,)
    assert campaign.round(1) is FIRST
    assert campaign.schedule.name == "constant_then_decay"
    assert campaign.sweep is None


@pytest.mark.parametrize("number", [0, 3, -1])
def test_an_unknown_round_is_answered_with_the_known_ones(number):
    with pytest.raises(DeclarationError, match=rf"there is no round {number}; this campaign declares 1\.\.2"):
        Campaign(Toy(), [FIRST, LAST]).round(number)


class NoBatchSize(Workload):
    select_by = minimize("validation/loss")


class NoSelection(Workload):
    batch_size = 8


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        (Toy, r"an instance of a Workload or OwnLoop subclass, like Digits\(\), got <class"),
        (lambda x: x, "an instance of a Workload or OwnLoop subclass, .*got <function"),
        (NoBatchSize(), "NoBatchSize declares no batch_size; write batch_size = 64 in the class"),
        (NoSelection(), r'NoSelection declares no select_by; write select_by = minimize\("validation/loss"\)'),
        (toy(batch_size=0), "Toy.batch_size must be a whole number of at least 1, got 0"),
        (toy(batch_size=None), "Toy.batch_size must be a whole number of at least 1, got None"),
        (toy(batch_size=6.4), "Toy.batch_size must be a whole number of at least 1, got 6.4"),
        (toy(evaluation_batch_size=0), "Toy.evaluation_batch_size must be a whole number of at least 1, got 0"),
        (toy(training_evaluation_examples=0), "training_evaluation_examples must be a whole number of at least 1, got"),
        (toy(select_by="validation/loss"), r"Toy.select_by is made by minimize\(.*, got 'validation/loss'"),
        (toy(fitted_when=0.0), r"Toy.fitted_when is made by at_most\(.*, got 0.0"),
        (toy(lengths=[3, 4]), r"Toy.lengths is a list, and must be a method: def lengths\(self\)"),
        (toy(split_metrics={}), r"Toy.split_metrics is a dict, and must be a method: def split_metrics\(self, each\)"),
        (toy(model=None), r"Toy.model is a NoneType, and must be a method: def model\(self, point\)"),
    ],
)
def test_what_is_no_workload_is_refused(workload, message):
    with pytest.raises(DeclarationError, match=message):
        Campaign(workload, [FIRST])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": []}, r"at least one round: rounds=\[Round\("),
        ({"rounds": FIRST}, r"rounds is a list of Round\(...\), got Round\("),
        ({"rounds": [SPACE]}, r"rounds is a list of Round\(...\), got \[SearchSpace"),
        ({"rounds": [LAST, FIRST]}, "the first round has no round before it to promote from; give it a space"),
        (
            {"optimizer": "adagard"},
            "radam, rmsprop, schedule_free_adamw, sgd, got 'adagard'; did you mean 'adagrad'",
        ),
        ({"optimizer": "AdamW"}, "got 'AdamW'; did you mean 'adamw'"),
        ({"sweep": True}, r"sweep is made by Sweep\(...\), got True"),
        ({"schedule": "cosine"}, r"schedule is made by constant\(\), linear\(\), .*got 'cosine'"),
        ({"schedule": cosine}, r"schedule=cosine is the function itself; call it: schedule=cosine\(\.\.\.\)"),
        ({"regime": "compute-bound"}, "regime is one of compute_bound, .*got 'compute-bound'"),
        ({"evaluations": 0}, "evaluations must be a whole number of at least 1, got 0"),
        ({"keep_best": 0}, "keep_best must be a whole number of at least 1, got 0"),
        ({"warmup_steps": -1}, "warmup_steps must be a whole number of at least 0, got -1"),
        ({"warmup_steps": 0.1}, "warmup_steps must be a whole number of at least 0, got 0.1"),
        ({"production_steps": 0}, "production_steps must be a whole number of at least 1, got 0"),
        ({"seed": None}, "seed must be a whole number of at least 0, got None"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(DeclarationError, match=message):
        Campaign(Toy(), **{"rounds": [FIRST], **settings})


@pytest.mark.parametrize(
    "optimizer",
    [choice("sgd", "lamb"), fixed("lamb"), "lamb", branches(sgd={"momentum": uniform(0, 0.9)}, lamb={})],
)
def test_an_optimizer_chosen_by_a_space_must_be_known_too(optimizer):
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), optimizer=optimizer)
    with pytest.raises(DeclarationError, match="sgd, got 'lamb'"):
        Campaign(Toy(), [Round("Which optimizer?", trials=8, space=space)])


@pytest.mark.parametrize(
    ("optimizer", "declared", "told"),
    [
        (
            "adamw",
            {"momentum": uniform(0, 0.9)},
            "momentum would change nothing: it is read by muon, rmsprop, sgd",
        ),
        ("lion", {"centered": choice(False, True)}, "centered would change nothing: it is read by rmsprop only"),
        ("adam", {"momentum_decay": 0.01}, "momentum_decay would change nothing: it is read by nadam only"),
        ("adamw", {"clip_threshold": 1.5}, "clip_threshold would change nothing: it is read by adafactor only"),
        ("sgd", {"epsilon": 1e-8}, "epsilon would change nothing: it is read by .*adam, adamw,.* only.* with sgd;"),
        ("sgd", {"optimizer": branches(sgd={}, adam={"momentum": uniform(0, 0.9)})}, "adam.momentum would change"),
        ("adamw", {"optimizer": "sgd", "one_minus_beta1": log_uniform(0.01, 1)}, "one_minus_beta1 would change"),
        ("sgd", {"momentum": 0.9, "one_minus_momentum": log_uniform(0.01, 1)}, "say the same"),
    ],
)
def test_what_no_optimizer_of_a_round_reads_is_refused(optimizer, declared, told):
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), **declared)
    with pytest.raises(DeclarationError, match=told):
        Campaign(Toy(), [Round("Which?", trials=8, space=space)], optimizer=optimizer)


@pytest.mark.parametrize(
    "clip_norm", [0, -1.0, True, "strong", uniform(-1.0, 1.0), choice(None, 0.0), choice(1.0, "none")]
)
@pytest.mark.parametrize("branch", [False, True])
def test_a_clip_norm_under_which_nothing_is_trained_is_refused(clip_norm, branch):
    declared = {"optimizer": branches(sgd={"clip_norm": clip_norm}, adamw={})} if branch else {"clip_norm": clip_norm}
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), **declared)
    with pytest.raises(DeclarationError, match=r"clip_norm is the largest norm of a gradient, a number above 0, got"):
        Campaign(Toy(), [Round("Which?", trials=8, space=space)])


@pytest.mark.parametrize("clip_norm", [1, 0.5, 1e9, uniform(0.0, 1.0), log_uniform(0.1, 10.0), choice(None, 1.0)])
def test_a_clip_norm_that_may_be_one_is_taken(clip_norm):
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), clip_norm=clip_norm)
    assert Campaign(Toy(), [Round("Which?", trials=8, space=space)]).rounds[0].space == space


@pytest.mark.parametrize(
    ("optimizer", "declared"),
    [
        ("sgd", {"one_minus_momentum": log_uniform(0.01, 1), "nesterov": choice(False, True)}),
        ("adamw", {"optimizer": choice("sgd", "adamw"), "momentum": uniform(0, 0.9), "epsilon": 1e-8}),
        ("adamw", {"optimizer": branches(sgd={"momentum": uniform(0, 0.9)}, adamw={})}),
        *[(spec.name, {k: v for k, v in spec.ranges.items() if k != "learning_rate"}) for spec in OPTIMIZERS.own],
    ],
)
def test_what_one_optimizer_of_a_round_reads_is_taken(optimizer, declared):
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), **declared)
    Campaign(Toy(), [Round("Which?", trials=8, space=space)], optimizer=optimizer)


def test_a_sweep_needs_to_know_when_the_training_set_is_fitted():
    with pytest.raises(DeclarationError, match=r"fitted, and Toy does not say; write fitted_when = at_most\("):
        Campaign(toy(fitted_when=None), [FIRST], sweep=Sweep())


def test_a_sweep_needs_to_know_how_to_switch_regularization_off():
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), jitter=uniform(0.1, 1, family="augmentation"))
    rounds = [Round("Which learning rate?", trials=8, space=space)]
    assert Campaign(Toy(), rounds, production_steps=1000).sweep is None
    with pytest.raises(DeclarationError, match=r"jitter \(augmentation\) has no off value \(A22, A23\); declare off="):
        Campaign(Toy(), rounds, sweep=Sweep())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"goal": "  ", "promote": 1}, r"a round needs a goal in words \(B9\)"),
        ({}, r"round 'Why\?' needs either a space \(new points\) or promote=N"),
        ({"space": SPACE, "trials": 8, "promote": 3}, "needs either a space .* and not both"),
        ({"space": SPACE}, r"round 'Why\?' has a space but no number of trials; give trials=32, say"),
        ({"space": SPACE, "trials": 0}, r"trials of round 'Why\?' must be a whole number of at least 1, got 0"),
        ({"space": SPACE, "trials": "8"}, "must be a whole number of at least 1, got '8'"),
        ({"space": {"learning_rate": 1}, "trials": 8}, r"must be a SearchSpace\(...\), got \{'learning_rate': 1\}"),
        ({"space": SearchSpace(width=64), "trials": 8}, "varies nothing; give at least one range"),
        ({"promote": 0}, "promote of round .* must be a whole number of at least 1, got 0"),
        ({"promote": 3, "trials": 0}, "trials of round .* must be a whole number of at least 1, got 0"),
        ({"promote": 3, "max_train_steps": 0}, "max_train_steps of round .* at least 1, got 0"),
        ({"promote": 3, "max_train_steps": 1e4}, "max_train_steps of round .* at least 1, got 10000.0"),
        ({"promote": 2, "fresh": 3}, "wants 3 promoted points with fresh seeds and promotes 2"),
        ({"promote": 2, "fresh": -1}, "fresh of round .* at least 0, got -1"),
        ({"promote": 2, "transfer": "stretch"}, "hold_then_decay, rescale, retune, got 'stretch'"),
        ({"promote": 2, "rate_arms": (0.5,)}, r"1 among them, like \(1.0, 0.5\); got \(0.5,\) \(D20\)"),
        ({"promote": 2, "rate_arms": (1.0, 0.0)}, "rate_arms of round 'Why\\?' are different positive multiples"),
        ({"space": SPACE, "trials": 8, "transfer": "rescale"}, "has transfer, which say how .* it promotes none"),
    ],
)
def test_a_round_that_cannot_be_is_refused(settings, message):
    with pytest.raises(DeclarationError, match=message):
        Round(**{"goal": "Why?", **settings})


def test_a_sweep_has_three_rates_a_decade_unless_told():
    grid = Sweep().learning_rate
    assert len(grid) == 13
    assert (grid[0], grid[-1]) == (1e-4, 1.0)
    assert Sweep(learning_rate=[0.1, 0.2, 0.3]).learning_rate == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": (0.1, 0.2)}, r"at least 3 positive learning rates in ascending order, got \[0.1, 0.2\]"),
        ({"learning_rate": (0.1, 0.3, 0.2)}, r"ascending order, got \[0.1, 0.3, 0.2\]"),
        ({"learning_rate": (0.1, 0.1, 0.2)}, r"ascending order, got \[0.1, 0.1, 0.2\]"),
        ({"learning_rate": (0.0, 0.1, 0.2)}, r"positive learning rates .*got \[0.0, 0.1, 0.2\]"),
        ({"learning_rate": (math.nan, 0.1, 0.2)}, r"positive learning rates .*got \[nan, 0.1, 0.2\]"),
        ({"learning_rate": (0.1, 0.2, math.inf)}, r"positive learning rates .*got \[0.1, 0.2, inf\]"),
        ({"learning_rate": 0.1}, r"is a grid, like log_grid\(1e-4, 1.0\), got 0.1"),
        ({"learning_rate": log_uniform(1e-4, 1)}, r"is a grid, like log_grid\(1e-4, 1.0\), got Range\("),
        ({"start_steps": 0}, "start_steps must be a whole number of at least 1, got 0"),
        ({"start_steps": 500, "max_steps": 400}, r"start_steps must lie in 1\.\.max_steps, got 500 and 400"),
        ({"seeds": 0}, "seeds must be a whole number of at least 1, got 0"),
        ({"margin": 0.5}, r"margin must be a number of at least 1 \(in doubt longer, A9\), got 0.5"),
        ({"margin": math.nan}, "margin must be a number of at least 1 .*got nan"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(settings, message):
    with pytest.raises(DeclarationError, match=message):
        Sweep(**settings)


def test_a_workload_that_lacks_a_method_says_which_and_what_it_returns():
    for call, message in (
        (lambda w: w.data(), r"Toy.data must return Splits\(training=..., validation=...\)"),
        (lambda w: w.model({}), "Toy.model must return a torch.nn.Module"),
        (lambda w: w.loss(None, None, {}), "Toy.loss must return a scalar tensor"),
        (lambda w: w.metrics(None, None), r"Toy.metrics must return a dict of tensors \[examples\]"),
    ):
        with pytest.raises(NotImplementedError, match=message):
            call(Toy())


def test_a_workload_augments_where_it_declares_so():
    class Augmented(Toy):
        def augment(self, batch, point, generator):
            return batch

    assert Augmented().augments
    assert not Toy().augments


# --- schedules, warmup and lengths in other words


def test_a_schedule_may_be_a_function_of_the_share_of_training():
    campaign = Campaign(Toy(), [FIRST], schedule=lambda share: 1.0 - share)
    assert campaign.schedule_family == by_share(lambda share: 1.0 - share)
    assert replace(campaign, seed=1).schedule_family == campaign.schedule_family


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup": 0.0}, "warmup is a share of the steps of round 1, between 0 and 1, like 0.05, got 0.0"),
        ({"warmup": 100}, "between 0 and 1, like 0.05, got 100; a number of steps is warmup_steps"),
        ({"warmup": math.nan}, "between 0 and 1, like 0.05, got nan"),
        ({"warmup": "5%"}, "between 0 and 1, like 0.05, got '5%'"),
        ({"warmup": 0.05, "warmup_steps": 10}, "warmup = 0.05 and warmup_steps = 10 both say how long the warmup is"),
        ({"warmup": 0.3}, r"warmup = 0.3 is 30% of round 1, and more than 20% leaves .*if you mean it, warmup_steps"),
        ({"evaluate_every": 0}, "evaluate_every must be a whole number of at least 1, got 0"),
        ({"evaluate_every": 10, "evaluations": 30}, "evaluations = 30 and evaluate_every = 10 both say how often"),
        ({"schedule": lambda share: math.nan}, "gives nan at the share 0 of training, which is no learning rate"),
        ({"evaluations": epochs(1)}, r"evaluations must be a whole number of at least 1, got epochs\(1\)"),
        ({"seed": epochs(1)}, r"seed must be a whole number of at least 0, got epochs\(1\)"),
    ],
)
def test_what_a_campaign_cannot_train_is_refused(settings, message):
    with pytest.raises(DeclarationError, match=message):
        Campaign(Toy(), [FIRST], **settings)


def test_a_warmup_of_a_share_is_that_of_the_steps_of_round_1():
    campaign = Campaign(Toy(), [FIRST], warmup=0.05)
    assert [campaign.with_warmup(steps).warmup_steps for steps in (1000, 1010, 7)] == [50, 50, 1]
    assert campaign.with_warmup(1000).with_warmup(2000).warmup_steps == 50, "steps are not a share any more"
    assert Campaign(Toy(), [FIRST], warmup_steps=7).with_warmup(1000).warmup_steps == 7


def in_epochs(**changes):
    declared = {
        "rounds": [replace(FIRST, max_train_steps=epochs(2)), LAST],
        "production_steps": epochs(20),
        "warmup_steps": examples(100),
        "evaluate_every": epochs(0.1),
        "sweep": Sweep(start_steps=epochs(1), max_steps=examples(80_000)),
    }
    return Campaign(Toy(), **declared | changes)


@pytest.mark.parametrize("steps", [5, integers(1, 10), branches(sgd={"warmup_steps": 5}, adamw={})])
def test_a_warmup_of_a_share_is_refused_beside_warmup_steps_of_a_search_space(steps):
    named = {"optimizer" if isinstance(steps, Branches) else "warmup_steps": steps}
    rounds = [replace(FIRST, space=SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), **named))]
    with pytest.raises(DeclarationError, match=r"warmup = 0.05 and warmup_steps of a search space both say how long"):
        Campaign(Toy(), rounds, warmup=0.05)


def test_lengths_in_epochs_and_examples_become_steps_once_the_data_are_known():
    """1,003 examples in batches of 8 are 125 steps an epoch."""
    campaign = in_epochs()
    assert not campaign.is_in_steps
    resolved = campaign.in_steps(1003)
    assert resolved.is_in_steps
    assert resolved.rounds[0].max_train_steps == 250
    assert (resolved.production_steps, resolved.warmup_steps, resolved.evaluate_every) == (2500, 13, 13)
    assert (resolved.sweep.start_steps, resolved.sweep.max_steps) == (125, 10_000)
    assert resolved.in_steps(5) is resolved
    assert resolved.budget(2500).evaluation_steps[:2] == (13, 26)
    assert resolved.budget(5).evaluation_steps == (5,)


def test_what_is_wrong_in_steps_is_found_when_they_are_known():
    with pytest.raises(DeclarationError, match=r"start_steps must lie in 1\.\.max_steps, got 125 and 100"):
        in_epochs(sweep=Sweep(start_steps=epochs(1), max_steps=100)).in_steps(1003)
    with pytest.raises(DeclarationError, match="round 1 declares 250 steps, more than production_steps = 200"):
        in_epochs(production_steps=200).in_steps(1003)


def test_examples_of_a_stream_are_steps_and_its_epochs_are_refused():
    stream = Campaign(Toy(), [replace(FIRST, max_train_steps=examples(8000))])
    assert stream.in_steps(None).rounds[0].max_train_steps == 1000
    with pytest.raises(DeclarationError, match="is a stream, which has no epochs; write a number of steps, or exampl"):
        in_epochs().in_steps(None)


SEARCHED = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), batch_size=choice(8, 16))
BRANCHED = SearchSpace(
    optimizer=branches(
        sgd={"learning_rate": log_uniform(1e-3, 1.0), "batch_size": choice(8, 16)},
        adamw={"learning_rate": log_uniform(1e-4, 1e-1)},
    )
)
FIXED = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), batch_size=fixed(16))


@pytest.mark.parametrize("space", [SEARCHED, BRANCHED])
def test_epochs_are_refused_where_the_batch_size_is_searched(space):
    rounds = [Round("x", trials=8, space=space, max_train_steps=epochs(2))]
    with pytest.raises(DeclarationError, match=r"max_train_steps = epochs\(2\) would give trials of different .*\(A11"):
        Campaign(Toy(), rounds).in_steps(1003)
    assert Campaign(Toy(), [replace(rounds[0], max_train_steps=250)]).in_steps(1003).rounds[0].max_train_steps == 250


def test_a_fixed_batch_size_of_all_rounds_counts_and_different_ones_are_refused():
    first = Round("x", trials=8, space=FIXED, max_train_steps=epochs(2))
    assert Campaign(Toy(), [first]).in_steps(1003).rounds[0].max_train_steps == 2 * 62
    with pytest.raises(DeclarationError, match="batch_size differs between trials here"):
        Campaign(Toy(), [first, Round("y", trials=8, space=SPACE)]).in_steps(1003)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("lr", "learning_rate"), ("LR", "learning_rate"), ("wd", "weight_decay"), ("beta2", "one_minus_beta2"),
     ("batchSize", "batch_size"), ("learningRate", "learning_rate")],
)  # fmt: skip
def test_another_tools_word_for_what_the_trainer_understands_is_refused(name, meant):
    rate = log_uniform(1e-3, 1.0)
    inside = branches(sgd={name: rate}, adamw={"learning_rate": rate})
    for space in (
        SearchSpace(**{name: rate}),
        SearchSpace(width=integers(1, 9), **{name: 0.1}),
        SearchSpace(kind=inside),
    ):
        with pytest.raises(DeclarationError, match=f"^{name} is not known to the trainer .*; write {meant}$"):
            Campaign(Toy(), [Round("Which?", trials=8, space=space)])
