"""Batches of a DataLoader go on exactly where they were: every stop, every kind of loader, the same batches."""

import itertools
import random

import numpy as np
import pytest
import torch
from support.loops import Plain, X, Y, setup_for, train_loop
from support.tiny import CPU, MemoryRecorder, StopAt, tiny_study
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, RandomSampler, TensorDataset

from tuner.delegated.batches import Batches
from tuner.delegated.kept import global_generators, set_global_generators
from tuner.errors import WorkloadError
from tuner.records import State
from tuner.rounds.plan import planned_trials

STUDY = tiny_study(batch_size=0, optimizer=None)
TRIAL = planned_trials(STUDY)[0]
DATA = TensorDataset(X[:50], Y[:50])


class Noisy(torch.utils.data.Dataset):
    """Every example is drawn with numbers of all three generators, as augmentations do."""

    def __len__(self):
        return 50

    def __getitem__(self, place):
        noise = torch.randn(6) + float(np.random.normal()) + random.random()
        return X[place] + 0.1 * noise, Y[place]


class Streamed(IterableDataset):
    def __iter__(self):
        order = torch.randperm(50).tolist()
        return ((X[place], Y[place]) for place in order)


class Shuffled(IterableDataset):
    """Another order in each pass, by its number, as datasets of Hugging Face have it."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        order = torch.randperm(50, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        return ((X[place], Y[place]) for place in order)


class WithState:
    """A loader of the protocol of torchdata's StatefulDataLoader: an order of its own, and its state."""

    def __init__(self):
        self.generator, self.order, self.place = torch.Generator().manual_seed(5), [], 0

    def __iter__(self):
        if self.place == len(self.order):
            self.order, self.place = torch.randperm(50, generator=self.generator).tolist(), 0
        while self.place < len(self.order):
            rows = self.order[self.place : self.place + 8]
            self.place += len(rows)
            yield X[rows], Y[rows]

    def state_dict(self):
        return {"order": self.order, "place": self.place, "generator": self.generator.get_state()}

    def load_state_dict(self, state):
        self.order, self.place = state["order"], state["place"]
        self.generator.set_state(state["generator"])


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


class Lazy:
    """A sampler that draws each index when it is asked for it."""

    def __len__(self):
        return 50

    def __iter__(self):
        return (random.randrange(50) for _ in range(50))


LOADERS = {
    "shuffled": lambda: DataLoader(DATA, 8, shuffle=True),
    "by its own generator": lambda: DataLoader(DATA, 8, shuffle=True, generator=seeded()),
    "by a sampler's generator": lambda: DataLoader(
        DATA, 8, sampler=RandomSampler(DATA, replacement=True, generator=seeded())
    ),
    "by a batch sampler": lambda: DataLoader(
        DATA, batch_sampler=BatchSampler(RandomSampler(DATA, generator=seeded()), 8, drop_last=True)
    ),
    "drawn one by one": lambda: DataLoader(DATA, 8, sampler=Lazy()),
    "augmented": lambda: DataLoader(Noisy(), 8, shuffle=True),
    "augmented by two processes": lambda: DataLoader(Noisy(), 8, shuffle=True, num_workers=2),
    "streamed": lambda: DataLoader(Streamed(), 8),
    "shuffled by the number of the pass": lambda: DataLoader(Shuffled(), 8),
    "of a distributed sampler": lambda: DataLoader(
        DATA, 5, sampler=DistributedSampler(DATA, num_replicas=2, rank=1, seed=4)
    ),
    "a list": lambda: [(X[place : place + 8], Y[place : place + 8]) for place in range(0, 48, 8)],
    "with a state": WithState,
    "one batch a pass": lambda: DataLoader(DATA, 50, shuffle=True),
    "an endless iterator": lambda: ((X[k % 40 : k % 40 + 8], Y[k % 40 : k % 40 + 8]) for k in itertools.count()),
}


