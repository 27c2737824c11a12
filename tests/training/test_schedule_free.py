"""Schedule-free AdamW: the package's bits, evaluations that change nothing, what is kept, and what it refuses."""

import io
from dataclasses import replace

import pytest
import torch
from support.fusing import meaning, trained_alone, trained_together
from support.tiny import StopAt, Tiny, setting_for, tiny_study
from torch import nn

from tuner import Campaign, Round, SearchSpace, branches, choice, constant, cosine, linear, log_uniform, uniform
from tuner.budget.step_budget import StepBudget
from tuner.design.optimizers import OPTIMIZERS, one_group
from tuner.errors import DeclarationError, WorkloadError
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import read_state, read_weights
from tuner.training.optimizers import OptimizerNotMade, make_optimizer
from tuner.training.preflight import check_workload
from tuner.training.trial_run import TrialRun

NAME = "schedule_free_adamw"
SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), weight_decay=log_uniform(1e-3, 0.1), clip_norm=0.5)


class Plain(Tiny):
    """Without batch norm, with dropout."""

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 12), nn.LayerNorm(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))


def study_of(every=5, steps=50, **changes):
    changes = {"num_trials": 3, **changes}
    return tiny_study(
        optimizer=NAME, space=SPACE, budget=StepBudget(steps, every), schedule=constant(), keep_best=2, **changes
    )


@pytest.mark.needs("schedulefree")
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sixty_steps_have_the_bits_of_the_authors_package(decay):
    from schedulefree import AdamWScheduleFree  # type: ignore[import-untyped]

    def trained(make):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 1))
        optimizer = make(model)
        for number in range(60):
            x = torch.randn(16, 6, generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * min(1.0, (number + 1) / 10)
            gradients = [one.grad.clone() for one in model.parameters()]
            optimizer.step()
        return model, optimizer, gradients

    def theirs(model):
        made = AdamWScheduleFree(model.parameters(), lr=0.01, weight_decay=decay)
        made.train()
        return made

    def ours(model):
        return make_optimizer(NAME, one_group(model.parameters()), {"weight_decay": decay}, 0.01, model)

    (model, optimizer, gradients), (other, reference, _) = trained(ours), trained(theirs)
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    for one, same in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(optimizer.state[one]["z"], reference.state[same]["z"])
    assert all(torch.equal(one, parameter.grad) for one, parameter in zip(gradients, model.parameters(), strict=True))
    reference.eval()
    shows = OPTIMIZERS.get(NAME).shows
    assert shows is not None
    with shows(optimizer):
        assert all(map(torch.equal, model.parameters(), other.parameters()))
    reference.train()
    assert not all(map(torch.equal, model.parameters(), other.parameters()))  # theirs came back but for rounding


def latest(recorder, folder, trial):
    (checkpoint,) = (one for one in recorder.checkpoints(trial) if one.kind == "latest")
    return read_state(folder, checkpoint)


@pytest.mark.parametrize("trained", [trained_alone, trained_together])
def test_five_or_fifty_evaluations_leave_the_same_last_weights(trained, tmp_path):
    states = {}
    for every in (10, 1):
        study = study_of(every, augment=True)
        trials, folder = planned_trials(study), tmp_path / str(every)
        recorder = trained(setting_for(study, folder, Plain()), trials)
        states[every] = [latest(recorder, folder, trial) for trial in trials]
        assert len({step for step, _ in meaning(recorder, folder, trials[0])[1]}) == 50 // every
    for few, many in zip(states[10], states[1], strict=True):
        assert all(torch.equal(one, many["model"][name]) for name, one in few["model"].items())
        assert few["optimizer"]["param_groups"] == many["optimizer"]["param_groups"]


def test_what_is_evaluated_and_kept_is_the_average_and_what_is_saved_goes_on_training(tmp_path):
    study = study_of()
    trial = planned_trials(study)[0]
    recorder = trained_alone(setting_for(study, tmp_path, Plain()), [trial])
    measured = meaning(recorder, tmp_path, trial)[1]
    best = [one for one in recorder.checkpoints(trial) if one.kind == "best"]
    assert best
    for checkpoint in best:
        run = TrialRun(setting_for(study, tmp_path, Plain()), trial)
        run.advance(checkpoint.step)
        y = {name: one.clone() for name, one in run.model.state_dict().items()}
        kept = read_weights(tmp_path, checkpoint)
        for parameter in run.parameters:  # x of y = (1 - beta1) z + beta1 x
            z = run.optimizer.state[parameter]["z"]
            name = next(name for name, one in run.model.named_parameters() if one is parameter)
            torch.testing.assert_close(0.1 * z + 0.9 * kept[name], parameter.detach(), rtol=1e-6, atol=1e-7)
            assert not torch.equal(kept[name], parameter)
        assert measured[checkpoint.step, "validation/loss"] == run.evaluate()["validation/loss"].hex()
        assert all(torch.equal(one, y[name]) for name, one in run.model.state_dict().items())
        run.model.load_state_dict(kept)
        run.optimizer.state.clear()
        assert run.evaluate()["validation/loss"].hex() == measured[checkpoint.step, "validation/loss"]


def test_weights_come_back_to_the_bit_where_an_evaluation_fails(tmp_path):
    study = study_of()
    run = TrialRun(setting_for(study, tmp_path, Plain()), planned_trials(study)[0])
    run.advance(7)
    before = [one.detach().clone() for one in run.parameters]

    def fails():
        with run.shown():
            assert not any(map(torch.equal, before, run.parameters))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert all(map(torch.equal, before, run.parameters))


def test_before_a_step_nothing_is_averaged_and_nothing_is_kept(tmp_path):
    study = study_of()
    run = TrialRun(setting_for(study, tmp_path, Plain()), planned_trials(study)[0])
    before = run.optimizer.state_dict()
    run.evaluate()
    assert run.optimizer.state_dict() == before
    assert before["state"] == {}


def test_thirty_of_sixty_steps_go_on_to_the_same_bits_through_a_file(tmp_path):
    study = study_of(steps=60)
    trials = planned_trials(study)[:1]
    whole = trained_alone(setting_for(study, tmp_path / "whole", Plain()), trials)
    stopped = trained_alone(setting_for(study, tmp_path / "part", Plain(), stop=StopAt(31)), trials)
    assert stopped.of(trials[0])[-1].step == 30
    trained_alone(setting_for(study, tmp_path / "part", Plain()), trials, stopped)
    assert meaning(stopped, tmp_path / "part", trials[0]) == meaning(whole, tmp_path / "whole", trials[0])
    file = io.BytesIO()
    torch.save(latest(whole, tmp_path / "whole", trials[0])["optimizer"], file)
    file.seek(0)
    assert set(torch.load(file, weights_only=True)["state"][0]) == {"z", "exp_avg_sq"}


# --- What it refuses ----------------------------------------------------------------------------------------------


def declared(trained_by=NAME, schedule=None, **space):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), **space)
    return Campaign(Plain(), [Round("a test", trials=2, space=space)], optimizer=trained_by, schedule=schedule)


