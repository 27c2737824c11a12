"""Streams: consecutive examples, read on from any step with the same bits."""

import copy
import itertools
import random

import numpy as np
import pytest
import torch
from support.drawing import disturb
from support.fusing import meaning, trained_alone, trained_together
from support.tiny import CPU, MemoryRecorder, StopAt, Tiny, setting_for, tiny_study, train_alone
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from tuner import Splits, Stream
from tuner.errors import DeclarationError, WorkloadError
from tuner.fused.group import Group
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.batches import Split, TrainingBatches
from tuner.training.data_checks import PLACES, check_repeatable, random_example
from tuner.training.data_digests import data_digest
from tuner.training.evaluation import evaluate
from tuner.training.preflight import check_workload
from tuner.training.setup import Data
from tuner.training.trial_run import TrialRun

STUDY = tiny_study(augment=False)
TRIALS = planned_trials(STUDY)
STEPS = STUDY.budget.max_train_steps


class Counted:
    """A stream of number pairs without an end; remembers where it was opened. `draw` is added to each example."""

    def __init__(self, draw=lambda: 0.0):
        self.draw = draw
        self.opened = []

    def __call__(self, start):
        self.opened.append(start)
        return ((torch.tensor(float(number)) + self.draw(), torch.tensor(number)) for number in itertools.count(start))


def of_all():
    return torch.rand(()) + random.random() + float(np.random.rand())


class Streaming(Tiny):
    """Tiny, as a stream that begins again where its examples end."""

    training_evaluation_examples = 40
    draw = staticmethod(lambda: 0.0)

    def data(self):
        splits = super().data()
        return Splits(Stream(lambda start: self.read(splits.training, start)), splits.validation)

    def read(self, tensors, start):
        for number in itertools.count(start):
            x, y = (tensor[number % len(tensor)] for tensor in tensors)
            yield x + self.draw(), y


class Drawing(Streaming):
    draw = staticmethod(of_all)


def split_of(at, length=None, name="training", collate=None):
    return Split(name, Stream(at, length), CPU, collate)


def numbers(batch):
    return batch[1].tolist()


def test_a_batch_is_the_next_examples_and_the_iterator_stays_open():
    counted = Counted()
    batches = TrainingBatches(split_of(counted), 8, 5)
    for step in range(6):
        assert numbers(batches.at(step)) == list(range(8 * step, 8 * step + 8))
    assert counted.opened == [0]
    assert numbers(batches.at(2)) == list(range(16, 24)), "another place is opened where it is"
    assert numbers(batches.at(3)) == list(range(24, 32))
    assert counted.opened == [0, 16]
    assert batches.order.batches_per_epoch is None
    assert batches.order.place(10**9) == (0, 10**9)


def test_looking_at_a_batch_again_does_not_move_the_training_on():
    counted = Counted()
    split = split_of(counted)
    batches = TrainingBatches(split, 8, 5)
    batches.at(0)
    assert numbers(batches.fetched(3)) == list(range(24, 32))
    assert numbers(split.first(3)) == [0, 1, 2]
    other = TrainingBatches(split, 4, 5)
    assert numbers(other.at(7)) == list(range(28, 32))
    assert numbers(batches.at(1)) == list(range(8, 16))
    assert counted.opened == [0, 24, 0, 28], "and not at 8"


@pytest.mark.parametrize("draw", [of_all, lambda: torch.rand(()), random.random, np.random.rand])
def test_what_an_example_draws_is_a_function_of_data_seed_and_number(draw):
    seen = {}
    for step in (0, 1, 2, 9, 1, 0):
        disturb(step + 1)
        for batches in (TrainingBatches(split_of(Counted(draw)), 8, 5), TrainingBatches(split_of(Counted(draw)), 8, 5)):
            if step == 2:
                batches.at(0), batches.at(1)
            assert seen.setdefault(step, batches.at(step)[0].tolist()) == batches.fetched(step)[0].tolist()
    whole = torch.tensor(seen[0] + seen[1] + seen[2]) - torch.arange(24)
    assert len(set(whole.tolist())) > 20
    other = TrainingBatches(split_of(Counted(draw)), 24, 5), TrainingBatches(split_of(Counted(draw)), 24, 6)
    assert other[0].at(0)[0].tolist() == seen[0] + seen[1] + seen[2], "whatever the batch size"
    assert other[1].at(0)[0].tolist() != other[0].at(0)[0].tolist()


def late(start):
    """Draws from example 20 on."""
    for number in itertools.count(start):
        yield torch.tensor(float(number)) + (of_all() if number > 20 else 0.0), torch.tensor(number)


