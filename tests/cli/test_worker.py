"""`tuner worker`: it may start before the launch, serves every round of it, and says by its exit code whether to start
it again.
"""

import signal
import sqlite3
import time
from dataclasses import replace

import pytest
from support.patience import all_said, wait_for
from support.processes import started, told
from support.records import CURVES, rows
from support.stage_files import NAMES, write_stages
from support.study_files import write_study

from tuner.rounds.plan import planned_trials
from tuner.rounds.serving import Serving
from tuner.storage.store import open_ledger

LOSS = "return F.cross_entropy(model(batch[0]), batch[1])"
SLOWLY = [(LOSS, f"__import__('time').sleep(0.02 * bool(__import__('os').environ.get('SLOWLY')))\n        {LOSS}")]
ALONE = ("-q", "--fuse", "off")
NOT_LONG = ("--idle-timeout", "0.1")
WORKED = "select study.name, command from launch join study on study.id = study_id where command like '%worker%'"
OF_ROUNDS = CURVES.replace("select number", "select study.name, number").replace(
    "order by 1, 3, 4", "join study on study.id = study_id order by 1, 2, 4, 5"
)
slow = pytest.mark.slow


def plan_more(folder, count):
    """Let trials wait in round 1, as if a launcher had just planned them."""
    with open_ledger(str(folder / "runs" / "tuner.sqlite")) as ledger:
        row = ledger.study("tiny", "round-1")
        study = replace(row.study, num_trials=count)
        ledger.start_study("tiny", study, row.fingerprint, trials=planned_trials(study))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--idle-timeout", "-1"), "--idle-timeout is a number of seconds, 0 or more (inf: for ever), got -1"),
        (("--wait-for-launch", "nan"), "--wait-for-launch is a number of seconds, 0 or more (inf: for ever), got nan"),
        (("--until", "round"), "'round' is not one of 'campaign', 'study'"),
    ],
)
def test_wrong_options_are_one_clear_error(options, words, tuner, tmp_path):
    write_study(tmp_path)
    run = tuner("worker", "tiny.py", *options)
    assert run.code == 2
    assert words in run.err


def test_a_launch_that_is_not_there_is_an_error_and_one_that_does_not_come_is_tried_again(tuner, tmp_path):
    write_study(tmp_path)
    run = tuner("worker", "tiny.py")
    assert (run.code, "--wait-for-launch 600 waits for that" in run.err) == (2, True), run.err
    run = tuner("worker", "tiny.py", "--wait-for-launch", "0.1")
    assert run.code == 75, run.err
    assert "paused: no launch of tiny.py came within 0.1 s: start it (tuner run tiny.py)" in run.err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.py"]


def test_each_way_to_end_has_its_exit_code(tuner, tmp_path):
    file = write_study(tmp_path, trials=2, steps=20)
    assert tuner("launch", "tiny.py", *ALONE).code == 0
    idle = tuner("worker", "tiny.py", "--idle-timeout", "0.1")
    assert (idle.code, idle.err.splitlines()[-1]) == (
        0, "tiny: no more work came in 0.1 s (--idle-timeout); 1 of 2 rounds were launched",
    )  # fmt: skip
    asked = tuner("worker", "tiny.py", "--until", "study")
    assert (asked.code, asked.err) == (0, "tiny: nothing is left to train in 1 study\n")
    assert tuner("launch", "tiny.py", "--round", 2, *ALONE).code == 0
    over = tuner("worker", "tiny.py", *NOT_LONG)
    assert (over.code, over.err) == (0, "tiny: the campaign is over: nothing is left to train in 2 studies\n")
    assert rows(tmp_path, WORKED) == [], "what is finished is not launched again"
    plan_more(tmp_path, 3)
    helped = tuner("worker", "tiny.py", *NOT_LONG, *ALONE)
    assert helped.code == 0, helped.err
    of_round_1 = "from trial join study on study.id = study_id where study.name = 'round-1'"
    assert rows(tmp_path, f"select state, count(*) {of_round_1} group by state") == [("complete", 3)]
    plan_more(tmp_path, 4)
    file.write_text(file.read_text().replace("nn.ReLU()", "nn.Tanh()"))
    changed = tuner("worker", "tiny.py", *NOT_LONG, *ALONE)
    assert (changed.code, "the code or the data of the workload changed since round-1" in changed.err) == (2, True)
    assert tuner("worker", "tiny.py:other").code == 2


def test_trials_that_fail_end_it_with_4(tuner, tmp_path):
    broken = f"if point['dropout'] < 1: raise RuntimeError('the cable is loose')\n        {LOSS}"
    file = write_study(tmp_path, trials=4, steps=20)
    assert tuner("launch", "tiny.py", "--trials", 1, *ALONE).code == 0
    file.write_text(file.read_text().replace(LOSS, broken))
    plan_more(tmp_path, 4)
    run = tuner("worker", "tiny.py", "--allow-changed-code", *NOT_LONG, *ALONE)
    assert (run.code, "3 trials in a row failed alike" in run.err) == (4, True), run.err


