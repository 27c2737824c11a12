"""Ordinary models and losses, stacked: every loss, gradient, weight, buffer and optimizer value has the same bits."""

from dataclasses import replace

import pytest
import torch
from support.fusible import (
    MUST_FUSE,
    Images,
    Mlp,
    MlpWithDropout,
    OddMlp,
    Regression,
    Residual,
    TransformerEncoder,
    runs_of,
)

from tuner.errors import NotFusible
from tuner.fused import graph, quick_kernels, rules
from tuner.fused.evaluation import GroupEvaluation
from tuner.fused.group import Group
from tuner.fused.making import exact_group, first_difference
from tuner.optimizers.adam import ADAMW
from tuner.training.checkpoints import canonical_digest

ATEN = torch.ops.aten
STEPS = 6


def digests(runs):
    return [canonical_digest(run.state()) for run in runs]


@pytest.fixture(scope="module", params=MUST_FUSE)
def trained(request):
    """A group of three trials of a model after some steps, and the same trials trained alone."""
    runs, alone = runs_of(request.param(), 3), runs_of(request.param(), 3)
    group = exact_group(runs)
    group.advance(STEPS)
    for run in alone:
        run.advance(STEPS)
    return request.param, group, alone


def test_a_model_that_must_fuse_does_and_keeps_its_bits(trained):
    _, group, alone = trained
    assert digests(group.runs) == digests(alone)
    assert "vmap" not in group.ways.values()


def test_layers_of_one_output_alone_loop_over_the_trials():
    group = exact_group(runs_of(Regression(), 3))
    assert (group.task.care, group.ways["linear"]) == (0, "loop")


def test_evaluating_together_gives_the_bits_of_each_evaluation_or_is_not_done(trained):
    workload, group, _ = trained
    evaluation = GroupEvaluation(group)
    trials = list(range(3))
    first, second = evaluation.of(trials), evaluation.of(trials)
    for measured in (first, second):
        assert all(repr(measured[trial]) == repr(group.runs[trial].evaluate()) for trial in measured)
    assert len(first) == 3 or "Transformer" in workload.__name__, evaluation.refused


def test_a_model_that_torch_evaluates_by_another_kernel_is_not_tried():
    evaluation = GroupEvaluation(Group(runs_of(TransformerEncoder(), 2)))
    assert evaluation.of([0, 1]) == {}
    assert "_transformer_encoder_layer_fwd" in evaluation.refused
    assert not evaluation._recordings


def test_where_an_evaluation_together_has_other_bits_those_of_each_trial_alone_are_used(monkeypatch):
    group = Group(runs_of(Mlp(), 3))
    alone = {trial: run.evaluate() for trial, run in enumerate(group.runs)}
    together = GroupEvaluation._measured

    def of_others(self, trials):
        return dict(zip(trials, reversed(together(self, trials).values()), strict=True))

    monkeypatch.setattr(GroupEvaluation, "_measured", of_others)
    evaluation = GroupEvaluation(group)
    assert evaluation.of([0, 1, 2]) == alone
    assert "other bits" in evaluation.refused


@pytest.mark.parametrize("num_trials", [1, 2, 8, 16])
@pytest.mark.parametrize("workload", [Mlp, MlpWithDropout, Residual])
def test_the_bits_do_not_depend_on_the_size_of_the_group(workload, num_trials):
    runs, alone = runs_of(workload(), num_trials)[::-1], runs_of(workload(), num_trials)[::-1]
    exact_group(runs).advance(3)
    for run in alone:
        run.advance(3)
    assert digests(runs) == digests(alone)


def test_the_self_check_changes_nothing():
    runs = runs_of(MlpWithDropout(), 3)
    before = digests(runs)
    exact_group(runs)
    assert digests(runs) == before
    assert all(parameter.grad is None for run in runs for parameter in run.parameters)


def test_an_unused_parameter_is_not_decayed():
    workload = next(each for each in MUST_FUSE if each.__name__ == "Branching")
    runs = runs_of(workload(), 2)
    before = [run.model.unused.weight.clone() for run in runs]
    exact_group(runs).advance(STEPS)
    assert all(torch.equal(run.model.unused.weight, weight) for run, weight in zip(runs, before, strict=True))


