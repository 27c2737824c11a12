"""Batches keep the types of their examples, on their way to the device and through trials that train together."""

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from support.fusing import meaning, trained_alone, trained_together
from support.tiny import Tiny, setting_for, tiny_study
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from tuner import Splits
from tuner.errors import WorkloadError
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.containers import collated, leaves, moved, taken_apart

META = torch.device("meta")  # a device that needs no hardware


class Pair(NamedTuple):
    x: torch.Tensor
    y: object


@dataclass(frozen=True, slots=True)
class Frozen:
    x: torch.Tensor
    y: object = None

    def __post_init__(self):
        assert self.x.dim() == 1, "a single example"


@dataclass
class Plain:
    x: torch.Tensor
    y: object = field(default=None)


class Attributes(UserDict):
    """Like the encodings of tokenizers: a mapping with attributes, and a `to` of its own."""

    def __getattr__(self, name):
        return self.__dict__["data"][name]

    def to(self, device):
        self.data = {key: value.to(device) for key, value in self.data.items()}
        return self


class ReadOnly(Mapping):
    def __init__(self, held):
        self._held = dict(held)

    def __getitem__(self, key):
        return self._held[key]

    def __iter__(self):
        return iter(self._held)

    def __len__(self):
        return len(self._held)


class Graph:
    """As a batch of graphs: no container, but with a `to` that changes it in place."""

    def __init__(self, x):
        self.x = x

    def to(self, device):
        self.x = self.x.to(device)


KINDS = {
    "tuple": lambda x, y: (x, y),
    "list": lambda x, y: [x, y],
    "named tuple": Pair,
    "namedtuple": namedtuple("Old", "x y"),
    "dataclass": Plain,
    "frozen dataclass": Frozen,
    "dict": lambda x, y: {"x": x, "y": y},
    "ordered": lambda x, y: OrderedDict(x=x, y=y),
    "default": lambda x, y: defaultdict(list, x=x, y=y),
    "attributes": lambda x, y: Attributes(x=x, y=y),
    "read only": lambda x, y: ReadOnly({"x": x, "y": y}),
    "proxy": lambda x, y: MappingProxyType({"x": x, "y": y}),
}


def parts(batch):
    if isinstance(batch, Mapping):
        return [batch["x"], batch["y"]]
    return list(batch) if isinstance(batch, tuple | list) else [batch.x, batch.y]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_has_the_type_of_its_examples_with_the_values_of_default_collate(kind):
    make = KINDS[kind]
    examples = [make(torch.full((3,), float(i)), i) for i in range(4)]
    kept = parts(examples[0])[0].clone()
    batch = collated(examples)
    assert type(batch) is type(examples[0])
    expected = default_collate([(torch.full((3,), float(i)), i) for i in range(4)])
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(parts(batch), expected, strict=True))
    assert torch.equal(parts(examples[0])[0], kept), "the example is as it was"
    there = moved(batch, META)
    assert type(there) is type(batch)
    assert [part.device for part in parts(there)] == [META, META]


@pytest.mark.parametrize("outer", KINDS)
@pytest.mark.parametrize("inner", ["named tuple", "frozen dataclass", "attributes"])
def test_types_are_kept_at_any_depth(outer, inner):
    examples = [{"a": [KINDS[outer](torch.ones(2), KINDS[inner](torch.ones(2), i))], "name": f"n{i}"} for i in range(3)]
    if outer == "attributes":  # moves what it holds by itself
        examples = [{"a": [KINDS[inner](torch.ones(2), i)], "name": f"n{i}"} for i in range(3)]
    batch = moved(collated(examples), META)
    assert batch["name"] == ("n0", "n1", "n2")
    assert type(batch["a"][0]) is type(examples[0]["a"][0])
    assert {leaf.device for leaf in leaves(batch["a"])} == {META}


def test_what_moves_itself_is_asked_to():
    assert moved(Graph(torch.ones(2)), META).x.device == META
    packed = moved({"in": pack_sequence([torch.ones(2)])}, META)["in"]
    assert isinstance(packed, PackedSequence)
    assert packed.data.device == META


