"""A whole campaign whose names and values want to be code, markup, formulas, paths (R37, R56, R58, R59, R60)."""

import csv
import io
import json
import os
import re
import sqlite3
import stat
import sys

import psutil
import pytest
from support.patience import wait_for
from support.processes import started
from support.study_files import write_study

NAME = "=cmd()|'; DROP TABLE trial; -- <script>alert(1)</script> $x_{$ ../../up"
VALUES = ["=cmd()", "@SUM(A1)", "-1+1", "NA", "null", "$x_{$", "<b>bold</b>", "../../up"]
SECRET = "hunter2secret"
PLOTS = ["best-steps", "axes", "curves", "schedules", "isolation", "best-of-n", "infeasible", "parallel"]
SPACE = 'dropout=uniform(0.0, 0.5, limits="low")'


def hostile_study(folder, trials=3):
    values = ", ".join(map(repr, VALUES))
    more = f"{SPACE}, **{{'$y_{{$': choice({values}), '=1+1': choice({values})}}"
    return write_study(folder, trials=trials, more=f"name={NAME!r},", replace=[(SPACE, more)])


@pytest.fixture
def launched(tuner, tmp_path, monkeypatch):
    """A hostile campaign trained below tmp_path/inside, with an open umask."""
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    before = os.umask(0)
    monkeypatch.setenv("SOME_API_TOKEN", SECRET)
    try:
        run = tuner("launch", hostile_study(inside))
        assert run.code == 0, run.err
        yield inside
    finally:
        os.umask(before)


def test_a_hostile_campaign_is_trained_drawn_reported_exported_and_stays_inside(tuner, launched, tmp_path):
    for kind in PLOTS:
        run = tuner("plot", kind, NAME, "-o", f"plots/{kind}.png")
        if kind == "infeasible":  # no trial is: a plot of nothing is a sentence
            assert run.code == 2, run.err
            continue
        assert run.code == 0, run.err
        check_cells((launched / "plots" / f"{kind}.csv").read_text())
    for verb in ("trials", "status", "check", "best-steps", "boundaries", "best"):
        arguments = [verb] if verb == "status" else [verb, NAME]
        assert tuner(*arguments).code in (0, 3), verb
    check_cells(tuner("trials", NAME, "-f", "csv").out)
    page = write_report(tuner, launched)
    assert "<script" not in page.lower()
    assert "<b>bold" not in page
    assert re.search(r'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'', page)
    assert tuner("best", NAME, "--export", "weights/model.safetensors").code == 0
    assert tuner("verify", NAME).code == 0
    assert tuner("export", NAME, "--to", "csv", "tables").code == 0
    for path in (launched / "tables").glob("*.csv"):
        check_cells(path.read_text())
    check_round_trip(tuner, launched)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    check_modes(launched)
    check_secrets(launched)


def check_cells(text):
    """No cell and no heading is a formula; numbers below zero are numbers."""
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            assert cell[:1] not in ("=", "@", "\t", "\r"), cell
            assert cell[:1] not in ("+", "-") or cell == "-" or is_number(cell), cell


def is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True


def write_report(tuner, folder):
    assert tuner("report", NAME).code == 0
    (page,) = (folder / "runs").glob("*.html")
    return page.read_text(encoding="utf-8")


def check_round_trip(tuner, folder):
    """What the tables hold comes back to the letter, NA and null too."""
    tables = folder / "tables"
    objective = ("--objective", "validation/loss", "--direction", "minimize", "--max-train-steps", 60)
    run = tuner("import", "table", tables / "curves.csv", "--points", tables / "points.csv", "--space",
                tables / "space.json", *objective, "--study", "back")  # fmt: skip
    assert run.code == 0, run.err
    columns = ("trial", "$y_{$", "=1+1")
    there, back = (
        [tuple(row[name] for name in columns) for row in json.loads(tuner("trials", name, "-f", "json").out)]
        for name in (NAME, "back")
    )
    assert there == back
    assert {value for row in there for value in row[1:]} <= set(VALUES)


def check_modes(folder):
    new = [folder / "runs", folder / "plots", folder / "tables", folder / "weights"]
    for path in [*new, *(path for path in (folder / "runs").rglob("*") if path.is_dir())]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def check_secrets(folder):
    for path in folder.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_tables_of_the_database_are_still_there(launched):
    with sqlite3.connect(launched / "runs" / "tuner.sqlite") as connection:
        assert connection.execute("select count(*) from trial").fetchone() == (3,)
        assert connection.execute("select name from campaign").fetchall() == [(NAME,)]
    connection.close()


@pytest.mark.parametrize("name", ["a\0b", "x" * 100_000, ""])
def test_a_name_that_cannot_be_is_one_clear_error(name, tuner, tmp_path):
    run = tuner("launch", write_study(tmp_path, more=f"name={name!r},"))
    assert run.code in (0, 2) if not name else run.code == 2
    assert "Traceback" not in run.err


def test_a_password_on_the_command_line_reaches_no_record(tuner, tmp_path, monkeypatch):
    from tuner.rounds.launch import command_line

    for url in (f"postgresql://u:{SECRET}@h/d", f"postgresql://:{SECRET}@h/d", f"postgresql://h/d?password={SECRET}"):
        monkeypatch.setattr(sys, "argv", ["tuner", "launch", "x.py", "--storage", url])
        assert SECRET not in command_line()
        assert "***" in command_line()


def test_nothing_listens_while_workers_train(tmp_path):
    """Each worker notes that it trains, and is still at its first step when it is looked at."""
    step = "return F.cross_entropy(model(batch[0]), batch[1])"
    note = f"""
        if "tuner.execution.fork_server_process" in __import__("sys").orig_argv:
            __import__("pathlib").Path(__file__).with_name(f"{{__import__('os').getpid()}}.trains").touch()
            __import__("time").sleep(600)
        {step}"""
    write_study(tmp_path, trials=2, replace=[(step, note.strip())])
    launcher = started(tmp_path, "launch", "tiny.py", "--workers", "2")
    family = psutil.Process(launcher.pid)
    wait_for(lambda: len(list(tmp_path.glob("*.trains"))) >= 2, alive=[launcher])
    processes = [family, *family.children(recursive=True)]
    listening = [found.laddr for one in processes for found in one.net_connections("inet") if not found.raddr]
    launcher.kill()
    launcher.communicate()
    assert len(processes) == 4, "the command, what its workers are forked from, and two of them"
    assert listening == []
