"""What is kept and what is deleted: the best states, and the files of a trial, against a search by brute force."""

import math
import tempfile
from functools import partial
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tuner.design.objective import maximize, minimize
from tuner.training.best import BestKeeper, snapshot
from tuner.training.checkpoints import CheckpointFolder

VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 1.0, math.nan, math.inf, -math.inf]), st.floats(-3, 3).map(lambda x: round(x, 1))
)


def model_of(step):
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(step)
    return model


def offered(keeper, curve, first=0):
    for step, value in enumerate(curve, first + 1):
        keeper.offer(step, value, partial(snapshot, model_of(step)))
    return keeper


def told(keeper):
    return [(kept.step, kept.value, kept.weights["weight"].item()) for kept in keeper.kept]


def best_by_sorting(curve, count, sign):
    finite = [(sign * value, step, value) for step, value in enumerate(curve, 1) if math.isfinite(value)]
    return [(step, value, float(step)) for _, step, value in sorted(finite, key=lambda one: one[:2])[:count]]


@given(curve=st.lists(VALUES, max_size=15), count=st.integers(1, 4))
def test_the_best_states_are_those_of_a_sort_and_hold_their_own_weights(curve, count):
    for objective, sign in ((minimize("validation/loss"), 1), (maximize("validation/accuracy"), -1)):
        keeper = offered(BestKeeper(objective, count), curve)
        assert told(keeper) == best_by_sorting(curve, count, sign)


@given(curve=st.lists(VALUES, max_size=15), count=st.integers(1, 3), data=st.data())
def test_an_interruption_anywhere_keeps_the_same_states(curve, count, data):
    objective = minimize("validation/loss")
    cut = data.draw(st.integers(0, len(curve)))
    before = offered(BestKeeper(objective, count), curve[:cut])
    tied = len({kept.value for kept in before.kept}) < len(before.kept)  # then their order decides between equals
    after = BestKeeper(objective, count)
    for kept in before.kept if tied else data.draw(st.permutations(before.kept)):
        after.restore(kept.step, kept.value, {name: tensor.clone() for name, tensor in kept.weights.items()})
    assert told(offered(after, curve[cut:], cut)) == told(offered(before, curve[cut:], cut))


STEPS, FENCES = st.integers(0, 3), st.integers(1, 4)
FILES = st.builds(
    "{}-{:09d}-{}.{}".format, st.sampled_from(["latest", "best"]), STEPS, FENCES, st.sampled_from(["pt", "safetensors"])
)
TEMPORARY = st.builds(".latest-{:09d}-{}.pt.{}.tmp".format, STEPS, FENCES, st.integers(1, 9))


@given(
    files=st.sets(st.one_of(FILES, TEMPORARY), max_size=12),
    known=st.sets(FILES, max_size=6),
    fence=FENCES,
)
def test_a_sweep_deletes_what_nobody_names_and_nothing_of_a_later_owner(files, known, fence):
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "study" / "trial-00000"
        folder.mkdir(parents=True)
        for name in files:
            (folder / name).touch()
        CheckpointFolder(Path(root), "study/trial-00000", fence).sweep({f"study/trial-00000/{name}" for name in known})
        assert {path.name for path in folder.iterdir()} == {
            name for name in files if name in known or fence_in(name) > fence
        }


def fence_in(name):
    return int(name.lstrip(".").split("-")[2].split(".")[0])
