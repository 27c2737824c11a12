"""Batches that a workload's own `collate` makes: what they draw, what they are, how many examples they hold."""

import itertools
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from support.drawing import disturb
from support.fusing import meaning, trained_alone, trained_together
from support.tiny import CPU, Tiny, setting_for, tiny_study
from torch import nn
from torch.utils.data import TensorDataset

from tuner import Splits
from tuner.errors import NotFusible, WorkloadError
from tuner.fused.group import Group
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.batches import TrainingBatches
from tuner.training.data_checks import described, random_example
from tuner.training.evaluation import evaluate
from tuner.training.preflight import check_switched_off, check_workload
from tuner.training.setup import Data
from tuner.training.trial_run import TrialRun

STUDY = tiny_study(augment=False)
TRIALS = planned_trials(STUDY)


class Pair:
    """A batch as an object of a class of the user's; `to` moves it in place and returns nothing."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def to(self, device):
        self.x, self.y = self.x.to(device), self.y.to(device)


class NewPair(Pair):
    def to(self, device):
        return NewPair(self.x.to(device), self.y.to(device))


class Closed(NewPair):
    """One that keeps its parts from everyone else."""

    def __init__(self, x, y):
        self.held = {"x": x, "y": y}

    def __getattr__(self, name):
        if name in ("x", "y"):
            return self.held[name]
        raise AttributeError(name)

    def to(self, device):
        return Closed(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Record:
    x: torch.Tensor
    y: torch.Tensor


KINDS = {"mutable object": Pair, "object": NewPair, "dataclass": Record, "closed object": Closed}


def stacked(examples):
    return torch.stack([x for x, _ in examples]), torch.stack([y for _, y in examples])


class Collating(Tiny):
    """Tiny, by a dataset and a collate function; `make` gives the batch of two tensors its type."""

    def __init__(self, make=None):
        self.make = make or Record

    def data(self):
        splits = super().data()
        return Splits(TensorDataset(*splits.training), TensorDataset(*splits.validation))

    def collate(self, examples):
        return self.make(*stacked(examples))

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2))

    def loss(self, model, batch, point):
        return super().loss(model, (batch.x, batch.y), point)

    def metrics(self, model, batch):
        return super().metrics(model, (batch.x, batch.y))


class Uncollated(Collating):
    collate = Tiny.collate

    def loss(self, model, batch, point):
        return super().loss(model, Record(*batch), point)

    def metrics(self, model, batch):
        return super().metrics(model, Record(*batch))


def found(train, workload, folder, trials=TRIALS):
    recorder = train(setting_for(STUDY, folder, workload), trials)
    assert {recorder.state(trial) for trial in trials} == {State.COMPLETE}
    return [meaning(recorder, folder, trial) for trial in trials]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What the trials come to without a collate function, from tuples."""
    return found(trained_alone, Uncollated(), tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_any_type_have_the_bits_of_tuples(kind, plain, tmp_path):
    assert found(trained_alone, Collating(KINDS[kind]), tmp_path) == plain


@pytest.mark.parametrize("kind", ["mutable object", "object", "dataclass"])
def test_trials_with_batches_of_any_plain_type_train_together_with_the_bits_of_each_alone(kind, plain, tmp_path):
    assert found(trained_together, Collating(KINDS[kind]), tmp_path) == plain


def test_trials_with_batches_that_cannot_be_opened_are_refused_by_name_together(tmp_path):
    setting = setting_for(STUDY, tmp_path, Collating(Closed))
    with pytest.raises(NotFusible, match=r"a batch holds Closed .*, which a recording would freeze"):
        Group([TrialRun(setting, trial) for trial in TRIALS])


def test_an_object_that_holds_more_than_tensors_is_refused_by_name_together(tmp_path):
    def numbered(x, y):
        batch = Pair(x, y)
        vars(batch)["number"] = len(x)
        return batch

    setting = setting_for(STUDY, tmp_path, Collating(numbered))
    with pytest.raises(NotFusible, match="a batch holds int 8, which a recording would freeze"):
        Group([TrialRun(setting, trial) for trial in TRIALS])


class Noisy(Collating):
    """Its collate draws from all three generators; with `mixed`, it mixes each example with a random other."""

    def collate(self, examples):
        x, y = stacked(examples)
        level = random.random() + float(np.random.rand())
        return Record(x + level * torch.randn(x.shape), y)


class Mixing(Collating):
    def collate(self, examples):
        x, y = stacked(examples)
        return Record(0.8 * x + 0.2 * x[torch.randperm(len(x))], y)


class Drawn(Collating):
    """Batches are nothing but what collate draws."""

    def collate(self, examples):
        return torch.rand(3, dtype=torch.float64), torch.tensor([random.random()]), torch.from_numpy(np.random.rand(2))


def test_what_collate_draws_is_a_function_of_seed_epoch_and_first_example():
    data = Data.of(Drawn(), CPU)
    seen = {}
    for amount in (3, 8):
        for step in (0, 4, 5, 6, 11, 0):
            disturb(amount)
            batches = TrainingBatches(data.training, 8, 3)
            drawn = [part.tolist() for part in batches.at(step)]
            assert drawn == seen.setdefault(step, drawn) == [part.tolist() for part in batches.fetched(step)]
    seen |= {
        seed: [part.tolist() for part in TrainingBatches(data.training, 8, seed).at(0)] for seed in range(100, 103)
    }
    numbers = [one for parts in seen.values() for part in parts for one in part]
    assert len(set(numbers)) == len(numbers) == 6 * 8, "no two batches, and no two generators, draw the same"
    order = [TrainingBatches(data.training, 8, 3).order.wanted(step)[0][0] for step in range(60)]
    again = next(step for step in range(6, 60) if order[step] == order[0])
    assert TrainingBatches(data.training, 8, 3).at(again)[0].tolist() != seen[0][0], (
        "in another epoch, from one example"
    )


@pytest.mark.parametrize("kind", [Noisy, Mixing])
def test_a_random_collate_can_be_resumed_at_every_step_of_two_epochs(kind, tmp_path):
    def results(run):
        run.advance(13)
        return [float(loss).hex() for loss in run.losses], run.evaluate()

    whole = results(TrialRun(setting_for(STUDY, tmp_path, kind()), TRIALS[0]))
    for stop in range(1, 13):
        first = TrialRun(setting_for(STUDY, tmp_path, kind()), TRIALS[0])
        first.advance(stop)
        disturb()
        second = TrialRun(setting_for(STUDY, tmp_path, kind()), TRIALS[0])
        second.load(first.state())
        assert results(second) == whole, f"stopped at step {stop}"


def test_a_random_collate_has_the_same_bits_in_a_group(tmp_path):
    assert found(trained_together, Noisy(), tmp_path / "0") == found(trained_alone, Noisy(), tmp_path / "1")


@pytest.mark.parametrize("kind", [Noisy, Mixing])
def test_a_random_collate_is_a_random_training_split_to_a_sweep(kind, tmp_path):
    assert random_example(Data.of(kind(), CPU).training) is not None
    assert random_example(Data.of(Collating(), CPU).training) is None
    with pytest.raises(WorkloadError, match=f"the training split of {kind.__name__} draws random numbers"):
        check_switched_off(setting_for(STUDY, tmp_path, kind()), TRIALS[0])


class OwnGenerator(Collating):
    generator = np.random.default_rng(0)

    def collate(self, examples):
        x, y = stacked(examples)
        return Record(x + float(self.generator.normal()), y)


class Counting(Collating):
    counter = itertools.count()

    def collate(self, examples):
        x, y = stacked(examples)
        return Record(x + next(self.counter), y)


@pytest.mark.parametrize("kind", [OwnGenerator, Counting])
def test_a_collate_that_draws_from_its_own_generator_is_refused(kind, tmp_path):
    with pytest.raises(WorkloadError, match="collate makes another batch of the same examples of the training split"):
        check_workload(setting_for(STUDY, tmp_path, kind()), TRIALS[0])


def changing(change):
    """A workload whose collate makes another form of every batch but those with the first example of the first."""

    class Changing(Collating):
        def collate(self, examples):
            x, y = stacked(examples)
            batch = {"x": x, "y": y, "more": [{"boxes": torch.zeros(int(one) + 1, 4)} for one in y]}
            first = TrainingBatches(Data.of(Collating(), CPU).training, 8, TRIALS[0].data_seed).at(0).x
            return batch if len(x) < 8 or torch.equal(first, x) else change(batch)

        def loss(self, model, batch, point):
            return Tiny.loss(self, model, (batch["x"].float(), batch["y"]), point)

        def metrics(self, model, batch):
            return Tiny.metrics(self, model, (batch["x"], batch["y"]))

    return Changing()


def without(batch, name):
    return {key: value for key, value in batch.items() if key != name}


def test_batches_whose_sizes_alone_change_are_of_one_form(tmp_path):
    check_workload(setting_for(STUDY, tmp_path, changing(lambda batch: batch)), TRIALS[0])
    check_workload(setting_for(STUDY, tmp_path, changing(lambda batch: batch | {"more": []})), TRIALS[0])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda batch: batch | {"x": batch["x"].double()},
         r"batch\['x'\] is torch.float32 with 2 dimensions for update 1 and torch.float64 with 2 dimensions"),
        (lambda batch: batch | {"x": batch["x"][None]}, r"batch\['x'\] is .* 2 dimensions for .* with 3 dimensions"),
        (lambda batch: without(batch, "y"), r"batch\['y'\] is torch.int64 with 1 dimension for .* not there for"),
        (lambda batch: batch | {"z": 1}, r"batch\['z'\] is not there for update 1 and of type int for update 2"),
        (lambda batch: batch | {"y": None}, r"batch\['y'\] is torch.int64 .* and None for update 2"),
        (lambda batch: batch | {"more": [{"boxes": torch.zeros(1)}]}, r"batch\['more'\]\[\.\.\.\]\['boxes'\] is torch"),
        (lambda batch: Record(batch["x"], batch["y"]), "batch is of type dict for update 1 and of type Record"),
    ],
)  # fmt: skip
def test_a_collate_whose_batches_change_form_is_refused_before_training(change, told, tmp_path):
    with pytest.raises(WorkloadError, match=f"collate makes training batches of different forms: {told}"):
        check_workload(setting_for(STUDY, tmp_path, changing(change)), TRIALS[0])


