"""What the trainer measures, keeps and refuses."""

import math
import resource
import weakref

import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from support.tiny import MemoryRecorder, Tiny, setting_for, tiny_study, train_alone
from torch import nn

from tuner import Infeasible, SearchSpace, Splits, log_uniform, maximize, minimize
from tuner.budget.schedules import learning_rates
from tuner.design.optimizers import one_group
from tuner.design.points import Point
from tuner.errors import WorkloadError
from tuner.records import State
from tuner.rounds.plan import planned_trials, trial_at
from tuner.training.batches import Split, TrainingBatches
from tuner.training.checkpoints import read_weights
from tuner.training.evaluation import evaluate
from tuner.training.preflight import check_workload, measured_price


class Plain(Tiny):
    """No randomness but the order of the batches."""

    def model(self, point):
        return nn.Linear(6, 2)

    def augment(self, batch, point, generator):
        return batch


def train(study, folder, workload, trial=None, **changes):
    recorder = MemoryRecorder()
    trial = trial or planned_trials(study)[0]
    update = train_alone(setting_for(study, folder, workload, **changes), recorder, recorder.claim(trial))
    return update, recorder


def test_the_loop_computes_what_a_hand_written_loop_computes(tmp_path):
    study = tiny_study(optimizer="sgd", space=SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), momentum=0.9))
    trial = planned_trials(study)[0]
    _, recorder = train(study, tmp_path, Plain())
    setting = setting_for(study, tmp_path, Plain())
    # By hand: the same start, the same batches, plain tensors and the formula of SGD with momentum.
    from tuner.training.models import build_model

    model = build_model(setting, trial)
    batches = TrainingBatches(setting.data.training, 8, trial.data_seed)
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    for step, rate in enumerate(learning_rates(trial.schedule, trial.point["learning_rate"])):
        x, y = batches.at(step)
        gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
        with torch.no_grad():
            for p, v, g in zip(model.parameters(), velocity, gradients, strict=True):
                v.mul_(0.9).add_(g)
                p.sub_(rate * v)
    x, y = setting.data.validation.tensors
    by_hand = F.cross_entropy(model(x), y).item()
    assert float.fromhex(recorder.measurements[24, "validation/loss"]) == pytest.approx(by_hand, rel=1e-5)


def test_evaluation_is_at_regular_steps_and_always_at_the_last(tmp_path):
    _, recorder = train(tiny_study(), tmp_path, Tiny())
    assert sorted({step for step, _ in recorder.measurements}) == [5, 10, 15, 20, 24]
    names = {name for _, name in recorder.measurements}
    assert {"training/loss", "training/error_rate", "validation/loss", "validation/error_rate"} <= names


def test_short_batches_are_weighted_right():
    """10 examples in batches of 4: the mean over examples, not over batches (B41)."""

    class Counting(Tiny):
        def metrics(self, model, batch):
            return {"value": batch[0]}

    split = Split("validation", (torch.arange(10.0),), torch.device("cpu"))
    assert evaluate(Counting(), nn.Identity(), split, batch_size=4) == {"validation/value": 4.5}


def test_training_loss_is_measured_in_eval_mode_without_penalty_terms(tmp_path):
    class Penalized(Plain):
        def loss(self, model, batch, point):
            return super().loss(model, batch, point) + 100.0

    _, recorder = train(tiny_study(), tmp_path, Penalized())
    assert float.fromhex(recorder.measurements[24, "training/loss"]) < 10
    assert float.fromhex(recorder.measurements[24, "batch/loss"]) > 100


def test_the_kept_checkpoints_hold_the_weights_of_the_best_evaluations(tmp_path):
    study = tiny_study(keep_best=2)
    update, recorder = train(study, tmp_path, Tiny())
    values = {s: float.fromhex(v) for (s, name), v in recorder.measurements.items() if name == "validation/loss"}
    best_two = sorted(values, key=lambda s: (values[s], s))[:2]
    kept = [c for c in update.checkpoints if c.kind == "best"]
    assert [c.step for c in kept] == best_two
    model = Tiny().model(None)
    model.load_state_dict(read_weights(tmp_path, kept[0]))
    setting = setting_for(study, tmp_path)
    assert evaluate(Tiny(), model, setting.data.validation, batch_size=16)["validation/loss"] == kept[0].value


