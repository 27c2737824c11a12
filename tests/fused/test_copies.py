"""What torch would not copy for one trial is not copied for all, and what it copies is copied once."""

import pytest
import torch
from support.fusible import Images, SdpaTransformer, TransformerEncoder, runs_of
from torch import nn

from tuner.fused.graph import base_of
from tuner.fused.group import Group
from tuner.fused.making import exact_group, first_difference
from tuner.training.checkpoints import canonical_digest

ATEN = torch.ops.aten
ATTENTION = ATEN._scaled_dot_product_flash_attention_for_cpu.default


class SequenceFirst(nn.Module):
    """Hands [length, examples, width] to a layer, as attention does: rows that lie in another order."""

    def __init__(self, frozen):
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 10)
        self.first.weight.requires_grad_(not frozen)

    def forward(self, x):
        return self.second(torch.relu(self.first(x.view(-1, 8, 8).transpose(0, 1) * 0.5)).mean(0))


class Turned(Images):
    frozen = False

    def model(self, point):
        return SequenceFirst(self.frozen)


class TurnedAndFrozen(Turned):
    frozen = True


def recorded(workload):
    recording, _ = next(iter(Group(runs_of(workload(), 3))._recordings.values()))
    return recording.graph.graph


@pytest.mark.parametrize("workload", [TransformerEncoder, SdpaTransformer])
def test_attention_takes_queries_keys_and_values_from_where_they_lie(workload):
    """Batch first or sequence first: all three are views of what the projection has computed."""
    layers = [node for node in recorded(workload).nodes if node.target is ATTENTION]
    assert layers
    assert all(len({base_of(part) for part in layer.args[:3]}) == 1 for layer in layers)


@pytest.mark.parametrize("workload", [Turned, TurnedAndFrozen])
def test_a_layer_on_rows_in_another_order_goes_the_way_of_torch(workload):
    """Torch copies the rows for one product, but only where the weight has a gradient."""
    runs, alone = runs_of(workload(), 3), runs_of(workload(), 3)
    assert first_difference(Group(runs_of(workload(), 3))) is None
    group = exact_group(runs)
    group.advance(3)
    for run in alone:
        run.advance(3)
    assert [canonical_digest(run.state()) for run in runs] == [canonical_digest(run.state()) for run in alone]
    assert group.ways["linear"] == ("loop" if workload.frozen else "rule")