class Loads(Plain):
    """Trains on a loader, and notes the batches by step."""

    def __init__(self, make, kept=()):
        super().__init__()
        self.make, self.kept, self.seen = make, kept, {}

    def batches(self, trial):
        raise AssertionError

    def train(self, trial):
        model = self.model(trial)
        optimizer = torch.optim.AdamW(model.parameters(), lr=trial.point["learning_rate"])
        trial.keep(model=model, optimizer=optimizer)
        loader = self.make()
        if "loader" in self.kept:
            trial.keep(loader=loader)
        for step, batch in zip(trial.steps(), trial.batches(loader), strict=False):
            self.seen[step] = batch[0].tolist(), batch[1].tolist()
            self.step(trial, step, model, optimizer, batch)


def stopped(make, folder, question, **changes):
    """The batches and the curve of a trial that is stopped once."""
    recorder, first, second = MemoryRecorder(), Loads(make, **changes), Loads(make, **changes)
    assert train_loop(setup_for(first, folder, stop=StopAt(question)), recorder, TRIAL).state is State.RUNNING
    torch.rand(3), np.random.rand(), random.random()  # another process begins somewhere else
    assert train_loop(setup_for(second, folder), recorder, TRIAL).state is State.COMPLETE
    assert not first.seen.keys() & second.seen.keys()
    return first.seen | second.seen, recorder.measurements


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow) if "processes" in one else one for one in LOADERS]
)
def test_batches_go_on_exactly_where_they_were(name, tmp_path):
    recorder, whole = MemoryRecorder(), Loads(LOADERS[name])
    assert train_loop(setup_for(whole, tmp_path), recorder, TRIAL).state is State.COMPLETE
    assert len(whole.seen) == 24
    for question in (2, 15) if "processes" in name else (1, 2, 6, 7, 8, 15, 16, 22):
        seen, curve = stopped(LOADERS[name], tmp_path / str(question), question)
        assert seen == whole.seen
        assert curve == recorder.measurements


def test_the_batches_are_those_of_the_loader_without_us():
    torch.manual_seed(0)
    by_hand = [batch for _ in range(3) for batch in DataLoader(DATA, 8, shuffle=True)]
    torch.manual_seed(0)
    ours = list(itertools.islice(Batches(DataLoader(DATA, 8, shuffle=True), "loader", CPU, lambda: None), 21))
    assert len(by_hand) == 21
    assert all(torch.equal(a[0], b[0]) for a, b in zip(by_hand, ours, strict=True))
    firsts = [tuple(batch[1].tolist()) for batch in ours]
    assert firsts[:7] != firsts[7:14], "each pass is shuffled in another way"


def test_a_loader_with_a_state_may_also_be_kept(tmp_path):
    recorder, whole = MemoryRecorder(), Loads(WithState, ["loader"])
    train_loop(setup_for(whole, tmp_path), recorder, TRIAL)
    for question in (3, 8, 11):
        assert stopped(WithState, tmp_path / str(question), question, kept=["loader"])[0] == whole.seen


def test_a_kept_generator_that_the_dataset_draws_from_is_put_back(tmp_path):
    class Owns(Loads):
        def train(self, trial):
            rng = np.random.default_rng(0)

            class Drawn(Noisy):
                def __getitem__(self, place):
                    return X[place] + float(rng.normal()), Y[place]

            trial.keep(rng=rng)
            self.make = lambda: DataLoader(Drawn(), 8, shuffle=True)
            super().train(trial)

    whole = Owns(None)
    train_loop(setup_for(whole, tmp_path), MemoryRecorder(), TRIAL)
    recorder, first, second = MemoryRecorder(), Owns(None), Owns(None)
    train_loop(setup_for(first, tmp_path / "b", stop=StopAt(12)), recorder, TRIAL)
    train_loop(setup_for(second, tmp_path / "b"), recorder, TRIAL)
    assert first.seen | second.seen == whole.seen


