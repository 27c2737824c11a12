"""Batches of examples of about one length, and padding to a few widths."""

import itertools

import numpy as np
import pytest
import torch
from support.fusing import TrialsRecorder, meaning, trained_alone, trained_together
from support.tiny import CPU, Tiny, setting_for, tiny_study
from torch import nn

from tuner import Splits, Stream, few_widths, padded
from tuner.design.seeds import derived_seed
from tuner.errors import NotFusible, WorkloadError
from tuner.fused.group import MAX_RECORDINGS
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training import order as orders
from tuner.training.batches import Split, TrainingBatches
from tuner.training.data_digests import data_digest
from tuner.training.order import Order
from tuner.training.randomness import epoch_order
from tuner.training.setup import Data
from tuner.training.trial_run import TrialRun

LENGTHS = torch.randint(1, 40, (1237,), generator=torch.Generator().manual_seed(1))


def by_hand(lengths, batch_size, data_seed, epoch):
    """The batches of an epoch, with lists and `sorted` in place of tensors."""
    whole = len(lengths) // batch_size
    order = epoch_order(data_seed, epoch, len(lengths)).tolist()[: whole * batch_size]
    batches = []
    for start in range(0, len(order), 50 * batch_size):
        part = sorted(order[start : start + 50 * batch_size], key=lambda index: int(lengths[index]))
        batches += [part[place : place + batch_size] for place in range(0, len(part), batch_size)]
    mixed = torch.randperm(
        whole, generator=torch.Generator().manual_seed(derived_seed("batches by length", data_seed, epoch))
    )
    return [batches[place] for place in mixed.tolist()]


@pytest.mark.parametrize(("batch_size", "data_seed"), [(8, 3), (5, 3), (8, 4), (32, 0)])
def test_the_order_by_length_is_that_of_a_second_implementation(batch_size, data_seed):
    order = Order(len(LENGTHS), batch_size, data_seed, LENGTHS)
    for epoch in range(3):
        steps = range(epoch * order.batches_per_epoch, (epoch + 1) * order.batches_per_epoch)
        found = [order.wanted(step)[0].tolist() for step in steps]
        assert found == by_hand(LENGTHS, batch_size, data_seed, epoch)


def test_each_example_comes_at_most_once_an_epoch_and_what_is_left_over_is_drawn_at_random():
    order = Order(len(LENGTHS), 8, 3, LENGTHS)
    left = []
    for epoch in range(40):
        seen = order.of_epoch(epoch).tolist()
        assert len(seen) == len(set(seen)) == 1237 // 8 * 8
        left += set(range(1237)) - set(seen)
    assert len(set(left)) > 150, "of 200: it is not always the same ones, such as the longest"
    assert abs(float(LENGTHS[left].float().mean() - LENGTHS.float().mean())) < 3.0


def test_batches_by_length_need_little_padding_and_come_in_no_order_of_length():
    order, plain = Order(len(LENGTHS), 8, 3, LENGTHS), Order(len(LENGTHS), 8, 3)
    padding = [
        sum(float((rows := LENGTHS[one.wanted(step)[0]]).max() * 8 - rows.sum()) for step in range(154))
        for one in (order, plain)
    ]
    assert padding[0] < 0.2 * padding[1]
    first = [int(LENGTHS[order.wanted(step)[0]].max()) for step in range(154)]
    assert abs(np.corrcoef(first, range(154))[0, 1]) < 0.3


class Sentences(Tiny):
    """Sequences of 3 to 12 numbers, whose sum tells the class; padded to a few widths."""

    evaluation_batch_size = 8
    widths = (4, 6, 9, 12)

    def data(self):
        generator = torch.Generator().manual_seed(0)
        examples = [torch.randn(int(n), generator=generator) for n in torch.randint(3, 13, (80,), generator=generator)]
        pairs = [(one, int(one.sum() > 0)) for one in examples]
        return Splits(training=pairs[:50], validation=pairs[50:])

    def lengths(self):
        return [len(one) for one, _ in self.data().training]

    def collate(self, examples):
        numbers = padded([one for one, _ in examples], self.widths)
        return {"numbers": numbers, "label": torch.tensor([label for _, label in examples])}

    def model(self, point):
        return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))

    def _features(self, batch):
        return torch.stack([batch["numbers"].sum(1), batch["numbers"].abs().sum(1)], 1)

    def loss(self, model, batch, point):
        return super().loss(model, (self._features(batch), batch["label"]), point)

    def metrics(self, model, batch):
        return super().metrics(model, (self._features(batch), batch["label"]))


STUDY = tiny_study(augment=False)
TRIALS = planned_trials(STUDY)


def test_a_trial_by_lengths_resumed_at_every_step_of_two_epochs_has_the_same_bits(tmp_path):
    setting = setting_for(STUDY, tmp_path, Sentences())

    def results(run):
        run.advance(14)
        return [float(loss).hex() for loss in run.losses], run.evaluate()

    whole = results(TrialRun(setting, TRIALS[0]))
    for stop in range(1, 14):
        first = TrialRun(setting, TRIALS[0])
        first.advance(stop)
        second = TrialRun(setting_for(STUDY, tmp_path, Sentences()), TRIALS[0])
        second.load(first.state())
        assert results(second) == whole, f"stopped at step {stop}"


def test_trials_with_few_widths_train_together_and_have_the_bits_of_each_alone(tmp_path):
    recorders = [
        train(setting_for(STUDY, tmp_path / train.__name__, Sentences()), TRIALS)
        for train in (trained_together, trained_alone)
    ]
    for trial in TRIALS:
        assert recorders[0].state(trial) == State.COMPLETE
        one, other = (
            meaning(recorder, tmp_path / place, trial)
            for recorder, place in zip(recorders, ("trained_together", "trained_alone"), strict=True)
        )
        assert one == other


