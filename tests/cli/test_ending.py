"""How a process ends when it is told to: in processes that import nothing but that, so that many can be tried."""

import enum
import importlib.util
import os
import pty
import signal

import pytest
from support.processes import started

from tuner import signals

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU]
# A process that has something in hand until it is told to end, and then saves as long as the test wants.
SAVING = """
import os, select, sys, time
from tuner import signals
from tuner.signals import SHUTDOWN

{more}
def say(text):
    print(text, flush=True)

try:
    SHUTDOWN.listen(say)
    with SHUTDOWN.in_hand(lambda: say("given back")):
        say("here")
        while not SHUTDOWN.is_set():
            time.sleep(0.01)
        {saving}
        say("saved")
except KeyboardInterrupt:
    say("end")
    SHUTDOWN.code = 130
sys.exit(SHUTDOWN.code or 0)
"""
# A process that listens and has nothing in hand.
IDLE = """
import sys, time
from tuner.signals import SHUTDOWN

try:
    SHUTDOWN.listen(print)
    print("here", flush=True)
    {work}
except KeyboardInterrupt:
    print("end")
"""
LISTENS = "sys.stdin.readline(); SHUTDOWN.listen(print)"
WAITS = "while not select.select([sys.stdin], [], [], 0.01)[0]: pass"
TOLD = "stopping: saving where we are, for 20 s at most"


def saving(more="", work=WAITS, **options):
    """Such a process, once it has something in hand."""
    process = started(None, program=("-c", SAVING.format(more=more, saving=work)), **options)
    assert process.stdout.readline() == "here\n"
    return process


def said(process):
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", ALL)
def test_each_signal_saves_and_ends_with_130(number):
    process = saving()
    process.send_signal(number)
    assert said(process) == TOLD
    out, err = process.communicate("\n")
    assert (out, process.returncode) == ("saved\nend\n", 130), err


@pytest.mark.parametrize("number", ALL[:-1])
def test_any_of_them_ends_at_once_when_it_comes_later_than_others_of_the_same_job(number):
    quick = saving("signals.INSIST_SECONDS = 0.0")
    quick.send_signal(signal.SIGTERM)
    assert said(quick) == TOLD
    quick.send_signal(number)
    assert told_all(quick) == ("given back\nend\n", 130)


@pytest.mark.parametrize("number", ALL)
def test_a_second_one_at_once_is_the_same_one(number):
    process = saving("signals.INSIST_SECONDS = 1e6")
    process.send_signal(signal.SIGTERM)
    assert said(process) == TOLD
    process.send_signal(number)
    out, err = process.communicate("\n")
    assert (out, process.returncode) == ("saved\nend\n", 130), err


def test_a_limit_of_processor_time_that_is_told_every_second_does_not_insist():
    process = saving("signals.INSIST_SECONDS = 0.0")
    for _ in range(3):
        process.send_signal(signal.SIGXCPU)
    assert said(process) == TOLD
    out, err = process.communicate("\n")
    assert (out, process.returncode) == ("saved\nend\n", 130), err


def told_all(process):
    """What it says to its end, when nobody tells it anything; and its exit code."""
    out = process.stdout.read()
    process.communicate()
    return out, process.returncode


def test_ctrl_c_twice_on_a_terminal_ends_at_once():
    """A process whose standard input is a terminal."""
    ours, theirs = pty.openpty()
    process = saving("signals.INSIST_SECONDS = 1e6", stdin=theirs)
    os.close(theirs)
    process.send_signal(signal.SIGINT)
    assert said(process) == f"{TOLD}; Ctrl-C once more ends at once"
    process.send_signal(signal.SIGTERM)  # it is no key
    process.send_signal(signal.SIGINT)
    assert told_all(process) == ("given back\nend\n", 130)
    os.close(ours)


def test_what_is_not_saved_in_time_is_given_back():
    process = saving("signals.SAVE_SECONDS = 0.0")
    process.send_signal(signal.SIGUSR1)
    out, code = told_all(process)
    assert code == 130
    assert out.splitlines()[1:] == [
        "given back",
        "interrupted: not saved in 0 s; run the same command again to go on from the last commit",
    ]


