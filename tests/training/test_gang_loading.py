"""A rank of a gang fetches its own slices only, with the examples and random numbers of one process."""

import itertools
import os
import signal
from contextlib import nullcontext

import pytest
import torch
from support.drawing import Drawing, of_all
from support.tiny import CPU, Tiny, setting_for, tiny_study
from torch.utils.data import Dataset

from tuner import Splits, Stream
from tuner.rounds.plan import planned_trials
from tuner.training.batches import Split, TrainingBatches
from tuner.training.gang import Gang, Spot
from tuner.training.gang_run import GangRun
from tuner.training.loading import Loading
from tuner.training.trial_run import TrialRun

SLICES, SIZE, EXAMPLES = 4, 16, 520
STEPS = (*range(5), 31, 32, 33)  # the last ones on both sides of an epoch's end


class Told(Dataset):
    """Draws random numbers; counts how often each example was fetched, in whichever process."""

    def __init__(self):
        self.counts = torch.zeros(EXAMPLES, dtype=torch.int64).share_memory_()

    def __len__(self):
        return EXAMPLES

    def __getitem__(self, index):
        self.counts[index] += 1
        return index, of_all()


class Read:
    """A stream that draws; remembers where it was opened and which examples were read."""

    def __init__(self):
        self.opened, self.read = [], []

    def __call__(self, start):
        self.opened.append(start)
        for number in itertools.count(start):
            self.read.append(number)
            yield number, of_all()


def batches_of(data, mine=None, workers=0):
    """Batches, and the context within which they are loaded by so many processes."""
    split, loading = Split("training", data, CPU), Loading()
    split.load_by(loading)
    batches = TrainingBatches(split, SIZE, 5, SLICES)
    if mine is not None:
        batches.take_only(mine)
    return batches, loading.at_work(workers, 2, pin=False) if workers else nullcontext()


def bits(batch):
    return [part.numpy().tobytes() for part in batch]


def taken(batches, steps=STEPS):
    return {(step, part): bits(batches.at(step, part)) for step in steps for part in batches.mine}