def test_what_else_a_dict_or_a_dataclass_carries_stays():
    first = defaultdict(lambda: "nothing", x=torch.ones(1))
    assert collated([first, first])["other"] == "nothing"
    second = Plain(torch.ones(1), None)
    vars(second)["note"] = "kept"
    batch = collated([second, Plain(torch.zeros(1))])
    assert (vars(batch)["note"], batch.y, batch.x.shape) == ("kept", None, (2, 1))


def test_leaves_are_those_of_default_collate():
    examples = [(1, 2.5, True, np.ones(2, np.float32), np.float64(3.0), "a", b"b") for _ in range(2)]
    mine, theirs = collated(examples), default_collate(examples)
    for one, other in zip(mine[:5], theirs[:5], strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert mine[5:] == (("a", "a"), (b"b", b"b"))


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([Graph(1), Graph(2)], r"no batch can be made of examples that hold Graph .*default_collate_fn_map"),
        ([(torch.ones(1), None), (torch.ones(1), 3)], "examples that hold NoneType and int"),
        ([(1, 2), (1,)], r"have \[1, 2\] parts; give all examples the same"),
        ([{"x": 1}, {"y": 1}], "different parts: x and y"),
    ],
)
def test_what_no_batch_can_be_made_of_is_an_error_that_names_it(examples, message):
    with pytest.raises(WorkloadError, match=message):
        collated(examples)


def test_a_type_that_torch_was_told_how_to_collate_is_collated_and_moved():
    default_collate_fn_map[Graph] = lambda batch, collate_fn_map=None: Graph(torch.stack([one.x for one in batch]))
    try:
        batch = moved(collated([Graph(torch.ones(2))] * 3), META)
    finally:
        del default_collate_fn_map[Graph]
    assert (batch.x.shape, batch.x.device) == ((3, 2), META)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_taken_apart_and_put_together_again(kind):
    batches = [collated([KINDS[kind](torch.full((2,), float(i)), (i, None))] * 3) for i in range(2)]
    (values, form), (others, same) = map(taken_apart, batches)
    assert form == same
    assert hash(form) == hash(same)
    assert len(values) == 2, "None belongs to the form"
    rebuilt = form.filled(iter(others))
    assert type(rebuilt) is type(batches[1])
    assert torch.equal(parts(rebuilt)[0], parts(batches[1])[0])
    assert parts(rebuilt)[1][1] is None
    assert taken_apart({"x": values[0]})[1] != taken_apart({"y": values[0]})[1]


class Typed(torch.utils.data.Dataset):
    def __init__(self, tensors, make):
        self.tensors, self.make = tensors, make

    def __len__(self):
        return len(self.tensors[0])

    def __getitem__(self, index):
        return self.make(self.tensors[0][index], self.tensors[1][index])


@pytest.mark.parametrize("kind", ["named tuple", "frozen dataclass", "attributes", "read only"])
def test_a_study_of_typed_batches_has_the_bits_of_plain_ones_alone_and_together(kind, tmp_path):
    class Workload(Tiny):
        make = staticmethod(KINDS[kind])

        def data(self):
            splits = super().data()
            return Splits(Typed(splits.training, self.make), Typed(splits.validation, self.make))

        def model(self, point):
            return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2))

        def plain(self, batch):
            return (batch["x"], batch["y"]) if isinstance(batch, ReadOnly) else (batch.x, batch.y)

        def loss(self, model, batch, point):
            return super().loss(model, self.plain(batch), point)

        def metrics(self, model, batch):
            return super().metrics(model, self.plain(batch))

    class Untyped(Workload):
        make = staticmethod(KINDS["tuple"])

        def plain(self, batch):
            return batch

    study = tiny_study(augment=False)
    trials = planned_trials(study)
    found = []
    for workload, train in ((Untyped(), trained_alone), (Workload(), trained_alone), (Workload(), trained_together)):
        folder = tmp_path / str(len(found))
        recorder = train(setting_for(study, folder, workload), trials)
        assert {recorder.state(trial) for trial in trials} == {State.COMPLETE}
        found.append([meaning(recorder, folder, trial) for trial in trials])
    assert found[1] == found[0]
    assert found[2] == found[0]
