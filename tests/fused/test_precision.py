"""Groups of trials in bf16 and float32 have the bits of each alone, evaluations too; or they are refused by name."""

import pytest
import torch
import torch.nn.functional as F
from support.fusible import (
    Gru,
    Mlp,
    MlpWithDropout,
    OddMlp,
    Residual,
    SdpaTransformer,
    TiedLm,
    TransformerEncoder,
    TransformerEncoderWithDropout,
    runs_of,
)

from tuner.errors import NotFusible
from tuner.fused import rules_fast
from tuner.fused.evaluation import GroupEvaluation
from tuner.fused.fusion import look_at
from tuner.fused.group import Group
from tuner.fused.making import exact_group, far_from_alone, make_group
from tuner.training.checkpoints import canonical_digest

STEPS = 4


class Plain(Mlp):
    """Cross entropy without label smoothing."""

    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0]), batch[1])


class Cast(Mlp):
    """As the handbook advises where the last bits of a loss matter."""

    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0]).float(), batch[1], label_smoothing=point["label_smoothing"])


KEEP_THEIR_BITS = [
    Mlp, MlpWithDropout, OddMlp, Residual, SdpaTransformer, TransformerEncoder, TransformerEncoderWithDropout, TiedLm,
    Plain, Cast,
]  # fmt: skip


def casts(group):
    """How many values of half the bits the recordings of a group make."""
    nodes = [node for recording, _ in group._recordings.values() for node in recording.graph.graph.nodes]
    return sum(torch.bfloat16 in (*node.args, *node.kwargs.values()) for node in nodes)


@pytest.mark.parametrize("workload", KEEP_THEIR_BITS)
def test_a_group_in_bf16_trains_and_evaluates_with_the_bits_of_each_alone(workload):
    runs, alone = (runs_of(workload(), 3, precision="bf16") for _ in range(2))
    group = exact_group(runs)
    assert casts(group) > 1
    evaluation = GroupEvaluation(group)
    together = evaluation.of([0, 1, 2])
    for _ in range(2):
        group.advance(STEPS // 2)
    after = evaluation.of([0, 1, 2])
    for place, run in enumerate(alone):
        first = run.evaluate()
        run.advance(STEPS)
        assert canonical_digest(run.state()) == canonical_digest(runs[place].state())
        assert runs[place].evaluate() == run.evaluate()
        if after and together:
            assert (together[place], after[place]) == (first, run.evaluate())
    fast_alone = ("not faster", "_transformer_encoder_layer_fwd")  # torch evaluates by a kernel that trains nothing
    assert after or any(why in evaluation.refused for why in fast_alone), evaluation.refused


def test_slices_in_bf16_keep_their_bits_too():
    runs, alone = (runs_of(MlpWithDropout(), 3, precision="bf16", slices=4) for _ in range(2))
    exact_group(runs).advance(STEPS)
    for run, other in zip(runs, alone, strict=True):
        other.advance(STEPS)
        assert canonical_digest(run.state()) == canonical_digest(other.state())


@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize("workload", [Mlp, MlpWithDropout])
def test_a_fast_group_in_bf16_is_near_its_trials_alone(workload, slices):
    runs = runs_of(workload(), 3, precision="bf16", slices=slices)
    group = Group(runs, rules=rules_fast.TABLE)
    assert far_from_alone(group) is None
    group.advance(1)
    assert runs[0].losses[0].dtype is torch.float32


def test_what_does_not_keep_its_bits_in_bf16_is_refused_by_name():
    runs = runs_of(Gru(), 3, precision="bf16")
    with pytest.raises(NotFusible, match=r"in bf16: the casts of torch.autocast.*weight_hh_l0"):
        make_group(runs)
    make_group(runs_of(Gru(), 3))


def test_a_group_in_fp16_is_refused_with_what_happens():
    runs = runs_of(Mlp(), 3, precision="fp16")
    with pytest.raises(NotFusible, match=r"in fp16 each trial has a loss scale of its own.*one by one.*bf16"):
        make_group(runs)
    choice = look_at(runs[0].setup, [run.trial for run in runs])
    assert choice.num_trials == 1
    assert choice.reason.startswith("in fp16 each trial")


def test_what_is_declared_float32_trains_together_whatever_the_caller_computes_in():
    runs, alone = runs_of(MlpWithDropout(), 3, precision="float32"), runs_of(MlpWithDropout(), 3)
    with torch.autocast("cpu", torch.bfloat16):
        exact_group(runs).advance(STEPS)
    for run, other in zip(runs, alone, strict=True):
        other.advance(STEPS)
        assert all(torch.equal(a, b) for a, b in zip(run.parameters, other.parameters, strict=True))
