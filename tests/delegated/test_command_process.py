"""A program as a process: whatever ends it or us, nothing of it lives on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.patience import wait_for

from tuner.delegated.command_process import LineBuffer, OutputLog, ProgramEnd, RunningProgram

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")

# Leaves a child, one in another session, and a daemon; tells their process ids, and waits.
FAMILY = """
import os, subprocess, sys, time
sleeps = [sys.executable, "-c", "import time; time.sleep(3600)"]
pids = [os.getpid(), subprocess.Popen(sleeps).pid, subprocess.Popen(sleeps, start_new_session=True).pid]
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(write, str(os.getpid()).encode())
        os.close(1), os.close(2)
        time.sleep(3600)
    os._exit(0)
os.wait()
pids.append(int(os.read(read, 20)))
print(*pids, flush=True)
"""
STARTS = """
import os, sys, time
from pathlib import Path
from tuner.delegated.command_process import OutputLog, RunningProgram
folder = Path(sys.argv[1])
program = RunningProgram([sys.executable, str(folder / "family.py")], folder, os.environ, None, OutputLog(folder))
lines = []
while not lines:
    lines = program.lines(0.1)
(folder / "guard").write_text(str(program._guard.pid))
print(lines[0].decode(), flush=True)
time.sleep(3600)
"""


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def log(tmp_path):
    log = OutputLog(tmp_path)
    yield log
    log.close()


def started(folder, text="import time; time.sleep(3600)"):
    (folder / "family.py").write_text(FAMILY + text)
    process = subprocess.Popen([sys.executable, "-c", STARTS, str(folder)], stdout=subprocess.PIPE, text=True)
    with process.stdout:
        pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 4
    assert all(map(is_alive, pids))
    return process, pids


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_lives_on_where_we_are_killed(tmp_path, number):
    process, pids = started(tmp_path)
    process.send_signal(number)
    process.wait()
    wait_for(lambda: not any(map(is_alive, pids)))


def test_the_program_ends_with_its_guard(tmp_path):
    """The guard is killed: the kernel ends the program itself; who has left it is then out of anybody's sight."""
    process, pids = started(tmp_path)
    os.kill(int((tmp_path / "guard").read_text()), signal.SIGKILL)
    wait_for(lambda: not is_alive(pids[0]))
    process.kill()
    process.wait()
    for pid in pids[1:]:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def program(log, text):
    return RunningProgram([sys.executable, "-c", text], log.path.parent, os.environ, None, log)


def ended(running):
    found = []
    while running.ended is None:
        found += running.lines(1.0)
    running.close()
    return running.ended, found


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("pass", ProgramEnd()),
        ("import sys; sys.exit(75)", ProgramEnd(code=75)),
        ("import os; os.kill(os.getpid(), 11)", ProgramEnd(signal=11)),
        ("import os; os._exit(255)", ProgramEnd(code=255)),
    ],
)
def test_how_a_program_ended_is_known(log, text, how):
    assert ended(program(log, text))[0] == how


def test_all_that_it_printed_before_its_end_is_read(log):
    _, lines = ended(program(log, "print('a' * 200_000); print('b', end='')"))
    assert lines == [b"a" * 200_000, b"b"]


def test_its_input_is_empty_and_no_descriptor_of_ours_is_open(log):
    shows = "import os, sys; print(repr(sys.stdin.read()), sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"
    with open(os.devnull) as ours:
        os.set_inheritable(ours.fileno(), True)
        _, lines = ended(program(log, shows))
    assert lines == [b"'' [0, 1, 2]"]


def test_a_program_that_cannot_be_run_says_why(tmp_path, log):
    broken = tmp_path / "broken"
    broken.write_text("no program")
    broken.chmod(0o755)
    running = RunningProgram([str(broken)], tmp_path, os.environ, None, log)
    how, _ = ended(running)
    assert "could not be started: Exec format error" in how.words


def test_it_hears_sigterm_and_close_kills_it_where_it_does_not_end(log):
    text = "import signal, time; signal.signal(15, lambda *_: print('heard', flush=True)); print('on', flush=True)\n"
    running = program(log, text + "while True: time.sleep(0.05)")
    lines = []
    while not lines:
        lines = running.lines(0.1)
    running.terminate()
    lines = []
    while not lines:
        lines = running.lines(0.1)
    assert lines == [b"heard"]
    assert running.ended is None
    running.close()
    assert running._guard.returncode is not None


def test_lines_come_whole_and_too_long_ones_in_pieces():
    lines = LineBuffer()
    assert list(lines.of(b"a\nb")) == [b"a"]
    assert list(lines.of(b"c\n")) == [b"bc"]
    assert [len(one) for one in lines.of(b"x" * 2_000_000)] == [2_000_000]
    assert list(lines.of(b"\nend")) == [b""]
    assert list(lines.left()) == [b"end"]
