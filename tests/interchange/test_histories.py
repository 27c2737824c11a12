"""What loggers write becomes curves: files made by the tools themselves, and tables made by hand with known answers."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tuner.errors import DeclarationError
from tuner.interchange.imported import write_imported
from tuner.interchange.tables_in import TableTerms, imported_from_tables
from tuner.storage.store import open_ledger

HISTORIES = Path(__file__).parent / "histories"
TERMS = TableTerms("val_loss", "minimize")
W_AND_B = HISTORIES / "wandb"


SPACE = '{"lr": {"kind": "float", "low": 0, "high": 1}}'


def imported(history, points=None, **terms):
    return imported_from_tables(history, points, None, replace(TERMS, **terms))


def states(study):
    return [one.state.value for one in study.trials]


def curve(study, number, metric="validation/loss"):
    return [(m.step, m.value) for m in study.trials[number].measurements if m.metric == metric]


@pytest.mark.parametrize(
    ("history", "points", "metric", "steps", "every"),
    [
        ("lightning", None, "val_loss", 200, 10),
        ("keras", None, "val_loss", 20, 1),
        ("ray", None, "val_loss", 20, 1),
        ("tensorboard", None, "Loss_val", 2000, 100),
        ("wandb/history.csv", "wandb/configs.csv", "val_loss", 1000, 50),
        ("wandb/scan_history.csv", "wandb/configs.csv", "val_loss", 1000, 50),
        ("wandb/panel.csv", "wandb/runs.csv", "val_loss", 1000, 50),
    ],
)
def test_the_history_of_every_logger_is_a_study(history, points, metric, steps, every):
    """Of six runs each those with the largest rate diverge; every curve has 20 evaluations."""
    study = imported(HISTORIES / history, points and HISTORIES / points, objective=metric)
    assert (study.study.budget.max_train_steps, study.study.budget.evaluate_every) == (steps, every)
    assert len(study.trials) == 6
    rates = [one.trial.point.values_by_name[0][1] for one in study.trials]
    assert states(study) == ["infeasible" if rate > 1 else "complete" for rate in rates]
    for number in range(6):
        assert [step for step, _ in curve(study, number, study.study.objective.metric)] == list(
            range(every, steps + 1, every)
        )
    assert all(one.trial.origin.startswith("run ") for one in study.trials)


def test_what_a_history_holds_beside_the_objective_is_kept_and_named_here():
    assert {m.metric for m in imported(HISTORIES / "lightning").trials[0].measurements} == {
        "training/loss", "validation/loss"}  # fmt: skip
    keras = imported(HISTORIES / "keras")
    first = (HISTORIES / "keras" / "run-0.csv").read_text().splitlines()[1].split(",")
    assert curve(keras, 0)[0] == (1, float(first[3])), "epoch 0 was measured after one epoch"
    assert curve(keras, 0, "training/loss")[0] == (1, float(first[1])), "loss beside val_loss is of training"
    assert {m.metric for m in keras.trials[0].measurements} == {
        "training/loss", "training/mae", "validation/loss", "validation/mae"}  # fmt: skip
    assert {m.metric for m in imported(HISTORIES / "ray").trials[0].measurements} == {
        "training/loss", "validation/loss"}  # fmt: skip
    board = imported(HISTORIES / "tensorboard", objective="Loss_val")
    assert {m.metric for m in board.trials[0].measurements} == {"training/Loss", "validation/Loss"}
    assert [one.trial.origin for one in imported(W_AND_B / "history.csv", W_AND_B / "configs.csv").trials][::5] == [
        "run 3fk2j9ab", "run zz9plural"]  # fmt: skip


def test_lightnings_parameters_of_every_form_are_read(tmp_path):
    """As PyYAML writes a tuple, lists in lists, a long text and a nested dictionary."""
    shutil.copytree(HISTORIES / "lightning", tmp_path / "lightning")
    (tmp_path / "lightning" / "space.json").write_text(
        json.dumps({"lr": {"kind": "float", "low": 0, "high": 1}, "betas": {"values": ["(0.9, 0.99)", "(0.5, 0.9)"]},
                    "sizes": {"values": ["[[1, 2], [3]]", "[4]"]}, "model/act": {"values": ["relu", None]},
                    "notes": {"values": ["word " * 30 + "end", "x"]}})
    )  # fmt: skip
    for path in (tmp_path / "lightning").rglob("hparams.yaml"):
        path.write_text(
            "betas: !!python/tuple\n- 0.9\n- 0.99\nlr: 1.0e-05\nmodel:\n  act: null\nsizes:\n- - 1\n  - 2\n- - 3\n"
            f"notes: {'word ' * 15}word\n  {'word ' * 14}end\n"
        )
    for one in imported(tmp_path / "lightning").trials:
        assert dict(one.trial.point.values_by_name) == {
            "lr": 1e-5, "betas": "(0.9, 0.99)", "sizes": "[[1, 2], [3]]", "model/act": None,
            "notes": "word " * 30 + "end"}  # fmt: skip
    for path in (tmp_path / "lightning").rglob("hparams.yaml"):
        path.write_text("{}\n")  # without save_hyperparameters()
    with pytest.raises(DeclarationError, match=r"has no parameters of its runs .*--points FILE"):
        imported(tmp_path / "lightning")
    path.write_text("lr: [")
    with pytest.raises(DeclarationError, match=r"hparams.yaml is no YAML: while parsing a flow node"):
        imported(tmp_path / "lightning")


def test_none_in_rays_parameters_is_the_choice_none():
    points = [dict(one.trial.point.values_by_name) for one in imported(HISTORIES / "ray").trials]
    assert [point["model/act"] for point in points] == ["relu"] * 3 + [None] * 3


def test_result_json_says_the_same_as_progress_csv(tmp_path):
    shutil.copytree(HISTORIES / "ray", tmp_path / "ray")
    for path in tmp_path.rglob("progress.csv"):
        path.unlink()
    running = tmp_path / "ray" / "train_00000" / "result.json"
    running.write_text(running.read_text() + '{"val_loss": 0.1, "training_it')
    study, other = imported(tmp_path / "ray"), imported(HISTORIES / "ray")
    assert [curve(study, n)[:8] for n in range(6)] == [curve(other, n)[:8] for n in range(6)]
    assert states(study) == states(other)
    running.write_text('{"val_loss": 0.1, "trai\n' + running.read_text())
    with pytest.raises(DeclarationError, match=r"train_00000/result.json: line 1 is no JSON"):
        imported(tmp_path / "ray")


def test_steps_that_are_indexes_are_known_by_their_epochs(tmp_path):
    """Ten steps an epoch: counted from 0 they end at 9, 19; counted from 1 at 10, 20."""
    for first, notes in ((9, 1), (10, 0)):
        rows = [(run, e, first + 10 * e, 0.5) for run in (0, 1) for e in range(3)]
        table = pd.DataFrame(rows, columns=["trial", "epoch", "step", "val_loss"])
        table.assign(lr=table["trial"] + 0.5).to_csv(tmp_path / "h.csv", index=False)
        (tmp_path / "space.json").write_text('{"lr": {"kind": "float", "low": 0, "high": 2}}')
        study = imported(tmp_path / "h.csv")
        assert [step for step, _ in curve(study, 0)] == [10, 20, 30]
        assert sum("counted from 0" in note for note in study.notes) == notes


def write(folder, rows, columns=("trial", "step", "metric", "value"), points=None):
    table = pd.DataFrame(rows, columns=list(columns))
    table.to_csv(folder / "curves.csv", index=False)
    runs = list(dict.fromkeys(table[columns[0]]))
    known = pd.DataFrame({"trial": runs, "lr": [0.1 + 0.01 * n for n in range(len(runs))]})
    (points(known) if points else known).to_csv(folder / "points.csv", index=False)
    (folder / "space.json").write_text(SPACE)
    return folder / "curves.csv"


def alternating(folder):
    """Validation at 39, 79, ... and training a step later, in rows of their own; the other cells are empty."""
    rows = []
    for trial in range(6):
        for step in range(40, 401, 40):
            value = 1 / step
            rows += [(trial, step - 1, "val_loss", value), (trial, step - 1, "train_loss", "")]
            rows += [(trial, step, "val_loss", ""), (trial, step, "train_loss", value)]
    return write(folder, rows)


def test_empty_cells_beside_a_curve_are_not_measured(tmp_path):
    study = imported(alternating(tmp_path), max_train_steps=400)
    assert states(study) == ["complete"] * 6
    assert curve(study, 0) == [(step - 1, 1 / step) for step in range(40, 401, 40)]
    assert [note for note in study.notes if "empty" in note] == [
        "120 empty cells left out, as not measured"]  # fmt: skip
    assert states(imported(tmp_path / "curves.csv", max_train_steps=400, empty="diverged")) == ["complete"] * 6


def test_a_wide_table_of_alternating_rows_is_the_same(tmp_path):
    rows = []
    for trial in range(6):
        for step in range(40, 401, 40):
            rows += [(trial, float(step - 1), 1 / step, ""), (trial, float(step), "", 1 / step)]
    wide = write(tmp_path, rows, ("trial", "step", "val_loss", "train_loss"))
    study = imported(wide, max_train_steps=400)
    (tmp_path / "long").mkdir()
    other = imported(alternating(tmp_path / "long"), max_train_steps=400)
    for number in range(6):
        for metric in ("validation/loss", "training/loss"):
            assert curve(study, number, metric) == curve(other, number, metric)


def ending_in(word, trials, *, wide=False):
    """Six curves of 10 evaluations; from the sixth on those of `trials` have `word` for a value."""
    rows = []
    for trial in range(6):
        for step in range(10, 101, 10):
            bad = trial in trials and step > 50
            rows.append((trial, step, word if bad else 1 / step) if wide else
                        (trial, step, "val_loss", word if bad else 1 / step))  # fmt: skip
    return rows


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("word", ["nan", "NaN", "inf", "-Infinity", "1e999"])
def test_words_for_a_divergence_are_one(tmp_path, word, wide):
    columns = ("run", "step", "val_loss") if wide else ("trial", "step", "metric", "value")
    study = imported(write(tmp_path, ending_in(word, range(5), wide=wide), columns))
    assert states(study) == ["infeasible"] * 5 + ["complete"]
    assert study.trials[0].reason == "diverged: not finite from step 60 on"


@pytest.mark.parametrize("word", ["", "None", "null", "NA", "<NA>"])
def test_where_most_curves_end_in_empty_cells_the_user_decides(tmp_path, word):
    path = write(tmp_path, ending_in(word, range(4)))
    with pytest.raises(DeclarationError, match=r"4 of 6 curves .*: --empty not-measured or --empty diverged"):
        imported(path)
    assert states(imported(path, empty="not-measured")) == ["cancelled"] * 4 + ["complete"] * 2
    diverged = imported(path, empty="diverged")
    assert states(diverged) == ["infeasible"] * 4 + ["complete"] * 2
    assert [step for step, value in curve(diverged, 0) if math.isnan(value)] == [60, 70, 80, 90, 100]
    with pytest.raises(DeclarationError, match="--empty is one of not-measured, diverged, got 'maybe'"):
        imported(path, empty="maybe")


def test_where_few_curves_end_in_empty_cells_it_is_said(tmp_path):
    study = imported(write(tmp_path, ending_in("", [2])))
    assert states(study) == ["complete"] * 2 + ["cancelled"] + ["complete"] * 3
    assert any("curves of 1 trial end in empty cells" in note and "--empty diverged" in note for note in study.notes)


def test_a_run_that_goes_on_with_another_metric_has_not_diverged(tmp_path):
    """Validation was stopped half-way; training goes on: nobody has to be asked."""
    rows = ending_in("", range(6)) + [(t, s, "train_loss", 0.5) for t in range(6) for s in range(10, 101, 10)]
    assert states(imported(write(tmp_path, rows))) == ["cancelled"] * 6


def test_empty_first_rows_and_holes_are_no_divergence(tmp_path):
    rows = [(t, s, "val_loss", "" if s in (10, 50) else 1 / s) for t in range(3) for s in range(10, 101, 10)]
    study = imported(write(tmp_path, rows))
    assert states(study) == ["complete"] * 3
    assert [step for step, _ in curve(study, 0)] == [20, 30, 40, 60, 70, 80, 90, 100]


def test_whole_numbers_that_pandas_made_decimal_are_whole(tmp_path):
    rows = [(f"{t}.0", f"{s}.0", "val_loss", 1 / s) for t in (3, 7) for s in range(10, 101, 10)]
    study = imported(write(tmp_path, rows))
    assert [one.trial.number for one in study.trials] == [3, 7]
    assert [step for step, _ in curve(study, 0)] == list(range(10, 101, 10))
    assert {one.trial.origin for one in study.trials} == {"curves.csv"}


def test_runs_with_names_keep_their_numbers_where_a_table_grows(tmp_path):
    """W&B lists the newest run first."""
    rows = [(name, s, "val_loss", 1 / s) for name in ("9x", "3f", "007") for s in range(10, 101, 10)]
    rates = {"9x": 0.1, "3f": 0.2, "007": 0.3, "new": 0.4}
    known = {"points": lambda p: p.assign(lr=p["trial"].map(rates))}
    first = imported(write(tmp_path, rows, **known))
    assert [(one.trial.number, one.trial.origin) for one in first.trials] == [
        (0, "run 9x"), (1, "run 3f"), (2, "run 007")]  # fmt: skip
    grown = imported(write(tmp_path, [("new", s, "val_loss", 2 / s) for s in range(10, 101, 10)] + rows, **known))
    with open_ledger(str(tmp_path / "t.sqlite")) as ledger:
        assert write_imported(ledger, "mine", first) == 3
        assert write_imported(ledger, "mine", grown) == 1
        row = ledger.study("mine", "round-1")
        read = [(record.origin, record.point["lr"]) for record in ledger.trials(row.study_id)]
        assert read == [("run 9x", 0.1), ("run 3f", 0.2), ("run 007", 0.3), ("run new", 0.4)]


def test_another_study_of_the_same_name_is_refused_and_one_that_got_on_is_said(tuner, tmp_path):
    """Same space, budget and name of the file: only the points tell them apart."""
    given = ["--objective", "val_loss", "--direction", "minimize", "--max-train-steps", 100]
    path = write(tmp_path, [(t, s, "val_loss", 1 / s) for t in range(3) for s in range(10, 101, 10) if t or s < 50])
    assert tuner("import", "table", path, *given).code == 0
    again = tuner("import", "table", write(tmp_path, ending_in("nan", [])[:30]), *given)
    assert (again.code, "imported 0 new of 3 trials" in again.err) == (0, True), again.err
    assert "note: 1 trial made more steps since the import" in again.err
    other = tuner("import", "table", write(tmp_path, ending_in("nan", []), points=lambda p: p.assign(lr=0.5)), *given)
    assert (other.code, "its trial 0 has other values than here" in other.err) == (2, True), other.err
    assert "--study curves-2" in other.err


def test_a_study_that_still_runs_is_read_as_far_as_it_is(tmp_path):
    rows = [(t, s, "val_loss", 1 / s) for t in range(4) for s in range(10, 101, 10) if t < 2 or s <= 40]
    plain = imported(write(tmp_path, rows))
    assert states(plain) == ["complete"] * 2 + ["cancelled"] * 2
    assert any("still running when the table was written" in note for note in plain.notes)
    known = imported(
        write(tmp_path, rows, points=lambda p: p.assign(State=["finished", "finished", "running", "crashed"]))
    )
    assert states(known) == ["complete", "complete", "cancelled", "failed"]
    assert known.trials[2].reason == "was running when it was written"
    assert len(curve(known, 2)) == 4
    assert any("while 1 trial waited or ran" in note and "--study" in note for note in known.notes)


def test_each_trial_is_judged_by_the_distance_of_its_own_evaluations(tmp_path):
    """Every 80, 40 or 20 steps of 2000, as an epoch takes; the last, with a distance of 20, stops 40 short."""
    ends = [(80, 2000), (40, 2000), (20, 2000), (80, 1920), (20, 1960)]
    rows = [(t, s, "val_loss", 1 / s) for t, (every, last) in enumerate(ends) for s in range(every, last + 1, every)]
    study = imported(write(tmp_path, rows))
    assert states(study) == ["complete"] * 4 + ["cancelled"]
    assert study.study.budget.evaluate_every == 40, "the usual distance of a trial"


def test_evaluations_by_the_clock_reach_the_end(tmp_path):
    """Distances from 40 to 60 steps, so no two trials share their steps; the last stops at 870."""
    rows = []
    for trial in range(6):
        step = 0
        for place in range(100):
            step += 40 + (7 * place + 3 * trial) % 21
            if step <= (1000 if trial < 5 else 870):
                rows.append((trial, step, "val_loss", 1 / step))
    study = imported(write(tmp_path, rows), max_train_steps=1000)
    assert states(study) == ["complete"] * 5 + ["cancelled"]


def test_replicates_and_copies_are_said(tmp_path):
    rows = [(t, s, "val_loss", (1 + t % 4) / s) for t in range(6) for s in range(10, 101, 10)]
    study = imported(write(tmp_path, rows, points=lambda p: p.assign(lr=[0.1, 0.1, 0.2, 0.3, 0.1, 0.2])))
    assert any("5 trials share 2 points and count as replicates (the most of one point: 3)" in n for n in study.notes)
    assert any("1 replicate repeated another to the last bit" in n for n in study.notes), "trial 4 is trial 0"


@pytest.mark.parametrize(
    "heading", ["Trial,Step,Metric,Value", "Unnamed: 0,trial,step,metric,value", ",run,_step,metric,value"]
)
def test_headings_of_other_tools_are_understood(tmp_path, heading):
    path = write(tmp_path, ending_in("nan", []))
    index = heading.count(",") > 3
    lines = [f"{n},{line}" if index else line for n, line in enumerate(path.read_text().splitlines()[1:])]
    path.write_text("\n".join([heading, *lines, "," * heading.count(","), ""]))
    study = imported(path)
    assert states(study) == ["complete"] * 6
    assert len(study.trials[0].measurements) == 10


def test_points_may_be_columns_of_the_history(tmp_path):
    rows = [(name, s, 1 / s, rate) for name, rate in (("a", 0.1), ("b", 0.2)) for s in range(10, 101, 10)]
    pd.DataFrame(rows, columns=["run", "step", "val_loss", "lr"]).to_csv(tmp_path / "h.csv")  # with pandas' index
    (tmp_path / "space.json").write_text(SPACE)
    study = imported(tmp_path / "h.csv")
    assert [dict(one.trial.point.values_by_name) for one in study.trials] == [{"lr": 0.1}, {"lr": 0.2}]
    assert {m.metric for m in study.trials[0].measurements} == {"validation/loss"}
    assert study.study.schedule.name == "unknown", "a rate that is a parameter is no schedule that was logged"


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "curves.csv").write_text("trial,step,metric,value\n"), "has a heading and no rows"),
        (lambda f: write(f, ending_in("nan", range(6))[5:10]), "has no finite value of val_loss in any trial"),
        (lambda f: (f / "curves.csv").write_text("trial,step,step,value\n1,1,1,1\n"), "has two columns 'step'"),
        (lambda f: (f / "curves.csv").write_bytes(bytes(range(256))), "cannot be read as a table"),
        (lambda f: (f / "curves.csv").write_bytes("trial,step,metric,value\n0,1,ä,2\n".encode("latin-1")), "UTF-8"),
        (lambda f: (f / "points.csv").unlink(), r"there is no .*points.csv; say where it is: --points FILE"),
        (lambda f: (f / "space.json").unlink(), r"there is no .*space.json; say where it is: --space FILE"),
        (lambda f: (f / "curves.csv").rename(f / "curvse.csv"), r"there is no file .*; did you mean .*curvse.csv"),
        (lambda f: (f / "points.csv").write_text("trial,lr\n0,0.1\n,0.2\n"), "trial in row 3 is empty"),
        (lambda f: (f / "points.csv").write_text("trial,lr\n0,0.1\n0.0,0.2\n"), "trial 0 stands in more than one row"),
        (lambda f: write(f, [(0, "", "val_loss", 1)]), "step in row 2 must be a whole number from 0 to 2.53: an empty"),
        (lambda f: write(f, [("r" * 1000, 1, "val_loss", 1)]), "names a run with 1,000 characters, and 200"),
        (lambda f: write(f, [(0, 1.5, "val_loss", 1)]), "step in row 2 must be a whole number"),
        (lambda f: (f / "curves.csv").write_text("run,step,val_loss\n0,1,high\n"), "row 2 is no number: 'high'"),
        (lambda f: (f / "space.json").write_text(SPACE.replace("1}", f"1{'0' * 400}}}")), "lr: "),
    ],
)  # fmt: skip
def test_what_is_no_history_is_one_clear_error(tmp_path, break_it, message):
    write(tmp_path, ending_in("nan", []))
    break_it(tmp_path)
    with pytest.raises(DeclarationError, match=message) as caught:
        imported(tmp_path / "curves.csv")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_folder_that_holds_no_history_is_one_clear_error(tmp_path):
    (tmp_path / "space.json").write_text(SPACE)
    with pytest.raises(DeclarationError, match="has no history of a run"):
        imported(tmp_path)
    (tmp_path / "run-1.csv").write_text("")
    with pytest.raises(DeclarationError, match="nothing is written in the histories of its 1 run"):
        imported(tmp_path)
    (tmp_path / "run-1.csv").write_text("epoch,val_loss\n0,0.5\n")
    with pytest.raises(DeclarationError, match=r"has no parameters of its runs .*--points FILE"):
        imported(tmp_path)
    (tmp_path / "points.csv").write_text("name,lr\nrun-2,0.5\n")
    with pytest.raises(DeclarationError, match=r"has trial run-1, which .*points.csv does not; its first is run-2"):
        imported(tmp_path)


def test_trials_shows_none_and_what_a_trial_does_not_have_differently(tuner, tmp_path):
    """Of `style` trial 0 has None; trial 1 does not have it."""
    write(tmp_path, ending_in("nan", [])[:20], points=lambda p: p.assign(lr=["a", "b"], style=["null", ""]))
    style = {"kind": "categorical", "choices": [None, "x"], "parent": "lr", "parent_value": "a"}
    (tmp_path / "space.json").write_text(json.dumps({"lr": {"values": ["a", "b"]}, "style": style}))
    assert tuner("import", "table", "curves.csv", "--objective", "val_loss", "--direction", "minimize").code == 0
    read = json.loads(tuner("trials", "curves", "-f", "json").out)
    assert [row.get("style", "absent") for row in read] == [None, "absent"]
    assert [line.split(",")[3:5] for line in tuner("trials", "curves", "-f", "csv").out.splitlines()[1:]] == [
        ["a", "null"], ["b", ""]]  # fmt: skip
    shown = [line.split()[3:5] for line in tuner("trials", "curves").out.splitlines()[1:]]
    assert shown == [["a", "None"], ["b", "-"]]


def test_a_folder_or_a_wrong_name_by_the_command_line_writes_nothing(tuner, tmp_path):
    given = ["--objective", "val_loss", "--direction", "minimize"]
    for wrong in (tmp_path, tmp_path / "nothing.csv", tmp_path / "no" / "folder"):
        done = tuner("import", "table", wrong, *given)
        assert (done.code, done.err.count("error: ")) == (2, 1), done.err
        assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_parameters_under_the_prefixes_of_their_tools_are_known(tmp_path):
    """`config.lr` of a W&B export, `config/lr` of Ray's results, `params.lr` of mlflow.search_runs()."""
    (tmp_path / "space.json").write_text(SPACE)
    history = tmp_path / "history.csv"
    history.write_text("run,step,val_loss\n" + "".join(f"a{k},{s},{1 / s}\n" for k in range(3) for s in range(1, 5)))
    for prefixed in ("config.lr", "config/lr", "params.lr"):
        (tmp_path / "p.csv").write_text(f"run,{prefixed}\na0,0.25\na1,0.5\na2,1\n")
        points = [dict(one.trial.point.values_by_name) for one in imported(history, tmp_path / "p.csv").trials]
        assert points == [{"lr": 0.25}, {"lr": 0.5}, {"lr": 1.0}]
    rows = "".join(f"{k},{s},{1 / s},{k / 4}\n" for k in range(3) for s in range(1, 5))
    history.write_text("trial_id,training_iteration,val_loss,config/lr\n" + rows)
    assert dict(imported(history).trials[2].trial.point.values_by_name) == {"lr": 0.5}


