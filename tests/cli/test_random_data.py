"""A study whose dataset draws random numbers, from the shell: again, in several processes, stopped, replayed."""

import random

import numpy as np
import pytest
import torch
from support.records import CURVES, rows
from support.shell import run_in
from support.study_files import write_study

NOISY = """
import random
import numpy as np

class Noisy(torch.utils.data.Dataset):
    def __init__(self, x, y): self.x, self.y = x, y
    def __len__(self): return len(self.x)
    def __getitem__(self, index):
        tags = list(range(6))
        random.shuffle(tags)
        noise = 0.3 * torch.randn(6) + float(np.random.normal())
        return self.x[index][tags] + noise, self.y[index]


class Tiny(Workload):"""
CHANGES = [
    ("\n\nclass Tiny(Workload):", NOISY),
    ("training=(x[:50], y[:50])", "training=Noisy(x[:50], y[:50])"),
    ("validation=(x[50:], y[50:])", "validation=Noisy(x[50:], y[50:])"),
]


def disturb():
    torch.rand(3), random.random(), np.random.rand()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The curves of an undisturbed launch in one process, and its folder."""
    folder = tmp_path_factory.mktemp("alone")
    write_study(folder, steps=20, replace=CHANGES)
    with pytest.MonkeyPatch.context() as patched:
        assert run_in(folder, patched, "launch", "tiny.py") == 0
    return folder


def test_the_same_command_again_goes_on_and_a_replay_has_the_same_bits(alone, tuner, monkeypatch):
    monkeypatch.chdir(alone)
    disturb()
    again = tuner("launch", "tiny.py")
    assert again.code == 0, again.err
    replayed = tuner("replay", "tiny.py", "--trial", 1)
    assert replayed.code == 0, replayed.err
    assert "0 differ" in replayed.out


@pytest.mark.parametrize("how", [("--workers", 2), ("--fuse", 2)])
def test_two_workers_and_fused_trials_have_the_bits_of_one_after_the_other(how, alone, tuner, tmp_path, caplog):
    study = write_study(tmp_path, steps=20, replace=CHANGES)
    disturb()
    run = tuner("launch", study, *how)
    assert run.code == 0, run.err
    assert caplog.text.count("the validation split draws random numbers") == 1
    assert rows(tmp_path, CURVES) == rows(alone, CURVES)


def test_a_sweep_and_its_dry_run_say_that_the_training_split_draws(tuner, tmp_path):
    study = write_study(tmp_path, replace=CHANGES)
    for command in (("run", study, "--dry-run"), ("sweep", study)):
        run = tuner(*command)
        assert run.code == 2
        assert "the training split of Tiny draws random numbers" in run.err
        assert "augment()" in run.err


def test_a_generator_of_its_own_is_refused_before_anything_is_written(tuner, tmp_path):
    own = [*CHANGES, ("self.x, self.y = x, y", "self.x, self.y, self.own = x, y, np.random.default_rng(0)")]
    study = write_study(tmp_path, replace=[*own, ("float(np.random.normal())", "float(self.own.normal())")])
    run = tuner("launch", study)
    assert run.code == 2
    assert "generator of its own" in run.err
    assert "np.random.default_rng(np.random.randint(2**31))" in " ".join(run.err.split())
    assert rows(tmp_path, "select * from study") == []
