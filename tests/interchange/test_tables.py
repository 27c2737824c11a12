import json
from pathlib import Path

import pandas as pd
import pytest
from support.needs import require

from tuner.analysis.round_frames import round_frames
from tuner.errors import DeclarationError, Paused
from tuner.interchange.imported import write_imported
from tuner.interchange.tables_in import TableTerms, imported_from_tables
from tuner.interchange.tables_out import export_tables
from tuner.storage.store import open_ledger

SPACE = {
    "learning_rate": {"kind": "float", "low": 1e-4, "high": 1.0, "log": True},
    "width": {"kind": "int", "low": 1, "high": 9},
    "act": {"kind": "choice", "choices": ["relu", "=tanh", "NA"]},
}
TERMS = TableTerms("val_loss", "minimize", 100)


def write(folder, *, curves=None, points=None, space=None) -> tuple[Path, Path, Path]:
    """Five trials of 10 evaluations: whole, diverged, cut short, restarted, without a curve."""
    rows = []
    for trial in range(4):
        for step in range(10, 101, 10):
            value = 1.0 / step + trial
            if trial == 1 and step > 60:
                value = "nan"
            if trial == 2 and step > 50:
                continue
            rows.append((trial, step, "val_loss", value))
        if trial == 3:
            rows += [(3, step, "val_loss", 2.0 / step) for step in (80, 90, 100)]
    table = pd.DataFrame(rows, columns=["trial", "step", "metric", "value"])
    known = pd.DataFrame({"trial": range(5), "learning_rate": 0.01, "width": 3,
                          "act": ["relu", "=tanh", "NA", "relu", "NA"]})  # fmt: skip
    paths = folder / "curves.csv", folder / "points.csv", folder / "space.json"
    (curves(table) if curves else table).to_csv(paths[0], index=False)
    (points(known) if points else known).to_csv(paths[1], index=False)
    paths[2].write_text(json.dumps(SPACE) if space is None else space)
    return paths


def space(**changes):
    return json.dumps(SPACE | changes)


def within(parent, value):
    return {"kind": "int", "low": 1, "high": 9, "parent": parent, "parent_value": value}


def stored(folder, imported, name="mine"):
    with open_ledger(str(folder / "tuner.sqlite")) as ledger:
        write_imported(ledger, name, imported)
        return round_frames(ledger, name, 1)


def test_an_import_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(*given):
        raise Paused("the disk is full")

    imported = imported_from_tables(*write(tmp_path), TERMS)
    with open_ledger(str(tmp_path / "tuner.sqlite")) as ledger:
        with monkeypatch.context() as patched:
            patched.setattr("tuner.storage.store.insert_finished", full)
            with pytest.raises(Paused):
                write_imported(ledger, "mine", imported)
        assert ledger.campaigns() == [], "a study without trials would be one that was never trained"
        assert write_imported(ledger, "mine", imported) == 5
        assert write_imported(ledger, "mine", imported) == 0


def test_tables_are_a_study_and_every_rule_is_said(tmp_path):
    imported = imported_from_tables(*write(tmp_path), TERMS)
    frames = stored(tmp_path, imported)
    assert frames.trials["state"].tolist() == ["complete", "infeasible", "cancelled", "complete", "failed"]
    assert frames.trials["reason"].tolist()[1:3] == [
        "diverged: not finite from step 70 on", "cut short: last measured at step 50 of 100"]  # fmt: skip
    restarted = frames.curve(3, "validation/loss").set_index("step")["value"]
    assert restarted[80] == 2.0 / 80, "of a step logged twice the later row holds (D33)"
    assert frames.trials["act"].tolist() == ["relu", "=tanh", "NA", "relu", "NA"], "NA is a name here"
    notes = " ".join(imported.notes)
    for told in ("3 repeated or rewound steps in 1 trial:", "1 trial did not reach the end",
                 "1 infeasible trial ended", "1 trial recorded no curve"):  # fmt: skip
        assert told in notes