def test_trials_with_more_widths_are_refused_by_name_and_go_on_one_by_one(tmp_path):
    workload, recorder = Sentences(), TrialsRecorder()
    workload.widths = few_widths(workload.lengths(), MAX_RECORDINGS + 3)
    setting = setting_for(STUDY, tmp_path / "together", workload)
    with pytest.raises(NotFusible, match="batches of more than 4 forms"):
        trained_together(setting, TRIALS, recorder)
    assert 0 < max(update.step for update in recorder.updates) < 24
    trained_alone(setting, TRIALS, recorder)
    alone = trained_alone(setting_for(STUDY, tmp_path / "alone", workload), TRIALS)
    for trial in TRIALS:
        assert meaning(recorder, tmp_path / "together", trial) == meaning(alone, tmp_path / "alone", trial)


def test_tensors_in_memory_are_put_in_order_by_length_too():
    split = Split("training", (torch.arange(100), LENGTHS[:100]), CPU)
    split.lengths = LENGTHS[:100]
    batches = TrainingBatches(split, 8, 3)
    for step in (0, 5, 11, 12, 30):
        wanted, _ = Order(100, 8, 3, LENGTHS[:100]).wanted(step)
        assert batches.at(step)[0].tolist() == wanted.tolist() == batches.fetched(step)[0].tolist()


def test_the_lengths_are_part_of_the_data_digest(monkeypatch):
    digests = [data_digest(Data.of(Sentences(), CPU).training)]
    monkeypatch.setattr(Sentences, "lengths", lambda self: [7] * 50)
    digests.append(data_digest(Data.of(Sentences(), CPU).training))
    monkeypatch.delattr(Sentences, "lengths")
    digests.append(data_digest(Data.of(Sentences(), CPU).training))
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        ([3] * 49, "returned 49 lengths, and the training split has 50 examples"),
        ([3] * 49 + [-2], "says -2 of training example 49; lengths are from 0 on"),
        ([3.0] * 50, r"must return a list of ints, one for each training example; got \[3.0"),
        (["a"] * 50, "must return a list of ints"),
        ([True] * 50, "must return a list of ints"),
        (None, "must return a list of ints, one for each training example; got None"),
    ],
)
def test_lengths_that_are_none_are_an_error_that_says_so(lengths, told, monkeypatch):
    monkeypatch.setattr(Sentences, "lengths", lambda self: lengths)
    with pytest.raises(WorkloadError, match=f"Sentences.lengths {told}"):
        Data.of(Sentences(), CPU)


def test_lengths_of_a_stream_are_refused():
    class Streamed(Sentences):
        def data(self):
            splits = super().data()
            return Splits(Stream(lambda start: itertools.islice(splits.training, start, None), 50), splits.validation)

    with pytest.raises(WorkloadError, match=r"a stream has its own order: let `at` give .* and remove lengths\(\)"):
        Data.of(Streamed(), CPU)


def test_sequences_are_padded_to_the_smallest_width_that_holds_them():
    one, other = torch.tensor([1, 2]), torch.tensor([3, 4, 5])
    assert padded([one, other], (2, 4, 8), value=-1).tolist() == [[1, 2, -1, -1], [3, 4, 5, -1]]
    assert padded([one, other]).tolist() == [[1, 2, 0], [3, 4, 5]]
    assert padded([torch.ones(2, 3), torch.zeros(1, 3)], (2, 5)).tolist() == [[[1.0] * 3] * 2, [[0.0] * 3] * 2]
    assert padded([one], (2,)).dtype == torch.int64
    with pytest.raises(WorkloadError, match="length 3 is longer than the largest width, 2: cut it"):
        padded([one, other], (1, 2))
    with pytest.raises(WorkloadError, match=r"got torch.float32 \[length\] and torch.int64 \[length\]"):
        padded([one, torch.ones(2)])
    with pytest.raises(WorkloadError, match="got none"):
        padded([])


def waste(lengths, widths):
    return sum(min(width for width in widths if width >= one) - one for one in lengths)


@pytest.mark.parametrize("seed", range(6))
def test_few_widths_waste_least_of_all_choices(seed):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, 15, 30).tolist()
    found = few_widths(lengths, 3)
    known = sorted(set(lengths))
    best = min(waste(lengths, (*some, known[-1])) for some in itertools.combinations(known[:-1], 2))
    assert waste(lengths, found) == best
    assert len(found) <= 3
    assert list(found) == sorted(found)
    assert found[-1] == max(lengths)


def test_few_widths_of_many_lengths_are_close_to_the_best():
    lengths = (np.random.default_rng(0).pareto(2.0, 3000) * 300).astype(int)
    found = few_widths(lengths)
    quarters = [int(np.quantile(lengths, share)) for share in (0.25, 0.5, 0.75, 1.0)]
    assert len(found) == MAX_RECORDINGS
    assert waste(lengths, found) < 0.5 * waste(lengths, quarters)
    assert few_widths([7, 7]) == (7,)
    with pytest.raises(WorkloadError, match="takes some lengths from 0 on"):
        few_widths([])


def test_the_order_of_a_step_depends_on_no_step_that_was_asked_for_before():
    order = Order(len(LENGTHS), 8, 3, LENGTHS)
    order.wanted(500)
    for step in (0, 155, 500):
        indices, seed = Order(len(LENGTHS), 8, 3, LENGTHS).wanted(step)
        assert order.wanted(step)[0].tolist() == indices.tolist()
        assert order.wanted(step)[1] == seed
    assert orders.MEGABATCH == 50, "the docstring of Workload.lengths says so"
