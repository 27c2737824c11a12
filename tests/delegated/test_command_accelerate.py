"""Accelerate and Fabric: the recipes of docs/how-to/accelerate.md, as they stand there."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.loops import setup_for, train_loop
from support.patience import wait_for
from support.tiny import MemoryRecorder, tiny_study

from tuner import Command, minimize
from tuner.records import State
from tuner.rounds.plan import planned_trials

pytestmark = [pytest.mark.needs("accelerate"), pytest.mark.needs("lightning")]
PAGE = Path(__file__).parents[2] / "docs/how-to/accelerate.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
STUDY = tiny_study(batch_size=0, optimizer=None)
TRIAL = planned_trials(STUDY)[0]
DUE = STUDY.budget.evaluation_steps


def block_with(text):
    """The code of the page that holds this text."""
    (found,) = [block for block in BLOCKS if text in block]
    return found


def loop_of(folder, text):
    """The class of a recipe, from a module of its own."""
    path = folder / "recipe.py"
    path.write_text(block_with(text), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (kind,) = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == "recipe"]
    return kind()


class StopAfter:
    def __init__(self, questions):
        self.left = questions

    def __call__(self):
        self.left -= 1
        return self.left == 0


@pytest.mark.slow
@pytest.mark.parametrize("text", ["class WithAccelerate", "class WithFabric"])
def test_a_recipe_trains_and_goes_on_exactly_from_every_stop(tmp_path, text):
    whole = MemoryRecorder()
    assert (
        train_loop(setup_for(loop_of(tmp_path, text), tmp_path / "whole", STUDY), whole, TRIAL).state is State.COMPLETE
    )
    assert {step for step, _ in whole.measurements} == set(DUE)
    for questions in (1, 7, 18):
        recorder, folder = MemoryRecorder(), tmp_path / f"stopped-{questions}"
        setup = setup_for(loop_of(tmp_path, text), folder, STUDY, stop=StopAfter(questions))
        assert train_loop(setup, recorder, TRIAL).state is State.RUNNING
        update = train_loop(setup_for(loop_of(tmp_path, text), folder, STUDY), recorder, TRIAL)
        assert update.state is State.COMPLETE, update.reason
        assert recorder.measurements == whole.measurements


def launched(folder, **changes):
    """The command of the page, by this environment's accelerate, and its script."""
    script = block_with("accelerator.gather")
    slower = script.replace("    optimizer.step()\n", "    optimizer.step()\n    __import__('time').sleep(0.2)\n")
    assert slower != script
    (folder / "train.py").write_text(slower)
    study_file = folder / "study.py"
    words = re.search(r'Command\(\s*"(.*?)",?\s*select_by', block_with("accelerate launch"), flags=re.DOTALL)[1]
    command = re.sub(r'"\s+"', "", words).replace("accelerate launch", "python -m accelerate.commands.launch")
    workload = Command(command, select_by=minimize("validation/loss"))
    return setup_for(workload, folder / "kept", STUDY, study_file=study_file, **changes)


def processes_in(folder):
    """The processes that work in this folder."""
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            try:
                if os.readlink(one / "cwd") == str(folder) and (one / "stat").read_text().rpartition(")")[2][1] != "Z":
                    found.append(int(one.name))
            except OSError:
                continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_two_processes_by_accelerate_launch_train_stop_and_leave_nothing(tmp_path):
    folder = tmp_path.resolve()
    whole = MemoryRecorder()
    update = train_loop(launched(folder), whole, TRIAL)
    assert update.state is State.COMPLETE, update.reason
    assert {step for step, _ in whole.measurements} == set(DUE)
    wait_for(lambda: not processes_in(folder))

    recorder, most, reached = MemoryRecorder(), [], []

    def on_step(claim, step):
        reached.append(step)
        most.append(len(processes_in(folder)))

    setup = launched(folder, stop=lambda: bool(reached) and reached[-1] >= 5)
    stopped = train_loop(setup, recorder, TRIAL, on_step)
    assert max(most) >= 3  # the launcher, and two that train
    wait_for(lambda: not processes_in(folder))
    assert (stopped.state, stopped.step) in [(State.RUNNING, step) for step in DUE[:-1]]
    assert train_loop(launched(folder), recorder, TRIAL).state is State.COMPLETE
    assert recorder.measurements == whole.measurements


@pytest.mark.slow
def test_the_page_names_what_is_installed():
    said = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--help"], capture_output=True, text=True
    )
    for option in re.findall(r"(--[a-z_]+)(?= )", block_with("accelerate launch").partition("train.py")[0]):
        assert option in said.stdout