def test_a_logged_learning_rate_decides_the_schedule(tmp_path):
    def with_rate(last):
        def add(table):
            rates = table[["trial", "step"]].assign(
                metric="lr", value=[last if s == 100 else 0.1 for s in table["step"]]
            )
            return pd.concat([table, rates])  # fmt: skip

        return add

    for last, schedule in ((0.1, "constant"), (0.0, "decaying")):
        imported = imported_from_tables(*write(tmp_path, curves=with_rate(last)), TERMS)
        assert imported.study.schedule.name == schedule
    assert imported_from_tables(*write(tmp_path), TERMS).study.schedule.name == "unknown"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "{"}, "is no JSON"),
        ({"space": '{"learning_rate": {"kind": "flaot"}}'}, "kind is one of float, int, choice.*did you mean float?"),
        ({"space": '{"learning_rate": {"kind": "log_uniform"}}'}, "exponents in Weights & Biases"),
        ({"space": '{"a": {"kind": "int"}, "a": {"kind": "int"}}'}, "a stands twice"),
        ({"space": '{"learning_rate": {"kind": "float", "low": 1, "hihg": 2}}'}, "unknown keys hihg"),
        ({"space": '{"learning_rate": {"kind": "float", "low": 1}}'}, "needs 'high'"),
        ({"points": lambda p: p.assign(depth=p["trial"], b="xyxyx")}, "space file does not: depth.* --ignore depth"),
        ({"points": lambda p: p.drop(columns="width")}, "has no column width"),
        ({"points": lambda p: p.assign(width=30)}, "trial 0, width: 30 lies outside 1..9"),
        ({"points": lambda p: p.assign(width="wide")}, "trial 0, width: 'wide' is no number"),
        ({"points": lambda p: p.assign(act="gelu")}, "'gelu' is not among the choices"),
        ({"points": lambda p: p.assign(trial=0)}, "trial 0 stands in more than one row"),
        ({"points": lambda p: p.head(2)}, "has trial 2, which"),
        ({"points": lambda p: p.assign(state="happy")}, "trial 0 has state 'happy'"),
        ({"curves": lambda c: c.assign(value="high")}, "value in row 2 is no number: 'high'"),
        ({"curves": lambda c: c.assign(step=-1)}, "step in row 2 must be a whole number from 0"),
        ({"curves": lambda c: c.assign(step=500)}, "measured at step 500, beyond --max-train-steps 100"),
        ({"curves": lambda c: c.assign(metric="acc")}, "has no metric 'val_loss'"),
        ({"curves": lambda c: c.rename(columns={"step": "when"})}, "has no column step .*--step-column NAME"),
        ({"points": lambda p: p.head(0)}, "has no rows"),
        ({"points": lambda p: p.assign(width=1.5)}, "trial 0, width: 1.5 is not whole"),
        ({"curves": lambda c: c.assign(step="1e30")}, r"must be a whole number from 0 to 2\^53: '1e30'"),
        ({"curves": lambda c: c.assign(trial="1e19")}, "has trial 1e19, which .* does not; its first is 0"),
        ({"curves": lambda c: c.assign(trial="")}, "trial in row 2 is empty; every row names its run"),
        ({"curves": lambda c: c.assign(value="0,5")}, "is no number: '0,5'; numbers are written like 0.001"),
        ({"curves": lambda c: c.assign(metric="")}, "row 2 has no metric"),
        ({"curves": lambda c: pd.concat([c, c.assign(metric="valid/loss")])}, "val_loss and valid/loss are both"),
        ({"curves": lambda c: c.rename(columns={"metric": "value"})}, "has two columns 'value'"),
        ({"space": space(width={"kind": "int", "low": 9, "high": 1})}, "low < high, got 9 and 1"),
        ({"space": space(width={"kind": "float", "low": 0, "high": 1, "log": True})}, "positive lower bound, got 0"),
        ({"space": space(act={"kind": "choice", "choices": "relu"})}, "choices is a list"),
        ({"space": space(width={"kind": "int", "low": 1, "high": 9, "parent": "opt"})}, "needs 'parent_value'"),
        ({"space": space(width=within("opt", "relu"))}, "no choice of that name .* choices: act"),
        ({"space": space(width=within("act", "gelu"))}, "exists where act = 'gelu'"),
        ({"space": space(width=within("act", "relu"))}, "trial 1 has width, which exists only where act = relu"),
        (
            {"space": space(state={"kind": "int", "low": 1, "high": 9}), "points": lambda p: p.assign(state=3)},
            "'state' cannot name a hyperparameter.*--ignore state",
        ),
    ],
)
def test_what_does_not_fit_is_one_error_that_names_it(tmp_path, changes, message):
    with pytest.raises(DeclarationError, match=message):
        imported_from_tables(*write(tmp_path, **changes), TERMS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "No columns to parse.*UTF-8 text with a heading and commas"),
        ("trial;step;metric;value\n1;10;val_loss;0,5\n", "cannot be read as a table"),
        ("trial\tstep\tmetric\tvalue\n", "separated by tabs"),
        ("trial,step,metric,value\n", "has a heading and no rows; nothing was measured"),
        ("\x89PNG\x00\x00", "cannot be read as a table: it has one column"),
        ("value\nZürich\n".encode("latin-1"), "UTF-8 text"),
        ("trial,step,metric,value\n1,2\n", "row 2 has no metric"),
        ("trial,step,metric,value\n1,2,3,4,5\n", "Expected 4 fields in line 2, saw 5"),
        ("Zürich".encode("utf-16"), "UTF-8 text"),
    ],
)
def test_a_file_that_is_no_such_table_says_what_one_is(tmp_path, content, message):
    files = write(tmp_path)
    files[0].write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DeclarationError, match=message) as caught:
        imported_from_tables(*files, TERMS)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_other_line_ends_and_any_order_of_rows_are_read_alike(tmp_path):
    plain = stored(tmp_path, imported_from_tables(*write(tmp_path), TERMS))
    (tmp_path / "other").mkdir()
    files = write(tmp_path / "other", curves=lambda c: c.sort_values("step", ascending=False, kind="stable"))
    for file in files:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    other = stored(tmp_path, imported_from_tables(*files, TERMS), "other")
    pd.testing.assert_frame_equal(other.curves, plain.curves)
    pd.testing.assert_frame_equal(other.trials, plain.trials.assign(origin=other.trials["origin"]))


