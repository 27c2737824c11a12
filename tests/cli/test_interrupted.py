"""Ctrl-C, SIGTERM and kill -9, wherever they meet a command: each stops itself there, so that no clock decides."""

import signal

import pytest
from support.processes import started, told, wait_until_stopped
from support.records import CURVES, rows
from support.study_files import write_study

INTERRUPTED = "interrupted; run the same command again to go on\n"
both_signals = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
EVALUATED = [
    ("from tuner import *", "from tuner import *\nfrom tuner.failpoints import failpoint"),
    (
        "logits = model(batch[0])\n        wrong",
        'failpoint("evaluated")\n        logits = model(batch[0])\n        wrong',
    ),
]


def stoppable(folder):
    """Write a study that passes a failpoint at each evaluation, and return the folder."""
    folder.mkdir()
    write_study(folder, trials=4, steps=400, replace=EVALUATED)
    return folder


def launched(folder, fuse, **environment):
    return started(folder, "launch", "tiny.py", "--fuse", fuse, **environment)


def signalled(process, number):
    """Its exit code and its words, when a signal comes while it is stopped."""
    wait_until_stopped(process)
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    return told(process)


@pytest.fixture
def gone_on(tuner, monkeypatch, tmp_path):
    """Launch what was interrupted once more, here; its curves, and those of the study when nothing interrupts it."""

    def curves(folder, fuse):
        monkeypatch.chdir(folder)
        run = tuner("launch", "tiny.py", "--fuse", fuse)
        assert run.code == 0, run.err
        return rows(folder, CURVES)

    return lambda folder, fuse: (curves(folder, fuse), curves(stoppable(tmp_path / "calm"), "off"))


@both_signals
@pytest.mark.parametrize(("fuse", "place", "complete"), [("off", "evaluated@100", 2), ("4", "evaluated@12", 0)])
def test_ctrl_c_leaves_a_state_from_which_the_same_result_comes(number, fuse, place, complete, gone_on, tmp_path):
    folder = stoppable(tmp_path / "hurried")
    code, err = signalled(launched(folder, fuse, TUNER_FAILPOINTS=f"{place}=sigstop"), number)
    assert code == 130, err
    assert "Traceback" not in err
    states = dict(rows(folder, "select state, count(*) from trial group by state"))
    assert states.get("running", 0) == 0
    assert states.get("complete", 0) == complete
    assert rows(folder, "select max(step) from trial where state <> 'complete'")[0][0] > 0, "it was training"
    waiting = "select max(attempt) from trial where state = 'waiting'"
    assert rows(folder, waiting) == [(0,)], "an interruption is no attempt"
    found, calm = gone_on(folder, fuse)
    assert found == calm


def test_kill_9_loses_at_most_what_was_not_committed(gone_on, tmp_path):
    folder = stoppable(tmp_path / "killed")
    for place in ("evaluated@70", "evaluated@50"):
        code, _ = told(launched(folder, "off", TUNER_FAILPOINTS=f"{place}=kill9"))
        assert code == -signal.SIGKILL
    found, calm = gone_on(folder, "off")
    assert found == calm
    assert rows(folder, "select count(*), state from trial group by state") == [(4, "complete")]


def test_a_command_that_has_nothing_to_save_ends_at_once(tmp_path):
    stop = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nfrom tuner import *"
    write_study(tmp_path, replace=[("from tuner import *", stop)])
    assert signalled(started(tmp_path, "launch", "tiny.py"), signal.SIGTERM) == (130, INTERRUPTED)
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["tiny.py"]


# How Python ends: it waits for threads, then calls what was left for the exit, then takes modules apart.
ENDING = """
import atexit, os, sys, threading
from tuner.cli import main

def pause(write=os.write, read=os.read):
    write(1, b"here\\n")
    read(0, 1)

class Pauses:
    def __del__(self, pause=pause):
        pause()

def wait():
    threading.main_thread().join()
    pause()

place = sys.argv.pop(1)
if place == "threads":
    threading.Thread(target=wait).start()
elif place == "exit":
    atexit.register(pause)
else:
    sys.pauses = Pauses()  # of what it takes apart, the last
main()
"""


@both_signals
@pytest.mark.parametrize(
    ("place", "words", "code"), [("threads", "--nonsense", 2), ("exit", "--version", 0), ("modules", "--version", 0)]
)
def test_a_signal_after_the_work_changes_no_exit_code(number, place, words, code, tmp_path):
    process = started(tmp_path, place, words, program=("-c", ENDING))
    assert "here\n" in iter(process.stdout.readline, "")
    process.send_signal(number)
    found, err = told(process)
    assert found == code, err
    assert "Traceback" not in err


FORKING = """
import os, signal
from tuner.cli import app, main

def run():
    if not (child := os.fork()):
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    os.kill(child, signal.SIGTERM)
    os.kill(child, signal.SIGCONT)
    return abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

app.run = run
main()
"""


def test_what_a_command_forks_is_no_command(tmp_path):
    code, _ = told(started(tmp_path, program=("-c", FORKING)))
    assert code == signal.SIGTERM, "it died of it, as any other process"
