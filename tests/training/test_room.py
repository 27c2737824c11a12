"""The room that checkpoints take, known before a trial is trained."""

import shutil
from collections import namedtuple
from contextlib import nullcontext

import pytest
import torch
from support.loaded import loaded
from support.tiny import Tiny, setting_for, tiny_study
from torch import nn

from tuner import SearchSpace, log_uniform
from tuner.errors import Paused
from tuner.execution.inspection import inspect
from tuner.rounds.plan import planned_trials
from tuner.training.preflight import check_room, measured_price

Usage = namedtuple("Usage", "total used free")
SPACES = {
    ("sgd", 0.0): 1,
    ("sgd", 0.9): 2,
    ("adam", None): 3,
    ("adamw", None): 3,
}  # the optimizer, its momentum: how many times the parameters a state holds


class Large(Tiny):
    """A million parameters in float32 and a buffer of half of them: 4 MB and 2 MB."""

    def model(self, point):
        model = nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 2))
        model.register_parameter("table", nn.Parameter(torch.zeros(1_000_000)))
        model.register_buffer("kept", torch.zeros(500_000))
        return model

    def loss(self, model, batch, point):
        return super().loss(model, batch, point) + 0.0 * model.table.sum()


def declared(optimizer, momentum):
    given = {} if momentum is None else {"momentum": momentum}
    return tiny_study(optimizer=optimizer, space=SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), **given))


@pytest.mark.parametrize(("optimizer", "momentum"), SPACES)
def test_a_disk_must_hold_three_checkpoints_before_a_trial_is_trained(optimizer, momentum, tmp_path, monkeypatch):
    study = declared(optimizer, momentum)
    setting, trial = setting_for(study, tmp_path / "runs" / "checkpoints", Large()), planned_trials(study)[0]
    one = (4 * SPACES[optimizer, momentum] + 2) + (4 + 2)  # the state and the best weights, MB
    looked_at = []

    def disk_with(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: looked_at.append(path) or Usage(0, 0, free))

    disk_with(3_000_000 * one + 10_000)
    check_room(setting, trial)
    disk_with(3_000_000 * one - 10_000)
    told = rf"{3 * one - 0.01:.3f} MB free, and 3 checkpoints of {one}\.00\d MB .* --checkpoints"
    with pytest.raises(Paused, match=told):
        check_room(setting, trial)
    disk_with(7 * (3_000_000 * one + 10_000))
    check_room(setting, trial, 7)
    with pytest.raises(Paused, match=f"3 checkpoints of {one}.* MB for each of them must fit before 8 such trials"):
        check_room(setting, trial, 8)
    assert set(looked_at) == {tmp_path}, "the folder is not there yet, and is not made"
    assert list(tmp_path.iterdir()) == []
    price = measured_price(setting, trial)
    assert price.latest_bytes + price.best_bytes == pytest.approx(1e6 * one, rel=1e-3), "what a trained one takes"


@pytest.mark.parametrize(
    ("fuse", "processes", "at_once"), [("off", 1, 1), ("auto", 2, 2), (3, 1, 3), (3, 2, 4), (16, 1, 4)]
)
def test_room_is_asked_for_the_trials_that_train_at_once(fuse, processes, at_once, tmp_path, monkeypatch):
    study, asked = tiny_study(num_trials=4), []
    monkeypatch.setattr("tuner.training.inspection.check_room", lambda setting, trial, count: asked.append(count))
    tiny = loaded(Tiny(), tmp_path, device="cpu", fuse=fuse, worker_count=processes)
    inspect(tiny, study, planned_trials(study), validation_seconds=None, room=True)
    assert asked == [at_once], "at most the four trials of the study"


def test_what_is_frozen_counts_once(tmp_path, monkeypatch):
    class Frozen(Large):
        def model(self, point):
            model = super().model(point)
            model.table.requires_grad_(False)
            return model

    study = declared("adamw", None)
    setting, trial = setting_for(study, tmp_path, Frozen()), planned_trials(study)[0]
    small = 2 * 0.002 + 2 * 2  # MB: what is trained, and the buffer, in the state and in the best weights
    for more, fits in ((1.0, True), (-1.0, False)):
        free = 1e6 * (2 * 3 * small + 4 + more)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: Usage(0, 0, free))
        with nullcontext() if fits else pytest.raises(Paused):
            check_room(setting, trial, at_once=2)
    price = measured_price(setting, trial)
    assert price.best_bytes < 2.1e6
    assert price.latest_bytes < 2.1e6
