"""A workload of a few milliseconds with everything that could break exact resume."""

import inspect
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from tuner import SearchSpace, Splits, Workload, at_most, constant_then_decay, log_uniform, minimize
from tuner.budget.step_budget import StepBudget
from tuner.design.study import Study
from tuner.records import Checkpoint, Claim, Measurement, TrialUpdate
from tuner.training.alone import Alone
from tuner.training.evaluation import check_going_on
from tuner.training.setup import Data, TrainingSetup
from tuner.training.supervisor import Supervisor

CPU = torch.device("cpu")


class Tiny(Workload):
    """Two moons-like clouds; batch norm, dropout and augmentation; 50 examples, so batches leave a rest."""

    batch_size = 8
    select_by = minimize("validation/loss")
    fitted_when = at_most("training/error_rate", 0.0)
    evaluation_batch_size = 16

    def data(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(80, 6, generator=generator)
        y = (x[:, 0] + 0.5 * x[:, 1] > 0).long()
        return Splits(training=(x[:50], y[:50]), validation=(x[50:], y[50:]))

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))

    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0]), batch[1])

    def metrics(self, model, batch):
        logits = model(batch[0])
        return {
            "loss": F.cross_entropy(logits, batch[1], reduction="none"),
            "error_rate": logits.argmax(-1) != batch[1],
        }

    def augment(self, batch, point, generator):
        x, y = batch
        return x + 0.1 * torch.randn(x.shape, generator=generator, device=generator.device), y


def tiny_study(**changes):
    space = changes.pop("space", None) or SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))
    study = Study(
        name="round-1", kind="round", goal="a test", hyperparameters=space.hyperparameters, fixed=space.fixed,
        budget=StepBudget(24, 5), num_trials=3, objective=minimize("validation/loss"),
        fitted_when=at_most("training/error_rate", 0.0), optimizer="adamw", schedule=constant_then_decay(0.25),
        warmup_steps=3, batch_size=8, seed=7, keep_best=2, round=1,
    )  # fmt: skip
    return replace(study, **changes)


def setting_for(study, folder, workload=None, device=CPU, **changes):
    workload = workload or Tiny()
    whole = TrainingSetup(
        study, workload, Data.of(workload, device), device, folder, "tiny/round-1", commit_seconds=1e9
    )
    return replace(whole, **changes)


def train_alone(setup, recorder, claim):
    """Train one claimed trial for itself; its last update."""
    (update,) = Supervisor(Alone(setup), recorder).train([claim])
    return update


class MemoryRecorder:
    """A recorder that is a list, and a ledger of one trial: it can hand out a claim to go on with."""

    def __init__(self):
        self.updates: list[TrialUpdate] = []

    def record(self, updates):
        self.updates += updates

    @property
    def measurements(self) -> dict[tuple[int, str], str]:
        found: dict[tuple[int, str], str] = {}
        for update in self.updates:
            for m in update.measurements:
                assert isinstance(m, Measurement)
                assert (m.step, m.metric) not in found, "a step was recorded twice"
                found[m.step, m.metric] = m.value.hex()
        return found

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        known = [update.checkpoints for update in self.updates if update.checkpoints is not None]
        return known[-1] if known else ()

    def claim(self, trial):
        return Claim(1, len(self.updates) + 1, trial, 1, self.checkpoints)


class CuttingRecorder(MemoryRecorder):
    """A recorder that keeps what the Ledger would: the same value again is fine, and a curve can be cut back."""

    def __init__(self):
        super().__init__()
        self.curve: dict[tuple[int, str], str] = {}

    def record(self, updates):
        super().record(updates)
        for update in updates:
            if update.cut_back_to is not None:
                self.curve = {key: value for key, value in self.curve.items() if key[0] <= update.cut_back_to}
            for m in update.measurements:
                assert self.curve.setdefault((m.step, m.metric), m.value.hex()) == m.value.hex()

    @property
    def measurements(self):
        return self.curve


class StopAt:
    """Says stop once, at the given count of questions at steps; those within evaluations are answered with no."""

    def __init__(self, question):
        self.question = question
        self.asked = 0

    def __call__(self):
        if inspect.currentframe().f_back.f_code is check_going_on.__code__:
            return False
        self.asked += 1
        return self.asked == self.question
