"""Datasets are looked at before anything is trained: who draws from a generator of its own is told, and refused."""

import itertools
import logging
import random
import time

import numpy as np
import pytest
import torch
from support.drawing import Drawing, OfDrawing, none
from support.loaded import loaded
from support.tiny import CPU, Tiny, setting_for, tiny_study

from tuner import Splits
from tuner.errors import WorkloadError
from tuner.execution.inspection import inspect
from tuner.rounds.plan import planned_trials
from tuner.training import data_checks
from tuner.training.batches import Split
from tuner.training.data_checks import MOST, check_repeatable
from tuner.training.preflight import check_switched_off, check_workload

STUDY = tiny_study()
TRIAL = planned_trials(STUDY)[0]
MINE = np.random.default_rng(0)
OLD, PYTHONS, TORCHS, COUNTER = np.random.RandomState(0), random.Random(0), torch.Generator(), itertools.count()
OWN = {
    "numpy": MINE.normal,
    "old numpy": OLD.normal,
    "python": PYTHONS.random,
    "torch": lambda: torch.randn(6, generator=TORCHS),
    "counter": lambda: next(COUNTER),
    "clock": lambda: time.perf_counter() % 1.0,  # in float32, too, each call gives another number
    "system": lambda: random.SystemRandom().random(),
    "unseeded": lambda: np.random.default_rng().normal(),
    "one in five": lambda: float(MINE.random() < 0.2),
}
FUNCTIONS = {
    "of the global generator": lambda: np.random.default_rng(np.random.randint(2**31)).normal(),
    "of nothing": none,
    "NaN": lambda: float("nan"),
}


class Trains(Tiny):
    """Tiny with one split of a dataset, whose loss must not be asked for before the dataset was looked at."""

    def __init__(self, draw, split):
        self.draw, self.split = draw, split

    def data(self):
        splits = super().data()
        given = {name: getattr(splits, name) for name in ("training", "validation")}
        return Splits(**given | {self.split: Drawing(given[self.split], self.draw)})


@pytest.mark.parametrize("split", ["training", "validation"])
@pytest.mark.parametrize("own", OWN)
def test_a_dataset_with_a_generator_of_its_own_is_refused_with_the_way_out(own, split, tmp_path):
    with pytest.raises(WorkloadError, match=rf"the {split} split gives another example \d+ when.*global generators"):
        check_workload(setting_for(STUDY, tmp_path, Trains(OWN[own], split)), TRIAL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_dataset_that_is_a_function_of_its_seeds_is_taken(function):
    check_repeatable(Split("training", Drawing(Tiny().data().training, FUNCTIONS[function]), CPU))


def test_only_some_examples_are_fetched_and_only_once_however_large_the_split_is():
    class Large:
        def __init__(self):
            self.fetched = []

        def __len__(self):
            return 10**9

        def __getitem__(self, index):
            self.fetched.append(index)
            return torch.ones(2)

    data = Large()
    split = Split("training", data, CPU)
    check_repeatable(split)
    assert len(data.fetched) == 2 * MOST
    assert min(data.fetched) == 0
    assert max(data.fetched) == 10**9 - 1
    check_repeatable(split)
    assert len(data.fetched) == 2 * MOST


def test_of_a_slow_dataset_four_examples_are_fetched(monkeypatch):
    monkeypatch.setattr(data_checks, "SECONDS", -1.0)
    fetched = []
    data = Drawing(Tiny().data().training, lambda: fetched.append(1) or 0.0)
    check_repeatable(Split("training", data, CPU))
    assert len(fetched) == 8


@pytest.mark.parametrize("part", ["tensor", "array", "text", "number", "inside"])
def test_a_difference_is_seen_wherever_it_stands(part):
    class Held:
        def __init__(self, value):
            self.value = value

    own = itertools.count()
    made = {
        "tensor": lambda: torch.tensor([float(next(own))]).to_sparse(), "array": lambda: np.ones(2) * next(own),
        "text": lambda: str(next(own)), "number": lambda: next(own), "inside": lambda: Held([Held(next(own))]),
    }[part]  # fmt: skip
    assert not data_checks._same({"a": [made()]}, {"a": [made()]})
    same = made()
    assert data_checks._same({"a": [same]}, {"a": [same]})


def test_a_sweep_names_the_dataset_that_draws(tmp_path):
    study = tiny_study(kind="sweep", augment=False, space=None)

    class Off(OfDrawing):
        def model(self, point):
            return torch.nn.Linear(6, 2)

    with pytest.raises(WorkloadError, match=r"training split of Off draws random numbers: its example \d+ .*augment"):
        check_switched_off(setting_for(study, tmp_path, Off()), TRIAL)
    check_switched_off(setting_for(study, tmp_path, Off(lambda tensors: Drawing(tensors, none))), TRIAL)

    class DrawsInLoss(Off):
        def loss(self, model, batch, point):
            return super().loss(model, batch, point) * (1 + np.random.rand())

    with pytest.raises(WorkloadError, match="the loss of one batch is"):
        check_switched_off(setting_for(study, tmp_path, DrawsInLoss(lambda tensors: tensors)), TRIAL)


@pytest.mark.parametrize(("split", "times"), [("validation", 1), ("training", 0)])
def test_a_validation_split_that_draws_is_named_once(split, times, tmp_path, caplog):
    here = loaded(Trains(random.random, split), tmp_path)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            inspect(here, STUDY, [TRIAL], validation_seconds=None)
    assert [record.getMessage()[:48] for record in caplog.records].count(
        "the validation split draws random numbers: each "
    ) == times
