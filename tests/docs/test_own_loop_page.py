"""The loops of docs/how-to/own-loop.md, run as they stand there, and what is said of their lines."""

import difflib
import re
from pathlib import Path

import pytest
import torch
from support.loops import setup_for, train_loop
from support.shell import tuner
from support.tiny import MemoryRecorder, StopAt, tiny_study

from tuner.delegated.trial import LoopTrial
from tuner.records import State
from tuner.rounds.plan import planned_trials

__all__ = ["tuner"]
PAGE = (Path(__file__).parents[2] / "docs/how-to/own-loop.md").read_text(encoding="utf-8")
SCRIPT, STUDY, EPOCHS, CAREFUL = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_ten_lines_make_the_script_a_study():
    loop = STUDY.partition("campaign = ")[0]
    numbered = re.findall(r"  # (\d+)$", loop, re.MULTILINE)
    assert numbered == [str(number) for number in range(1, 11)]
    before, after = ([line.partition("  #")[0].strip() for line in text.splitlines()] for text in (SCRIPT, loop))
    diff = list(difflib.ndiff([line for line in before if line], [line for line in after if line]))
    assert sum(line.startswith("+") for line in diff) == 10


def test_the_script_runs(capsys):
    exec(SCRIPT, {})
    losses = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 10
    assert losses[-1] < losses[0]


def test_the_study_of_the_page_runs(tuner, tmp_path):
    (tmp_path / "mine.py").write_text(STUDY)
    run = tuner("run", "mine.py", "--yes")
    assert run.code == 0, run.err
    assert "8/8" in run.err + run.out


def test_the_careful_loop_goes_on_with_the_same_bits(tmp_path):
    known: dict = {}
    exec(CAREFUL, known)
    study = tiny_study(batch_size=0, optimizer=None, fitted_when=None)
    trial, found = planned_trials(study)[0], []
    for questions in ([], [3, 9]):
        recorder, folder = MemoryRecorder(), tmp_path / str(len(questions))
        for question in questions:
            train_loop(setup_for(known["Careful"](), folder, study, stop=StopAt(question)), recorder, trial)
        last = train_loop(setup_for(known["Careful"](), folder, study), recorder, trial)
        assert last.state is State.COMPLETE, last.reason
        found.append(recorder.measurements)
    assert found[0] == found[1]
    assert torch.tensor([float.fromhex(value) for value in found[0].values()]).isfinite().all()


def test_the_loop_over_epochs_is_evaluated_everywhere_and_goes_on_where_it_was(tmp_path):
    known: dict = {}
    exec(EPOCHS, known)
    study = tiny_study(batch_size=0, optimizer=None, fitted_when=None)
    trial, recorder = planned_trials(study)[0], MemoryRecorder()
    for question in (3, 9):
        train_loop(setup_for(known["Epochs"](), tmp_path, study, stop=StopAt(question)), recorder, trial)
    assert 0 < len(recorder.measurements) < len(study.budget.evaluation_steps)
    last = train_loop(setup_for(known["Epochs"](), tmp_path, study), recorder, trial)
    assert last.state is State.COMPLETE, last.reason
    assert len(recorder.measurements) == len(study.budget.evaluation_steps)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`trial\.(\w+)", PAGE))))
def test_each_word_of_the_page_is_one_of_the_handle(name):
    attributes = set(
        re.findall(r"self\.(\w+)(?::[^=\n]+)? = ", Path(LoopTrial.train_with.__code__.co_filename).read_text())
    )
    assert hasattr(LoopTrial, name) or name in attributes


def test_each_public_word_of_the_handle_is_on_the_page():
    ours = {"train_with", "over", "behind", "due_behind"}
    assert ours <= vars(LoopTrial).keys()
    public = {name for name in vars(LoopTrial) if not name.startswith("_")} - ours
    assert {name for name in public if f"`trial.{name}" not in PAGE} == set()
