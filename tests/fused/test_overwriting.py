"""A recorded graph writes over what it computed, never over what somebody reads later, and with the same bits."""

import pytest
import torch
from support.fusible import Mlp, runs_of
from torch.fx import GraphModule
from torch.nn import functional as F

from tuner.fused.graph import simplify, write_over, writes
from tuner.fused.group import Group
from tuner.fused.tape import Tape


def read_by_a_view(x):
    doubled = x * 2.0
    return doubled.relu(), torch.softmax(doubled.view(-1), 0)


def given_out_as_a_view(x):
    doubled = x * 2.0
    return doubled.view(-1), doubled.relu()


def read_twice(x):
    doubled = x * 2.0
    return (doubled.relu() + doubled,)


def one_after_the_other(x):
    positive = (x * 2.0).relu()
    return (positive + x).relu(), x * 3.0


def second_summand(x):
    return (x + x * 2.0,)


def another_order_of_memory(x):
    return x + (x * 2.0).t(), (x * 2.0)[:1] + x


def both_are_the_same_memory(x):
    doubled = x * 2.0
    return (doubled + doubled.t(),)


def written_by_the_user(x):
    doubled = x * 2.0
    tripled = doubled + x
    doubled += tripled
    return (doubled,)


def a_kernel_of_the_backward_pass(x):
    with torch.enable_grad():
        given = x.detach().requires_grad_()
        loss = (F.gelu(given * 3.0) * F.relu(given) + torch.tanh(given)).sum()
        return torch.autograd.grad(loss, [given])


# How many operations of a function may write over an argument; None: some, torch's formulas decide.
KINDS = {
    read_by_a_view: 0,
    given_out_as_a_view: 0,
    read_twice: 1,
    one_after_the_other: 3,
    second_summand: 1,
    another_order_of_memory: 0,
    both_are_the_same_memory: 0,
    written_by_the_user: 0,
    a_kernel_of_the_backward_pass: None,
}


@pytest.mark.parametrize("function", KINDS, ids=lambda function: function.__name__)
def test_only_what_nobody_reads_later_is_written_over(function):
    given = torch.randn(24, 24, generator=torch.Generator().manual_seed(1))
    tape = Tape([given])
    with tape:
        expected = function(given)
    graph = tape.finished(list(expected))
    simplify(graph)
    before = count_writes(graph)
    write_over(graph)
    before_values = given.clone()
    with torch.inference_mode():
        found = GraphModule(tape.constants, graph)(given)
    assert torch.equal(given, before_values)
    assert all(torch.equal(one, other) for one, other in zip(found, function(given), strict=True))
    made = count_writes(graph) - before
    assert made == KINDS[function] if KINDS[function] is not None else made >= 3


def count_writes(graph):
    return sum(writes(node) for node in graph.nodes)


def test_what_a_group_replays_writes_over_and_what_is_compiled_does_not():
    recording, _ = next(iter(Group(runs_of(Mlp(), 3))._recordings.values()))
    assert count_writes(recording.quick.graph) > count_writes(recording.graph.graph) == 0