def test_a_hyperparameter_that_is_left_out_may_have_a_prefix_and_is_no_metric(tmp_path):
    (tmp_path / "space.json").write_text(
        '{"lr": {"min": 0.0, "max": 1.0, "kind": "uniform"}, "wd": {"values": [1, 2]}}'
    )
    history = tmp_path / "history.csv"
    history.write_text("run,step,val_loss\n" + "".join(f"a{k},{s},{1 / s}\n" for k in range(3) for s in range(1, 5)))
    (tmp_path / "p.csv").write_text("run,params.lr,params.wd\na0,0.25,1\na1,0.5,2\na2,1,1\n")
    for points in (tmp_path / "p.csv", None):
        made = imported(history, points, ignored=("wd",))
        assert [dict(one.trial.point.values_by_name) for one in made.trials] == [{"lr": 0.25}, {"lr": 0.5}, {"lr": 1.0}]
        assert {m.metric for one in made.trials for m in one.measurements} == {"validation/loss"}
        rows = [f"a{k},{s},{1 / s},{[0.25, 0.5, 1][k]},{1 + k % 2}\n" for k in range(3) for s in range(1, 5)]
        history.write_text("run,step,val_loss,lr,wd\n" + "".join(rows))


def test_the_tables_of_mlflow_are_read(tmp_path):
    """Made by hand in the form of mlflow.search_runs() and MlflowClient.get_metric_history()."""
    (tmp_path / "space.json").write_text(SPACE)
    history = tmp_path / "history.csv"
    rows = "".join(f"{name},val_loss,{s},{1 / s}\n" for name in ("c0", "c1", "c2") for s in range(1, 21))
    history.write_text("run_id,key,step,value\n" + rows)
    (tmp_path / "points.csv").write_text(
        "run_id,experiment_id,status,artifact_uri,start_time,end_time,metrics.val_loss,params.lr,tags.mlflow.runName\n"
        "c0,0,FINISHED,file:///c0,2024-01-01,2024-01-02,0.05,0.25,wild-fox\n"
        "c1,0,KILLED,file:///c1,2024-01-03,2024-01-04,0.06,0.5,old-owl\n"
        "c2,0,FAILED,file:///c2,2024-01-05,2024-01-06,0.07,0.75,red-elk\n"
    )
    made = imported(history)
    assert [dict(one.trial.point.values_by_name)["lr"] for one in made.trials] == [0.25, 0.5, 0.75]
    assert states(made) == ["complete", "cancelled", "failed"]
    assert len(curve(made, 0)) == 20


def test_epochs_are_named_where_the_batch_size_makes_the_steps_differ(tmp_path):
    """Ten epochs each, 100 or 400 steps: in steps half of the runs end early, in epochs none."""
    (tmp_path / "space.json").write_text(SPACE)
    every = {f"r{k}": 10 if k % 2 else 40 for k in range(6)}
    rows = [
        f"{run},{e},{e * step},{1 / e},{k / 6}\n" for k, (run, step) in enumerate(every.items()) for e in range(1, 11)
    ]
    history = tmp_path / "history.csv"
    history.write_text("run,epoch,step,val_loss,lr\n" + "".join(rows))
    made = imported(history)
    assert states(made).count("cancelled") == 3
    assert any("were evaluated 10 times" in note and "--step-column epoch" in note for note in made.notes)
    by_epoch = imported(history, step_column="epoch")
    assert states(by_epoch) == ["complete"] * 6
    assert not any("--step-column epoch" in note for note in by_epoch.notes)