def test_the_form_of_an_object_is_that_of_its_attributes():
    one, other = Pair(torch.ones(2), torch.ones(2)), Pair(torch.ones(3), torch.ones(3).long())
    assert described(one)["['y']"] == "torch.float32 with 1 dimension"
    assert described(other)["['y']"] == "torch.int64 with 1 dimension"


class Dropping(Collating):
    """Leaves out every example whose first number is positive, of those that stand behind the first of a batch."""

    def collate(self, examples):
        return Record(*stacked([examples[0], *(one for one in examples[1:] if one[0][0] < 0)]))

    def num_examples(self, batch):
        return len(batch.x)


class Cropping(Collating):
    """Makes three of each example."""

    def collate(self, examples):
        x, y = stacked(examples)
        return Record(torch.cat([x, x + 1, x - 1]), y.repeat(3))

    def num_examples(self, batch):
        return len(batch.x)


@pytest.mark.parametrize("kind", [Dropping, Cropping])
@pytest.mark.parametrize("size", [1, 7, 16, 30])
def test_the_mean_of_a_metric_is_over_the_examples_that_batches_hold(kind, size, tmp_path):
    workload = kind()
    data, model = Data.of(workload, CPU), workload.model({})
    examples = [data.validation.dataset[place] for place in range(30)]
    batches = [workload.collate(examples[start : start + size]) for start in range(0, 30, size)]
    each = [value for batch in batches for value in workload.metrics(model, batch)["loss"].tolist()]
    measured = evaluate(workload, model, data.validation, batch_size=size)
    assert measured["validation/loss"] == pytest.approx(sum(each) / len(each), rel=1e-6)
    assert len(each) != 30 or size == 1


