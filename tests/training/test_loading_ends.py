"""Loading processes end with the process that trains, however that ends, and a stop is not held up by them."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from support.drawing import Drawing, OfDrawing
from support.patience import wait_for
from support.tiny import MemoryRecorder, setting_for, tiny_study, train_alone

from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.evaluation import check_going_on

STUDY = tiny_study()
TRIAL = planned_trials(STUDY)[0]

TRAINER = """
import sys, threading, torch
from support.drawing import Drawing
from tuner.training.loading_processes import LoadingProcesses

blocked = sys.argv[1] == "blocked"
def make(step):
    if blocked and step == 2:
        threading.Event().wait()
    return torch.full((4,), float(step))

processes = LoadingProcesses([make], 2)
batches = processes.ahead((0, (step,)) for step in range(10**9))
assert next(batches)[0] == 0
print(*processes.pids, flush=True)
if sys.argv[1] == "ends":
    sys.exit(3)
for batch in batches:
    pass
"""


def trainer(kind):
    """A process that trains, and the ids of its loading processes."""
    path = os.pathsep.join(sys.path)
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINER, kind], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    return process, list(map(int, process.stdout.readline().split()))


def are_gone(pids):
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


@pytest.mark.parametrize("kind", ["busy", "blocked"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_a_trainer_that_is_ended_by_a_signal(kind, number):
    process, pids = trainer(kind)
    assert len(pids) == 2
    process.send_signal(number)
    process.communicate()
    wait_for(lambda: are_gone(pids))


def test_no_process_outlives_a_trainer_that_ends_without_closing():
    process, pids = trainer("ends")
    process.communicate()
    assert process.returncode == 3
    wait_for(lambda: are_gone(pids))


class Loaded(OfDrawing):
    data_workers = 2

    def __init__(self):
        super().__init__(Drawing)


def test_an_evaluation_that_is_stopped_leaves_no_process_and_is_made_again(tmp_path):
    alone = MemoryRecorder()
    workload = Loaded()
    workload.data_workers = 0
    train_alone(setting_for(STUDY, tmp_path / "alone", workload), alone, alone.claim(TRIAL))
    recorder, asked = MemoryRecorder(), []

    def within_an_evaluation():
        asked.append(sys._getframe(1).f_code is check_going_on.__code__)
        return sum(asked) == 3 and asked[-1]

    setup = setting_for(STUDY, tmp_path / "stopped", Loaded(), stop=within_an_evaluation)
    update = train_alone(setup, recorder, recorder.claim(TRIAL))
    assert update.state is State.RUNNING
    assert setup.data.loading.pids == []
    update = train_alone(setting_for(STUDY, tmp_path / "stopped", Loaded()), recorder, recorder.claim(TRIAL))
    assert update.state is State.COMPLETE
    assert recorder.measurements == alone.measurements
