"""Trials with parameter groups train together with the bits of each alone, whatever differs between their groups."""

import pytest
from support.fusible import Mlp, runs_of
from support.fusing import TrialsRecorder, meaning, trained_alone, trained_together
from support.tiny import StopAt, setting_for, tiny_study
from torch import nn

from tuner import SearchSpace, by_depth, log_uniform, matching, uniform, vectors
from tuner.fused.making import _optimizer_difference, exact_group
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import canonical_digest

SPACE = SearchSpace(
    learning_rate=log_uniform(1e-3, 1e-2), weight_decay=log_uniform(1e-2, 1.0), head_rate=log_uniform(0.1, 10.0),
    bias_decay=uniform(0.0, 2.0), depth=uniform(0.5, 1.0), label_smoothing=0.1,
)  # fmt: skip


class HeadFirst(Mlp):
    """The head's group stands first, though the head is the last of the model; the numbers are each trial's own."""

    def parameter_groups(self, model, point):
        return [
            matching("4.*", rate=point["head_rate"], decay=2.0),
            vectors(decay=point["bias_decay"]),
            by_depth("{}", point["depth"]),
        ]


class PartlyUsed(HeadFirst):
    """A frozen parameter, and one that the loss does not depend on, stand among the others."""

    def model(self, point):
        model = super().model(point)
        model[0].weight.requires_grad_(False)
        model.spare = nn.Parameter(model[2].weight.detach().clone())
        return model


class OtherPartition(Mlp):
    """What is in a group depends on the point, and so does the number of groups."""

    def parameter_groups(self, model, point):
        if point["bias_decay"] < 1.0:
            return [matching("4.weight", rate=point["head_rate"])]
        return [matching("2.*|4.bias", rate=0.5), vectors(decay=0.0), matching("0.*", rate=point["head_rate"])]


def digests(runs):
    return [canonical_digest(run.state()) for run in runs]


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
@pytest.mark.parametrize("workload", [HeadFirst, PartlyUsed, OtherPartition])
def test_each_trial_of_a_group_has_its_own_parameter_groups(workload, optimizer):
    momentum = {"momentum": 0.9} if optimizer in ("sgd", "rmsprop") else {}
    space = SearchSpace(
        **{one.name: one.domain for one in SPACE}, label_smoothing=0.1, clip_norm=0.5, **momentum
    )  # fmt: skip
    together, alone = (runs_of(workload(), 4, space, optimizer=optimizer) for _ in range(2))
    assert len({run.groups for run in alone}) == 4
    exact_group(together).advance(6)
    for run in alone:
        run.advance(6)
    assert digests(together) == digests(alone)
    assert len(set(digests(alone))) == 4
    for run, other in zip(together, alone, strict=True):
        rates = [[group["lr"] for group in one.optimizer.param_groups] for one in (run, other)]
        assert rates[0] == rates[1] == [group.rate * run.rates[5] for group in run.groups]


def test_trials_with_groups_are_stopped_and_resumed_together_and_alone(tmp_path):
    study = tiny_study(space=SPACE, num_trials=3, batch_size=32)
    trials = planned_trials(study)
    folders = tmp_path / "alone", tmp_path / "together"
    alone = trained_alone(setting_for(study, folders[0], HeadFirst()), trials)
    together = TrialsRecorder()
    for stop in (8, 9):
        trained_together(setting_for(study, folders[1], HeadFirst(), stop=StopAt(stop)), trials, together)
    trained_alone(setting_for(study, folders[1], HeadFirst(), stop=StopAt(3)), trials[:1], together)
    trained_together(setting_for(study, folders[1], HeadFirst()), trials, together)
    for trial in trials:
        assert meaning(together, folders[1], trial) == meaning(alone, folders[0], trial)
        assert together.of(trial)[-1].groups == alone.of(trial)[-1].groups != ()


def test_the_self_check_looks_at_the_state_of_every_group():
    one, other = (runs_of(HeadFirst(), 1, SPACE)[0] for _ in range(2))
    for run in (one, other):
        run.advance(2)
    assert _optimizer_difference("trial 0", one.optimizer, other.optimizer) is None
    last = other.optimizer.param_groups[-1]["params"][-1]
    other.optimizer.state[last]["exp_avg"].add_(1e-3)
    assert _optimizer_difference("trial 0", one.optimizer, other.optimizer) == "trial 0: the optimizer's exp_avg"
