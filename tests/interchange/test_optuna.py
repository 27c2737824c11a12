import datetime
import math

import optuna
import pytest
from analysis.test_stopped_early import mixed
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tuner.analysis.round_frames import round_frames
from tuner.design.hyperparameters import Range
from tuner.errors import DeclarationError, StorageError
from tuner.interchange.imported import metric_name, write_imported
from tuner.interchange.optuna_in import OptunaTerms, imported_from_optuna
from tuner.interchange.optuna_out import export_to_optuna
from tuner.interchange.optuna_space import domain_of
from tuner.records import State
from tuner.report.page import report_html
from tuner.storage.store import open_ledger


def stored(folder, imported, name="mine"):
    with open_ledger(str(folder / "tuner.sqlite")) as ledger:
        write_imported(ledger, name, imported)
        return round_frames(ledger, name, 1)


def test_an_optuna_study_is_one_of_ours_with_its_curves(optuna_url, tmp_path):
    imported = imported_from_optuna(optuna_url, "mine", OptunaTerms())
    frames = stored(tmp_path, imported)
    theirs = {trial.number: trial for trial in optuna.load_study(study_name="mine", storage=optuna_url).trials}
    assert len(frames.trials) == 30
    assert frames.study.budget.max_train_steps == 40
    assert frames.study.source == "Optuna study mine"
    for row in frames.trials.to_dict("records"):
        trial = theirs[row["trial"]]
        assert row["learning_rate"] == trial.params["learning_rate"]
        curve = frames.curve(row["trial"], "validation/objective")
        assert curve["step"].tolist() == [step + 1 for step in sorted(trial.intermediate_values)]
        if trial.state is optuna.trial.TrialState.COMPLETE:
            assert row["state"] == "complete"
            assert row["best_value"] == min(trial.intermediate_values.values())
    states = frames.trials.set_index("trial")
    assert states.loc[3, "state"] == "cancelled"
    assert states.loc[3, "reason"] == "pruned at step 21"
    assert states.loc[4, "state"] == "failed"
    diverged = states[states["learning_rate"] > 0.5]
    assert len(diverged) >= 1
    assert (diverged["state"] == "infeasible").all()
    assert diverged["best_value"].notna().all(), "what it had before it diverged is kept (D27)"


def test_what_was_decided_by_rule_is_said(optuna_url):
    notes = " ".join(imported_from_optuna(optuna_url, "mine", OptunaTerms()).notes)
    for told in (
        "left out (1 waiting)",
        "run the same command again",
        "counted from 0",
        "max_train_steps is taken as 40",
        "infeasible",
        "1 pruned trial did not reach the end",
    ):
        assert told in notes


def test_importing_twice_changes_nothing(optuna_url, tmp_path):
    imported = imported_from_optuna(optuna_url, "mine", OptunaTerms())
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        assert write_imported(ledger, "mine", imported) == 30
        assert write_imported(ledger, "mine", imported) == 0
        assert len(ledger.trials(ledger.study("mine", "round-1").study_id)) == 30


def test_one_name_under_two_parents_is_two_hyperparameters(tmp_path):
    """B13, F9: Optuna takes one name with two ranges without a word."""
    url = f"sqlite:///{tmp_path}/optuna.db"
    sampler = optuna.samplers.RandomSampler(seed=0)  # by chance all trials of one optimizer would show one range
    study = optuna.create_study(study_name="s", storage=url, sampler=sampler)
    for i in range(8):
        trial = study.ask()
        optimizer = trial.suggest_categorical("optimizer", ["sgd", "adam"])
        rate = trial.suggest_float("lr", *((1e-2, 10.0) if optimizer == "sgd" else (1e-5, 1e-2)), log=True)
        if optimizer == "sgd":
            trial.suggest_float("momentum", 0.5, 0.99)
        study.tell(trial, rate + i)
    hyperparameters = {h.name: h for h in imported_from_optuna(url, "s", OptunaTerms()).study.hyperparameters}
    assert set(hyperparameters) == {"optimizer", "sgd.lr", "adam.lr", "sgd.momentum"}
    assert (hyperparameters["adam.lr"].domain.low, hyperparameters["adam.lr"].domain.high) == (1e-5, 1e-2)
    assert hyperparameters["sgd.momentum"].condition == ("optimizer", "sgd")


def test_ranges_that_nothing_explains_are_one_hull_and_it_is_said(tmp_path):
    url = f"sqlite:///{tmp_path}/optuna.db"
    study = optuna.create_study(study_name="s", storage=url)
    for high in (1.0, 2.0, 2.0):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0.0, high))
    imported = imported_from_optuna(url, "s", OptunaTerms())
    (x,) = imported.study.hyperparameters
    assert (x.domain.low, x.domain.high) == (0.0, 2.0)
    assert any("several ranges" in note for note in imported.notes)
    assert any("no trial has intermediate values" in note for note in imported.notes)