def test_ties_keep_the_earlier_checkpoint(tmp_path):
    class Flat(Plain):
        def metrics(self, model, batch):
            return super().metrics(model, batch) | {"flat": torch.ones(len(batch[1]))}

    study = tiny_study(objective=maximize("validation/flat"), keep_best=1)
    update, _ = train(study, tmp_path, Flat())
    assert [c.step for c in update.checkpoints if c.kind == "best"] == [5]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_loss_ends_the_trial_as_infeasible_with_its_step(bad, tmp_path):
    class Breaks(Plain):
        def loss(self, model, batch, point):
            self.calls = getattr(self, "calls", 0) + 1
            loss = super().loss(model, batch, point)
            return loss * bad if self.calls == 13 else loss

    update, recorder = train(tiny_study(), tmp_path, Breaks())
    assert update.state is State.INFEASIBLE
    assert update.reason == f"diverged at step 13: the loss became {bad}"
    assert sorted({step for step, _ in recorder.measurements}) == [5, 10], "what was measured before is kept"
    kept = [c for c in update.checkpoints if c.kind == "best"]
    assert kept
    assert all(
        torch.isfinite(t).all() for c in kept for t in read_weights(tmp_path, c).values() if t.is_floating_point()
    )


def test_a_broken_weight_that_no_loss_reads_is_noticed_too(tmp_path):
    class HidesIt(Plain):
        def model(self, point):
            model = nn.Linear(6, 2)
            model.hidden = nn.Parameter(torch.zeros(1))
            return model

        def loss(self, model, batch, point):
            return super().loss(model, batch, point) + torch.nan_to_num(model.hidden.sqrt().sum() * 1.0)

    update, _ = train(tiny_study(), tmp_path, HidesIt())
    assert update.state is State.INFEASIBLE
    assert "gradient norm" in update.reason


def test_an_overflowing_objective_never_wins(tmp_path):
    class Overflows(Plain):
        def metrics(self, model, batch):
            self.calls = getattr(self, "calls", 0) + 1
            return {"loss": torch.full((len(batch[1]),), -math.inf if self.calls > 20 else 1.0),
                    "error_rate": torch.ones(len(batch[1]))}  # fmt: skip

    update, _ = train(tiny_study(keep_best=1), tmp_path, Overflows())
    assert [(c.step, c.value) for c in update.checkpoints if c.kind == "best"] == [(5, 1.0)]


def test_an_error_in_the_users_code_fails_the_trial_and_names_the_place(tmp_path):
    class Raises(Plain):
        def loss(self, model, batch, point):
            raise ZeroDivisionError("by hand")

    update, _ = train(tiny_study(), tmp_path, Raises())
    assert update.state is State.FAILED
    assert "ZeroDivisionError: by hand" in update.reason
    assert "test_trainer.py" in update.reason


def test_a_model_may_reject_a_point(tmp_path):
    class Rejects(Plain):
        def model(self, point):
            raise Infeasible("heads do not divide the width")

    update, _ = train(tiny_study(), tmp_path, Rejects())
    assert (update.state, update.reason) == (State.INFEASIBLE, "heads do not divide the width")


def test_out_of_memory_is_the_points_fault_and_frees_the_memory(tmp_path):
    class Hungry(Plain):
        def loss(self, model, batch, point):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    update, _ = train(tiny_study(), tmp_path, Hungry())
    assert update.state is State.INFEASIBLE
    assert "out of memory" in update.reason


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (lambda: torch.empty(2**32, dtype=torch.uint8), "can't allocate memory"),
        (lambda: np.empty(2**32, dtype=np.uint8), "Unable to allocate 4.00 GiB"),
        (lambda: bytearray(2**32), "MemoryError"),
    ],
)
def test_a_trial_beyond_the_memory_of_the_process_is_infeasible_and_the_next_one_trains(ask, reason, tmp_path):
    """RLIMIT_AS stands for a machine whose memory is at its end (R49)."""
    models = []

    class Hungry(Plain):
        def model(self, point):
            model = super().model(point)
            models.append(weakref.ref(model))
            return model

        def loss(self, model, batch, point):
            if len(models) == 1:
                ask()
            return super().loss(model, batch, point)

    used, limits = psutil.Process().memory_info().vms, resource.getrlimit(resource.RLIMIT_AS)
    workload = Hungry()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, limits[1]))
    try:
        first, _ = train(tiny_study(), tmp_path / "first", workload)
        second, _ = train(tiny_study(), tmp_path / "second", workload)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert first.state is State.INFEASIBLE
    assert reason in first.reason
    assert models[0]() is None, "an error that is kept would keep the trial's memory"
    assert second.state is State.COMPLETE


def test_an_epoch_has_every_example_once_and_each_epoch_its_own_order():
    split = Split("training", (torch.arange(50),), torch.device("cpu"))
    batches = TrainingBatches(split, 10, data_seed=3)
    epochs = [torch.cat([batches.at(epoch * 5 + i)[0] for i in range(5)]).tolist() for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(50))
    assert epochs[0] != epochs[1]
    assert TrainingBatches(split, 10, data_seed=3).at(7)[0].tolist() == batches.at(7)[0].tolist()