class BranchOnValues(Mlp):
    def loss(self, model, batch, point):
        loss = super().loss(model, batch, point)
        return loss * 2 if loss > 2.0 else loss


class Item(Mlp):
    def loss(self, model, batch, point):
        loss = super().loss(model, batch, point)
        return loss * loss.item()


class BranchOnAHyperparameter(Mlp):
    def loss(self, model, batch, point):
        return super().loss(model, batch, point) * (2.0 if point["dropout"] > 0.4 else 1.0)


class OwnNoise(Mlp):
    def loss(self, model, batch, point):
        return super().loss(model, (batch[0] + 0.1 * torch.randn_like(batch[0]), batch[1]), point)


class NoiseOfEachTrial(Mlp):
    def loss(self, model, batch, point):
        hidden = model(batch[0])
        return (hidden + torch.randn_like(hidden)).square().mean()


class WritesIntoTheBatch(Mlp):
    def loss(self, model, batch, point):
        batch[0].mul_(1.0)
        return super().loss(model, batch, point)


class WritesTrialsIntoTheBatch(Mlp):
    def loss(self, model, batch, point):
        batch[0][:, :10] += model(batch[0]).detach()
        return super().loss(model, batch, point)


class BakedNumber(Mlp):
    calls = 0

    def loss(self, model, batch, point):
        self.calls += 1
        return super().loss(model, batch, point) * (1.0 + 0.1 * self.calls)


class NotAScalar(Mlp):
    def loss(self, model, batch, point):
        return model(batch[0]).mean(1)


REFUSED = {
    BranchOnValues: "__bool__: the code branches on",
    Item: "item: the code reads",
    BranchOnAHyperparameter: "__bool__: the code branches on",
    OwnNoise: "randn_like: random numbers",
    NoiseOfEachTrial: "randn_like: random numbers",
    WritesIntoTheBatch: "mul_ writes into the batch",
    WritesTrialsIntoTheBatch: "writes values of a single trial into a tensor that all trials share",
    BakedNumber: "the code changes BakedNumber.calls to 2, at each step",
    NotAScalar: r"not one number for each trial, but \(32,\)",
}


@pytest.mark.parametrize("workload", REFUSED)
def test_what_cannot_be_fused_is_refused_by_the_name_of_the_operation(workload):
    with pytest.raises(NotFusible, match=REFUSED[workload]):
        exact_group(runs_of(workload(), 2))


def test_models_of_different_shapes_are_refused():
    class Wide(Images):
        def model(self, point):
            return torch.nn.Linear(64, 10 + int(10 * point["dropout"]))

    with pytest.raises(NotFusible, match="parameter weight"):
        Group(runs_of(Wide(), 4))


def test_the_self_check_sees_weight_gradients_in_another_order(monkeypatch):
    """Examples added up from the last to the first: on every CPU another order, whatever its library does."""
    turn = graph._turn_weight_gradients

    def turn_and_reverse(recorded):
        turn(recorded)
        for node in list(recorded.nodes):
            if node.target is ATEN.bmm.default and graph._is_transpose(node.args[0]):
                with recorded.inserting_before(node):
                    flipped = [
                        recorded.call_function(ATEN.flip.default, (part, [dim]))
                        for part, dim in zip(node.args, (2, 1), strict=True)
                    ]
                node.args = tuple(flipped)

    monkeypatch.setattr(graph, "_turn_weight_gradients", turn_and_reverse)
    assert "the gradient of" in first_difference(Group(runs_of(Mlp(), 4)))
    assert exact_group(runs_of(Mlp(), 4)).ways["linear"] == "loop", "the way out: each trial's own products"


def test_the_self_check_sees_noise_that_trials_share(monkeypatch):
    monkeypatch.setattr("tuner.fused.noise.draw_seed", lambda *rest: 5)
    assert "the loss" in first_difference(Group(runs_of(MlpWithDropout(), 2)))