def shares(world):
    return [range(rank * SLICES // world, (rank + 1) * SLICES // world) for rank in range(world)]


def all_slices(data):
    return taken(batches_of(data)[0])


@pytest.mark.parametrize("world", [2, 4])
def test_no_rank_fetches_an_example_of_another_one(world):
    expected, found = all_slices(Told()), {}
    for mine in shares(world):
        told = Told()
        batches, _ = batches_of(told, mine)
        taken(batches, [0])
        told.counts.zero_()  # its first batch was fetched again, because it draws
        found |= taken(batches)
        own = torch.zeros(EXAMPLES, dtype=torch.int64)
        for step, part in itertools.product(STEPS, mine):
            own[batches.wanted(step, part)[0]] += 1
        assert torch.equal(told.counts, own)
    assert found == expected


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("workers", [1, 2])
def test_nor_do_its_loading_processes_ahead(world, workers):
    expected, steps = all_slices(Told()), range(5)
    for mine in shares(world):
        told = Told()
        batches, loading = batches_of(told, mine, workers)
        told.counts.zero_()
        with loading:
            found = taken(batches, steps)
        assert found == {key: expected[key] for key in found}
        epoch = [batches.wanted(step, part)[0] for step, part in itertools.product(range(32), mine)]
        others = torch.ones(EXAMPLES, dtype=torch.bool)
        others[torch.cat(epoch)] = False
        assert not told.counts[others].any()
        assert told.counts.sum() <= (len(steps) * len(mine) + 4 * workers + 3 * workers) * SIZE // SLICES


def test_what_is_loaded_ahead_is_dropped_where_an_update_is_made_again():
    expected = all_slices(Told())
    for workers in (0, 2):
        batches, loading = batches_of(Told(), shares(2)[1], workers)
        with loading:
            for step in (0, 1, 1, 2, 0, 3):
                for part in batches.mine:
                    assert bits(batches.at(step, part)) == expected[step, part]
                batches.rewind()


def test_a_killed_loading_process_of_a_rank_is_replaced(caplog):
    expected = all_slices(Told())
    batches, loading = batches_of(Told(), shares(2)[1], 2)
    with loading:
        found = taken(batches, range(2))
        for pid in batches.split.loading.pids:
            os.kill(pid, signal.SIGKILL)
        found |= taken(batches, range(2, 5))
    assert found == {key: expected[key] for key in found}
    assert "it is replaced" in caplog.text


@pytest.mark.parametrize("world", [2, 4])
def test_a_rank_reads_past_the_examples_of_the_others_in_a_stream(world):
    expected, each = all_slices(Stream(Read())), SIZE // world
    for rank, mine in enumerate(shares(world)):
        read = Read()
        found = taken(batches_of(Stream(read), mine)[0], range(5))
        assert found == {key: expected[key] for key in found}
        first, last = rank * each, 4 * SIZE + (rank + 1) * each
        opened = read.opened.count(first)
        assert read.opened == [first] * opened
        assert opened == 2, "the first time it is seen to draw"
        assert read.read[-(last - first) :] == list(range(first, last)), "each once, and nothing before or behind"


@pytest.mark.parametrize("world", [2, 4])
def test_a_stream_that_is_seekable_is_opened_at_what_a_rank_takes(world):
    expected, each = all_slices(Stream(Read())), SIZE // world
    for rank, mine in enumerate(shares(world)):
        read = Read()
        found = taken(batches_of(Stream(read, seekable=True), mine)[0], range(5))
        assert found == {key: expected[key] for key in found}
        firsts = [step * SIZE + rank * each for step in range(5)]
        assert read.opened == [firsts[0], *firsts]
        assert set(read.read) == {first + place for first in firsts for place in range(each)}


@pytest.mark.parametrize("seekable", [False, True])
def test_loading_processes_read_a_stream_so_too(seekable):
    expected = all_slices(Stream(Read()))
    for mine in shares(2):
        batches, loading = batches_of(Stream(Read(), seekable=seekable), mine, 2)
        with loading:
            found = taken(batches, range(5))
            assert len(batches.split.loading.pids) == 1
        assert found == {key: expected[key] for key in found}


def test_one_process_opens_a_stream_where_it_goes_on_elsewhere():
    read = Read()
    batches, _ = batches_of(Stream(read))
    taken(batches, [0, 1, 20])
    assert read.opened == [0, 0, 20 * SIZE]


def test_a_stream_that_ends_among_the_examples_of_others_says_where():
    def at(start):
        return iter([(number, of_all()) for number in range(start, 60)])

    with pytest.raises(Exception, match="the training stream ended after 60 examples"):
        taken(batches_of(Stream(at), shares(2)[0])[0], range(5))


def test_batches_of_a_split_that_is_dealt_out():
    for data in (Told(), Stream(Read(), 83), Stream(Read(), 83, seekable=True), (torch.arange(83.0),)):
        split = Split("validation", data, CPU)
        whole = [bits(batch) for batch, _ in split.in_order(8)]
        found = [[bits(batch) for batch, _ in split.in_order(8, rank, 4)] for rank in range(4)]
        assert found == [whole[rank::4] for rank in range(4)]


class Net(Tiny):
    """Tiny, of a dataset that draws; augmented, in micro-batches."""

    micro_batch_size = 4

    def data(self):
        splits = super().data()
        return Splits(*(Drawing(part) for part in (splits.training, splits.validation)))


class Weighed(Net):
    """Each slice has a weight, so all of a rank are made before the first is computed."""

    def weight(self, batch):
        return float((batch[1] == 1).sum()) + 1.0


@pytest.mark.parametrize("workload", [Net, Weighed])
def test_slices_of_a_rank_are_those_of_one_process_augmented(workload, tmp_path):
    study = tiny_study(slices=4, batch_size=8)
    (trial, *_) = planned_trials(study)
    whole = TrialRun(setting_for(study, tmp_path, workload()), trial)
    for rank in range(2):
        run = GangRun(setting_for(study, tmp_path, workload()), trial, Gang(Spot(rank, 2), None, CPU))
        for step in (0, 1, 6, 13):
            slices, of_all_ranks = run.batch_at(step), whole.batch_at(step)
            assert slices.mine == range(2 * rank, 2 * rank + 2)
            for part in slices.mine:
                assert bits(slices[part]) == bits(of_all_ranks[part])
            if workload is Weighed:
                assert slices.weights() == of_all_ranks.weights()[2 * rank : 2 * rank + 2]
            else:
                assert slices.weights() is None
