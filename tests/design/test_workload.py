"""Hooks of a workload that are misspelt."""

import pytest

from tuner import Workload
from tuner.design.workload import misspelt


class Base(Workload):
    def metrics(self, model, batch):
        return {}

    def loss(self, model, batch, point):
        return None


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"data_worker": 4}, {"data_worker": "data_workers"}),
        ({"split_metric": print, "colate": print}, {"split_metric": "split_metrics", "colate": "collate"}),
        ({"fited_when": None, "length": lambda self: []}, {"fited_when": "fitted_when", "length": "lengths"}),
        ({"losses": [], "metric": print, "width": 64, "length": 128, "modules": 3, "_collates": 1}, {}),
        ({"split_metrics": print, "split_metric": print}, {}),  # what is declared cannot be meant
    ],
)
def test_a_name_that_nothing_reads_and_that_is_nearly_a_hook_is_found(names, found):
    kind = type("Own", (Base,), names)
    assert misspelt(kind()) == found
    assert misspelt(type("Further", (kind,), {})()) == found
