"""Signals as schedulers, shells and terminals send them: all of them save, and give the trial back."""

import os
import pty
import select
import signal
import sys
import time

import psutil
import pytest
from support.jobs import SLURM, Job, send, write_gated
from support.patience import Patience, wait_for
from support.processes import started, told
from support.records import CURVES, rows

STATES = "select state, count(*) from trial group by state order by 1"
slow = pytest.mark.slow


def saved(folder, trials):
    """Whether so many trials were given back with their steps, and no attempt was counted."""
    assert rows(folder, STATES) == [("waiting", 4)]
    assert rows(folder, "select max(attempt) from trial") == [(0,)]
    steps = [step for (step,) in rows(folder, "select step from trial where step > 0")]
    return len(steps) == trials and min(steps) > 30


@pytest.fixture
def curves(tuner, monkeypatch):
    """Launch what is left, here and without waiting; the curves."""

    def of(folder, *options):
        (folder / "go").touch()
        monkeypatch.chdir(folder)
        run = tuner("launch", "tiny.py", *options)
        assert run.code == 0, run.err
        return rows(folder, CURVES)

    return of


@pytest.mark.parametrize(
    "numbers",
    [
        SLURM,
        pytest.param([signal.SIGUSR1], marks=slow),
        pytest.param([signal.SIGHUP], marks=slow),
        pytest.param([signal.SIGUSR2, signal.SIGTERM], marks=slow),
        pytest.param([signal.SIGXCPU, signal.SIGXCPU, signal.SIGXCPU], marks=slow),
    ],
)
def test_one_process(numbers, tmp_path):
    job = Job(tmp_path, "--fuse", "off")
    send(job.gated(1), *numbers)
    code, err = job.go()
    assert (code, "Traceback" in err) == (130, False), err
    assert saved(tmp_path, 1)


@pytest.mark.parametrize(
    ("chosen", "numbers"),
    [
        (lambda job: job.family[::-1], SLURM),
        pytest.param(lambda job: job.family, [signal.SIGUSR1], marks=slow),
        pytest.param(lambda job: job.workers()[:1], [signal.SIGUSR2], marks=slow),
        pytest.param(lambda job: [job.fork_server()], [signal.SIGHUP], marks=slow),
        pytest.param(lambda job: job.workers(), SLURM, marks=slow),
        pytest.param(lambda job: [job.step], SLURM, marks=slow),
        pytest.param(lambda job: job.family, SLURM, marks=slow),
        pytest.param(lambda job: job.family, [signal.SIGINT], marks=slow),
        pytest.param(lambda job: job.family, [signal.SIGHUP, signal.SIGCONT], marks=slow),
    ],
)
def test_whichever_process_of_a_launch_hears_it(chosen, numbers, tmp_path):
    job = Job(tmp_path, "--workers", 2)
    job.gated(2)
    send(chosen(job), *numbers)
    code, err = job.go()
    assert (code, "Traceback" in err, "replaced" in err) == (130, False, False), err
    assert saved(tmp_path, 2)


@pytest.mark.parametrize(
    ("fuse", "batch", "step", "trials"),
    [("off", 14, 20, 1), pytest.param("4", 10, 10, 4, marks=slow)],  # the second batch of step 20; one of step 10
)
def test_an_evaluation_is_stopped_between_two_batches_and_made_again(fuse, batch, step, trials, curves, tmp_path):
    job = Job(tmp_path, "--fuse", fuse, batch=batch)
    send(job.gated(1), signal.SIGTERM)
    code, err = job.go()
    assert code == 130, err
    assert rows(tmp_path, f"select count(*) from trial where step = {step} and state = 'waiting'") == [(trials,)]
    assert rows(tmp_path, f"select count(*) from measurement where step >= {step}") == [(0,)]
    write_gated(tmp_path / "calm", batch)
    assert curves(tmp_path, "--fuse", fuse) == curves(tmp_path / "calm", "--fuse", "off")
    assert rows(tmp_path, "select max(attempt) from trial") == [(1,)]


