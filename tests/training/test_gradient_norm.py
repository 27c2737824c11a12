"""The gradient norm before clipping, its largest value, and the share of clipped updates, against plain loops."""

import math
from dataclasses import replace

import pytest
import torch
from support.fusing import meaning, trained_alone, trained_together
from support.tiny import StopAt, Tiny, setting_for, tiny_study
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tuner import SearchSpace, Splits, Workload, log_uniform, uniform
from tuner.budget.step_budget import StepBudget
from tuner.design.objective import minimize
from tuner.fused.group import Group
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.batches import TrainingBatches
from tuner.training.checkpoints import canonical_digest
from tuner.training.stability import clip_gradients
from tuner.training.trial_run import TrialRun

NORM, LARGEST, SHARE = "batch/gradient_norm", "batch/largest_gradient_norm", "batch/clipped_share"
LIMIT = 4.5
RATE = log_uniform(0.05, 0.2)


class Place(nn.Module):
    """Two parameters, so that the norm is one over several tensors."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))


class Slopes(Workload):
    """The gradient of a batch of one example is the example: norms are chosen by the data."""

    batch_size = 1
    select_by = minimize("validation/loss")
    evaluation_batch_size = 4

    def __init__(self, examples):
        self.examples = torch.tensor(examples)

    def data(self):
        return Splits(training=(self.examples,), validation=(self.examples[:1],))

    def model(self, point):
        return Place()

    def loss(self, model, batch, point):
        (x,) = batch
        return x[0, 0] * model.left + x[0, 1] * model.right

    def metrics(self, model, batch):
        (x,) = batch
        return {"loss": x[:, 0] * model.left + x[:, 1] * model.right}


TEN = [(float(norm), 0.0) for norm in range(1, 11)]


def slopes_study(**changes):
    space = changes.pop("space", SearchSpace(learning_rate=RATE, clip_norm=LIMIT))
    return tiny_study(
        space=space, optimizer="sgd", batch_size=1, fitted_when=None, warmup_steps=0, budget=StepBudget(24, 5),
        num_trials=1, **changes,
    )  # fmt: skip


def measured(recorder, trial):
    """By metric: the values at each evaluation, in order."""
    found = {}
    for update in recorder.of(trial):
        for one in update.measurements:
            found.setdefault(one.metric, {})[one.step] = one.value
    return found


def run_of(study, workload, folder):
    trial = planned_trials(study)[0]
    return TrialRun(setting_for(study, folder, workload), trial)


def at_evaluation(run):
    assert run.divergence() is None
    return run.measure()


def torchs_norm(parameters):
    return float(torch.nn.utils.get_total_norm([one.grad for one in parameters if one.grad is not None]))


@pytest.mark.parametrize("parts", [[3.0, 4.0], [-4.0, 3.0]])
def test_a_gradient_of_norm_5_that_is_clipped_to_1_reads_5(parts, tmp_path):
    study = slopes_study(space=SearchSpace(learning_rate=RATE, clip_norm=1.0))
    run = run_of(study, Slopes([tuple(parts)]), tmp_path)
    run.advance(1)
    found = at_evaluation(run)
    assert (found[NORM], found[LARGEST], found[SHARE]) == (5.0, 5.0, 1.0)
    moved = [-parameter.item() / run.rates[0] for parameter in run.parameters]
    assert moved == pytest.approx([part / 5.0 for part in parts], rel=1e-5), "the optimizer took a norm of 1"


def test_the_share_and_the_largest_norm_are_those_of_a_plain_loop_over_each_interval(tmp_path):
    """Norms 1 to 10 in a shuffled order: a plain loop measures each gradient with torch's own total norm."""
    study, workload = slopes_study(), Slopes(TEN)
    trial = planned_trials(study)[0]
    folder = tmp_path / "alone"
    found = measured(trained_alone(setting_for(study, folder, workload), [trial]), trial)
    model, batches = Place(), TrainingBatches(setting_for(study, folder, workload).data.training, 1, trial.data_seed)
    norms = []
    for step in range(24):
        model.zero_grad()
        workload.loss(model, batches.at(step), None).backward()
        norms.append(torchs_norm(model.parameters()))
    intervals = {5: norms[:5], 10: norms[5:10], 15: norms[10:15], 20: norms[15:20], 24: norms[20:]}
    assert found[NORM] == {step: each[-1] for step, each in intervals.items()}
    assert found[LARGEST] == {step: max(each) for step, each in intervals.items()}
    by_hand = {step: len([norm for norm in each if norm > LIMIT]) / len(each) for step, each in intervals.items()}
    assert found[SHARE] == by_hand
    assert 0.0 < min(by_hand.values()) < max(by_hand.values()), "the intervals differ"


def test_a_gradient_as_large_as_the_limit_is_not_clipped(tmp_path):
    study = slopes_study(space=SearchSpace(learning_rate=RATE, clip_norm=5.0))
    run = run_of(study, Slopes([(3.0, 4.0)]), tmp_path)
    run.advance(2)
    assert at_evaluation(run)[SHARE] == 0.0


@pytest.mark.parametrize("stop", [1, 4, 5, 7, 23])
def test_a_trial_that_was_stopped_within_an_interval_has_the_same_norms(stop, tmp_path):
    study, workload = slopes_study(), Slopes(TEN)
    trial = planned_trials(study)[0]
    whole = trained_alone(setting_for(study, tmp_path / "whole", workload), [trial])
    folder = tmp_path / "stopped"
    recorder = trained_alone(setting_for(study, folder, workload, stop=StopAt(stop + 1)), [trial])
    assert recorder.of(trial)[-1].step == stop
    trained_alone(setting_for(study, folder, workload), [trial], recorder)
    assert measured(recorder, trial) == measured(whole, trial)
    assert meaning(recorder, folder, trial) == meaning(whole, tmp_path / "whole", trial)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop"])
