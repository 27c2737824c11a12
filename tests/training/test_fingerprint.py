"""What makes another workload: not only its code and its data, also what an instance was made with."""

import pytest
import torch
from support.tiny import Tiny

from tuner.training.fingerprint import settings_text, workload_fingerprint
from tuner.training.setting import Data


class Settable(Tiny):
    def __init__(self, **settings):
        vars(self).update(settings)


def fingerprint(**settings):
    workload = Settable(**settings)
    return workload_fingerprint(workload, Data.of(workload, torch.device("cpu")))


@pytest.mark.parametrize(
    "other", [{"dropout": 0.2}, {"dropout": 0.1, "width": 4}, {"dropout": "0.1"}, {"dropout": [0.1]}, {}]
)
def test_an_instance_made_with_other_values_is_another_workload(other):
    assert fingerprint(dropout=0.1) == fingerprint(dropout=0.1)
    assert fingerprint(dropout=0.1) != fingerprint(**other)


def test_what_is_derived_or_data_stays_out():
    assert settings_text(Settable(cache=torch.zeros(2), layer=torch.nn.Linear(1, 1))) == ""