def test_a_draw_that_is_seen_late_makes_no_difference():
    fresh, known = (TrainingBatches(split_of(late), 8, 5) for _ in range(2))
    known._reader._fetcher.draws = True
    for step in range(5):
        assert fresh.at(step)[0].tolist() == known.at(step)[0].tolist()
        assert fresh._reader._fetcher.draws == (step > 1)


@pytest.mark.parametrize("draw", [of_all, lambda: 0.0])
def test_examples_in_any_order_are_those_of_their_numbers(draw):
    split = split_of(Counted(draw))
    whole = split.first(12)
    mixed = torch.tensor([3, 0, 1, 2, 11, 10, 5])
    taken = split.take(mixed)
    assert numbers(taken) == mixed.tolist()
    assert taken[0].tolist() == whole[0][mixed].tolist()


def test_what_at_itself_draws_is_the_same_wherever_it_begins():
    def shuffled(start):
        files = [list(range(10 * file, 10 * file + 10)) for file in range(9)]
        random.shuffle(files)
        return iter([(torch.tensor(one),) for one in itertools.chain(*files)][start:])

    batches = TrainingBatches(split_of(shuffled), 8, 5)
    whole = [batches.at(step)[0].tolist() for step in range(11)]
    for step in (10, 3, 7, 0):
        assert TrainingBatches(split_of(shuffled), 8, 5).at(step)[0].tolist() == whole[step]
    assert [TrainingBatches(split_of(shuffled), 8, 6).at(0)[0].tolist()] != whole[:1]
    assert sorted(itertools.chain(*whole)) != list(itertools.chain(*whole))
    check_repeatable(split_of(shuffled))
    one, other = split_of(shuffled), split_of(shuffled)
    one.take(torch.arange(8), seed=1)
    following = torch.arange(8, 16)
    assert one.take(following, seed=2)[0].tolist() == other.take(following, seed=2)[0].tolist(), (
        "in the order of seed 2"
    )


@pytest.mark.parametrize("kind", [Streaming, Drawing])
def test_a_stream_can_be_resumed_at_every_step(kind, tmp_path):
    def results(run):
        run.advance(16)
        return [float(loss).hex() for loss in run.losses], run.evaluate()

    whole = results(TrialRun(setting_for(STUDY, tmp_path, kind()), TRIALS[0]))
    for stop in range(1, 16):
        first = TrialRun(setting_for(STUDY, tmp_path, kind()), TRIALS[0])
        first.advance(stop)
        disturb()
        second = TrialRun(setting_for(STUDY, tmp_path, kind()), TRIALS[0])
        second.load(first.state())
        disturb(3)
        assert results(second) == whole, f"stopped at step {stop}"


@pytest.mark.parametrize("kind", [Streaming, Drawing])
def test_a_study_of_a_stream_has_the_same_bits_together_alone_and_stopped(kind, tmp_path):
    outcomes = {}
    for train in (trained_alone, trained_together):
        setting = setting_for(STUDY, tmp_path / train.__name__, kind())
        recorder = train(setting, TRIALS)
        assert {recorder.state(trial) for trial in TRIALS} == {State.COMPLETE}
        outcomes[train] = [meaning(recorder, tmp_path / train.__name__, trial) for trial in TRIALS]
    assert outcomes[trained_together] == outcomes[trained_alone]
    recorder = MemoryRecorder()
    for question in (7, 10, 1000):
        setting = setting_for(STUDY, tmp_path / "stopped", kind(), stop=StopAt(question))
        update = train_alone(setting, recorder, recorder.claim(TRIALS[0]))
    assert update.state == State.COMPLETE
    assert recorder.measurements == outcomes[trained_alone][0][1]


def test_trials_together_share_one_reader_of_a_stream(tmp_path):
    opened = []

    class Noted(Streaming):
        def read(self, tensors, start):
            opened.append(start)
            return super().read(tensors, start)

    setting = setting_for(STUDY, tmp_path, Noted())
    opened.clear()
    group = Group([TrialRun(setting, trial) for trial in TRIALS])
    group.advance(9)
    assert opened == [0, 0], "once for the recording, once for all steps of all trials"


@pytest.mark.parametrize("reason", ["other steps", "augmented"])
def test_trials_together_that_take_other_batches_read_a_stream_each_for_itself(reason, tmp_path):
    opened = []

    class Noted(Streaming):
        def read(self, tensors, start):
            opened.append(start)
            return super().read(tensors, start)

    study = tiny_study(augment=reason == "augmented")
    runs = [TrialRun(setting_for(study, tmp_path, Noted()), trial) for trial in TRIALS]
    first = 5 if reason == "other steps" else 0
    runs[0].advance(first)
    group = Group(runs)
    group.advance(1)
    opened.clear()
    group.advance(9)
    assert opened == [], "each reads on where it is"
    assert [run.step for run in runs] == [first + 10, 10, 10]