def test_trials_trained_together_have_the_norms_of_each_alone(optimizer, tmp_path):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), clip_norm=uniform(0.05, 1.0))
    study = tiny_study(space=space, num_trials=4, optimizer=optimizer)
    trials = planned_trials(study)
    together = trained_together(setting_for(study, tmp_path / "together"), trials)
    alone = trained_alone(setting_for(study, tmp_path / "alone"), trials)
    shares = set()
    for trial in trials:
        found = measured(together, trial)
        assert found == measured(alone, trial)
        shares.update(found[SHARE].values())
        assert all(found[NORM][step] <= found[LARGEST][step] for step in found[NORM])
    assert len(shares) > 1


def test_without_clip_norm_the_last_gradient_is_measured_and_no_other(tmp_path):
    study = slopes_study(space=SearchSpace(learning_rate=RATE))
    run = run_of(study, Slopes(TEN), tmp_path)
    run.advance(3)
    expected = torchs_norm(run.parameters)
    found = at_evaluation(run)
    assert found[NORM] == expected
    assert (LARGEST in found, SHARE in found, run.norms, "norms" in run.state()) == (False, False, [], False)


def test_a_very_large_clip_norm_measures_every_gradient_and_changes_no_bit(tmp_path):
    plain = run_of(tiny_study(), Tiny(), tmp_path)
    study = tiny_study(space=SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), clip_norm=1e9))
    counted = TrialRun(setting_for(study, tmp_path), replace(plain.trial, point=planned_trials(study)[0].point))
    assert counted.rates == plain.rates
    for run in (plain, counted):
        run.advance(10)
    found, expected = at_evaluation(counted), at_evaluation(plain)
    assert found.pop(SHARE) == 0.0
    assert found.pop(LARGEST) > found[NORM]
    assert found == expected
    assert canonical_digest(counted.state()["model"]) == canonical_digest(plain.state()["model"])


def test_a_checkpoint_of_a_version_that_kept_no_norms_goes_on_without_counts_of_its_interval(tmp_path):
    """Its updates before the checkpoint are not known, so the interval has no counts; the next one has all of them."""
    study = slopes_study()
    run = run_of(study, Slopes(TEN), tmp_path)
    run.advance(3)
    run.divergence()
    old = {**run.state(), "gradient_norm": LIMIT}  # after clipping
    del old["norms"]
    resumed = run.fresh()
    resumed.load(old)
    resumed.advance(5)
    run.advance(5)
    expected = at_evaluation(run)
    assert {expected.pop(LARGEST), expected.pop(SHARE)}
    assert at_evaluation(resumed) == expected
    for each in (run, resumed):
        each.advance(10)
    assert at_evaluation(resumed) == at_evaluation(run)


def test_finite_gradients_whose_norm_is_none_are_clipped_to_zero_and_end_no_trial(tmp_path):
    """The square of 1e30 is no float32. Clipping multiplies by 0, and the weights stay as they are."""
    study = slopes_study(space=SearchSpace(learning_rate=RATE, clip_norm=1.0))
    run = run_of(study, Slopes([(1e30, 1e30)]), tmp_path)
    run.advance(2)
    found = at_evaluation(run)
    assert (found[NORM], found[LARGEST], found[SHARE]) == (math.inf, math.inf, 1.0)
    assert [parameter.item() for parameter in run.parameters] == [0.0, 0.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_ends_a_trial_that_clips(bad, tmp_path):
    study = slopes_study(space=SearchSpace(learning_rate=RATE, clip_norm=1.0))

    class Broken(Slopes):
        def loss(self, model, batch, point):
            loss = super().loss(model, batch, point)
            model.left.register_hook(lambda gradient: gradient * bad)
            return loss

    trial = planned_trials(study)[0]
    recorder = trained_alone(setting_for(study, tmp_path, Broken(TEN)), [trial])
    last = recorder.of(trial)[-1]
    assert (last.state, "diverged at step" in last.reason) == (State.INFEASIBLE, True)


class ReadBacks(TorchDispatchMode):
    """Counts how often a value is read from a device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*arguments, **(keywords or {}))


def test_no_norm_is_read_back_in_the_loop(tmp_path):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), clip_norm=uniform(0.1, 1.0))
    study = tiny_study(optimizer="sgd", space=space)
    setting = setting_for(study, tmp_path)
    runs = [TrialRun(setting, trial) for trial in planned_trials(study)]
    with ReadBacks() as alone:
        runs[0].advance(4)
    group = Group([run.fresh() for run in runs])
    group.advance(1)
    with ReadBacks() as together:
        group.advance(4)
    assert (alone.count, together.count) == (0, 0)
    with ReadBacks() as reading:
        runs[0].read_gradient_norm()
    assert reading.count == 1, "a read-back is seen"


def test_clipping_returns_the_norm_before():
    one, other = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    one.grad, other.grad = torch.tensor([1.0, 2.0]), torch.tensor([2.0])
    assert float(clip_gradients([one, other], 1.5)) == 3.0
    assert float(torch.cat([one.grad, other.grad]).norm()) == pytest.approx(1.5, rel=1e-5)
    assert float(clip_gradients([one, other], 100.0)) == pytest.approx(1.5, rel=1e-5)
