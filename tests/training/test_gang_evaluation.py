"""Parts of an evaluation, put together, have the bits of one process; what is no function of a batch is seen."""

import io
import random
from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.tiny import CPU, Tiny
from torch import nn

from tuner import Stream
from tuner.errors import Interrupted, StudyChanged, WorkloadError
from tuner.training import gang_evaluation
from tuner.training.batches import Split
from tuner.training.evaluation import tallied
from tuner.training.gang_evaluation import Part, Sharing, mine, put_together
from tuner.training.randomness import seed_global_generators

WORLDS = [1, 2, 4, 8]
X = torch.randn(83, 6, generator=torch.Generator().manual_seed(3))


class Means(Tiny):
    """Metrics that are means; the sum of such losses differs with its order."""

    def metrics(self, model, batch):
        x = batch[0]
        return {"loss": (9 * model(x)[:, 0].double()).exp(), "wrong": x[:, 0] > 0.5, "index": x[:, 1].long()}


class Kept(Means):
    """Keeps tensors of several forms and types, and lists of tensors of different lengths."""

    not_averaged = ("map", "half", "words", "kinds", "yes")

    def __init__(self):
        self.seen = []

    def metrics(self, model, batch):
        x = batch[0]
        return super().metrics(model, batch) | {
            "map": torch.stack([x, -x], dim=2).transpose(1, 2),
            "half": x[:, 0].half(),
            "words": [row[: int(row[0].abs() * 3) % 4] for row in x],
            "kinds": [torch.arange(2) if row[0] > 0 else row[:2] for row in x],
            "yes": x > 0,
        }

    def split_metrics(self, each):
        self.seen.append(dict(each))
        words = torch.cat(each["words"]) if each["words"] else torch.zeros(1)
        return {"norm": float(each["map"].norm()), "letters": float(words.sum()), "nothing": None}


class Reused(Kept):
    """Returns the same memory for each batch."""

    def metrics(self, model, batch):
        found = super().metrics(model, batch)
        self.memory = getattr(self, "memory", torch.zeros(200, 6, dtype=torch.bool))
        self.memory[: len(found["yes"])] = found["yes"]
        return found | {"yes": self.memory[: len(found["yes"])]}


class Spoiled(Kept):
    """NaN, infinite and negative zero among them."""

    def metrics(self, model, batch):
        found = super().metrics(model, batch)
        loss = torch.where(batch[0][:, 2] > 1.0, torch.nan, found["loss"])
        return found | {"loss": loss, "inf": torch.where(batch[0][:, 3] > 2.0, torch.inf, -0.0)}


class Sometimes(Means):
    """A metric that is there for some of the batches only, and comes first then."""

    def metrics(self, model, batch):
        found = super().metrics(model, batch)
        return {"rare": batch[0][:, 4], **found} if batch[0][0, 0] > 0 else found


class LeavingOut(Kept):
    """Examples that collate leaves out, all of a batch among them."""

    def collate(self, examples):
        kept = [one for (one,) in examples if one[5] > 0.2]
        return (torch.stack(kept) if kept else torch.zeros(0, 6),)

    def num_examples(self, batch):
        return len(batch[0])


def split_of(workload, count, kind="tensors"):
    collate = workload.collate if workload.declares("collate") else None
    counts = workload.num_examples if workload.declares("num_examples") else None
    rows = X[:count]
    if kind == "stream":
        data = Stream(lambda start: iter([(row,) for row in rows[start:]]), count)
    elif kind == "dataset" or collate is not None:
        data = [(row,) for row in rows] if collate is not None else torch.utils.data.TensorDataset(rows)
    else:
        data = (rows,)
    return Split("validation", data, CPU, collate, counts)


def sent(part):
    """A part as it comes from another process."""
    file = io.BytesIO()
    torch.save({each.name: getattr(part, each.name) for each in fields(part)}, file)
    return Part(**torch.load(io.BytesIO(file.getvalue()), weights_only=True))


def model_of():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))


