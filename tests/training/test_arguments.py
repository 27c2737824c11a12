"""What a workload was made with makes another one of it; what cannot be told apart is refused by its name."""

import enum
import functools
import re
import threading
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from support.loaded import loaded
from support.tiny import Tiny
from torch import nn

from tuner.errors import WorkloadError
from tuner.training.arguments import arguments_of
from tuner.training.value_digests import value_digest


class Settable(Tiny):
    def __init__(self, **settings):
        vars(self).update(settings)


class Counting(Tiny):
    def __init__(self):
        self.models = 0

    def data(self):
        self.examples = 7
        return super().data()

    def model(self, point):
        self.models += 1
        return super().model(point)


class Slotted(Tiny):
    __slots__ = ("width",)

    def __init__(self, width):
        self.width = width


@dataclass(frozen=True)
class Config:
    smoothing: float = 0.0
    layers: list = field(default_factory=lambda: [1, 2])


class Kind(enum.Enum):
    small = 1
    large = 2


class Holder:
    def __init__(self, value):
        self.value = value
        self.me = self  # comes back to itself

    def shown(self):
        return self.value


def scaled(factor, x=2):
    return factor * x


def closing_over(value):
    return lambda x: x + value


def local_class(value):
    class Local:
        width = value

        def forward(self, x):
            return x + value

    return Local


def built(value):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.Dropout(value))


DIFFERENT = [
    (1, 2), (1, 1.0), (True, 1), ("1", 1), (None, "None"), (0.0, -0.0), (b"a", b"b"),
    ([1, 2], (1, 2)), ([1, 2], [2, 1]),
    ({"a": 1}, {"a": 2}), ({"a": 1}, {"b": 1}), ({1, 2}, {1, 3}), ([[1], 2], [1, [2]]), (["a", "b"], ["ab"]),
    (nn.ReLU, nn.Tanh), (nn.ReLU(), nn.Tanh()), (torch.relu, torch.tanh), (nn.functional.gelu, nn.functional.relu),
    (Config(0.0), Config(0.3)), (Config(), Config(layers=[1, 3])), (Kind.small, Kind.large), (Path("a"), Path("b")),
    (lambda x: x + 1, lambda x: x + 2), (closing_over(1), closing_over(2)), (local_class(1), local_class(2)),
    (functools.partial(scaled, 1), functools.partial(scaled, 2)), (functools.partial(scaled, x=1), scaled),
    (np.arange(3), np.arange(1, 4)), (np.arange(3), np.arange(3.0)), (np.float32(1), np.float64(1)),
    (np.array([None, "a"], object), np.array([None, "b"], object)), (np.zeros((2, 3)), np.zeros((3, 2))),
    (torch.zeros(2), torch.ones(2)), (torch.zeros(2), torch.zeros(1, 2)), (torch.float32, torch.bfloat16),
    (torch.zeros(2, dtype=torch.bfloat16), torch.tensor([0, 1], dtype=torch.bfloat16)),
    (torch.Size([1]), torch.Size([2])),
    (torch.device("cpu"), torch.device("meta")), (built(0.1), built(0.2)), (nn.Linear(1, 2), nn.Linear(2, 1)),
    (Holder(1), Holder(2)), (Holder(Config(0.0)), Holder(Config(0.3))), (deque([1]), deque([2])),
    (OrderedDict(a=1), OrderedDict(a=2)), (defaultdict(list, a=1), defaultdict(list, a=2)), (range(3), range(4)),
    (MappingProxyType({"a": 1}), MappingProxyType({"a": 2})), (np.random.default_rng(0), np.random.default_rng(1)),
    (torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)),
    (np, torch), (Holder(1).shown, Holder(2).shown),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_values_have_different_digests_and_the_same_one_has_one(one, other):
    assert value_digest(one) == value_digest(one)
    assert value_digest(one) != value_digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (iter([1]), iter([2])),
        (zip([1], [2], strict=True), zip([1], [3], strict=True)),
        (re.compile("a"), re.compile("b")),
    ],
)
def test_classes_that_are_written_in_c_and_have_no_name_in_a_module_are_told_apart(one, other):
    assert value_digest(one) == value_digest(one) != value_digest(other)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Config(0.1), lambda: Holder({"a": [1, {2, 3}]}), lambda: closing_over(3), lambda: local_class(4),
        lambda: functools.partial(scaled, 3), lambda: built(0.5), lambda: np.arange(4), lambda: {"x", "y", "z"},
        lambda: torch.arange(3), lambda: Path("a") / "b", lambda: OrderedDict(a=Kind.small),
    ],
)  # fmt: skip
def test_equal_values_that_are_made_apart_have_one_digest(make):
    assert value_digest(make()) == value_digest(make())


