"""What decides the bits of a trial makes another study, of which no first step is taken over; the loading does not."""

import functools
import sys

import pytest
from support.loaded import loaded

from tuner.design.prefix import base_digest, path_digests, rates_of
from tuner.design.study_file import load_campaign
from tuner.rounds.plan import planned_trials, study_of_round

STUDY = """
import itertools
import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset
from tuner import *

WIDTHS = (4, 8, 12)
MOMENTUM = 0.9
WORKERS = 2
NOISE = 0.1


class Noisy(Dataset):
    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)
        self.x = [torch.randn(int(n), generator=generator) for n in torch.randint(3, 13, (400,), generator=generator)]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] + NOISE * random.random(), int(self.x[index].sum() > 0)


class Moved(torch.optim.SGD):
    def step(self, closure=None):
        return super().step()


def make_optimizer(groups, point):
    return Moved(groups, momentum=MOMENTUM)


def curve(share):
    return 1.0 - share


def read(start):
    for number in itertools.count(start):
        yield torch.full((3,), float(number % 7)), 1


class Net(Workload):
    batch_size = 8
    data_workers = WORKERS
    select_by = minimize("validation/loss")
    not_averaged = ("score",)
    no_decay = "vectors"
    evaluation_batch_size = 16
    training_evaluation_examples = 40

    def data(self):
        return Splits(training=Noisy(0), validation=Noisy(1))

    def lengths(self):
        return [len(one) for one in Noisy(0).x]

    def collate(self, examples):
        return padded([x for x, _ in examples], WIDTHS), torch.tensor([y for _, y in examples])

    def num_examples(self, batch):
        return len(batch[1])

    def parameter_groups(self, model, point):
        return [matching("1.*", rate=point["head_rate"])]

    def model(self, point):
        return nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 2))

    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0].sum(1, keepdim=True)), batch[1])

    def metrics(self, model, batch):
        logits = model(batch[0].sum(1, keepdim=True))
        return {"loss": F.cross_entropy(logits, batch[1], reduction="none"), "score": logits[:, 0]}

    def split_metrics(self, each):
        return {"largest": float(each["score"].max())}


campaign = Campaign(
    Net(),
    rounds=[Round("a test", trials=2, max_train_steps=20, space=SearchSpace(
        learning_rate=log_uniform(0.01, 0.1), weight_decay=0.01, head_rate=log_uniform(0.1, 1.0)))],
    optimizer=make_optimizer, schedule=curve, regime="not_compute_bound", evaluations=10, warmup=0.1,
)
"""
STREAM = STUDY.replace("training=Noisy(0)", "training=Stream(read)").replace("def lengths(", "def other(")


@pytest.fixture(scope="module")
def start_of(tmp_path_factory):
    """What the first steps of a study file's trial 0 are looked up by: all but the schedule, and the schedule."""
    path = tmp_path_factory.mktemp("study") / "made.py"

    @functools.cache
    def start(source):
        path.write_text(source)
        _, campaign = load_campaign(path)
        here = loaded(campaign.workload, path.parent, device="cpu", study_file=path)
        study = study_of_round(campaign, 1, 20)
        here.identity_of(study)
        trial = planned_trials(study)[0]
        return base_digest(study, trial, here.fingerprint(study)), path_digests(rates_of(trial), study.budget, [20])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "dont_write_bytecode", True)  # a file of the same size and second would be taken for it
        yield start


def changed(source, old, new):
    assert old in source
    return source.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('no_decay = "vectors"', "no_decay = None"),
        ('matching("1.*", rate', 'matching("1.weight", rate'),
        ('matching("1.*", rate', 'by_depth("{}", 0.5, rate'),
        ("torch.tensor([y for", "torch.tensor([1 - y for"),
        ("WIDTHS = (4, 8, 12)", "WIDTHS = (5, 8, 12)"),
        ("return [len(one) for one in Noisy(0).x]", "return [len(one) // 2 for one in Noisy(0).x]"),
        ("def lengths(", "def other("),
        ("return len(batch[1])", "return len(batch[0])"),
        ('not_averaged = ("score",)', "not_averaged = ()"),
        ('float(each["score"].max())', 'float(each["score"].min())'),
        ('no_decay = "vectors"', 'no_decay = "vectors"\n    split_metrics_device = "same"'),
        ("training_evaluation_examples = 40", "training_evaluation_examples = 41"),
        ("MOMENTUM = 0.9", "MOMENTUM = 0.8"),
        ("momentum=MOMENTUM)", "momentum=MOMENTUM, nesterov=True)"),
        ("return super().step()", "return super().step(None)"),
        ("optimizer=make_optimizer", "optimizer=Moved"),
        ("optimizer=make_optimizer", "optimizer=torch.optim.Adamax"),
        ("return 1.0 - share", "return 1.0 - share**2"),
        ("schedule=curve", "schedule=linear()"),
        ("warmup=0.1", "warmup=0.2"),
        ("NOISE = 0.1", "NOISE = 0.2"),
        ("self.x[index] + NOISE", "self.x[index] + (index == 399) + NOISE"),
    ],
)
def test_nothing_is_taken_over_from_a_study_that_decides_otherwise(old, new, start_of):
    assert start_of(STUDY) != start_of(changed(STUDY, old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("number % 7", "number % 7 if number < 10**6 else 0"),
        ("itertools.count(start)", "itertools.count(start + 1)"),
        ("Stream(read)", "Noisy(0)"),
        ("Stream(read)", "Stream(read, 400)"),
    ],
)
def test_nothing_is_taken_over_from_another_stream(old, new, start_of):
    assert start_of(STREAM) != start_of(changed(STREAM, old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("WORKERS = 2", "WORKERS = 4"),
        ("data_workers = WORKERS", "data_workers: int = WORKERS"),
        ("def curve(share):\n    return 1.0 - share", "def curve(rest):\n    return 1.0 - rest"),
        ("    data_workers = WORKERS", "    # as many as there are cores\n    data_workers = WORKERS"),
        ("\n\ncampaign", "\n\nNet.data_workers = 3\ncampaign"),
    ],
)
def test_what_decides_no_bit_is_no_part_of_a_study(old, new, start_of):
    assert start_of(STUDY) == start_of(changed(STUDY, old, new))
