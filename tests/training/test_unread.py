"""A hyperparameter that nothing reads is told, and one that anything reads is not."""

import pytest
from support.loaded import loaded
from support.tiny import Tiny, setting_for, tiny_study
from torch import nn

from tuner import SearchSpace, branches, log_uniform, uniform
from tuner.execution.inspection import inspect
from tuner.rounds.plan import planned_trials
from tuner.training.unread import unread

SPACE = SearchSpace(
    optimizer=branches(sgd={"momentum": uniform(0.0, 0.9)}, adamw={"epsilon": log_uniform(1e-9, 1e-7)}),
    learning_rate=log_uniform(1e-3, 1e-1),
    decay_fraction=uniform(0.1, 0.9),
    gain=uniform(1.0, 2.0),
    size=uniform(1.0, 2.0),
)


class Lazy(nn.Module):
    """Keeps the point and reads it in its forward pass."""

    def __init__(self, model, point):
        super().__init__()
        self.inner, self.point = model, point

    def forward(self, x):
        return self.point["gain"] * self.inner(x)


class InForward(Tiny):
    def model(self, point):
        return Lazy(super().model(point), point)


class InLoss(Tiny):
    def loss(self, model, batch, point):
        return point.get("gain", 1.0) * super().loss(model, batch, point)


class InAugment(Tiny):
    def augment(self, batch, point, generator):
        return (batch[0] * point["gain"], *batch[1:])


class Whole(Tiny):
    def model(self, point):
        return super().model({**point})


class Fails(Tiny):
    def loss(self, model, batch, point):
        raise ValueError


@pytest.mark.parametrize(
    ("workload", "left"),
    [(Tiny, ["gain", "size"]), (InForward, ["size"]), (InLoss, ["size"]), (InAugment, ["size"]), (Whole, []),
     (Fails, [])],
)  # fmt: skip
def test_what_neither_trainer_nor_workload_reads_is_found(workload, left, tmp_path):
    study = tiny_study(space=SPACE)
    assert unread(setting_for(study, tmp_path, workload()), planned_trials(study)[0]) == left


def test_it_is_said_once_for_a_study(tmp_path, caplog):
    study, tiny = tiny_study(space=SPACE), loaded(Tiny(), tmp_path, device="cpu")
    names = []
    for _ in range(2):
        found = inspect(tiny, study, planned_trials(study)[:1], validation_seconds=None)
        names.append(found.unread)
    assert names == [("gain", "size"), ()]
    said = [record.getMessage() for record in caplog.records]
    assert [text.split(":")[0] for text in said] == [
        f"nothing reads the hyperparameter {name} of round-1" for name in ("gain", "size")
    ]
