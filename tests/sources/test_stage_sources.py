"""An edit of one stage's workload leaves the other stages of its file as they are; what they share counts for both."""

import pytest

from tuner.sources.definitions import definitions_of

STAGES = """
import torch
from torch import nn
from tuner import *

WIDTH = 4
DEPTH = 2
NOISE = torch.tensor(0.1)


def data():
    return torch.zeros(WIDTH)


def noisy(x):
    return deeper(x) + 0.1


def deeper(x):
    return x * DEPTH


def labels(x):
    return x > 0


class Base(Workload):
    batch_size = 8


class Auto(Base):
    def model(self, point):
        return nn.Linear(WIDTH, noisy(data()))


class Few(Base):
    def model(self, point):
        return nn.Linear(WIDTH, labels(data()))


SPACE = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1))
START = best_of("pre")
pretraining = Campaign(Auto(), name="pre", rounds=[Round("q", trials=4, space=SPACE)])
campaign = Campaign(Few(), start_from=START, rounds=[Round("q", trials=4, space=SPACE)])
"""
AUTO, FEW = frozenset({"Auto", "Base"}), frozenset({"Few", "Base"})


def changed_for(own, old, new, source=STAGES):
    assert old in source
    before, after = (definitions_of(text.encode(), own) for text in (source, source.replace(old, new)))
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


@pytest.mark.parametrize(
    ("old", "new", "auto", "few"),
    [
        ("noisy(data())", "noisy(data() + 1)", {"method Auto.model"}, set()),
        ("deeper(x) + 0.1", "deeper(x) + 0.2", {"function noisy"}, set()),
        ("x * DEPTH", "x * DEPTH + 1", {"function deeper"}, set()),
        ("DEPTH = 2", "DEPTH = 3", {"value DEPTH"}, set()),
        ("labels(data())", "labels(data() + 1)", set(), {"method Few.model"}),
        ("x > 0", "x > 1", set(), {"function labels"}),
        ("torch.zeros(WIDTH)", "torch.ones(WIDTH)", {"function data"}, {"function data"}),
        ("WIDTH = 4", "WIDTH = 5", {"value WIDTH"}, {"value WIDTH"}),
        ("batch_size = 8", "batch_size = 9", {"class Base"}, {"class Base"}),
        ("torch.tensor(0.1)", "torch.tensor(0.2)", {"value NOISE"}, {"value NOISE"}),
        ("trials=4", "trials=8", set(), set()),
        ('best_of("pre")', 'best_of("pre", "encoder.*")', set(), set()),
    ],
)
def test_an_edit_changes_the_stages_that_use_it(old, new, auto, few):
    assert changed_for(AUTO, old, new) == auto
    assert changed_for(FEW, old, new) == few


def test_a_stage_that_is_added_changes_nothing_of_those_before():
    labels = STAGES[STAGES.index("def labels") : STAGES.index("class Base")]
    few = STAGES[STAGES.index("class Few") : STAGES.index("SPACE =")]
    lines = STAGES.replace(labels, "").replace(few, "").splitlines()
    alone = "\n".join(line for line in lines if not line.startswith(("campaign =", "START =")))
    assert "Few" not in alone
    assert definitions_of(alone.encode(), AUTO) == definitions_of(STAGES.encode(), AUTO)


@pytest.mark.parametrize(
    "reader",
    [
        "TABLE = {'other': Auto}",
        "def build(name):\n    return globals()[name]()",
        "class Third(Auto):\n    pass",
        "extra = Campaign(Few(inside=Auto), rounds=[])",
    ],
)
def test_a_class_that_anything_else_reads_counts_for_all(reader):
    source = STAGES.replace("SPACE =", f"{reader}\n\n\nSPACE =", 1)
    assert changed_for(FEW, "noisy(data())", "noisy(data() + 1)", source) == {"method Auto.model"}


def test_a_source_that_is_read_for_no_stage_counts_as_a_whole():
    assert changed_for(None, "noisy(data())", "noisy(data() + 1)") == {"method Auto.model"}