def test_the_states_that_the_points_give_decide_and_the_notes_say_so(tmp_path):
    """Trial 2 ends at step 50 of 100; an empty cell is a value that is not known."""
    states = ["infeasible", "", "complete", "running", "failed"]
    files = write(tmp_path, points=lambda p: p.assign(state=states, width=["", 3, 3, 3, 3]))
    imported = imported_from_tables(*files, TERMS)
    assert [one.state.value for one in imported.trials] == [
        "infeasible", "infeasible", "complete", "cancelled", "failed"]  # fmt: skip
    told = " ".join(imported.notes)
    for note in ("1 trial did not reach the end", "2 infeasible trials", "width is empty in 1 trial:",
                 "1 trial ended before the budget by the curves, and completed by the state in"):  # fmt: skip
        assert note in told


@pytest.mark.parametrize(("last", "state"), [(100, "complete"), (90, "complete"), (80, "cancelled")])
def test_a_trial_may_end_one_evaluation_before_the_budget(tmp_path, last, state):
    """Steps counted from 0 end at 90 of 100; two evaluations short is cut short (D13)."""
    files = write(tmp_path, curves=lambda c: c[(c["trial"] != 0) | (c["step"] <= last)])
    assert imported_from_tables(*files, TERMS).trials[0].state.value == state


def test_what_overflows_has_diverged(tmp_path):
    huge = imported_from_tables(*write(tmp_path, curves=lambda c: c.assign(value=-1e308)), TERMS)
    assert {one.state.value for one in huge.trials} == {"infeasible", "failed"}


def test_an_ignored_name_that_is_nowhere_is_an_error(tmp_path):
    with pytest.raises(DeclarationError, match="--ignore depth names nothing there; there are: act, learning_rate, w"):
        imported_from_tables(*write(tmp_path), TableTerms("val_loss", "minimize", 100, ignored=("depth",)))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_what_is_exported_can_be_imported_and_twice_changes_nothing(tmp_path, form):
    if form == "parquet":
        require("pyarrow")
    frames = stored(tmp_path, imported_from_tables(*write(tmp_path), TERMS))
    files = export_tables(frames, tmp_path / "out", form)
    before = [path.read_bytes() for path in files]
    export_tables(frames, tmp_path / "out", form)
    assert [path.read_bytes() for path in files] == before
    points, curves, space = files
    back = stored(tmp_path, imported_from_tables(curves, points, space, TERMS), "back")
    columns = ["trial", "state", "reason", "best_value", "best_step", "learning_rate", "width", "act"]
    pd.testing.assert_frame_equal(back.trials[columns], frames.trials[columns])
    pd.testing.assert_frame_equal(back.curves, frames.curves)


def test_a_cell_that_a_spreadsheet_would_run_is_quoted(tmp_path):
    frames = stored(tmp_path, imported_from_tables(*write(tmp_path), TERMS))
    points, *_ = export_tables(frames, tmp_path / "out", "csv")
    assert "'=tanh" in points.read_text()


def test_parquet_without_pyarrow_is_one_clear_error(tmp_path, monkeypatch):
    def missing(*given, **named):
        raise ImportError("Unable to find a usable engine")

    frames = stored(tmp_path, imported_from_tables(*write(tmp_path), TERMS))
    monkeypatch.setattr(pd.DataFrame, "to_parquet", missing)
    with pytest.raises(DeclarationError, match=r"tuner\[parquet\]"):
        export_tables(frames, tmp_path / "out", "parquet")


def test_tables_by_the_command_line(tuner, tmp_path):
    curves, points, space = write(tmp_path)
    given = ["--points", points, "--space", space, "--objective", "val_loss", "--direction", "minimize",
             "--max-train-steps", 100, "--study", "mine"]  # fmt: skip
    done = tuner("import", "table", curves, *given)
    assert (done.code, "note: 3 repeated" in done.err) == (0, True), done.err
    assert tuner("check", "mine", "--fail-on", "none").code == 0
    assert tuner("export", "mine", "--to", "csv", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "space.json").exists()
    assert tuner("export", "mine", "--to", "optuna", f"sqlite:///{tmp_path}/out.db").code == 0
    assert tuner("export", "mine", "--to", "xml", tmp_path / "out").code == 2
    assert tuner("import", "table", curves, *given[:-1], "other", "--direction", "down").code == 2
    assert tuner("import", "table", curves, *given[:-1], "worth", "--worth", 0.25).code == 0
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite"), create=False) as ledger:
        assert ledger.study("worth", "round-1").study.objective.worth == 0.25
        assert ledger.study("mine", "round-1").study.objective.worth is None
    refused = tuner("import", "table", curves, *given[:-1], "none", "--worth", 0)
    assert (refused.code, "a number above 0, got 0" in refused.err) == (2, True), refused.err
