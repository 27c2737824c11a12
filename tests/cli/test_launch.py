"""Launching from the shell: to the end, again, changed, broken."""

import json
import shutil
import sqlite3

import pytest
from support.records import rows
from support.shell import run_in
from support.study_files import write_study

from tuner.reading import load


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which the round was launched; not to be written to."""
    folder = tmp_path_factory.mktemp("launched")
    write_study(folder)
    with pytest.MonkeyPatch.context() as patched:
        assert run_in(folder, patched, "launch", "tiny.py") == 0
    return folder


@pytest.fixture
def launched(trained, tmp_path):
    """The same in the folder of a test."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)


def test_a_round_is_trained_and_the_same_command_again_repeats_nothing(tuner, tmp_path):
    study = write_study(tmp_path)
    first = tuner("launch", study, "--round", 1)
    assert first.code == 0, first.err
    assert first.err.count("complete, best validation/loss") == 4
    assert first.out == "", "progress is not data"
    before = rows(tmp_path, "select number, state, attempt, fence, finished from trial")
    again = tuner("launch", study)
    assert again.code == 0
    assert "complete, best" not in again.err
    assert rows(tmp_path, "select number, state, attempt, fence, finished from trial") == before


def test_a_dry_run_prices_the_round_and_writes_nothing(tuner, tmp_path):
    study = write_study(tmp_path)
    priced = tuner("launch", study, "--dry-run")
    assert priced.code == 0, priced.err
    assert "ms/step" in priced.out
    assert "240" in priced.out, "4 trials of 60 steps"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["tiny.py"]


def test_the_trials_come_out_as_a_table_and_as_json(tuner, launched, tmp_path):
    table = json.loads(tuner("trials", "tiny", "-f", "json").out)
    assert [row["trial"] for row in table] == [0, 1, 2, 3]
    assert set(table[0]) >= {
        "state",
        "reason",
        "learning_rate",
        "dropout",
        "best_value",
        "best_step",
        "last_value",
        "steps",
        "seed",
    }
    assert tuner("trials", "tiny", "-f", "csv").out.splitlines()[0].startswith("trial,state,reason,learning_rate")
    assert "learning_rate" in tuner("trials", tmp_path / "tiny.py").out


@pytest.mark.parametrize("verb", ["best-steps", "boundaries"])
def test_a_verdict_as_json_has_the_documented_form(verb, tuner, launched, tmp_path):
    run = tuner(verb, "tiny", "--round", 1, "-f", "json")
    assert run.code in (0, 3)
    told = json.loads(run.out)
    assert (told["study"], told["round"]) == ("tiny", 1)
    keys = {"question", "subject", "verdict", "strength", "summary", "evidence", "thresholds", "action"}
    assert all(keys <= set(finding) for finding in told["findings"])


def test_the_winner_is_named_with_a_command_that_reproduces_it_bit_for_bit(tuner, launched, tmp_path):
    told = json.loads(tuner("best", "tiny", "-f", "json").out)
    values = {row["trial"]: row["best_value"] for row in json.loads(tuner("trials", "tiny", "-f", "json").out)}
    assert told["best_value"] == min(values.values()) == values[told["trial"]]
    words = told["reproduce"].split()
    assert words[0] == "tuner"
    replayed = tuner(*words[1:])
    assert replayed.code == 0, replayed.err
    assert "0 differ" in replayed.out


def test_replay_notices_a_curve_that_is_not_reproduced(tuner, launched, tmp_path):
    with sqlite3.connect(tmp_path / "runs" / "tuner.sqlite") as connection:
        connection.execute("update measurement set value = value * 1.0000001 where trial_id = 1 and step = 60")
    connection.close()
    assert tuner("replay", tmp_path / "tiny.py", "--trial", 0).code == 3


@pytest.mark.parametrize(("kept", "words"), [(20, "the same bits as recorded"), (0, "nothing is recorded of it yet")])
def test_the_steps_that_an_unfinished_trial_has_not_reached_are_no_difference(kept, words, tuner, launched, tmp_path):
    with sqlite3.connect(tmp_path / "runs" / "tuner.sqlite") as connection:
        connection.execute("delete from measurement where trial_id = 1 and step > ?", (kept,))
        connection.execute("update trial set state = 'waiting', finished = null where id = 1")
    connection.close()
    replay = tuner("replay", tmp_path / "tiny.py", "--trial", 0)
    assert (replay.code, "0 differ" in replay.out) == (0, True), replay.err
    assert words in replay.err


def test_the_winners_weights_are_exported_and_load_into_the_model(tuner, launched, tmp_path):
    from safetensors.torch import load_file

    assert tuner("best", "tiny", "--export", "model.safetensors").code == 0
    weights = load_file(tmp_path / "model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == {
        "0.weight": (16, 6), "0.bias": (16,), "3.weight": (2, 16), "3.bias": (2,),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["best-steps", "axes", "curves", "schedules"])