def test_the_self_check_sees_an_optimizer_on_one_flat_row(monkeypatch):
    kernel = torch._fused_adamw_

    def flat(values, gradients, *rest, **settings):
        sizes = [value.numel() for value in values]
        kinds = (values, gradients, *rest[:2])
        rows = [torch.cat([tensor.flatten() for tensor in tensors]) for tensors in kinds]
        kernel(*[[row] for row in rows], [], rest[3][:1], **settings)
        for targets, row in zip(kinds, rows, strict=True):
            for target, part in zip(targets, row.split(sizes), strict=True):
                target.copy_(part.view_as(target))

    update = ADAMW.row_update
    assert update is not None

    def row_update(rows, trial):
        with monkeypatch.context() as patched:
            patched.setattr(torch, "_fused_adamw_", flat)
            return update(rows, trial)

    monkeypatch.setattr("tuner.fused.optimizers.spec_of", lambda optimizer: replace(ADAMW, row_update=row_update))
    assert first_difference(Group(runs_of(OddMlp(), 8), care=1)) is not None


def test_the_self_check_sees_a_wrong_rule(monkeypatch):
    monkeypatch.setitem(
        rules.TABLE, "relu", lambda operations, f, x, inplace: operations.trial(x.stacked.clamp(min=1e-3))
    )
    with pytest.raises(NotFusible, match="trial"):
        exact_group(runs_of(Mlp(), 2))


@pytest.mark.parametrize("classes", [2, 3, 5, 9, 10, 15, 16, 31, 33])
@pytest.mark.parametrize(("trials", "examples"), [(3, 32), (8, 40), (2, 37)])
def test_log_softmax_with_the_classes_first_has_the_bits_and_the_layout_of_each_trials_own(classes, trials, examples):
    generator = torch.Generator().manual_seed(classes)
    for scale in (1e-3, 1.0, 50.0):
        values, gradient = (scale * torch.randn(trials, examples, classes, generator=generator) for _ in range(2))
        own = [torch.log_softmax(one, -1) for one in values]
        found = quick_kernels.log_softmax(values, 2, False)
        backward = quick_kernels.log_softmax_backward(gradient, found, 2, torch.float32)
        assert found.is_contiguous()
        assert backward.is_contiguous()
        for trial in range(trials):
            assert torch.equal(found[trial], own[trial])
            back = ATEN._log_softmax_backward_data(gradient[trial], own[trial], 1, torch.float32)
            assert torch.equal(backward[trial], back)


@pytest.mark.parametrize("examples", [2, 16, 17, 32, 64, 100, 256, 300])
def test_the_mean_by_blocks_has_the_bits_of_each_trials_own_loss(examples):
    generator = torch.Generator().manual_seed(examples)
    logs = torch.log_softmax(4.0 * torch.randn(5, examples, 10, generator=generator), -1)
    target = torch.randint(0, 10, (5, examples), generator=generator)
    target[1, examples // 2] = -100  # does not count
    for rows in (slice(0, 5), slice(2, 5)):  # with such a label, and without
        pairs = zip(logs[rows], target[rows], strict=True)
        own = torch.stack([torch.nn.functional.nll_loss(one, labels) for one, labels in pairs])
        assert torch.equal(quick_kernels.mean_negative(logs[rows], target[rows]), own)
    assert quick_kernels._adds_in_blocks(5, examples) == (examples <= 256)


def test_recorded_losses_of_one_mean_for_each_trial_are_computed_at_once():
    recording, _ = next(iter(Group(runs_of(Mlp(), 3))._recordings.values()))
    quick, plain = ([node.target for node in module.graph.nodes] for module in (recording.quick, recording.graph))
    assert quick.count(quick_kernels.mean_negative) == 1
    assert ATEN.nll_loss_forward.default not in quick
    assert plain.count(ATEN.nll_loss_forward.default) == 3, "what is compiled, or runs in lanes, is torch's own"
    assert not {quick_kernels.log_softmax, quick_kernels.mean_negative} & set(plain)


def test_the_gradient_of_what_is_taken_apart_is_put_together_and_not_added_up():
    recording, _ = next(iter(Group(runs_of(TransformerEncoder(), 2))._recordings.values()))
    graph = recording.graph.graph
    split = [node for node in graph.nodes if node.target is ATEN.select_backward.default]
    assert len(split) == 1, "of x[:, 0]: the three parts of attention's projection are beside each other"
