"""An own loop and a command that are stopped by `--max-seconds` save in time, and go on to the same rows."""

import sqlite3

import pytest
from support import kills
from support.loop_runs import left, running, write_loop_study
from support.processes import started, told
from support.programs import RESUMED, WORDS, write_fit

pytestmark = pytest.mark.slow
SLOWLY = "time.sleep({} * bool(os.environ.get('SLOWLY')))"
COMMAND = """
from tuner import *

campaign = Campaign(
    Command(
        "{words}", select_by=minimize("validation/loss"), fitted_when=at_most("training/error_rate", 0.0),
        env={{"HERE": {here!r}}},
    ),
    rounds=[Round("Which rate?", trials=6, max_train_steps=40, space=SearchSpace(learning_rate=log_uniform(0.1, 9)))],
)
"""


def asked(file, query):
    connection = sqlite3.connect(file)
    found = connection.execute(query).fetchall()
    connection.close()
    return found


def saved(file):
    """Steps that are saved; none where there is no storage yet."""
    return asked(file, "select coalesce(sum(step), 0) from trial")[0][0] if file.exists() else 0


def stopped_by_its_limit(begin, file, times=2):
    """Begin a command so many times that is stopped by its limit after it has saved more steps than were saved before.

    begin: starts it with more options. file: its storage.
    """
    seconds, stops = 8, 0
    while stops < times:
        before = saved(file)
        code, err = told(begin("--max-seconds", seconds))
        assert (code, "Traceback" in err) == (130, False), err
        if saved(file) == before:  # a busy machine: it did not even get to a step
            seconds *= 2
            continue
        stops += 1
        assert asked(file, "select count(*) from trial where state = 'running'") == [(0,)]
        assert asked(file, "select max(attempt) from trial where state = 'waiting'") == [(0,)]


def test_an_own_loop_that_is_stopped_by_its_limit_goes_on_to_the_same_rows(tmp_path, monkeypatch):
    within = "; ".join(["import time", SLOWLY.format(0.01)])
    folders = [
        write_loop_study(tmp_path / name, sweep="", length="max_train_steps=1500, ", within=within)
        for name in ("calm", "rough")
    ]
    monkeypatch.setenv("SLOWLY", "1")
    stopped_by_its_limit(lambda *options: running(folders[1], *options), folders[1] / "runs" / "tuner.sqlite")
    monkeypatch.delenv("SLOWLY")
    for folder in folders:
        code, err = told(running(folder))
        assert code in kills.DONE, err
    assert left(folders[0]) == left(folders[1])


@pytest.mark.parametrize("more", [f"--rates {{rates}} {RESUMED}", f"{RESUMED} --rates {{rates}} --metrics {{metrics}}"])
def test_a_command_that_is_stopped_by_its_limit_goes_on_to_the_same_rows(more, tmp_path, monkeypatch):
    text = COMMAND.format(words=f"{WORDS} {more}", here=SLOWLY.format(0.5))
    found = []
    for name in ("rough", "calm"):
        folder = tmp_path / name
        folder.mkdir()
        write_fit(folder).write_text(text)
        begin = ("launch", "study.py", "--storage", "study.sqlite")
        if name == "rough":
            monkeypatch.setenv("SLOWLY", "1")
            stopped_by_its_limit(
                lambda *options: started(folder, *begin, *options),  # noqa: B023
                folder / "study.sqlite",
            )
            monkeypatch.delenv("SLOWLY")
        code, err = told(started(folder, *begin))
        assert code in kills.DONE, err
        found.append(kills.rows_of(folder, 2))
    assert found[0] == found[1]