def test_what_is_no_study_here_is_one_clear_error(optuna_url, tmp_path):
    with pytest.raises(DeclarationError, match="2 objectives"):
        imported_from_optuna(optuna_url, "two", OptunaTerms())
    with pytest.raises(StorageError, match=r"there is no Optuna study 'nine'.*'mine'"):
        imported_from_optuna(optuna_url, "nine", OptunaTerms())
    with pytest.raises(StorageError, match="no Optuna database"):
        imported_from_optuna(f"sqlite:///{tmp_path}/nothing/here.db", "mine", OptunaTerms())
    with pytest.raises(DeclarationError, match="beyond --max-train-steps 20"):
        imported_from_optuna(optuna_url, "mine", OptunaTerms(max_train_steps=20))


def test_values_that_are_none_of_the_curves_are_said(tmp_path):
    """An objective that reports its loss and returns its accuracy: the curves decide, and nobody would notice."""
    url = f"sqlite:///{tmp_path}/optuna.db"
    study = optuna.create_study(study_name="s", storage=url, direction="maximize")
    for _ in range(3):
        trial = study.ask()
        trial.report(0.25, 1)
        study.tell(trial, 90.0 + trial.suggest_float("x", 0.0, 1.0))
    assert any(
        "the value of 3 trials is not among the" in n for n in imported_from_optuna(url, "s", OptunaTerms()).notes
    )


def added(tmp_path, trials):
    """A study of trials as Optuna would have stored them."""
    url = f"sqlite:///{tmp_path}/optuna.db"
    study = optuna.create_study(study_name="s", storage=url)
    for one in trials:
        study.add_trial(optuna.trial.create_trial(**one))
    return imported_from_optuna(url, "s", OptunaTerms())


def test_a_violated_constraint_is_infeasible_and_a_kept_one_is_not(tmp_path):
    """Optuna: above 0 is violated."""
    known = {"params": {"x": 0.5}, "distributions": {"x": FloatDistribution(0.0, 1.0)}, "value": 1.0}
    made = added(tmp_path, [known | {"system_attrs": {"constraints": (value,)}} for value in (-1.0, 0.0, 0.5)])
    assert [one.state.value for one in made.trials] == ["complete", "complete", "infeasible"]


def test_a_trial_that_stopped_early_without_being_pruned_was_cut_short(tmp_path):
    """D13: its best may lie later; the other reported up to step 20, one of two."""
    known = {"params": {"x": 0.5}, "distributions": {"x": FloatDistribution(0.0, 1.0)}, "value": 0.5}
    curves = [dict.fromkeys(range(1, last + 1), 0.5) for last in (20, 19, 10)]
    made = added(tmp_path, [known | {"intermediate_values": curve} for curve in curves])
    assert [one.state.value for one in made.trials] == ["complete", "complete", "cancelled"]
    assert made.trials[2].reason == "cut short: last reported at step 10 of 20"


def test_the_hull_of_ranges_is_logarithmic_and_whole_only_where_all_are():
    log, linear = FloatDistribution(1e-4, 1.0, log=True), FloatDistribution(0.1, 2.0)
    hull = domain_of([log, linear], "x")
    assert isinstance(hull, Range)
    assert (hull.low, hull.high, hull.log, hull.integer) == (1e-4, 2.0, False, False)
    whole = domain_of([IntDistribution(1, 4), IntDistribution(2, 8)], "x")
    assert isinstance(whole, Range)
    assert (whole.low, whole.high, whole.integer) == (1, 8, True)
    with pytest.raises(DeclarationError, match="x is a number in some trials and a choice in others"):
        domain_of([linear, CategoricalDistribution(("a", "b"))], "x")


@pytest.mark.parametrize("name", ["trial", "best_value", "state"])
def test_a_name_that_every_table_has_is_refused_with_a_way_out(tmp_path, name):
    url = f"sqlite:///{tmp_path}/optuna.db"
    study = optuna.create_study(study_name="s", storage=url)
    trial = study.ask()
    study.tell(trial, trial.suggest_float(name, 0.0, 1.0) + trial.suggest_float("x", 0.0, 1.0))
    with pytest.raises(DeclarationError, match=f"'{name}' cannot name a hyperparameter.*--ignore {name}"):
        imported_from_optuna(url, "s", OptunaTerms())
    with pytest.raises(DeclarationError, match="--ignore y names nothing there"):
        imported_from_optuna(url, "s", OptunaTerms(ignored=("y",)))