def test_a_file_that_is_edited_while_a_worker_waits_is_read_anew_by_the_same_command(tuner, tmp_path, monkeypatch):
    file = write_study(tmp_path, trials=1, steps=20)
    assert tuner("launch", "tiny.py", *ALONE).code == 0
    plan_more(tmp_path, 2)
    next_study = Serving.next_study

    def edited_first(serving, ledger):
        file.write_text(file.read_text().replace("nn.ReLU()", "nn.Tanh()"))
        return next_study(serving, ledger)

    monkeypatch.setattr(Serving, "next_study", edited_first)
    edited = tuner("worker", "tiny.py", *NOT_LONG, *ALONE)
    assert (edited.code, "was edited after this worker had read it" in edited.err) == (75, True), edited.err
    assert tuner("worker", "tiny.py", *NOT_LONG, *ALONE).code == 2, "the trials are of the code before"


@slow
def test_a_worker_that_waits_hears_signals_and_its_own_limit(tmp_path):
    write_study(tmp_path, trials=1, steps=20)
    assert told(started(tmp_path, "launch", "tiny.py", *ALONE))[0] == 0
    idle = started(tmp_path, "worker", "tiny.py", "--idle-timeout", "inf")
    for line in iter(idle.stderr.readline, ""):
        if "waiting for the next study; 1 of 2 rounds were launched" in line:
            break
    idle.send_signal(signal.SIGTERM)
    assert told(idle)[0] == 130
    code, err = told(started(tmp_path, "worker", "tiny.py", "--idle-timeout", "inf", "--max-seconds", 20))
    assert (code, "the time is up: --max-seconds 20 ends in 5 s" in err, "Traceback" in err) == (130, True, False), err


@slow
def test_a_storage_that_is_deleted_meanwhile_is_75(tmp_path):
    write_study(tmp_path, trials=1, steps=20)
    assert told(started(tmp_path, "launch", "tiny.py", *ALONE))[0] == 0
    idle = started(tmp_path, "worker", "tiny.py", "--idle-timeout", "inf")
    for line in iter(idle.stderr.readline, ""):
        if "waiting for the next study" in line:
            break
    (tmp_path / "runs" / "tuner.sqlite").unlink()
    code, err = told(idle)
    assert (code, "Traceback" in err) == (75, False), err


@slow
@pytest.mark.parametrize("killed", [False, True])
def test_a_worker_that_starts_first_serves_the_whole_campaign_with_the_same_rows_and_bits(killed, tmp_path):
    calm, shared = tmp_path / "calm", tmp_path / "shared"
    for folder in (calm, shared):
        folder.mkdir()
        write_study(folder, trials=6, replace=SLOWLY)
    assert told(started(calm, "run", "tiny.py", "--yes", *ALONE))[0] == 0
    workers = [
        started(shared, "worker", "tiny.py", "--wait-for-launch", "inf", "--idle-timeout", "inf", *ALONE)
        for _ in range(2)
    ]
    time.sleep(1.0)
    assert not (shared / "runs").exists()
    launcher = started(shared, "run", "tiny.py", "--yes", *ALONE, SLOWLY="1")
    if killed:  # in the first round; its workers go on, and it comes again
        wait_for(lambda: in_round_1(shared), alive=[launcher])
        launcher.kill()
        launcher.communicate()
        launcher = started(shared, "run", "tiny.py", "--yes", *ALONE, SLOWLY="1")
    for one in (launcher, *workers):
        _, err = all_said(one, lambda: moved(shared))
        assert (one.returncode, "Traceback" in err) == (0, False), err
    assert rows(shared, OF_ROUNDS) == rows(calm, OF_ROUNDS)
    assert rows(shared, "select distinct state from trial") == [("complete",)]
    served = {name for name, _ in rows(shared, WORKED)}
    assert {"round-1", "round-2"} <= served or len(served) >= 3, served


def moved(folder):
    """What grows while a campaign is trained; nothing where there is no storage yet, with its tables."""
    try:
        return rows(folder, "select sum(step), sum(fence) from trial")
    except sqlite3.OperationalError:
        return []


def in_round_1(folder):
    """Whether a trial of the first round was begun."""
    query = "select count(*) from trial join study on study.id = study_id where study.name = 'round-1' and fence > 0"
    return moved(folder) != [] and rows(folder, query) != [(0,)]


@slow
def test_a_worker_of_a_whole_file_serves_all_of_its_stages(tmp_path):
    write_stages(tmp_path)
    worker = started(tmp_path, "worker", "staged.py", "--wait-for-launch", "inf", "--idle-timeout", "inf", *ALONE)
    launcher = started(tmp_path, "run", "staged.py", *ALONE)
    for one in (launcher, worker):
        code, err = told(one)
        assert (code, "Traceback" in err) == (0, False), err
    assert [name for (name,) in rows(tmp_path, "select name from campaign order by id")] == NAMES
    assert f"{', '.join(NAMES)}: the campaign is over: nothing is left to train in 4 studies" in err


@slow
def test_a_worker_trains_the_stage_whose_launcher_is_gone(tmp_path, tuner):
    """Killed after it has planned the second stage; without it nothing more is planned."""
    write_stages(tmp_path)
    assert tuner("run", "staged.py:head", *ALONE).code == 0
    with open_ledger(str(tmp_path / "runs" / "tuner.sqlite")) as ledger:
        row = ledger.study("head:1", "round-1")
        study = replace(row.study, num_trials=3)
        ledger.start_study("head:1", study, row.fingerprint, trials=planned_trials(study))
    run = tuner("worker", "staged.py", "--idle-timeout", "0.1", *ALONE)
    assert run.code == 0, run.err
    assert "1 of 4 rounds" not in run.err
    assert "; 2 of 4 rounds were launched" in run.err
    assert rows(tmp_path, "select count(*) from trial where state <> 'complete'") == [(0,)]