@slow
def test_what_is_not_saved_in_time_is_trained_again_from_the_last_commit(curves, tmp_path):
    for name, options, trains in (("alone", ("--fuse", "off"), 1), ("together", ("--workers", 2), 2)):
        folder = tmp_path / name
        job = Job(folder, *options, save=0.5)
        send(job.gated(trains), signal.SIGUSR1)
        code, err = told(job.launch)  # nothing lets it go on
        assert (code, "Traceback" in err, "from the last commit" in err) == (130, False, True), err
        assert rows(folder, STATES) == [("waiting", 4)]
        assert rows(folder, "select max(attempt), max(step) from trial") == [(0, 0)]
        job.go()
    assert curves(tmp_path / "alone") == curves(tmp_path / "together")


@slow
def test_who_insists_gets_an_end_at_once_and_no_attempt_is_counted(tmp_path):
    for name, options, trains in (("alone", ("--fuse", "off"), 1), ("together", ("--workers", 2), 2)):
        job = Job(tmp_path / name, *options, insist=0.0)
        job.gated(trains)
        send([job.step], signal.SIGTERM)
        job.heard("stopping: saving where we are")
        send([job.step], signal.SIGTERM)
        code, err = told(job.launch)  # nothing lets it go on
        assert (code, "Traceback" in err) == (130, False), err
        assert rows(tmp_path / name, STATES) == [("waiting", 4)]
        assert rows(tmp_path / name, "select max(attempt), max(step) from trial") == [(0, 0)]
        job.go()


@slow
def test_a_launch_that_is_stopped_and_continued_goes_on(tmp_path):
    """With less patience for workers that do not move than it is stopped for."""
    job = Job(tmp_path, "--workers", 1, "--stall-timeout", 6)
    job.gated(1)
    send(job.family, signal.SIGSTOP)  # what Ctrl-Z does in a terminal
    time.sleep(8)
    send(job.family, signal.SIGCONT)
    code, err = job.go()
    assert (code, "replaced" in err) == (0, False), err
    assert rows(tmp_path, "select state, max(attempt), count(*) from trial") == [("complete", 1, 4)]


@slow
def test_a_terminal_that_is_closed_ends_nothing_but_the_launch(tmp_path):
    """The launch leads a session with a terminal of its own; when that goes, it hears SIGHUP and can say nothing."""
    write_gated(tmp_path)
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        os.execv(sys.executable, [sys.executable, "-m", "tuner", "launch", "tiny.py", "--fuse", "off"])
    patience = Patience()
    while not list(tmp_path.glob("here-*")) and patience.left():
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 4096)
    os.close(terminal)
    (tmp_path / "go").touch()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert saved(tmp_path, 1)


@slow
def test_ctrl_c_ends_the_reader_of_what_it_says_too(tmp_path):
    """As of `tuner launch ... 2>&1 | tee log`: the pipe is broken before the launch has said that it stops."""
    job = Job(tmp_path, "--fuse", "off")
    job.gated(1)
    job.launch.stderr.close()
    job.launch.stdout.close()
    send([job.step], signal.SIGINT)
    (tmp_path / "go").touch()
    wait_for(lambda: job.launch.poll() is not None)
    assert job.launch.returncode == 130
    job.launch.stdin.close()
    assert saved(tmp_path, 1)


@slow
def test_a_shell_that_starts_it_in_the_background_or_under_nohup_keeps_it(tmp_path):
    """`sh -c "command &"` ignores SIGINT for the command, nohup SIGHUP: neither ends it, nor its workers."""
    write_gated(tmp_path)
    command = f"nohup {sys.executable} -m tuner launch tiny.py --workers 2 & wait $!"
    shell = started(tmp_path, command, program=("-c", "import os, sys; os.execvp('sh', ['sh', '-c', sys.argv[1]])"))
    wait_for(lambda: len(list(tmp_path.glob("here-*"))) >= 2, alive=[shell])
    launch = psutil.Process(shell.pid).children(recursive=True)
    send(launch, signal.SIGINT, signal.SIGHUP)
    (tmp_path / "go").touch()
    code, err = told(shell)
    assert (code, "replaced" in err) == (0, False), err
    assert rows(tmp_path, "select state, max(attempt), count(*) from trial") == [("complete", 1, 4)]
