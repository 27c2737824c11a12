"""Where an Optuna parameter exists: what the objective function said, found again from its trials."""

import warnings

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from support.shell import tuner

from tuner.analysis.round_frames import round_frames
from tuner.design.hyperparameters import Span, condition_words, fulfils
from tuner.errors import DeclarationError
from tuner.interchange.imported import write_imported
from tuner.interchange.optuna_in import OptunaTerms, imported_from_optuna
from tuner.interchange.optuna_out import export_to_optuna
from tuner.storage.store import open_ledger

__all__ = ["tuner"]


def imported(folder, suggest, trials=24, seed=0, terms=None, catch=()):
    memory, journal = optuna.storages.InMemoryStorage(), folder / "o.log"  # hundreds of commits less
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="s", storage=memory, sampler=optuna.samplers.RandomSampler(seed=seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna on tuples
        study.optimize(lambda trial: float(suggest(trial) or trial.number), n_trials=trials, catch=catch)
        to_storage = JournalStorage(JournalFileBackend(str(journal)))
        optuna.copy_study(from_study_name="s", from_storage=memory, to_storage=to_storage)
    return imported_from_optuna(str(journal), "s", terms or OptunaTerms())


def conditions(made):
    return {h.name: h.condition for h in made.study.hyperparameters}


def test_booleans_and_whole_numbers_decide_what_exists(tmp_path):
    """The study of a real person: a schedule's gamma, and the units of each layer."""

    def suggest(trial):
        trial.suggest_float("lr", 1e-4, 1.0, log=True)
        if trial.suggest_categorical("use_sched", [True, False]):
            trial.suggest_float("gamma", 0.1, 0.9)
        for k in range(trial.suggest_int("n_layers", 1, 3)):
            trial.suggest_int(f"units_{k}", 16, 256, log=True)

    made = imported(tmp_path, suggest)
    assert conditions(made) == {
        "lr": None, "use_sched": None, "n_layers": None, "units_0": None, "gamma": ("use_sched", True),
        "units_1": ("n_layers", Span(2, None)), "units_2": ("n_layers", Span(3, None)),
    }  # fmt: skip
    assert not any("explains" in note for note in made.notes)
    for one in made.trials:
        point = dict(one.trial.point.values_by_name)
        assert ("units_2" in point) == (point["n_layers"] == 3)
        assert ("gamma" in point) == point["use_sched"]


@pytest.mark.parametrize(
    ("suggest", "name", "condition"),
    [
        (lambda t: t.suggest_int("n", 1, 4) in (1, 3) and t.suggest_float("x", 0, 1), "x", ("n", (1, 3))),
        (lambda t: t.suggest_int("n", 1, 6) <= 2 and t.suggest_float("x", 0, 1), "x", ("n", Span(None, 2))),
        (lambda t: 2 <= t.suggest_int("n", 1, 6) <= 4 and t.suggest_float("x", 0, 1), "x", ("n", Span(2, 4))),
        (
            lambda t: t.suggest_categorical("n", [1, 2, 8]) >= 2 and t.suggest_float("x", 0, 1),
            "x",
            ("n", Span(2, None)),
        ),
        (
            lambda t: t.suggest_categorical("c", [None, "a", 1.5]) is None and t.suggest_float("x", 0, 1),
            "x",
            ("c", None),
        ),
    ],
)
def test_sets_and_spans_are_found(tmp_path, suggest, name, condition):
    found = conditions(imported(tmp_path, suggest, trials=50))[name]
    assert found[0] == condition[0]
    assert found[1] == condition[1] or set(found[1]) == set(condition[1])


def test_a_threshold_of_a_real_number_needs_evidence(tmp_path):
    def suggest(trial):
        if trial.suggest_float("dropout", 0.0, 1.0) > 0.5:
            trial.suggest_float("rate", 0.0, 1.0)
        if trial.number % 2:
            trial.suggest_float("odd", 0.0, 1.0)

    made = imported(tmp_path, suggest, trials=40)
    parent, span = conditions(made)["rate"]
    assert (parent, span.high) == ("dropout", None)
    drawn = [dict(one.trial.point.values_by_name) for one in made.trials]
    assert all(("rate" in point) == (point["dropout"] in span) for point in drawn)
    assert 0.4 < span.low < 0.6
    assert conditions(made)["odd"] == ("odd", Span()), "it exists where it was suggested, and nothing says why"
    assert any("odd exists in 20 of 40 trials, and no other parameter explains where" in note for note in made.notes)


def test_conditions_inside_conditions(tmp_path):
    def suggest(trial):
        if trial.suggest_categorical("opt", ["sgd", "adam"]) == "sgd":
            if trial.suggest_categorical("nesterov", [True, False]):
                trial.suggest_float("momentum", 0.5, 0.99)
        else:
            trial.suggest_float("beta", 0.5, 0.99)

    made = imported(tmp_path, suggest)
    assert conditions(made) == {
        "opt": None,
        "sgd.nesterov": ("opt", "sgd"),
        "momentum": ("sgd.nesterov", True),
        "adam.beta": ("opt", "adam"),
    }


def test_ranges_that_differ_under_a_boolean_or_a_number_are_two_hyperparameters(tmp_path):
    def suggest(trial):
        trial.suggest_float("lr", *((1e-3, 1.0) if trial.suggest_categorical("warm", [True, False]) else (1e-5, 1e-2)))
        trial.suggest_int("units", 8, 16 if trial.suggest_int("depth", 1, 4) > 2 else 64)

    varied = imported(tmp_path, suggest).study.hyperparameters
    assert {h.name: (h.domain.low, h.domain.high) for h in varied if "." in h.name} == {
        "warm=True.lr": (1e-3, 1.0),
        "warm=False.lr": (1e-5, 1e-2),
        "depth>=3.units": (8, 16),
        "depth<=2.units": (8, 64),
    }


CHOICES = [
    [(64, 64), (128,)],
    [[64, 64], [128]],
    [None, 1.0],
    [1, True, "1"],
    [16, 32, None],
    [0, False, 0.5, "0.5", ""],
    [{"a": 1}, "{'a': 1}"],
    [float("inf"), 1.0],
]


@pytest.mark.parametrize("choices", CHOICES, ids=repr)
def test_choices_of_any_type_go_out_and_come_back_as_they_were(tuner, tmp_path, choices):
    """A tuple is stored by Optuna as a list; what is no plain value is named by its text here, and so it stays."""

    def suggest(trial):
        if trial.suggest_categorical("on", [True, False]):
            trial.suggest_categorical("layers", choices)
        trial.report(0.5, 1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=UserWarning, module="optuna")
        made = imported(tmp_path, suggest)
    layers = next(h for h in made.study.hyperparameters if h.name == "layers")
    assert layers.condition == ("on", True)
    assert len(layers.domain.choices) == len(choices)
    with open_ledger(f"{tmp_path}/tuner.sqlite") as ledger:
        write_imported(ledger, "m", made)
        frames = round_frames(ledger, "m", 1)
    on = [dict(one.trial.point.values_by_name).get("on") for one in made.trials]
    assert frames.exists_in(frames.trials, "layers").tolist() == on
    out = f"{tmp_path}/out.log"
    export_to_optuna(frames, out, "m")
    back = imported_from_optuna(out, None, OptunaTerms())
    assert repr(back.study.hyperparameters) == repr(made.study.hyperparameters)
    assert [repr(one.trial.point) for one in back.trials] == [repr(one.trial.point) for one in made.trials]
    assert [one.measurements for one in back.trials] == [one.measurements for one in made.trials]


def test_an_export_keeps_conditions_limits_and_budget_and_the_trials_alone_give_the_same_space(tmp_path):
    def suggest(trial):
        optimizer = trial.suggest_categorical("optimizer", ["sgd", "adam"])
        trial.suggest_float("lr", *((1e-2, 10.0) if optimizer == "sgd" else (1e-5, 1e-2)), log=True)
        if trial.suggest_int("n", 1, 3) > 1:
            trial.suggest_float("x", 0.0, 1.0)
        for step in (10, 20, 30):
            trial.report(1.0 / step, step)

    made = imported(tmp_path, suggest)
    with open_ledger(f"{tmp_path}/tuner.sqlite") as ledger:
        write_imported(ledger, "m", made)
        frames = round_frames(ledger, "m", 1)
    out = f"{tmp_path}/out.log"
    export_to_optuna(frames, out, "m")
    back = imported_from_optuna(out, None, OptunaTerms())
    assert back.study.hyperparameters == made.study.hyperparameters
    assert back.study.budget == made.study.budget
    study = optuna.load_study(study_name="m", storage=JournalStorage(JournalFileBackend(out)))
    study.set_user_attr("tuner_study", "damaged")
    alone = imported_from_optuna(out, None, OptunaTerms())
    assert set(alone.study.hyperparameters) == set(made.study.hyperparameters), "sgd.lr does not become sgd.sgd.lr"
    assert [dict(one.trial.point) for one in alone.trials] == [dict(one.trial.point) for one in made.trials]


def test_parameters_that_no_other_explains_exist_where_they_were_suggested(tmp_path):
    made = imported(tmp_path, lambda t: t.suggest_float("ab"[t.number % 2], 0, 1))
    assert conditions(made) == {"a": ("a", Span()), "b": ("b", Span())}


def test_what_cannot_be_used_names_the_parameter_and_the_way_out(tmp_path):
    study = optuna.create_study(study_name="s", storage=f"sqlite:///{tmp_path}/o.db")
    wide = optuna.distributions.IntDistribution(1, 10**400)
    study.add_trial(optuna.trial.create_trial(params={"width": 5, "x": 0.5}, value=1.0, distributions={
        "width": wide, "x": optuna.distributions.FloatDistribution(0, 1)}))  # fmt: skip
    with pytest.raises(DeclarationError, match=r"the parameter 'width' cannot be used.*--ignore width"):
        imported_from_optuna(f"sqlite:///{tmp_path}/o.db", "s", OptunaTerms())
    left = imported_from_optuna(f"sqlite:///{tmp_path}/o.db", "s", OptunaTerms(ignored=("width",)))
    assert list(conditions(left)) == ["x"]


def test_truth_and_one_are_told_apart():
    assert fulfils(("p", True), True)
    assert not fulfils(("p", True), 1)
    assert not fulfils(("p", 1), "1")
    assert fulfils(("p", 16), 16.0), "pandas writes a column with an empty cell so"
    assert not fulfils(("p", Span(1, None)), True)
    assert not fulfils(("p", Span()), None)


def test_a_space_file_keeps_every_condition(tuner, tmp_path):
    def suggest(trial):
        if trial.suggest_categorical("use", [True, False]):
            trial.suggest_float("gamma", 0.1, 0.9)
        if trial.suggest_int("n", 1, 3) > 1:
            trial.suggest_float("x", 0.0, 1.0)
        for step in range(1, 5):
            trial.report(1.0 / step, step)

    imported(tmp_path, suggest)
    assert tuner("import", "optuna", tmp_path / "o.log", "--study", "m").code == 0
    assert tuner("export", "m", "--to", "csv", tmp_path / "d").code == 0
    back = tuner(
        "import", "table", tmp_path / "d/curves.csv", "--points", tmp_path / "d/points.csv", "--space",
        tmp_path / "d/space.json", "--objective", "validation/objective", "--direction", "minimize",
        "--max-train-steps", "4", "--study", "back",
    )  # fmt: skip
    assert back.code == 0, back.err
    with open_ledger(f"{tmp_path}/runs/tuner.sqlite") as ledger:
        found = {h.name: h.condition for h in ledger.study("back", "round-1").study.hyperparameters}
    assert found == {"use": None, "gamma": ("use", True), "n": None, "x": ("n", Span(2, None))}
    assert condition_words(found["x"]) == "n >= 2"


@pytest.mark.parametrize("ended", [optuna.TrialPruned, RuntimeError])
def test_a_trial_that_ends_between_two_suggestions_makes_no_condition(tmp_path, ended):
    """Trials of many units end before their layers are suggested; the others show what really decides."""

    def suggest(trial):
        lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
        units = trial.suggest_int("units", 16, 256)
        if units > 200 and lr > 1e-3:
            raise ended
        trial.suggest_categorical("layers", [2, 3])
        if trial.suggest_categorical("use_dropout", [True, False]):
            trial.suggest_float("dropout", 0.0, 0.5)

    made = imported(tmp_path, suggest, trials=60, catch=(RuntimeError,))
    assert conditions(made) == {
        "lr": None, "units": None, "layers": None, "use_dropout": None, "dropout": ("use_dropout", True),
    }  # fmt: skip
    points = [dict(one.trial.point.values_by_name) for one in made.trials]
    short = sum("layers" not in point for point in points)
    assert 3 < short < 30
    assert f"{short} trials ended before layers was suggested (failed or pruned): unknown there" in made.notes
    assert not any("explains" in note for note in made.notes)


def test_a_pruned_trial_that_reported_shows_what_exists(tmp_path):
    """A pruner ends most trials without dropout; they have begun to train, so that all was suggested."""

    def suggest(trial):
        used = trial.suggest_categorical("use_dropout", [True, False])
        if used:
            trial.suggest_float("dropout", 0.0, 0.5)
        trial.report(1.0, 1)
        if not used:
            raise optuna.TrialPruned
        trial.report(0.5, 2)

    assert conditions(imported(tmp_path, suggest))["dropout"] == ("use_dropout", True)


def test_an_evaluation_an_epoch_with_a_searched_batch_size_cuts_nothing_short(tmp_path):
    """Ten epochs of 6,400 examples: 500 to 4,000 steps. In steps only the trials of the smallest batch were whole."""

    def suggest(trial):
        batch = trial.suggest_categorical("batch", [16, 32, 64, 128])
        trial.suggest_float("lr", 1e-4, 1.0, log=True)
        for epoch in range(1, 11):
            trial.report(1 / epoch, epoch * 6400 // batch)
            if trial.number % 4 == 3 and epoch == 3:
                raise optuna.TrialPruned
        return 0.1

    made = imported(tmp_path, suggest)
    assert made.study.budget.max_train_steps == 10
    ended = [(one.state.value, one.step) for one in made.trials]
    assert ended == [("cancelled", 3) if k % 4 == 3 else ("complete", 10) for k in range(24)]
    assert any("after 10 reports each: a step is one report here" in note for note in made.notes)
    (tmp_path / "steps").mkdir()
    in_steps = imported(tmp_path / "steps", suggest, terms=OptunaTerms(max_train_steps=4000))
    assert in_steps.study.budget.max_train_steps == 4000, "as it was said"
    assert any("trials completed in Optuna but ended early, at step 500 to" in note for note in in_steps.notes)
