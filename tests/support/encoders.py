"""An encoder of any size on sequences of random numbers, to measure precisions and optimizers with."""

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from support.tiny import setting_for, tiny_study
from tuner import SearchSpace, Splits, Workload, log_uniform, minimize
from tuner.budget.step_budget import StepBudget
from tuner.rounds.plan import planned_trials
from tuner.training.trial_run import TrialRun


class Sequences(Workload):
    """Sequences of vectors, labelled by a linear rule of their mean; an encoder of `layers` layers `width` wide."""

    select_by = minimize("validation/loss")

    def __init__(self, layers, width, length=64, examples=2_048, batch_size=64):
        self.layers, self.width, self.length, self.examples = layers, width, length, examples
        self.batch_size = batch_size
        self.evaluation_batch_size = batch_size

    def data(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.examples, self.length, 16, generator=generator)
        y = (x.mean(1) @ torch.randn(16, 10, generator=generator)).argmax(1)
        held = self.examples // 8
        return Splits(training=(x[held:], y[held:]), validation=(x[:held], y[:held]))

    def model(self, point):
        return Net(self.layers, self.width, self.length)

    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0]), batch[1])

    def metrics(self, model, batch):
        return {"loss": F.cross_entropy(model(batch[0]), batch[1], reduction="none")}


class Net(nn.Module):
    def __init__(self, layers, width, length):
        super().__init__()
        self.first, self.place = nn.Linear(16, width), nn.Parameter(torch.randn(length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 8, 4 * width, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.encoder(self.first(x) + self.place).mean(1))


def encoder_run(workload, device, steps, optimizer="adamw", **changes):
    """A trial of it at its first step."""
    study = tiny_study(
        space=SearchSpace(learning_rate=log_uniform(0.9e-4, 1.1e-4)), optimizer=optimizer,
        budget=StepBudget(steps, steps), batch_size=workload.batch_size, augment=False, **changes,
    )  # fmt: skip
    return TrialRun(setting_for(study, Path("nowhere"), workload, device), planned_trials(study)[0])


def seconds_a_step(run, warm_up, steps):
    """Seconds of a step, after some that warm up."""
    wait = torch.cuda.synchronize if run.setup.device.type == "cuda" else lambda: None
    run.advance(run.step + warm_up)
    wait()
    began = time.perf_counter()
    run.advance(run.step + steps)
    wait()
    return (time.perf_counter() - began) / steps