def bits(value):
    """Comparable by bits: 0.0 is not -0.0, and NaN is itself."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return [(name, bits(one)) for name, one in value.items()]
    return [bits(one) for one in value] if isinstance(value, list) else float(value).hex()


def alone(workload, split, size):
    tally = tallied(workload, model_of(), split, batch_size=size)
    return bits(tally.measured()), bits(tally.each)


def by_ranks(workload, split, size, world, model=None):
    parts = [
        sent(mine(workload, model or model_of(), split, batch_size=size, rank=rank, world=world))
        for rank in range(world)
    ]
    assert {part.sharing for part in parts} == {Sharing.SHARED.value}
    tally = put_together(workload, split, parts[::-1], size)
    return bits(tally.measured()), bits(tally.each)


@pytest.mark.parametrize("workload", [Means, Kept, Reused, Spoiled, Sometimes, LeavingOut])
@pytest.mark.parametrize(("count", "size"), [(83, 8), (3, 8), (20, 7)])
def test_parts_put_together_have_the_bits_of_one_process(workload, count, size):
    check_put_together(workload, count, size, "tensors")


@pytest.mark.parametrize("kind", ["dataset", "stream"])
@pytest.mark.parametrize(("count", "size"), [(64, 16), (1, 1)])
def test_parts_of_datasets_and_streams_have_the_bits_of_one_process(kind, count, size):
    check_put_together(Kept, count, size, kind)


def check_put_together(workload, count, size, kind):
    expected = alone(workload(), split_of(workload(), count, kind), size)
    for world in WORLDS:
        assert by_ranks(workload(), split_of(workload(), count, kind), size, world) == expected


def test_sums_depend_on_their_order_so_that_this_could_fail():
    split = split_of(Means(), 83)
    parts = [mine(Means(), model_of(), split, batch_size=5, rank=rank, world=2) for rank in range(2)]
    for number, part in enumerate(parts):  # as if each rank had a half of the split
        part.numbers = [number * len(parts[0].numbers) + place for place in range(len(part.numbers))]
    assert bits(put_together(Means(), split, parts, 5).measured()) != alone(Means(), split, 5)[0]


def test_split_metrics_are_called_once_with_all_examples():
    workload, split = Kept(), split_of(Kept(), 83)
    by_ranks(workload, split, 8, 4)
    (each,) = workload.seen
    assert torch.equal(each["map"][:, 0], X.double())
    assert [len(one) for one in each["words"]] == [int(row[0].abs() * 3) % 4 for row in X]


def test_a_rank_without_batches_has_an_empty_part():
    part = mine(Kept(), model_of(), split_of(Kept(), 5), batch_size=8, rank=3, world=4)
    assert (part.numbers, part.counts, part.kept, len(part.sums)) == ([], [], [], 0)


class Told:
    """Rows, of which it is told which were fetched."""

    def __init__(self, count):
        self.count, self.fetched = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.fetched.append(index)
        return (X[index],)


def test_a_rank_fetches_its_own_batches_only():
    for rank in range(4):
        told = Told(83)
        mine(Means(), model_of(), Split("validation", told, CPU), batch_size=8, rank=rank, world=4)
        assert told.fetched == [index for index in range(83) if index // 8 % 4 == rank]


def test_ranks_with_other_splits_are_told():
    parts = [mine(Means(), model_of(), split_of(Means(), n), batch_size=8, rank=n - 82, world=2) for n in (82, 83)]
    with pytest.raises(StudyChanged, match="82 and 83 examples on different ranks"):
        put_together(Means(), split_of(Means(), 82), parts, 8)
    with pytest.raises(StudyChanged, match="6 batches of it were evaluated"):
        put_together(Means(), split_of(Means(), 82), parts[:1], 8)


def drawing(draw):
    class Draws(Means):
        def metrics(self, model, batch):
            draw()
            return super().metrics(model, batch)

    return Draws()


@pytest.mark.parametrize(
    "draw", [lambda: torch.rand(1), random.random, np.random.rand, lambda: np.random.normal(size=3), torch.seed]
)
@pytest.mark.parametrize("seeded", [True, False])
def test_metrics_that_draw_are_for_one_rank(draw, seeded):
    for once in (draw, lambda: draw() if random.getstate() is None else None):
        if seeded:
            seed_global_generators(5, CPU)
        else:
            random.random(), np.random.rand()
        part = mine(drawing(once), model_of(), split_of(Means(), 20), batch_size=8, rank=0, world=2)
        assert part.sharing == (Sharing.LEAD if once is draw else Sharing.SHARED).value


def test_a_dataset_that_draws_is_shared():
    class Noisy(Told):
        def __getitem__(self, index):
            return (X[index] + torch.rand(6) + random.random() + float(np.random.rand()),)

    expected = alone(Means(), Split("validation", Noisy(40), CPU), 8)
    assert by_ranks(Means(), Split("validation", Noisy(40), CPU), 8, 4) == expected


class Changing(Means):
    """Moves the running statistics of batch norms while it evaluates."""

    def metrics(self, model, batch):
        model.train()
        return super().metrics(model, batch)


class Replacing(Means):
    def metrics(self, model, batch):
        model[1].running_mean = model[1].running_mean + 1.0
        return super().metrics(model, batch)


class Counting(nn.Module):
    """Counts in an extra state."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def get_extra_state(self):
        return {"calls": self.calls}

    def set_extra_state(self, state):
        self.calls = state["calls"]

    def forward(self, x):
        self.calls += 1
        return x