def test_one_kind_of_trial_only_is_a_study_too(tmp_path):
    """Only failed ones; only running ones are none; a steps axis in tokens is long and costs nothing."""
    url = f"sqlite:///{tmp_path}/optuna.db"
    for name in ("failed", "running", "tokens"):
        study = optuna.create_study(study_name=name, storage=url)
        for _ in range(3):
            trial = study.ask()
            trial.suggest_float("x", 0.0, 1.0)
            if name == "failed":
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            elif name == "tokens":
                trial.report(0.5, 1)
                trial.report(0.25, 10**12)
                study.tell(trial, 0.25)
    assert {one.state for one in imported_from_optuna(url, "failed", OptunaTerms()).trials} == {State.FAILED}
    with pytest.raises(StorageError, match="no finished trial among 3"):
        imported_from_optuna(url, "running", OptunaTerms())
    frames = stored(tmp_path, imported_from_optuna(url, "tokens", OptunaTerms()))
    assert frames.trials["best_step"].tolist() == [10**12] * 3
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        assert "Schedules</h2>" not in report_html(ledger, "mine"), "nobody knows how the rate fell"


def test_a_database_of_another_version_says_how_to_upgrade(tmp_path):
    import sqlite3

    url = f"sqlite:///{tmp_path}/old.db"
    optuna.create_study(study_name="s", storage=url)
    with sqlite3.connect(tmp_path / "old.db") as database:
        database.execute("update alembic_version set version_num = 'v1.3.0.a'")
        database.execute("update version_info set schema_version = 8")
    database.close()
    with pytest.raises(StorageError, match="optuna storage upgrade"):
        imported_from_optuna(url, "s", OptunaTerms())


def test_a_searched_budget_is_refused_with_a_way_out(tmp_path):
    """A11: trials of different lengths are no study."""
    url = f"sqlite:///{tmp_path}/optuna.db"
    study = optuna.create_study(study_name="s", storage=url)
    for _ in range(3):
        trial = study.ask()
        study.tell(trial, trial.suggest_int("num_epochs", 1, 9) + trial.suggest_float("x", 0.0, 1.0))
    with pytest.raises(DeclarationError, match="--ignore num_epochs"):
        imported_from_optuna(url, "s", OptunaTerms())
    assert len(imported_from_optuna(url, "s", OptunaTerms(ignored=("num_epochs",))).study.hyperparameters) == 1


def test_an_export_has_parameters_values_curves_and_states_and_twice_changes_nothing(optuna_url, tmp_path):
    frames = stored(tmp_path, imported_from_optuna(optuna_url, "mine", OptunaTerms()))
    url = f"sqlite:///{tmp_path}/out.db"
    first = export_to_optuna(frames, url, "out")
    assert (first.new, first.before, first.unfinished) == (30, 0, 0)
    before = optuna.load_study(study_name="out", storage=url).trials
    assert (export_to_optuna(frames, url, "out").new, len(before)) == (0, 30)
    assert repr(optuna.load_study(study_name="out", storage=url).trials) == repr(before), "NaN is not equal to itself"
    rows = frames.trials.set_index("trial")
    for trial in before:
        row = rows.loc[trial.user_attrs["tuner_trial"]]
        assert trial.params == {"learning_rate": row["learning_rate"], "dropout": row["dropout"]}
        assert len(trial.intermediate_values) == len(frames.curve(row.name, "validation/objective"))
        complete = row["state"] == "complete" or (row["state"] == "infeasible" and math.isfinite(row["best_value"]))
        assert (trial.state is optuna.trial.TrialState.COMPLETE) == complete
        assert (trial.user_attrs["tuner_state"], trial.user_attrs["tuner_reason"]) == (row["state"], row["reason"])
    best = optuna.load_study(study_name="out", storage=url).best_trial
    assert best.user_attrs["tuner_state"] == "complete", "an infeasible trial is never the best"


def test_an_export_comes_back_as_it_was(optuna_url, tmp_path):
    frames = stored(tmp_path, imported_from_optuna(optuna_url, "mine", OptunaTerms()))
    url = f"sqlite:///{tmp_path}/out.db"
    export_to_optuna(frames, url, "out")
    back = stored(tmp_path, imported_from_optuna(url, "out", OptunaTerms()), "back")
    columns = ["trial", "state", "reason", "best_value", "best_step", "learning_rate", "dropout"]
    assert back.trials[columns].equals(frames.trials[columns])
    assert back.curves.equals(frames.curves)


