"""What code keeps in Python from step to step is seen, wherever it stands, and refused by name."""

import itertools
import random
from collections import deque
from dataclasses import dataclass

import numpy as np
import pytest
from support.fusible import Mlp, runs_of

from tuner.errors import NotFusible
from tuner.fused.making import make_group


@dataclass(slots=True)
class Tally:
    calls: int = 0


class Remembers(Mlp):
    """Does more at a step that two updates do not reach, and knows it from what it keeps in Python."""

    calls = 0

    def __init__(self, kept, late):
        self.kept, self.late = kept, late

    def loss(self, model, batch, point):
        return super().loss(model, batch, point) * (2.0 if self.late(self) else 1.0)


def adds_up(self):
    self.kept[0] += 1
    return self.kept[0] > 1000


def appends(self):
    self.kept.append(0)
    return len(self.kept) > 1000


def tallies(self):
    self.kept.calls += 1
    return self.kept.calls > 1000


def counts_in_its_class(self):
    type(self).calls += 1
    return type(self).calls > 1000


def replaces(self):
    self.kept = self.kept + 1
    return (self.kept > 1000) + 1.0


REMEMBERED = {
    "an array": (np.zeros(1), adds_up, r"Remembers\.kept to \["),
    "a queue": (deque(), appends, r"Remembers\.kept \(length\) to"),
    "a long list": ([0] * 500, appends, r"Remembers\.kept \(length\) to"),
    "slots": (Tally(), tallies, r"Remembers\.kept\.calls to"),
    "the class": (None, counts_in_its_class, r"Remembers\.calls to"),
    "an iterator": (itertools.count(), lambda self: next(self.kept) > 1000, r"Remembers\.kept to 'count"),
    "Python's generator": (random.Random(1), lambda self: self.kept.random() < 1e-9, r"the state of Remembers\.kept"),
    "an old generator of NumPy": (
        np.random.RandomState(1), lambda self: self.kept.rand() < 1e-9, r"the state of Remembers\.kept"
    ),
    "NumPy's generator": (
        np.random.default_rng(1), lambda self: self.kept.random() < 1e-9, r"the state of Remembers\.kept"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REMEMBERED)
def test_what_code_remembers_in_python_is_refused_by_name(kind):
    kept, late, told = REMEMBERED[kind]
    with pytest.raises(NotFusible, match=f"the code changes {told}.*, at each step, which a recording would freeze"):
        make_group(runs_of(Remembers(kept, late), 2))


def test_a_setting_that_is_not_a_number_is_no_change():
    assert make_group(runs_of(Remembers(float("nan"), lambda self: False), 2)).ways
