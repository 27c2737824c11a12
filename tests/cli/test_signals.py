"""Signals as schedulers, shells and terminals send them: all of them save, and give the trial back."""

import signal

import pytest
from support.jobs import SLURM, Job, send
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
def gone_on(tuner, monkeypatch, tmp_path):
    """Launch once more; the curves, and those of a launch that nothing interrupts."""

    def curves(folder):
        (folder / "go").touch()
        monkeypatch.chdir(folder)
        run = tuner("launch", "tiny.py")
        assert run.code == 0, run.err
        return rows(folder, CURVES)

    return curves


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