def test_trials_that_stopped_early_come_back_as_such(tmp_path):
    """Each is complete in Optuna, which has no word for it; here no verdict rests on them after the way back either."""
    frames, url = mixed(), f"sqlite:///{tmp_path}/out.db"
    export_to_optuna(frames, url, "out")
    states = [trial.state for trial in optuna.load_study(study_name="out", storage=url).trials]
    assert states == [optuna.trial.TrialState.COMPLETE] * 3
    back = stored(tmp_path, imported_from_optuna(url, "out", OptunaTerms()), "back")
    assert (back.study.patience_steps, back.study.budget.max_train_steps) == (200, 1000)
    assert back.stopped_early().tolist() == [True, True, False]
    assert back.complete["trial"].tolist() == [2]
    assert back.trials["steps"].tolist() == [500, 700, 1000]


def test_an_export_leaves_studies_alone_that_are_not_from_here(optuna_url, tmp_path):
    frames = stored(tmp_path, imported_from_optuna(optuna_url, "mine", OptunaTerms()))
    with pytest.raises(StorageError, match="not from here"):
        export_to_optuna(frames, optuna_url, "mine")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("val_loss", "validation/loss"), ("train/acc", "training/acc"), ("loss", "validation/loss"), ("lr", "lr"),
     ("test_f1", "test/f1"), ("valid/a/b", "validation/a/b"), ("trained", "validation/trained")],
)  # fmt: skip
def test_metrics_get_the_split_that_their_prefix_names(theirs, ours):
    assert metric_name(theirs) == ours


def test_everything_that_reads_records_works_by_name(tuner, optuna_url):
    done = tuner("import", "optuna", optuna_url, "--study-name", "mine", "--study", "imported")
    assert (done.code, "imported 30 new of 30 trials" in done.err) == (0, True)
    for command in (["check"], ["best-steps"], ["boundaries"], ["trials"], ["report"], ["best"], ["status"]):
        run = tuner(*command, "imported")
        assert run.code in (0, 3), (command, run.err)
    assert tuner("check", "imported", "--fail-on", "none").code == 0
    assert tuner("plot", "axes", "imported", "-o", "axes.svg").code == 0
    unknown = tuner("plot", "schedules", "imported", "-o", "schedules.png")
    assert (unknown.code, "its learning rate schedule is not known" in unknown.err) == (2, True)
    wrong = tuner("import", "optuna", optuna_url, "--study-name", "none")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)


def test_states_are_all_of_ours(optuna_url):
    assert {one.state for one in imported_from_optuna(optuna_url, "mine", OptunaTerms()).trials} == {
        State.COMPLETE, State.INFEASIBLE, State.CANCELLED, State.FAILED
    }  # fmt: skip


def test_the_page_of_an_imported_study_says_only_what_its_owner_can_do(tuner, tmp_path):
    """No command that needs a study file or a checkpoint; started is when Optuna started the first trial."""
    memory = optuna.storages.InMemoryStorage()
    study = optuna.create_study(study_name="mine", storage=memory, sampler=optuna.samplers.RandomSampler(seed=0))
    begun = datetime.datetime(2024, 3, 1, 12, 0, tzinfo=datetime.UTC)
    for number in range(24):
        rate = 10 ** (-4 + number / 12)
        curve = {step: (math.log10(rate) - 1) ** 2 + math.exp(-step / 4) for step in range(1, 31)}
        frozen = optuna.trial.create_trial(
            params={"lr": rate}, distributions={"lr": FloatDistribution(1e-4, 1e-2, log=True)}, value=curve[30],
            intermediate_values=curve,
        )  # fmt: skip
        frozen.datetime_start = (begun + datetime.timedelta(hours=number)).astimezone().replace(tzinfo=None)
        study.add_trial(frozen)
    journal = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(f"{tmp_path}/j.log"))
    optuna.copy_study(from_study_name="mine", from_storage=memory, to_storage=journal)
    assert tuner("import", "optuna", "j.log").code == 0
    checked = tuner("check", "mine")
    assert "paste `lr = trial.suggest_float(" in " ".join(checked.out.split())
    assert "--expand" not in checked.err
    edges = tuner("boundaries", "mine")
    assert (edges.code, "--expand" in edges.err) == (3, False)
    best = tuner("best", "mine")
    assert "study.enqueue_trial(study.trials[23].params)" in best.out
    assert "checkpoint None" not in best.out
    weights = tuner("best", "mine", "--export", "w.safetensors")
    assert (weights.code, "trained elsewhere" in weights.err) == (2, True)
    assert tuner("report", "mine").code in (0, 3)
    page = (tmp_path / "runs" / "mine.html").read_text(encoding="utf-8")
    assert "2024-03-01 12:00 UTC" in page
    assert "Imported" in page
    assert "how their number of steps was chosen is not recorded" in page
    for advised in ("tuner replay", "No sweep was run", "--export", "--expand", "study file", "--retry-failed"):
        assert advised not in page, advised