def test_the_end_does_not_wait_for_a_database_that_does_not_answer():
    more = "signals.SAVE_SECONDS = signals.LAST_SECONDS = 0.0"
    source = SAVING.replace('lambda: say("given back")', "lambda: time.sleep(600)")
    process = started(None, program=("-c", source.format(more=more, saving=WAITS)))
    assert said(process) == "here"
    process.send_signal(signal.SIGTERM)
    assert told_all(process)[1] == 130


def test_the_time_to_save_lies_below_the_grace_of_schedulers():
    assert signals.SAVE_SECONDS + signals.LAST_SECONDS < 30.0
    assert signals.INSIST_SECONDS == 5.0


@pytest.mark.parametrize("number", ALL)
def test_nothing_in_hand_ends_at_once(number):
    process = started(None, program=("-c", IDLE.format(work="time.sleep(600)")))
    assert said(process) == "here"
    process.send_signal(number)
    assert told_all(process) == ("end\n", 0)


@pytest.mark.parametrize("number", ALL)
def test_what_was_ignored_at_the_start_stays_ignored(number):
    """As by `nohup`, `command &` in a script, and `trap ''`."""
    source = f"import signal; signal.signal({int(number)}, signal.SIG_IGN)" + IDLE
    work = f"signal.raise_signal({int(number)}); print('goes on'); signal.raise_signal(signal.{other_than(number)})"
    process = started(None, program=("-c", source.format(work=work)))
    assert told_all(process) == ("here\ngoes on\nend\n", 0)


def other_than(number):
    return "SIGTERM" if number != signal.SIGTERM else "SIGINT"


def test_handlers_of_user_code_are_put_aside_while_there_is_something_to_save():
    work = "signals.signal.signal(15, lambda number, frame: sys.exit(9))"
    loop = "while not SHUTDOWN.is_set():"
    source = SAVING.format(more="", saving=WAITS).replace(loop, f"{work}\n        SHUTDOWN.is_set()\n        {loop}")
    source = source.replace('say("here")', "pass").replace(loop, f'say("here")\n        {loop}')
    process = started(None, program=("-c", source))
    assert said(process) == "here"
    process.send_signal(signal.SIGTERM)
    assert said(process) == TOLD
    assert process.communicate("\n")[0] == "saved\nend\n"


@pytest.mark.parametrize("number", ALL)
def test_what_user_code_forks_dies_of_a_signal_as_ever(number):
    more = "os.register_at_fork(after_in_child=SHUTDOWN.forget)"
    process = started(None, program=("-c", SAVING.format(more=more, saving="").replace('say("here")', FORKS)))
    child = int(said(process))
    os.kill(child, number)
    died = int(said(process))
    assert died == (1 if number == signal.SIGINT else -number)  # of SIGINT by KeyboardInterrupt, as Python does
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[1].count("KeyboardInterrupt") == (number == signal.SIGINT)
    assert process.returncode == 130


FORKS = """child = os.fork()
        if not child:
            try:
                say(os.getpid())
                time.sleep(600)
            except KeyboardInterrupt:
                os.write(2, b"KeyboardInterrupt")
                os._exit(1)
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"""


def test_a_process_is_born_with_signals_withheld_until_it_listens():
    with signals.blocked():
        process = started(None, program=("-c", IDLE.replace("SHUTDOWN.listen(print)", "").format(work=LISTENS)))
    assert said(process) == "here"
    for number in ALL:
        process.send_signal(number)
    out, err = process.communicate("\n")
    assert (out, process.returncode) == ("end\n", 0), err


def test_a_platform_without_most_of_them_can_import_it(monkeypatch):
    """Windows has SIGINT, SIGTERM and SIGBREAK, and no masks."""

    class Windows(enum.IntEnum):
        SIGINT, SIGTERM, SIGBREAK = 2, 15, 21

    monkeypatch.setattr(signal, "Signals", Windows)
    monkeypatch.delattr(signal, "pthread_sigmask")
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"):
        monkeypatch.delattr(signal, name)
    spec = importlib.util.spec_from_file_location("signals_of_windows", signals.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert [number.name for number in module.STOPPING] == ["SIGINT", "SIGTERM", "SIGBREAK"]
    with module.blocked():
        module.unblock()