@pytest.mark.parametrize("case", ["in place", "replaced", "extra state"])
def test_a_model_that_metrics_change_is_put_back_and_for_every_rank(case):
    model = model_of()
    if case == "extra state":
        model.append(Counting())
    before, buffers = bits(dict(model.named_buffers())), [id(one) for one in model.buffers()]
    workload = {"in place": Changing, "replaced": Replacing, "extra state": Means}[case]()
    part = mine(workload, model, split_of(Means(), 20), batch_size=8, rank=0, world=2)
    assert part.sharing == Sharing.EACH.value
    assert bits(dict(model.named_buffers())) == before
    assert [id(one) for one in model.buffers()] == buffers
    assert case != "extra state" or model[-1].calls == 0
    untouched = mine(workload, model, split_of(Means(), 8), batch_size=8, rank=1, world=2)
    assert untouched.sharing == Sharing.SHARED.value, "a rank without batches has seen nothing"


def test_what_is_too_large_to_be_put_back_is_refused(monkeypatch):
    class Writing(Means):
        def metrics(self, model, batch):
            model[0].weight[0, 0] += 1.0
            return super().metrics(model, batch)

    class Adding(Means):
        def metrics(self, model, batch):
            model.register_buffer("more", torch.zeros(1))
            return super().metrics(model, batch)

    shared = {"split": split_of(Means(), 20), "batch_size": 8, "rank": 0, "world": 2}
    with pytest.raises(WorkloadError, match=r"Writing.metrics changes 0.weight of the model, which is too large"):
        mine(Writing(), model_of(), **shared)
    with pytest.raises(WorkloadError, match=r"Adding.metrics gives the model other buffers"):
        mine(Adding(), model_of(), **shared)
    monkeypatch.setattr(gang_evaluation, "COPIED", 4)
    with pytest.raises(WorkloadError, match=r"Replacing.metrics changes 1.running_mean of the model"):
        mine(Replacing(), model_of(), **shared)
    assert mine(Means(), model_of(), **shared).sharing == Sharing.SHARED.value


def test_values_are_sent_by_the_cpu_where_they_are_many(monkeypatch):
    expected = alone(Kept(), split_of(Kept(), 83), 8)
    monkeypatch.setattr(gang_evaluation, "ON_DEVICE", 100)
    assert by_ranks(Kept(), split_of(Kept(), 83), 8, 4) == expected


def test_a_part_ends_where_it_is_to_stop():
    asked = []
    with pytest.raises(Interrupted):
        mine(
            Means(), model_of(), split_of(Means(), 83), batch_size=8, rank=1, world=2,
            stop=lambda: asked.append(1) or len(asked) == 3,
        )  # fmt: skip
    assert len(asked) == 3


def test_wrong_metrics_are_refused_as_alone():
    class Short(Kept):
        def metrics(self, model, batch):
            return {"loss": F.relu(batch[0][:1, 0])}

    with pytest.raises(WorkloadError, match="must return one value per example"):
        mine(Short(), model_of(), split_of(Means(), 20), batch_size=8, rank=1, world=2)

    class Uneven(Kept):
        def metrics(self, model, batch):
            found = super().metrics(model, batch)
            return found | {"map": found["map"][:, :1]} if batch[0][0, 0] > 0 else found

    with pytest.raises(WorkloadError, match="returns 'map' as"):
        by_ranks(Uneven(), split_of(Uneven(), 83), 8, 4)