def test_a_plot_is_a_picture_and_its_numbers(kind, tuner, launched, tmp_path):
    run = tuner("plot", kind, "tiny", "-o", "plots/picture.png")
    assert run.code == 0, run.err
    assert (tmp_path / "plots" / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "plots" / "picture.csv").read_text().count("\n") > 1


def test_status_counts_trials_by_state(tuner, launched, tmp_path):
    (row,) = json.loads(tuner("status", "-f", "json").out)
    assert (row["campaign"], row["study"], row["complete"], row["steps_done"]) == ("tiny", "round-1", 4, "100%")
    values = sorted(one["best_value"] for one in json.loads(tuner("trials", "tiny", "-f", "json").out))
    assert row["best_value"] == values[0]
    (_, line) = tuner("status").out.splitlines()
    best = f"{values[0]:.4g}"
    assert line.split() == ["tiny", "round-1", "4", "4", "complete", "60", "10", "100%", best, "a", "test"], (
        "none is infeasible"
    )
    ranked = json.loads(tuner("trials", "tiny", "--top", "3", "-f", "json").out)
    assert [one["best_value"] for one in ranked] == values[:3], "a loss: the smallest first"
    assert "values are validation/loss, to minimize" in tuner("trials", "tiny").err
    records = load("tiny", str(tmp_path / "runs" / "tuner.sqlite"))
    assert "4 complete" in repr(records)
    winner = records.best(round=1)
    assert repr(winner).splitlines()[1] == f"  learning_rate = {winner.point['learning_rate']!r}"


def test_a_changed_declaration_is_an_error_that_names_the_keys(tuner, launched, tmp_path):
    before = rows(tmp_path, "select declaration from study")
    changed = tuner("launch", write_study(tmp_path, high=0.5))
    assert changed.code == 2
    assert "learning_rate" in changed.err
    assert "high" in changed.err
    assert "0.1" in changed.err
    assert "0.5" in changed.err
    assert rows(tmp_path, "select declaration from study") == before


def test_changed_code_is_an_error_unless_it_is_said_to_make_no_difference(tuner, launched, tmp_path):
    changed = write_study(tmp_path, replace=[("nn.ReLU()", "nn.GELU()")])
    refused = tuner("launch", changed)
    assert refused.code == 2
    assert "code or the data of the workload changed" in refused.err
    assert tuner("launch", changed, "--allow-changed-code").code == 0
    assert tuner("launch", write_study(tmp_path, replace=[("class Tiny", "# a remark\nclass Tiny")])).code == 0


def test_where_a_budget_came_from_is_written_down_when_a_killed_launch_had_not(tuner, launched, tmp_path):
    """A version before wrote it after the study, in a transaction of its own."""
    query = "select study_id, kind, data from conclusion where kind = 'budget'"
    before = rows(tmp_path, query)
    with sqlite3.connect(tmp_path / "runs" / "tuner.sqlite") as connection:
        connection.execute("delete from conclusion where kind = 'budget'")
    connection.close()
    assert tuner("launch", tmp_path / "tiny.py").code == 0
    assert rows(tmp_path, query) == before != []


def test_more_trials_extend_the_study(tuner, tmp_path):
    tuner("launch", write_study(tmp_path, trials=3))
    points = rows(tmp_path, "select number, point from trial order by number")
    assert tuner("launch", write_study(tmp_path, trials=5)).code == 0
    assert rows(tmp_path, "select number, point from trial order by number")[:3] == points
    assert rows(tmp_path, "select count(*) from trial where state = 'complete'") == [(5,)]


def test_trials_are_added_on_the_command_line_and_stay(tuner, tmp_path):
    """4 are declared: 6 by --trials, which the next command without it keeps; fewer than there are is refused."""
    study = write_study(tmp_path, trials=4)
    assert (
        "4 trials are too few to answer whether the ranges were wide enough, which takes 10"
        in tuner("launch", study).err
    )
    more = tuner("launch", study, "--trials", 6)
    assert more.code == 0, more.err
    assert "round-1: 6 complete" in more.err
    assert "round-1 has 6 trials, by --trials; the study file declares 4" in more.err
    assert "round-1: 6 complete" in tuner("launch", study).err
    fewer = tuner("launch", study, "--trials", 5)
    assert fewer.code == 2
    assert "--trials 5 is fewer than the 6 that round-1 has already" in fewer.err
    promoting = tuner("launch", study, "--round", 2, "--trials", 8, "--max-train-steps", 60)
    assert promoting.code == 2
    assert "round 2 promotes points" in promoting.err
