"""Hyperparameters that nothing reads: searched, they would change nothing, and the search would not notice."""

from collections import UserDict
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch

from tuner.design.names import Name
from tuner.design.optimizers import one_group, optimizer_of, read_by_trainer
from tuner.design.stages import START_FROM
from tuner.design.trial import Trial
from tuner.training.precision import computing
from tuner.training.randomness import callers_generators_restored
from tuner.training.setup import TrainingSetup
from tuner.training.trial_run import TrialRun


def unread(setup: TrainingSetup, trial: Trial) -> list[str]:
    """Names in the trial's point that neither the trainer nor the workload reads for a first batch. Writes nothing.

    The workload may read them elsewhere, or in other trials: a reason to look, and no error.
    """
    with callers_generators_restored(setup.device), suppress(Exception):  # errors are the check's to tell
        run = TrialRun(setup, trial)
        point = Noting(run.point)
        _first_loss(run, point)
        if setup.inherited is not None:
            setup.inherited.into(run.model, point)
        names = [Name.of(name) for name in trial.point]
        optimizer = optimizer_of(setup.optimizer_of(trial))
        if optimizer.reads_point:
            optimizer.build(one_group(run.parameters), point, run.rates[0], False)
        read = point.read | {START_FROM} | read_by_trainer() | {setting.name for setting in optimizer.settings}
        return [str(name) for name in names if not {str(name), name.short} & read and name.is_shown]
    return []


def _first_loss(run: TrialRun, point: "Noting") -> None:
    setup, workload = run.setup, run.setup.workload
    model, batch = workload.model(point), run.batches.at(0)
    if workload.declares("parameter_groups"):
        workload.parameter_groups(model, point)
    if setup.study.augment and workload.augments:
        batch = workload.augment(batch, point, torch.Generator(setup.device).manual_seed(0))
    with computing(run.rule.precision, setup.device):
        workload.loss(model.to(setup.device).train(), batch, point)
        workload.metrics(model.eval(), batch)


class Noting(UserDict[str, Any]):
    """A point that notes which names were read; iterating over it counts as reading all of them."""

    def __init__(self, values: Any) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        if name not in self.data:
            raise KeyError(f"the point has no {name!r}: it has {', '.join(self.data)}")
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.read.add(str(name))
        return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        self.read |= set(self.data)
        return super().__iter__()
