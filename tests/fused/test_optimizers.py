"""Any optimizer in a group: the bits of each trial alone, over fifty steps, and resumed at the thirtieth."""

import functools
from typing import Any

import pytest
import torch
from support.combinations import Alternating, held_in_a_box
from support.fusible import Images, Mlp, OddMlp, Residual, runs_of
from support.fusing import meaning, trained_alone, trained_together
from support.tiny import StopAt, Tiny, setting_for, tiny_study
from torch import nn

from tuner import SearchSpace, log_uniform, uniform
from tuner.budget.step_budget import StepBudget
from tuner.design.optimizers import OPTIMIZERS, ParameterGroup, optimizer_named
from tuner.errors import WorkloadError
from tuner.fused.group import Group
from tuner.fused.making import exact_group, first_difference
from tuner.fused.optimizers import KernelSteps, OwnSteps
from tuner.rounds.plan import planned_trials
from tuner.training import trial_run
from tuner.training.checkpoints import canonical_digest
from tuner.training.optimizers import make_optimizer

STEPS, STOP = 50, 30
BY_KERNELS = {"sgd", "adam", "adamw", "adagrad"}


def make_optimizer_with_hooks(groups, point):
    """A function of a study: weights are held within a box after each step."""
    return held_in_a_box(torch.optim.ASGD(groups, t0=10.0), 0.1)