def test_it_goes_with_a_constant_rate_and_warmup_which_it_has_unless_another_is_declared():
    assert declared().schedule == constant() == declared(schedule=constant()).schedule
    assert replace(declared(), warmup=0.1).warmup == 0.1
    assert declared("adamw").schedule != constant()


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ({"schedule": cosine()}, "cosine"),
        ({"schedule": linear()}, "linear"),
        ({"trained_by": "adamw", "space": {"optimizer": choice("adamw", NAME)}}, "constant_then_decay"),
        ({"trained_by": "adamw", "space": {"optimizer": branches(adamw={}, schedule_free_adamw={})}}, "constant_then"),
    ],
)
def test_another_schedule_is_an_error_of_the_declaration(settings, got):
    space = settings.pop("space", {})
    with pytest.raises(
        DeclarationError, match=rf"{NAME} trains under schedule=constant\(\) alone.*got {got}.*: it eva"
    ):
        declared(**settings, **space)
    assert declared("adamw", constant(), **space).schedule == constant()


def test_a_share_of_the_decay_to_search_is_refused_too():
    with pytest.raises(DeclarationError, match="decay_fraction"):
        declared(decay_fraction=uniform(0.1, 0.5))


class WithRunningStatistics(Tiny):
    """As it is: with batch norm."""


def test_running_statistics_are_refused_before_anything_is_trained(tmp_path):
    study = study_of()
    trial = planned_trials(study)[0]
    with pytest.raises(WorkloadError, match=r"statistics of 1 \(BatchNorm1d\).*use nn\.GroupNorm or nn\.LayerNorm"):
        check_workload(setting_for(study, tmp_path, WithRunningStatistics()), trial)
    check_workload(setting_for(study, tmp_path, Plain()), trial)
    assert list(tmp_path.iterdir()) == []


def test_an_average_that_cannot_be_computed_back_is_refused():
    weight = nn.Parameter(torch.zeros(3))
    with pytest.raises(OptimizerNotMade, match="one_minus_beta1 lies between 0 and 1, got 1"):
        make_optimizer(NAME, one_group([weight]), {"one_minus_beta1": 1.0}, 0.1)