def test_an_evaluated_stream_is_read_from_its_beginning_for_its_length():
    x, y = Tiny().data().validation
    counted = Counted()
    split = split_of(counted, 10, "validation")
    assert [(numbers(batch), count) for batch, count in split.in_order(4)] == [
        ([0, 1, 2, 3], 4), ([4, 5, 6, 7], 4), ([8, 9], 2)
    ]  # fmt: skip
    stream = split_of(lambda start: zip(x[start:], y[start:], strict=True), len(x), "validation")
    model = Tiny().model({})
    plain = evaluate(Tiny(), model, Split("validation", (x, y), CPU), batch_size=7)
    for _ in range(2):
        assert evaluate(Tiny(), model, stream, batch_size=7) == plain


def test_the_sample_of_a_stream_is_its_first_examples():
    split = split_of(Counted())
    sample = split.sample(20)
    assert list(itertools.chain(*(numbers(batch) for batch, _ in sample.in_order(16)))) == list(range(20))
    whole = split_of(Counted(), 12)
    assert whole.sample(20) is whole
    assert whole.sample(None) is whole
    with pytest.raises(WorkloadError, match=r"training split is a stream of no known length.*training_evaluation_exam"):
        split.sample(None)


def test_the_digest_of_a_stream_is_that_of_its_length_and_first_examples():
    def numbered(start, other=-1):
        return (torch.tensor(float(number + (number == other))) for number in itertools.count(start))

    plain = data_digest(split_of(numbered))
    assert data_digest(split_of(numbered)) == plain
    assert data_digest(split_of(numbered, 300)) != plain
    assert data_digest(split_of(lambda start: numbered(start, 255))) != plain
    assert data_digest(split_of(lambda start: numbered(start, 256))) == plain
    assert data_digest(split_of(lambda start: itertools.islice(numbered(start), max(0, 100 - start)))) != plain
    drawing = [data_digest(split_of(Counted(of_all))) for _ in range(2)]
    assert drawing[0] == drawing[1]


class OwnGenerator:
    def __init__(self, seed):
        self.seed = seed

    def __call__(self, start):
        generator = np.random.default_rng(self.seed(start))
        return (torch.tensor(generator.normal()) for _ in itertools.count(start))


