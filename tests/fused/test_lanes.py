"""A recorded graph taken apart into levels: whatever order a level is computed in, the same bits come out."""

import pytest
import torch
from support.fusible import MUST_FUSE, Mlp, MlpWithDropout, Residual, TiedLm, runs_of

from tuner.fused.cuda_graph import levels_of, replay_in_lanes
from tuner.fused.group import Group
from tuner.fused.making import first_difference


class Backwards:
    """In place of streams, which the CPU has not: the last work first."""

    def __init__(self):
        self.sizes = []

    def run(self, works):
        self.sizes.append(len(works))
        return [work() for work in reversed(works)][::-1]


def inputs_of(group):
    batch = group._batch(shared=True)
    recording, noise = group._recorded(batch)
    masks = noise.draw([0] * len(group.runs)) if noise.sites else []
    return recording, [*group._inputs, *batch.leaves, *masks]


@pytest.mark.parametrize("workload", MUST_FUSE)
def test_the_greatest_care_keeps_the_bits_and_levels_computed_backwards_do_too(workload):
    group = Group(runs_of(workload(), 3), care=2)
    assert first_difference(group) is None
    if workload.__name__ not in ("Gru", "Lstm"):  # their kernels want gradients on
        assert_same_backwards(group)


@pytest.mark.parametrize("workload", [Mlp, MlpWithDropout, Residual, TiedLm])
def test_levels_computed_backwards_give_the_bits_of_the_recorded_order(workload):
    assert_same_backwards(Group(runs_of(workload(), 3)))


def assert_same_backwards(group):
    recording, inputs = inputs_of(group)
    with torch.inference_mode():
        copies = [tensor.clone() for tensor in inputs]
        expected = recording.replay(*inputs)
        found = replay_in_lanes(recording.graph, Backwards(), copies)
    pairs = [*zip(expected, found, strict=True), *zip(inputs, copies, strict=True)]  # buffers are written into
    assert all(torch.equal(one, other) for one, other in pairs)


def test_what_loops_over_the_trials_is_as_wide_as_there_are_trials():
    recording, inputs = inputs_of(Group(runs_of(Mlp(), 5), care=2))
    lanes = Backwards()
    with torch.inference_mode():
        replay_in_lanes(recording.graph, lanes, inputs)
    assert len([size for size in lanes.sizes if size >= 5]) >= 9  # three layers forward; two products a layer backward


def test_what_shares_memory_that_is_written_into_keeps_its_order():
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    first = graph.call_function(torch.ops.aten.add.Tensor, (x, 1.0))
    graph.call_function(torch.ops.aten.mul_.Tensor, (x, 2.0))
    view = graph.call_function(torch.ops.aten.view.default, (x, [-1]))
    last = graph.call_function(torch.ops.aten.add.Tensor, (view, 1.0))
    graph.output([first, last])
    assert [[node.target for node in level] for level in levels_of(graph)] == [
        [torch.ops.aten.add.Tensor],
        [torch.ops.aten.mul_.Tensor],
        [torch.ops.aten.view.default],
        [torch.ops.aten.add.Tensor],
    ]