@pytest.mark.parametrize("kind", [Dropping, Cropping])
def test_trials_whose_batches_hold_other_numbers_of_examples_train(kind, tmp_path):
    check_workload(setting_for(STUDY, tmp_path, kind()), TRIALS[0])
    found(trained_alone, kind(), tmp_path)


@pytest.mark.parametrize("answer", [None, 2.0, True, -1, torch.tensor(2)])
def test_a_number_of_examples_that_is_none_is_an_error_that_says_so(answer, tmp_path):
    class Wrong(Collating):
        def num_examples(self, batch):
            return answer

    with pytest.raises(WorkloadError, match="num_examples must return how many examples a batch holds, as an int"):
        check_workload(setting_for(STUDY, tmp_path, Wrong()), TRIALS[0])


def test_a_collate_that_returns_nothing_says_so(tmp_path):
    class Forgetful(Collating):
        def collate(self, examples):
            self.make(*stacked(examples))

    with pytest.raises(WorkloadError, match="collate returned None for 8 examples; return the batch"):
        check_workload(setting_for(STUDY, tmp_path, Forgetful()), TRIALS[0])


def test_collate_for_tensors_in_memory_alone_is_refused():
    class InMemory(Collating):
        data = Tiny.data

    with pytest.raises(WorkloadError, match=r"InMemory.collate would never be called: .* tensors in memory"):
        Data.of(InMemory(), CPU)


def test_with_collate_a_list_is_one_of_examples_and_without_it_is_refused():
    class Listed(Collating):
        def data(self):
            training, validation = (list(split) for split in vars_of(super().data()))
            return Splits(training, validation)

    assert Data.of(Listed(), CPU).training.num_examples == 50

    class Unsaid(Listed):
        collate = Tiny.collate

    with pytest.raises(WorkloadError, match="the training split is a list; give a tuple of tensors"):
        Data.of(Unsaid(), CPU)


def test_captions_of_different_lengths_are_told_how_to_become_one_tensor():
    class Ragged(Tiny):
        def data(self):
            x = torch.randn(4, 2)
            return Splits(training=(x, [[1, 2], [3]] * 2), validation=(x, [[1]] * 4))

    with pytest.raises(WorkloadError, match=r"Its part 2 is a list: captions .* one tensor with padded\("):
        Data.of(Ragged(), CPU)


def vars_of(splits):
    return splits.training, splits.validation
