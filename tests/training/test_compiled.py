"""Models that a study compiles, or whose activations it computes a second time: the bits, the names, the memory."""

import pytest
import torch
from support.fusing import TrialsRecorder, meaning
from support.sessions import StopAfter
from support.tiny import CPU, Tiny, setting_for, tiny_study, train_alone
from torch import nn
from torch.utils.checkpoint import checkpoint

from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import read_weights
from tuner.training.compiled import start_afresh
from tuner.training.preflight import check_workload
from tuner.training.trial_run import TrialRun

BACKEND = "aot_eager"


class Whole(Tiny):
    """The whole model compiled; dropout and batch norm are in it."""

    def model(self, point):
        return torch.compile(super().model(point), backend=BACKEND)


class InPlace(Tiny):
    """A part compiled in place, which keeps its names."""

    def model(self, point):
        model = super().model(point)
        model[0].compile(backend=BACKEND)
        return model


class Part(Tiny):
    def model(self, point):
        plain = super().model(point)
        return nn.Sequential(torch.compile(plain[:4], backend=BACKEND), plain[4])


class Blocks(nn.Module):
    """Three blocks with dropout, each in a checkpoint of activations or not."""

    def __init__(self, reentrant=None, width=12):
        super().__init__()
        self.first = nn.Linear(6, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.3)) for _ in range(3)
        )
        self.last = nn.Linear(width, 2)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.first(x)
        again = self.reentrant is not None and torch.is_grad_enabled()
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant) if again else block(x)
        return self.last(x)


class Kept(Tiny):
    reentrant = None

    def model(self, point):
        return Blocks(self.reentrant)


class Again(Kept):
    reentrant = False


class AgainReentrant(Kept):
    reentrant = True


KINDS = [Whole, InPlace, Part, Again, AgainReentrant]


def trained(workload, folder, *, stops=(), **changes):
    """Train a trial, stopped after so many looks again and again, each time going on as a new process would."""
    study, recorder = tiny_study(num_trials=1), TrialsRecorder()
    trial = planned_trials(study)[0]
    for count in stops:
        start_afresh()
        train_alone(setting_for(study, folder, workload, stop=StopAfter(count)), recorder, recorder.claim(trial))
    start_afresh()
    train_alone(setting_for(study, folder, workload, **changes), recorder, recorder.claim(trial))
    return recorder, trial


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_stopped_and_resumed_the_bits_are_those_of_a_trial_that_ran_through(kind, tmp_path):
    straight, trial = trained(kind(), tmp_path / "straight")
    resumed, _ = trained(kind(), tmp_path / "resumed", stops=(3, 9))
    assert straight.of(trial)[-1].state.value == "complete", straight.of(trial)[-1].reason
    assert meaning(resumed, tmp_path / "resumed", trial) == meaning(straight, tmp_path / "straight", trial)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_first_look_finds_nothing_wrong(kind, tmp_path, caplog):
    study = tiny_study()
    check_workload(setting_for(study, tmp_path, kind()), planned_trials(study)[0])
    said = [one.getMessage() for one in caplog.records if one.name.startswith("tuner")]
    assert [one for one in said if not one.startswith("trying one whole update")] == []


@pytest.mark.parametrize("kind", [Again, AgainReentrant], ids=["new", "reentrant"])
def test_activations_that_are_computed_again_change_no_bit_although_dropout_is_drawn_in_them(kind, tmp_path):
    kept, trial = trained(Kept(), tmp_path / "kept")
    again, _ = trained(kind(), tmp_path / "again")
    assert meaning(again, tmp_path / "again", trial) == meaning(kept, tmp_path / "kept", trial)


@pytest.mark.parametrize("kind", [Whole, InPlace, Part])
def test_what_is_kept_of_a_compiled_model_loads_into_the_plain_one(kind, tmp_path):
    recorder, trial = trained(kind(), tmp_path)
    best = next(one for one in recorder.checkpoints(trial) if one.kind == "best")
    weights = read_weights(tmp_path, best)
    plain = kind().model({}) if kind is Part else Tiny().model({})
    if kind is Part:
        plain = nn.Sequential(nn.Sequential(*Tiny().model({})[:4]), nn.Linear(12, 2))
    plain.load_state_dict(weights)
    run = TrialRun(setting_for(tiny_study(num_trials=1), tmp_path, kind()), trial)
    from tuner.training.extra_state import load_weights, state_dict_of

    load_weights(run.model, weights, CPU)
    assert all(torch.equal(mine, weights[name]) for name, mine in state_dict_of(run.model).items())


def test_the_compiler_is_part_of_the_numerics(tmp_path):
    recorder, trial = trained(Whole(), tmp_path)
    assert recorder.of(trial)[-1].numerics.values["compiler"] == "torch.compile"
    plain, _ = trained(Tiny(), tmp_path / "plain")
    assert "compiler" not in plain.of(trial)[-1].numerics.values
