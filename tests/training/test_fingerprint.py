"""What makes another workload: not only its code and its data, also what an instance was made with."""

import pytest
import torch
from support.tiny import Tiny

from tuner.execution.in_process import InProcess
from tuner.training.batches import Split
from tuner.training.fingerprint import data_digest, instance_settings


class Settable(Tiny):
    def __init__(self, **settings):
        vars(self).update(settings)


class Counting(Tiny):
    def __init__(self):
        self.models = 0

    def data(self):
        self.examples = 7
        return super().data()

    def model(self, point):
        self.models += 1
        return super().model(point)


def made_with(folder, **settings):
    return InProcess(Settable(**settings), folder, device="cpu")


@pytest.mark.parametrize(
    "other", [{"dropout": 0.2}, {"dropout": 0.1, "width": 4}, {"dropout": "0.1"}, {"dropout": [0.1]}, {}]
)
def test_an_instance_made_with_other_values_is_another_workload(other, tmp_path):
    mine = made_with(tmp_path, dropout=0.1).fingerprint()
    assert mine == made_with(tmp_path, dropout=0.1).fingerprint()
    assert mine != made_with(tmp_path, **other).fingerprint()


def test_the_value_that_differs_is_named(tmp_path):
    before, after = (made_with(tmp_path, dropout=rate, width=4).fingerprint_parts() for rate in (0.1, 0.2))
    assert {name for name in before if before[name] != after[name]} == {"attribute dropout"}


def test_a_workload_that_counts_its_calls_stays_the_same_one(tmp_path):
    unused, used = (InProcess(Counting(), tmp_path, device="cpu") for _ in range(2))
    used.workload.model({})
    assert used.fingerprint() == unused.fingerprint()


class Nested:
    """A dataset whose examples hold more than tensors of floats."""

    def __init__(self, name):
        self.name = name

    def __len__(self):
        return 4

    def __getitem__(self, index):
        inner = {"half": torch.full((2,), index, dtype=torch.bfloat16), "name": f"{self.name}-{index}"}
        return {"x": torch.zeros(3), "inner": inner, "pair": (index, 0.5)}


def test_any_examples_of_a_dataset_have_a_digest():
    split, same, other = (Split("training", Nested(name), torch.device("cpu")) for name in ("a", "a", "b"))
    assert data_digest(split) == data_digest(same) != data_digest(other)


def test_what_is_derived_or_data_stays_out():
    assert instance_settings(Settable(cache=torch.zeros(2), layer=torch.nn.Linear(1, 1))) == {}
