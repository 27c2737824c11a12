"""What a loop's models have frozen is left out of its checkpoints, and is there again where the trial goes on."""

import pytest
import torch
from delegated.test_hugging_face import language_model, made
from support.lightning_nets import Net, workload_of
from support.loops import Plain, kept_at_the_end, setup_for, train_loop
from support.partly_frozen import bases, written_whole
from support.tiny import MemoryRecorder, StopAt, tiny_study
from torch import nn

from tuner.records import State
from tuner.rounds.plan import planned_trials

STUDY = tiny_study(batch_size=0, optimizer=None)
TRIAL = planned_trials(STUDY)[0]


def body():
    return nn.Sequential(nn.Linear(6, 3000).requires_grad_(False), nn.Tanh(), nn.Dropout(0.3), nn.Linear(3000, 2))


class OneModule(Plain):
    def model(self, trial):
        return body()


class TwoModules(OneModule):
    """The weights of several kept modules have the name of each in front."""

    def keep(self, trial, model, optimizer):
        trial.keep(net=model, beside=nn.Linear(2, 2), optimizer=optimizer)


class FrozenNet(Net):
    def __init__(self, learning_rate=0.1, dropout=0.3):
        super().__init__(learning_rate, dropout)
        self.net = body()


LOOPS = {"one module": OneModule, "two modules": TwoModules, "Lightning": lambda: workload_of(FrozenNet)}


def trained(workload, folder, recorder=None, **changes):
    recorder = recorder or MemoryRecorder()
    update = train_loop(setup_for(workload, folder, STUDY, **changes), recorder, TRIAL)
    return update, recorder


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_reads_back_what_it_would_have_written_whole(name, tmp_path, monkeypatch):
    update, parted = trained(LOOPS[name](), tmp_path / "parted")
    assert update.state is State.COMPLETE
    (base,) = bases(tmp_path / "parted")
    assert base.stat().st_size > 7 * 3000 * 4
    written_whole(monkeypatch)
    _, whole = trained(LOOPS[name](), tmp_path / "whole")
    assert parted.measurements == whole.measurements
    assert kept_at_the_end(tmp_path / "parted", parted) == kept_at_the_end(tmp_path / "whole", whole)
    for small, large in zip(parted.checkpoints, whole.checkpoints, strict=True):
        assert small.num_bytes < large.num_bytes - 0.9 * 7 * 3000 * 4


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_goes_on_from_what_was_left_out(name, tmp_path):
    _, straight = trained(LOOPS[name](), tmp_path / "straight")
    folder = tmp_path / "stopped"
    update, recorder = trained(LOOPS[name](), folder, stop=StopAt(12))
    assert update.state is State.RUNNING
    _, again = trained(LOOPS[name](), folder, recorder)
    assert again.measurements == straight.measurements
    assert kept_at_the_end(folder, again) == kept_at_the_end(tmp_path / "straight", straight)
    assert len(bases(folder)) == 1


@pytest.mark.slow
def test_the_trainer_of_hugging_face_reads_back_what_it_would_have_written_whole(tmp_path, monkeypatch):
    def model(point):
        net = language_model()
        net.transformer.wte.requires_grad_(False)  # tied to the head
        return net

    found = {}
    monkeypatch.setattr("tuner.training.frozen.LEAST_BYTES", 0)
    for name in ("parted", "whole"):
        _, recorder = trained(made(model_init=model), tmp_path / name)
        kept = kept_at_the_end(tmp_path / name, recorder)
        found[name] = recorder.measurements, {key: one for key, one in kept.items() if key[0] == "best"}
        assert bool(bases(tmp_path / name)) == (name == "parted")
        written_whole(monkeypatch)
    assert found["parted"] == found["whole"]


def test_a_layer_that_the_loop_changes_by_hand_is_in_its_checkpoint(tmp_path, monkeypatch):
    class Changed(OneModule):
        def step(self, trial, step, model, optimizer, batch):
            super().step(trial, step, model, optimizer, batch)
            model[0].weight.data.add_(torch.ones(()))

    found = {}
    for name in ("parted", "whole"):
        _, recorder = trained(Changed(), tmp_path / name)
        found[name] = recorder.measurements, kept_at_the_end(tmp_path / name, recorder)
        written_whole(monkeypatch)
    assert found["parted"] == found["whole"]
