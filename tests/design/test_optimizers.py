"""An optimizer given as a class or a function: its name, what it reads, and what is refused when it is declared."""

import functools
import sys
import types

import pytest
import torch
from support.tiny import Tiny

from tuner import Campaign, Round, SearchSpace, Sweep, choice, log_uniform, uniform
from tuner.design.optimizers import OPTIMIZERS, optimizer_named, optimizer_of, source_of
from tuner.errors import DeclarationError


class WithoutRate(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})

    def step(self, closure=None):
        """Does nothing."""


class NeedsClosure(torch.optim.SGD):
    def step(self, closure):  # type: ignore[override]
        return closure()


class Plain(torch.optim.SGD):
    """The user's own, with the step of another."""


def of_nothing():
    """Takes neither groups nor a point."""


def make(groups, point):
    return torch.optim.SGD(groups)


class Recipe:
    """Its method makes what the object says, which no name tells apart."""

    def __init__(self, momentum):
        self.momentum = momentum

    def make(self, groups, point):
        return torch.optim.SGD(groups, momentum=self.momentum)


def declared(optimizer, **space):
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1.0), **space)
    return Campaign(Tiny(), [Round("a test", trials=2, space=space)], optimizer=optimizer)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (torch.optim.RMSprop, "torch.optim.RMSprop"),
        (torch.optim.SparseAdam, "torch.optim.SparseAdam"),
        (Plain, "test_optimizers.Plain"),
        (make, "test_optimizers.make"),
        ("lion", "lion"),
    ],
)
def test_what_is_given_is_stored_by_a_name_that_does_not_depend_on_how_it_was_imported(given, name):
    assert declared(given).optimizer == name
    assert Sweep(optimizer=given).optimizer == name
    assert optimizer_of(name).name == name


def test_a_class_is_known_to_its_own_campaigns_only():
    before = OPTIMIZERS.names
    declared(torch.optim.Rprop)
    assert OPTIMIZERS.names == before
    assert source_of("torch.optim.Rprop").module == "torch.optim.rprop"
    rounds = [Round("a test", trials=2, space=SearchSpace(optimizer=choice("adamw", "torch.optim.Rprop")))]
    with pytest.raises(DeclarationError, match=r"got 'torch\.optim\.Rprop'"):
        Campaign(Tiny(), rounds)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            torch.optim.LBFGS,
            r"^torch\.optim\.LBFGS cannot train here: its step needs a closure.*can be called",
        ),
        (NeedsClosure, r"NeedsClosure cannot train here: its step needs a closure"),
        (WithoutRate, r"WithoutRate has no lr.*give a function of \(groups, point\)"),
        (Tiny, r"got the class tiny\.Tiny, which is no torch\.optim\.Optimizer"),
        (of_nothing, r"got test_optimizers\.of_nothing, which cannot be called so: too many positional arguments"),
        (
            lambda groups, point: None,
            r"by its name, and .*<lambda> has none.*def make_optimizer\(groups, point\)",
        ),
        (Recipe(0.9).make, r"by its name, and Recipe\.make has none that finds it again"),
        (type("Made", (torch.optim.SGD,), {}), r"by its name, and Made has none that finds it again"),
        (functools.partial(make), r"stored by its name, and functools\.partial.* has none"),
        (7, r"optimizer is a name, a class like torch\.optim\.RMSprop, or a function of \(groups, point\).*, got 7"),
    ],
)
def test_what_cannot_train_is_refused_when_it_is_declared(given, message):
    with pytest.raises(DeclarationError, match=message):
        declared(given)


def test_an_optimizer_that_was_made_already_is_refused():
    made = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)
    with pytest.raises(DeclarationError, match="got an optimizer of one model's parameters"):
        declared(made)


def test_two_files_that_give_one_name_are_refused(monkeypatch, tmp_path):
    optimizer_named(make)
    file = tmp_path / "test_optimizers.py"
    file.touch()
    other = types.ModuleType("elsewhere")
    other.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "elsewhere", other)
    copied = functools.update_wrapper(lambda groups, point: None, make)
    copied.__module__ = "elsewhere"
    other.make = copied  # type: ignore[attr-defined]
    with pytest.raises(DeclarationError, match=r"test_optimizers\.make stands in two files: .* and elsewhere"):
        declared(copied)


def test_a_class_reads_its_keywords_and_nothing_else_of_the_optimizers():
    space = declared(torch.optim.RMSprop, momentum=uniform(0.0, 0.9), alpha=uniform(0.9, 0.99)).rounds[0].space
    assert [one.name for one in space] == ["learning_rate", "momentum", "alpha"]
    with pytest.raises(DeclarationError, match=r"nesterov would change nothing.* train with torch\.optim\.RMSprop"):
        declared(torch.optim.RMSprop, nesterov=choice(False, True))


def test_a_function_may_read_every_hyperparameter():
    declared(make, momentum=uniform(0.0, 0.9), clip_threshold=uniform(1.0, 2.0))