def blocks(start):
    """Begins at the first of the hundred that `start` is in."""
    return (torch.tensor(number) for number in itertools.count(start // 100 * 100))


def buffered(start):
    """A shuffle buffer that draws from the global generator."""
    buffer = []
    for number in itertools.count(start):
        buffer.append(number)
        if len(buffer) == 10:
            yield torch.tensor(buffer.pop(random.randrange(10)))


ONE_ITERATOR = iter(torch.arange(10_000))
BAD = {
    "a generator seeded alike everywhere": (OwnGenerator(lambda start: 0), "not the first of `at(1)`"),
    "a generator seeded by its place": (OwnGenerator(lambda start: start), "not the first of `at(1)`"),
    "a generator that is not seeded": (OwnGenerator(lambda start: None), "another one when `at(0)` is read again"),
    "a start that is not read": (lambda start: iter(torch.arange(999)), "not the first of `at(1)`"),
    "a start that is read coarsely": (blocks, "not the first of `at(1)`"),
    "one iterator for all": (lambda start: ONE_ITERATOR, "another one when `at(0)` is read again"),
    "a buffer that is shuffled as it goes": (buffered, "not the first of `at(7)`"),
    "an end that moves": (lambda start: (torch.tensor(n) for n in itertools.count(start - start // 31)), "`at(31)`"),
    "a step that is wrong later": (
        lambda start: (torch.tensor(start + k + (start == 100 and k == 2)) for k in itertools.count()),
        "example 102 .* another one when the stream is read from `at(100)`",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_stream_that_cannot_be_read_on_from_any_example_is_refused_with_the_way_out(kind):
    at, told = BAD[kind]
    told = told.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(WorkloadError, match=rf"of the training stream is .*{told}|{told}") as found:
        check_repeatable(split_of(at))
    assert "shuffle files and buffers with a seed that does not depend on `start`" in str(found.value)


@pytest.mark.parametrize("length", [None, 3, 20, 300])
def test_a_stream_that_can_be_read_on_from_any_example_is_accepted(length):
    for draw in (of_all, lambda: 0.0):
        check_repeatable(split_of(Counted(draw), length))
        assert (random_example(split_of(Counted(draw), length)) is None) == (draw is not of_all)
    short = list(range(length or 12))
    check_repeatable(split_of(lambda start: iter(short[start:]), length))
    assert PLACES[-1] == 256


class Iterable(IterableDataset):
    def __iter__(self):
        return iter(range(10))


class WithLength(Iterable):
    def __len__(self):
        return 10


@pytest.mark.parametrize(
    "data",
    [Iterable(), WithLength(), iter([1, 2]), (n for n in range(3)), DataLoader(TensorDataset(torch.ones(3))), {1, 2}],
)
def test_what_can_only_be_read_from_its_beginning_is_refused_as_a_split(data):
    told = f"the training split is a {type(data).__name__}, which can only be read from its beginning.*Stream"
    with pytest.raises(WorkloadError, match=told):
        Split("training", data, CPU)


def test_a_stream_that_ends_in_training_says_where_and_what_to_do():
    batches = TrainingBatches(split_of(lambda start: zip(torch.arange(start, 20), strict=True)), 8, 5)
    batches.at(0), batches.at(1)
    with pytest.raises(
        WorkloadError, match="the training stream ended after 20 examples, within batch 3 of 8 examples"
    ):
        batches.at(2)
    drawing = itertools.islice
    late = TrainingBatches(split_of(lambda start: drawing(Counted(of_all)(start), max(0, 20 - start))), 8, 5)
    with pytest.raises(WorkloadError, match="let `at` begin again at the end of the data"):
        late.at(2)


def test_a_stream_that_is_shorter_than_its_length_says_so():
    split = split_of(lambda start: iter(torch.arange(start, 20)), 24, "validation")
    with pytest.raises(
        WorkloadError, match="ended after 20 examples, and its length is 24: give the length that it has"
    ):
        list(split.in_order(8))


class Finite(Streaming):
    length = 8 * STEPS

    def data(self):
        splits = super().data()
        return Splits(Stream(splits.training.at, self.length), splits.validation)


def test_a_stream_that_is_too_short_for_the_steps_is_refused_before_training(tmp_path):
    check_workload(setting_for(STUDY, tmp_path, Finite()), TRIALS[0])
    Finite.length -= 1
    told = (
        f"the training stream has {8 * STEPS - 1} examples, and {STEPS} steps of 8 take {8 * STEPS}: train fewer steps"
    )
    with pytest.raises(WorkloadError, match=told):
        check_workload(setting_for(STUDY, tmp_path, Finite()), TRIALS[0])


@pytest.mark.parametrize("name", ["validation", "test"])
def test_an_evaluated_stream_without_an_end_is_refused(name):
    class Endless(Tiny):
        def data(self):
            splits = super().data()
            return Splits(**{"training": splits.training, "validation": splits.validation, name: Stream(Counted())})

    with pytest.raises(WorkloadError, match=rf"the {name} split of Endless is a stream of no known length.*length="):
        Data.of(Endless(), CPU)


@pytest.mark.parametrize("wrong", [0, -3, 2.5, True, "all"])
def test_a_length_that_is_none_is_an_error_that_says_so(wrong):
    with pytest.raises(DeclarationError, match="the length of a Stream is its number of examples, from 1 on; got"):
        Stream(Counted(), wrong)


def test_what_is_no_function_or_gives_no_iterator_is_an_error_that_says_so():
    with pytest.raises(DeclarationError, match=r"Stream takes a function of the first example's number, got list"):
        Stream([1, 2])
    with pytest.raises(WorkloadError, match="`at` of the training stream gave a int; it must give an iterator"):
        split_of(lambda start: start).first(2)
    assert split_of(lambda start: list(range(start, 9))).first(2).tolist() == [0, 1]


@pytest.mark.parametrize("place", [8, 12])
def test_a_stream_that_fails_once_is_opened_again_where_it_is_asked_again(place):
    failures = [OSError("the network is gone")]

    def flaky(start):
        for number in itertools.count(start):
            if number == place and failures:
                raise failures.pop()
            yield (torch.tensor(number),)

    batches = TrainingBatches(split_of(flaky), 8, 5)
    batches.at(0)
    with pytest.raises(OSError, match="gone"):
        batches.at(1)
    assert batches.at(1)[0].tolist() == list(range(8, 16))


def test_the_global_generators_are_left_as_they_were():
    split = split_of(Counted(of_all))
    before = torch.get_rng_state(), random.getstate(), copy.deepcopy(np.random.get_state(legacy=False))
    split.first(5)
    check_repeatable(split)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert repr(np.random.get_state(legacy=False)) == repr(before[2])