def arguments(**settings):
    return arguments_of(Settable(**settings)).values


def test_plain_values_are_shown_and_others_told_apart():
    known = arguments(width=64, name="deep", activation=nn.ReLU)
    assert (known["width"], known["name"], len(known["activation"])) == ("64", "'deep'", 16)
    assert known["activation"] != arguments(activation=nn.Tanh)["activation"]
    assert arguments_of(Slotted(3)).values != arguments_of(Slotted(4)).values


def test_paths_below_the_folder_of_the_study_count_from_there(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for value in (
        lambda folder: folder / "a.pt",
        lambda folder: str(folder / "a.pt"),
        lambda folder: [folder / "a.pt"],
    ):
        one, other = (arguments_of(Settable(file=value(folder)), folder).values for folder in (here, there))
        assert one == other != arguments_of(Settable(file=value(there)), here).values


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: open(__file__), "_io.TextIOWrapper"),  # noqa: SIM115
        (lambda: (number for number in range(3)), "generator"),
        (threading.Lock, "_thread.lock"),
        (lambda: Holder(threading.Lock()), "_thread.lock"),
        (lambda: {"deep": [iter(open(__file__))]}, "_io.TextIOWrapper"),  # noqa: SIM115
        (lambda: __import__("socket").socket(), "socket.socket"),
        (lambda: __import__("sqlite3").connect(":memory:"), "sqlite3.Connection"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_cannot_be_told_apart_is_refused_by_its_name_with_the_ways_out(make, name, tmp_path):
    with pytest.raises(WorkloadError, match=rf"made with source.* a {name}.*constant of the module.*provenance"):
        loaded(Settable(source=make()), tmp_path, device="cpu")


class Told(Settable):
    which: str

    def provenance(self):
        return {"source": self.which}


def test_provenance_can_stand_for_what_cannot_be_told_apart():
    lock = threading.Lock()
    one, same, other = (arguments_of(Told(source=lock, which=which)).values for which in ("v1", "v1", "v2"))
    assert one == same
    assert one["source"] != other["source"]


def made_with(folder, **settings):
    return loaded(Settable(**settings), folder, device="cpu")


@pytest.mark.parametrize(
    "other",
    [{"dropout": 0.2}, {"dropout": 0.1, "width": 4}, {"dropout": "0.1"}, {"dropout": [0.1]}, {}, {"dropout": nn.ReLU}],
)
def test_an_instance_made_with_other_values_is_another_workload(other, tmp_path):
    mine = made_with(tmp_path, dropout=0.1).fingerprint()
    assert mine == made_with(tmp_path, dropout=0.1).fingerprint()
    assert mine != made_with(tmp_path, **other).fingerprint()


def test_the_value_that_differs_is_named(tmp_path):
    before, after = (made_with(tmp_path, dropout=rate, width=4).parts for rate in (0.1, 0.2))
    assert {name for name in before if before[name] != after[name]} == {"attribute dropout"}


def test_a_workload_that_counts_its_calls_stays_the_same_one(tmp_path):
    unused, used = (loaded(Counting(), tmp_path, device="cpu") for _ in range(2))
    used.workload.model({})
    assert used.fingerprint() == unused.fingerprint()


def class_around(activation):
    class Inner(Tiny):
        def model(self, point):
            return nn.Sequential(nn.Linear(6, 2), activation())

    return Inner


def test_what_the_class_itself_was_given_counts():
    relu, tanh = (arguments_of(class_around(kind)()).values for kind in (nn.ReLU, nn.Tanh))
    assert relu == arguments_of(class_around(nn.ReLU)()).values
    assert relu != tanh
    made = [arguments_of(type("Made", (Tiny,), {"width": width})()).values for width in (3, 4)]
    assert made[0] != made[1]