def test_a_dataset_gives_the_same_batches_as_tensors():
    x, y = torch.randn(20, 3), torch.arange(20)

    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, index):
            return x[index], y[index]

    cpu = torch.device("cpu")
    one, other = (TrainingBatches(Split("training", data, cpu), 6, 1) for data in ((x, y), Pairs()))
    for step in range(7):
        assert all(torch.equal(a, b) for a, b in zip(one.at(step), other.at(step), strict=True))


def test_the_price_of_a_trial_is_measured_without_writing(tmp_path):
    study = tiny_study()
    price = measured_price(setting_for(study, tmp_path), planned_trials(study)[0])
    assert price.step_ms > 0
    assert price.latest_bytes > price.best_bytes > 0
    assert list(tmp_path.iterdir()) == []


def without(name):
    class Changed(Plain):
        def metrics(self, model, batch):
            metrics = super().metrics(model, batch)
            del metrics[name]
            return metrics

    return Changed()


class VectorLoss(Plain):
    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


class MeanMetric(Plain):
    def metrics(self, model, batch):
        return {"loss": F.cross_entropy(model(batch[0]), batch[1])}


class Detached(Plain):
    def loss(self, model, batch, point):
        return super().loss(model, batch, point).detach()


class AsksForMore(Plain):
    def loss(self, model, batch, point):
        return super().loss(model, batch, point) * point["temperature"]


class Unequal(Plain):
    def data(self):
        return Splits(training=(torch.zeros(5, 6), torch.zeros(4)), validation=(torch.zeros(2, 6), torch.zeros(2)))


class NoModule(Plain):
    def model(self, point):
        return lambda x: x


class BigBatches(Plain):
    batch_size = 51


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        (VectorLoss(), r"loss must return a scalar tensor, got \(8,\)"),
        (MeanMetric(), r"one value per example: 'loss' should have the shape \(2,\), got \(\)"),
        (Detached(), "does not depend on the model's parameters"),
        (AsksForMore(), "asks its point for .*temperature"),
        (NoModule(), "must return a torch.nn.Module, got function"),
        (without("loss"), r"'validation/loss' is to be read, but .* returns only 'error_rate'"),
        (without("error_rate"), "'training/error_rate' is to be read"),
    ],
)  # fmt: skip
def test_a_broken_workload_is_one_clear_error_before_anything_is_trained(workload, message, tmp_path):
    study = tiny_study()
    with pytest.raises(WorkloadError, match=message):
        check_workload(setting_for(study, tmp_path, workload), planned_trials(study)[0])
    assert list(tmp_path.iterdir()) == []


def test_splits_of_unequal_length_are_refused(tmp_path):
    with pytest.raises(WorkloadError, match="same number of examples"):
        setting_for(tiny_study(), tmp_path, Unequal())


def test_a_batch_larger_than_the_training_split_is_refused(tmp_path):
    study = tiny_study(batch_size=51)
    with pytest.raises(WorkloadError, match="batch_size 51 is larger than the training split of 50"):
        check_workload(setting_for(study, tmp_path, BigBatches()), planned_trials(study)[0])


def test_each_optimizer_takes_its_settings_from_the_point(tmp_path):
    from tuner.training.optimizers import make_optimizer

    weights = one_group([nn.Parameter(torch.zeros(3))])
    adam = make_optimizer("adamw", weights, {"one_minus_beta1": 0.2, "epsilon": 1e-6, "weight_decay": 0.3}, 0.1)
    assert adam.defaults["betas"] == (0.8, 0.999)
    assert (adam.defaults["eps"], adam.defaults["weight_decay"], adam.defaults["fused"]) == (1e-6, 0.3, True)
    sgd = make_optimizer("sgd", weights, {"momentum": 0.9, "nesterov": True}, 0.1)
    assert make_optimizer("sgd", weights, {"one_minus_momentum": 0.25}, 0.1).defaults["momentum"] == 0.75
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"], sgd.defaults["weight_decay"]) == (0.9, True, 0.0)


def test_the_fused_kernel_is_not_used_for_strided_weights():
    from tuner.training.optimizers import fused_is_right

    assert fused_is_right([nn.Parameter(torch.zeros(4, 3))])
    assert not fused_is_right([nn.Parameter(torch.zeros(4, 3).t())])


def test_a_conditional_learning_rate_is_found_under_its_short_name(tmp_path):
    study = tiny_study()
    point = Point.of({"optimizer": "sgd", "sgd.learning_rate": 0.05})
    update, _ = train(study, tmp_path, Plain(), trial_at(study, 0, point, "by hand"))
    assert update.state is State.COMPLETE


def test_minimizing_and_maximizing_are_mirror_images():
    values = [(5, 1.0), (10, 0.5), (15, 0.5), (20, math.nan)]
    assert minimize("validation/a").best(values) == (10, 0.5)
    assert maximize("validation/a").best([(s, -v) for s, v in values]) == (10, -0.5)
