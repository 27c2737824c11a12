"""Where an Optuna study may lie, what is said where it does not, and databases with one damaged cell."""

import hashlib
import json
import math
import shutil
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from support.shell import tuner

from tuner.errors import StorageError
from tuner.interchange.optuna_in import OptunaTerms, imported_from_optuna
from tuner.interchange.optuna_rows import SCHEMA, trials_of_database
from tuner.records import State

__all__ = ["tuner"]
OLD = Path(__file__).parent / "optuna_databases" / "optuna_2_10.sql"


def fill(study, trials=6):
    for number in range(trials):
        trial = study.ask()
        rate = trial.suggest_float("lr", 1e-4, 1.0, log=True)
        trial.suggest_categorical("act", ["relu", "tanh"])
        for step in (1, 2):
            trial.report(rate / step, step)
        trial.set_user_attr("host", "a")
        study.tell(trial, state=optuna.trial.TrialState.PRUNED) if number == 1 else study.tell(trial, rate / 2)


def journal_at(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return JournalStorage(JournalFileBackend(str(path)))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder with o.db and journal.log of one study each."""
    folder = tmp_path_factory.mktemp("filled")
    fill(optuna.create_study(study_name="mine", storage=f"sqlite:///{folder}/o.db"))
    fill(optuna.create_study(study_name="mine", storage=journal_at(folder / "journal.log")))
    return folder


def read(written, name=None):
    return imported_from_optuna(str(written), name, OptunaTerms())


@pytest.mark.parametrize("file", ["o.db", "journal.log"])
def test_a_bare_path_is_enough_and_one_study_needs_no_name(filled, file):
    imported = read(filled / file)
    assert (imported.name, len(imported.trials)) == ("mine", 6)
    assert imported.trials[1].state is State.CANCELLED
    theirs = optuna.load_study(
        study_name="mine",
        storage=journal_at(filled / file) if file == "journal.log" else f"sqlite:///{filled}/{file}",
    ).trials
    for mine, their in zip(imported.trials, theirs, strict=True):
        assert dict(mine.trial.point.values_by_name) == their.params
        assert mine.started == their.datetime_start.timestamp()


def test_several_studies_are_listed(tmp_path):
    for name in ("one", "two"):
        fill(optuna.create_study(study_name=name, storage=f"sqlite:///{tmp_path}/o.db"), trials=1)
    with pytest.raises(StorageError, match=r"has 2 Optuna studies: 'one', 'two'; choose one with --study-name"):
        read(tmp_path / "o.db")
    assert len(read(tmp_path / "o.db", "two").trials) == 1


@pytest.mark.parametrize(
    "form",
    ["{folder}/optuan.db", "sqlite:///{folder}/optuan.db", "sqlite+pysqlite:///{folder}/optuan.db?timeout=9"],
)
def test_a_misspelt_path_makes_no_file_and_names_the_nearest(tmp_path, form):
    (tmp_path / "optuna.db").write_bytes(b"")
    with pytest.raises(StorageError, match=r"there is no file .*optuan\.db; did you mean .*optuna\.db\?"):
        read(form.format(folder=tmp_path))
    assert [one.name for one in tmp_path.iterdir()] == ["optuna.db"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n", "is neither a SQLite database nor a journal"),
        (b"SQLite format 3\0" + b"x" * 200, "cannot be read as a SQLite database"),
        (b'{"op_code": 0}\n', r"line 1 \(create_study\) cannot be read: KeyError"),
        (b'{"op_code": 99, "worker_id": "a"}\n', "line 1 cannot be read"),
        (b'{"op_code": 0, \n', "line 1 cannot be read: JSONDecodeError"),
        (b'{"a": 1}\n', "is neither a SQLite database nor a journal"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_one_error_that_names_it(tmp_path, content, message):
    (tmp_path / "o.db").write_bytes(content)
    with pytest.raises(StorageError, match=message) as told:
        read(tmp_path / "o.db")
    assert "o.db" in str(told.value)


def test_other_places_are_refused_with_what_they_are(tmp_path):
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("create table t (x)")
    with pytest.raises(StorageError, match=r"other\.db is a SQLite database, but no Optuna database"):
        read(tmp_path / "other.db")
    with pytest.raises(StorageError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(StorageError, match="no Optuna database can be read at nosuch://x"):
        read("nosuch://x")
    optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/none.db").remove_session()
    with pytest.raises(StorageError, match="has no Optuna study"):
        read(tmp_path / "none.db")


def test_an_older_database_is_read_and_left_as_it_is(tmp_path):
    """Optuna 2.10: other distributions, an older schema. Upgraded, the old Optuna could not read it any more."""
    with closing(sqlite3.connect(tmp_path / "old.db")) as made:
        made.executescript(OLD.read_text(encoding="utf-8"))
    before = hashlib.sha256((tmp_path / "old.db").read_bytes()).digest()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imported = read(tmp_path / "old.db")
    assert hashlib.sha256((tmp_path / "old.db").read_bytes()).digest() == before
    assert [one.name for one in tmp_path.iterdir()] == ["old.db"]
    rate, dropout, layers, act, q = imported.study.hyperparameters
    assert (rate.domain.low, rate.domain.high, rate.domain.log) == (1e-4, 1.0, True)
    assert (dropout.domain.high, layers.domain.integer, act.domain.choices) == (0.5, True, ("relu", None, True))
    assert (q.domain.low, q.domain.high) == (0.0, 1.0)
    assert any("q was searched in steps of 0.25" in note for note in imported.notes)
    states = [one.state for one in imported.trials]
    assert states[2:4] == [State.CANCELLED, State.INFEASIBLE], "one was pruned, one ends at infinity"
    assert imported.trials[0].trial.point["lr"] == pytest.approx(0.015676677195506)


def test_a_newer_database_says_so(filled, tmp_path):
    shutil.copy(filled / "o.db", tmp_path / "o.db")
    with closing(sqlite3.connect(tmp_path / "o.db")) as database:
        database.execute("update alembic_version set version_num = 'v99.0.0.a'")
        database.commit()
    with pytest.raises(StorageError, match=r"was written by a newer Optuna than .*pip install -U optuna"):
        read(tmp_path / "o.db")


def test_a_running_study_is_read_and_the_same_command_reads_the_rest(tuner, tmp_path):
    study = optuna.create_study(study_name="mine", storage=f"sqlite:///{tmp_path}/o.db")
    fill(study, trials=4)
    running = study.ask()
    running.suggest_float("lr", 1e-4, 1.0, log=True)
    running.suggest_categorical("act", ["relu", "tanh"])
    study.enqueue_trial({"lr": 0.1})
    first = tuner("import", "optuna", tmp_path / "o.db")
    assert (first.code, "imported 4 new of 4" in first.err) == (0, True)
    assert "left out (1 running and 1 waiting); run the same command again" in first.err
    running.report(0.5, 2)
    study.tell(running, 0.5)
    second = tuner("import", "optuna", tmp_path / "o.db")
    assert (second.code, "imported 1 new of 5" in second.err) == (0, True)
    wider = study.ask()
    study.tell(wider, wider.suggest_float("lr", 1e-6, 1.0, log=True))
    third = tuner("import", "optuna", tmp_path / "o.db")
    assert (third.code, "was imported before" in third.err, "--study mine-2" in third.err) == (2, True, True)


def test_a_journal_that_is_being_written_is_read_up_to_its_last_whole_line(filled, tmp_path):
    whole = (filled / "journal.log").read_bytes()
    (tmp_path / "j.log").write_bytes(whole + b'{"op_code": 4, "worker')
    assert len(read(tmp_path / "j.log").trials) == 6
    lines = whole.splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if json.loads(line)["op_code"] == 5)
    lines[place] = lines[place].replace(b"FloatDistribution", b"NoDistribution")
    (tmp_path / "j.log").write_bytes(b"".join(lines))
    with pytest.raises(StorageError, match=rf"j\.log: trial 0, line {place + 1} \(set_trial_param\) cannot be read"):
        read(tmp_path / "j.log")
    assert {one.name for one in tmp_path.iterdir()} == {"j.log"}, "no lock, no other file"


DAMAGED = [
    ("trial_params", "distribution_json = '{'", "param 'lr': distribution_json '{' is no JSON"),
    ("trial_params", """distribution_json = '{"name": "X"}'""", "param 'lr': distribution_json .* is no distribution"),
    ("trial_params", "distribution_json = NULL", "param 'lr': distribution_json None is no text"),
    ("trial_params", "param_value = 'high'", "param 'lr': param_value 'high' is no number"),
    ("trial_params", "param_value = 7.5", r"param 'lr': param_value 7\.5 is not within FloatDistribution"),
    ("trial_params", "param_name = X'FF00'", "param .*: param_name is no text"),
    ("trials", "state = 'DONE'", "state 'DONE' is none of RUNNING"),
    ("trials", "number = 'two'", r"trial with id 3: number 'two' is no whole number"),
    ("trials", "datetime_start = 'yesterday'", "datetime_start 'yesterday' is no date"),
    ("trial_values", "value = 'low'", "value: 'low' is no number"),
    ("trial_values", "value_type = 'HUGE'", "value: its type 'HUGE' is none of FINITE"),
    ("trial_intermediate_values", "intermediate_value = 'x'", "intermediate_value at step 1: 'x' is no number"),
    ("trial_intermediate_values", "intermediate_value_type = 'ODD'", "intermediate_value at step 1: its type 'ODD'"),
    ("trial_intermediate_values", "step = -4", "step -4 of an intermediate value is no whole number"),
    ("trial_user_attributes", "value_json = 'yes'", "user attribute 'host': 'yes' is no JSON"),
]


@pytest.mark.parametrize(("table", "changed", "message"), DAMAGED)
def test_one_damaged_cell_is_named_with_file_trial_and_field(filled, tmp_path, table, changed, message):
    shutil.copy(filled / "o.db", tmp_path / "bad.db")
    with closing(sqlite3.connect(tmp_path / "bad.db")) as database:
        (row,) = database.execute(f"select min(rowid) from {table} where trial_id = 3").fetchone()
        database.execute(f"update {table} set {changed} where rowid = {row}")
        database.commit()
    with pytest.raises(StorageError, match=message) as told:
        read(tmp_path / "bad.db")
    assert str(told.value).startswith(f"{tmp_path}/bad.db: trial "), "the file, then the trial"
    assert "trial 2" in str(told.value) or "with id 3" in str(told.value)
    assert len(str(told.value)) < 600


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("study_user_attributes set value_json = 'yes'", "study 'mine': user attribute 'why': 'yes' is no JSON"),
        ("study_user_attributes set value_json = NULL", "study 'mine': user attribute 'why': None is no JSON"),
        ("study_directions set direction = 'DOWN'", "study 'mine': direction 'DOWN' is none"),
        ("studies set study_name = X'FF'", "study with id 1: study_name .* is no text"),
        ("trials set number = 0", "trial 0: another trial of the study has the same number"),
    ],
)
def test_a_damaged_cell_of_the_study_itself_is_named(filled, tmp_path, changed, message):
    shutil.copy(filled / "o.db", tmp_path / "bad.db")
    optuna.load_study(study_name="mine", storage=f"sqlite:///{tmp_path}/bad.db").set_user_attr("why", "a test")
    with closing(sqlite3.connect(tmp_path / "bad.db")) as database:
        database.execute(f"update {changed}")
        database.commit()
    with pytest.raises(StorageError, match=message):
        read(tmp_path / "bad.db")


@pytest.mark.parametrize("value", ["['a']", "[0.5, null]"])
def test_a_damaged_constraint_is_named(filled, tmp_path, value):
    shutil.copy(filled / "o.db", tmp_path / "bad.db")
    with closing(sqlite3.connect(tmp_path / "bad.db")) as database:
        database.execute(
            "insert into trial_system_attributes (trial_id, key, value_json) values (3, 'constraints', ?)",
            (value.replace("'", '"'),),
        )
        database.commit()
    with pytest.raises(StorageError, match=r"trial 2: system attribute 'constraints': .* is no constraint"):
        read(tmp_path / "bad.db")


def test_a_huge_damaged_cell_makes_no_huge_message(tuner, filled, tmp_path):
    shutil.copy(filled / "o.db", tmp_path / "bad.db")
    with closing(sqlite3.connect(tmp_path / "bad.db")) as database:
        database.execute("update trial_params set distribution_json = ?", ("x" * 10**6,))
        database.commit()
    done = tuner("import", "optuna", tmp_path / "bad.db")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert len(done.err) < 600
    assert "more cells are damaged" in done.err


def odd_trials():
    """Every kind of cell: choices that are None or a list, infinities, NaN, attributes, constraints, all states."""
    space = {
        "act": optuna.distributions.CategoricalDistribution((None, True, "a", 1.5)),
        "n": optuna.distributions.IntDistribution(1, 9, log=True),
        "x": optuna.distributions.FloatDistribution(0.0, 1.0, step=0.25),
    }
    known = {"params": {"act": True, "n": 3, "x": 0.5}, "distributions": space}
    curve = {3: 0.5, 1: math.inf, 2: -math.inf, 7: math.nan}
    more = {"user_attrs": {"a": [1, {"b": None}]}, "system_attrs": {"constraints": (0.5, -1.0)}}
    states = optuna.trial.TrialState
    yield optuna.trial.create_trial(**known, value=math.inf, intermediate_values=curve, **more)
    yield optuna.trial.create_trial(**known, state=states.PRUNED, value=0.25, intermediate_values={1: 0.25})
    yield optuna.trial.create_trial(state=states.FAIL)
    yield optuna.trial.create_trial(state=states.WAITING)
    yield optuna.trial.create_trial(params={"act": None}, distributions={"act": space["act"]}, value=-math.inf)


def test_rows_are_read_as_optuna_reads_them(tmp_path):
    study = optuna.create_study(study_name="mine", storage=f"sqlite:///{tmp_path}/o.db")
    optuna.create_study(study_name="other", storage=f"sqlite:///{tmp_path}/o.db").add_trial(next(odd_trials()))
    study.add_trials(odd_trials())
    with closing(sqlite3.connect(tmp_path / "o.db")) as connection:
        assert connection.execute("select version_num from alembic_version").fetchone() == (SCHEMA,)
        read_here = trials_of_database(connection, "mine")
    for here, theirs in zip(read_here, study.get_trials(), strict=True):
        assert {key: repr(value) for key, value in vars(here).items()} == {
            key: repr(value) for key, value in vars(theirs).items()
        }
    assert len(read_here) == 5