def test_two_loaders_have_names(tmp_path):
    class Two(Plain):
        def train(self, trial):
            model = self.model(trial)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            trial.keep(model=model, optimizer=optimizer)
            one = trial.batches(DataLoader(DATA, 8, shuffle=True))
            other = trial.batches(DataLoader(Noisy(), 4, shuffle=True), name="noisy")
            for step in trial.steps():
                first, more = next(one), next(other)
                batch = torch.cat([first[0], more[0]]), torch.cat([first[1], more[1]])
                self.step(trial, step, model, optimizer, batch)

    expected = MemoryRecorder()
    train_loop(setup_for(Two(), tmp_path), expected, TRIAL)
    for question in (4, 11, 14):
        recorder = MemoryRecorder()
        train_loop(setup_for(Two(), tmp_path / str(question), stop=StopAt(question)), recorder, TRIAL)
        train_loop(setup_for(Two(), tmp_path / str(question)), recorder, TRIAL)
        assert recorder.measurements == expected.measurements


def refused(train, folder):
    class Refused(Plain):
        pass

    Refused.train = train
    with pytest.raises(WorkloadError) as caught:
        train_loop(setup_for(Refused(), folder), MemoryRecorder(), TRIAL)
    return str(caught.value)


def stepping(batches_of):
    def train(self, trial):
        trial.keep(model=self.model(trial))
        for _, _ in zip(trial.steps(), batches_of(trial), strict=False):
            pass

    return train


def test_what_cannot_go_on_is_refused_and_named(tmp_path):
    loader = DataLoader(DATA, 8)
    said = refused(stepping(lambda trial: trial.batches(3)), tmp_path)
    assert "takes a DataLoader or anything else to iterate over, not int" in said
    said = refused(stepping(lambda trial: trial.batches([])), tmp_path)
    assert "a pass over list gives no batch" in said
    said = refused(stepping(lambda trial: trial.batches(iter([1]))), tmp_path)
    assert "an iterator is used up after one; give the loader itself" in said
    persistent = DataLoader(DATA, 8, num_workers=1, persistent_workers=True)
    assert "persistent_workers=True" in refused(stepping(lambda trial: trial.batches(persistent)), tmp_path)
    said = refused(stepping(lambda trial: (trial.batches(loader), trial.batches(DataLoader(DATA, 4)))), tmp_path)
    assert "two loaders with the name 'loader'" in said

    def before(self, trial):
        trial.keep(model=self.model(trial))
        for _, _ in zip(trial.batches(loader), trial.steps(), strict=False):
            pass

    assert "taken before the first step" in refused(before, tmp_path)

    def within(self, trial):
        trial.keep(model=self.model(trial))
        for _ in trial.steps():
            next(trial.batches(loader))

    assert "trial.batches is called after the first step" in refused(within, tmp_path)


def test_a_loader_that_has_become_shorter_is_told(tmp_path):
    recorder = MemoryRecorder()
    train_loop(setup_for(Loads(LOADERS["shuffled"]), tmp_path, stop=StopAt(6)), recorder, TRIAL)
    with pytest.raises(WorkloadError, match="goes on after 5 batches of a pass, and the loader gives 4 now"):
        train_loop(setup_for(Loads(lambda: DataLoader(DATA, 13, shuffle=True)), tmp_path), recorder, TRIAL)
    assert train_loop(setup_for(Loads(LOADERS["shuffled"]), tmp_path), recorder, TRIAL).state is State.COMPLETE


def test_going_on_leaves_the_global_generators_as_they_are():
    begun = Batches(DataLoader(Noisy(), 8, shuffle=True), "loader", CPU, lambda: None)
    for _ in range(4):
        next(begun)
    state, now = begun.state_dict(), global_generators(CPU)
    rest = [batch[0].tolist() for batch in itertools.islice(begun, 5)]
    before = torch.rand(7), torch.get_rng_state(), random.getstate()
    again = Batches(DataLoader(Noisy(), 8, shuffle=True), "loader", CPU, lambda: None)
    again.load_state_dict(state)
    assert torch.equal(torch.get_rng_state(), before[1])
    assert random.getstate() == before[2]
    set_global_generators(now, CPU)
    assert [batch[0].tolist() for batch in itertools.islice(again, 5)] == rest


def test_a_discarded_batch_is_a_sign_of_life():
    signs = []
    one = Batches(DataLoader(DATA, 8), "loader", CPU, lambda: signs.append(1))
    for _ in range(5):
        next(one)
    assert signs == []
    one.load_state_dict(one.state_dict())
    assert len(signs) == 5