class Slowing(torch.optim.SGD):
    """An optimizer of the user's that counts its steps in its parameter groups, where torch saves it."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
            group["momentum"] = 0.5 / group["count"]
        return super().step()


GIVEN = {
    "RMSprop": torch.optim.RMSprop,
    "Rprop": torch.optim.Rprop,
    "function": make_optimizer_with_hooks,
    "own": Alternating,
    "slowing": Slowing,
}


def space_of(name):
    """Learning rate, clipping and every setting of an optimizer with a range to begin with."""
    found = {"learning_rate": log_uniform(1e-3, 1e-2), "clip_norm": uniform(0.1, 1.0)}
    if name in OPTIMIZERS:
        found |= {key: one for key, one in OPTIMIZERS.get(name).ranges.items() if key != "learning_rate"}
    if name == "RMSprop":
        found |= {"momentum": uniform(0.0, 0.9), "weight_decay": log_uniform(1e-3, 1.0)}
    if name == "own":
        found |= {"momentum": uniform(0.0, 0.9)}
    return SearchSpace(**found)


NAMES: list[Any] = [spec.name for spec in OPTIMIZERS.own if spec.name != "adamw_8bit"]
NAMES += [pytest.param("adamw_8bit", marks=pytest.mark.needs("bitsandbytes")), *GIVEN]


class WithoutBatchNorm(Tiny):
    """For an optimizer that evaluates other weights than it trains."""

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 12), nn.LayerNorm(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))


def setting_of(study, folder, **changes):
    """A setting whose workload the optimizer can train."""
    averages = study.optimizer == "schedule_free_adamw"
    return setting_for(study, folder, WithoutBatchNorm() if averages else None, **changes)


def named(name):
    return optimizer_named(GIVEN[name]) if name in GIVEN else name


def study_of(name):
    budget = StepBudget(STEPS, 5)
    return tiny_study(optimizer=named(name), space=space_of(name), num_trials=3, budget=budget)


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """For an optimizer three trials, what each left alone and where: trained once for all tests."""

    @functools.cache
    def trained(name):
        study, folder = study_of(name), tmp_path_factory.mktemp("alone")
        trials = planned_trials(study)
        return study, trials, trained_alone(setting_of(study, folder), trials), folder

    return trained


def assert_same(recorder, alone, folders, trials):
    for trial in trials:
        assert meaning(recorder, folders[0], trial) == meaning(alone, folders[1], trial), f"trial {trial.number}"


@pytest.mark.parametrize("name", NAMES)
def test_trials_trained_together_have_the_bits_of_each_alone(name, one_by_one, tmp_path):
    study, trials, alone, folder = one_by_one(name)
    together = trained_together(setting_of(study, tmp_path), trials)
    assert together.of(trials[0])[-1].step == STEPS
    assert_same(together, alone, (tmp_path, folder), trials)


@pytest.mark.parametrize("name", NAMES)
def test_trials_stopped_after_thirty_steps_go_on_to_the_same_bits(name, one_by_one, tmp_path):
    """A group, then one alone, and two in a group again; and one that was alone all the time."""
    study, trials, alone, folder = one_by_one(name)
    recorder = trained_together(setting_of(study, tmp_path, stop=StopAt(STOP + 1)), trials)
    assert {recorder.of(trial)[-1].step for trial in trials} == {STOP}
    trained_alone(setting_of(study, tmp_path), trials[:1], recorder)
    trained_together(setting_of(study, tmp_path), trials[1:], recorder)
    assert_same(recorder, alone, (tmp_path, folder), trials)
    stopped = trained_alone(setting_of(study, tmp_path / "one", stop=StopAt(STOP + 1)), trials[:1])
    trained_alone(setting_of(study, tmp_path / "one"), trials[:1], stopped)
    assert_same(stopped, alone, (tmp_path / "one", folder), trials[:1])


@pytest.mark.parametrize("workload", [OddMlp, Residual])
@pytest.mark.parametrize("name", NAMES)
def test_odd_sizes_and_convolutions_keep_their_bits(name, workload):
    if (name, workload) == ("schedule_free_adamw", Residual):
        with pytest.raises(WorkloadError, match="BatchNorm2d"):
            runs_of(workload(), 3, space_of_images(name), optimizer=name)
        return
    together, alone = (runs_of(workload(), 3, space_of_images(name), optimizer=named(name)) for _ in range(2))
    group = exact_group(together)
    assert isinstance(group.optimizer, KernelSteps if name in BY_KERNELS else OwnSteps)
    group.advance(5)
    for run, other in zip(together, alone, strict=True):
        other.advance(5)
        assert canonical_digest(run.state()) == canonical_digest(other.state())
        assert not any(one.is_inference() for one in tensors_of(run.optimizer))


def test_the_hooks_that_a_function_gives_its_optimizer_are_called_alone_and_in_a_group():
    together, (alone,) = (
        runs_of(Mlp(), count, space_of_images("function"), optimizer=named("function")) for count in (2, 1)
    )
    Group(together).advance(1)
    alone.advance(1)
    for run in (*together, alone):
        assert max(float(parameter.detach().abs().max()) for parameter in run.parameters) == pytest.approx(0.1)


def space_of_images(name):
    return SearchSpace.of(space_of(name).hyperparameters, SearchSpace(label_smoothing=0.1).fixed)


def tensors_of(optimizer):
    return [one for state in optimizer.state.values() for one in state.values() if isinstance(one, torch.Tensor)]


@pytest.mark.parametrize("name", ["rmsprop", "adafactor", "own", "slowing", "adagrad", "adamw"])
def test_a_group_that_is_put_back_begins_as_if_it_had_not_trained(name):
    """Also one that was resumed: the self-check trains it, and takes that back."""
    group = Group(runs_of(Mlp(), 3, space_of_images(name), optimizer=named(name)))
    for _ in range(2):
        before = [canonical_digest(run.state()) for run in group.runs]
        assert first_difference(group) is None
        assert [canonical_digest(run.state()) for run in group.runs] == before
        for run in group.runs:
            run.advance(run.step + 3)
        group = Group(group.runs)


def test_what_a_group_needs_is_known_before_it_trains():
    group = Group(runs_of(Mlp(), 3, space_of_images("rmsprop"), optimizer="rmsprop"))
    before = group.num_bytes
    group.advance(2)
    kept = sum(one.nbytes for run in group.runs for one in tensors_of(run.optimizer))
    assert group.optimizer.num_bytes == kept
    assert group.num_bytes == before


# --- Parameter groups ---------------------------------------------------------------------------------------------


@pytest.fixture
def several(monkeypatch):
    """Every trial has three groups: the first layer, vectors without decay, and the rest at a rate of its own."""

    def make(name, groups, point, rate, model=None):
        (everything,) = groups
        first, *rest = everything["params"]
        vectors = [one for one in rest if one.ndim < 2]
        others = [one for one in rest if one.ndim >= 2]
        given = [
            ParameterGroup(params=others, rate=point["own_rate"], decay=point["own_decay"]),
            ParameterGroup(params=vectors, rate=1.0, decay=0.0),
            ParameterGroup(params=[first], rate=1.0, decay=1.0),
        ]
        return make_optimizer(name, given, point, rate, model)

    monkeypatch.setattr(trial_run, "make_optimizer", make)


GROUPED = {"own_rate": log_uniform(0.1, 10.0), "own_decay": uniform(0.0, 2.0)}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("Rprop", "own", "function", "muon")])
def test_trials_with_several_parameter_groups_keep_their_bits(name, several):
    space = space_of_images(name)
    decay = SearchSpace(weight_decay=log_uniform(0.01, 0.5), **GROUPED)
    own = tuple(one for one in space if one.name != "weight_decay")
    space = SearchSpace.of((*own, *decay), space.fixed)
    together, alone = (runs_of(OddMlp(), 3, space, optimizer=named(name)) for _ in range(2))
    group = exact_group(together)
    assert isinstance(group.optimizer, KernelSteps if name in BY_KERNELS else OwnSteps)
    group.advance(6)
    for run, other in zip(together, alone, strict=True):
        other.advance(6)
        assert canonical_digest(run.state()) == canonical_digest(other.state())
        rates = [one["lr"] for one in run.optimizer.param_groups]
        assert rates == [run.point["own_rate"] * run.rates[5], run.rates[5], run.rates[5]]


# --- What a kernel cannot do --------------------------------------------------------------------------------------


class Strided(Images):
    """A weight that is no contiguous tensor: torch's fused kernels are not used for it."""

    def model(self, point):
        model = nn.Sequential(nn.Linear(64, 16), nn.Linear(16, 10))
        model[0].weight = nn.Parameter(torch.randn(64, 16).mul_(0.1).t())
        return model


def test_where_no_kernel_may_be_used_each_optimizer_makes_its_own_steps():
    together, alone = (runs_of(Strided(), 2, optimizer="adamw") for _ in range(2))
    group = exact_group(together)
    assert isinstance(group.optimizer, OwnSteps)
    group.advance(4)
    for run, other in zip(together, alone, strict=True):
        other.advance(4)
        assert canonical_digest(run.state()) == canonical_digest(other.state())


def keeps_the_gradient(groups, point):
    class Keeping(torch.optim.SGD):
        """The last gradient itself, and no copy of it: in a group its memory is used again."""

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    last = self.state[parameter].get("last", torch.zeros_like(parameter))
                    parameter.sub_(parameter.grad - 0.5 * last, alpha=group["lr"])
                    self.state[parameter]["last"] = parameter.grad

    return Keeping(groups)


def test_the_self_check_sees_an_optimizer_that_does_not_go_with_a_group():
    runs = runs_of(Mlp(), 2, optimizer=optimizer_named(keeps_the_gradient))
    assert first_difference(Group(runs)) == "trial 0: 0.weight after the step"
