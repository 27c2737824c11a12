"""What is frozen and equal in all trials of a group is held once, and each trial keeps the bits that it has alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.fusible import runs_of
from support.fusing import meaning, trained_alone, trained_together
from support.shared_bases import (
    SHARED,
    SPACE,
    WRITTEN,
    Averaged,
    FreshBase,
    HeadOnConvolutions,
    HeadOnConvolutionsInEvalMode,
    HeadOnly,
    LoraMlp,
    Student,
)
from support.tiny import StopAt, setting_for, tiny_study
from torch import nn

from tuner.design.optimizers import optimizer_named
from tuner.errors import NotFusible
from tuner.fused import fusion, recording, rules_fast, rules_matmul
from tuner.fused.evaluation import GroupEvaluation
from tuner.fused.fusion import trials_that_fit
from tuner.fused.group import Group
from tuner.fused.making import exact_group, far_from_alone, first_difference, make_group
from tuner.fused.optimizers import OwnSteps
from tuner.fused.sharing import constants
from tuner.rounds.plan import planned_trials
from tuner.training.checkpoints import canonical_digest
from tuner.training.copy_on_write import address, same_bits

STEPS = 5
ATEN = torch.ops.aten


def digests(runs):
    return [canonical_digest(run.state()) for run in runs]


def trained(workload, num_trials=3, steps=STEPS, **changes):
    """A group after some steps, and its trials trained alone."""
    together, alone = (runs_of(workload, num_trials, SPACE, **changes) for _ in range(2))
    group = make_group(together)
    group.advance(steps)
    for run in alone:
        run.advance(steps)
    return group, alone


def targets(group):
    (recording, _), *_ = group._recordings.values()
    return [node.target for node in recording.graph.graph.nodes]


@pytest.mark.parametrize("workload", SHARED)
def test_trials_of_one_base_have_the_bits_of_each_alone(workload):
    group, alone = trained(workload())
    assert digests(group.runs) == digests(alone)
    assert group.model.shared
    assert group.task.care == 0, "no product has to be computed trial by trial"
    frozen = [parameter for parameter in alone[0].model.parameters() if not parameter.requires_grad]
    assert sum(isinstance(one, nn.Parameter) for one in group.model.stand_ins().values()) == len(frozen)
    evaluation, trials = GroupEvaluation(group), [0, 1, 2]
    for measured in (evaluation.of(trials), evaluation.of(trials)):
        assert all(repr(measured[trial]) == repr(alone[trial].evaluate()) for trial in measured)


def test_all_trials_show_one_memory_and_so_do_the_copies_of_their_weights():
    group, _ = trained(LoraMlp(), 4)
    for name, one in group.model.shared.items():
        places = {address(constants(run.model)[name]) for run in group.runs}
        assert places == {address(one)}
        assert {address(run.weights()[name]) for run in group.runs} == places
    before = group.runs[0].weights()["0.weight"]
    kept = before.clone()
    with torch.no_grad():
        constants(group.runs[0].model)["0.weight"].zero_()
    assert torch.equal(before, kept)
    assert torch.equal(constants(group.runs[1].model)["0.weight"], kept), "nobody's write reaches a mate"


def test_what_is_computed_of_the_base_and_of_a_batch_alone_is_computed_once():
    group, _ = trained(HeadOnly())
    used = targets(group)
    assert used.count(ATEN.addmm.default) == 2, "the encoder, as for one trial"
    assert used.count(ATEN.baddbmm.default) == 1, "the head of each trial"
    assert group.trained == ["2.weight", "2.bias"]
    assert all(constants(run.model)[name].grad is None for run in group.runs for name in group.model.shared)


def test_a_shared_weight_is_one_product_and_where_that_has_other_bits_one_for_each_trial(monkeypatch):
    group, alone = trained(LoraMlp())
    assert targets(group).count(ATEN.addmm.default) == 3
    monkeypatch.setattr(rules_matmul, "_rows_agree", lambda *sizes: False)
    apart, _ = trained(LoraMlp())
    assert targets(apart).count(ATEN.addmm.default) == 1, "the first layer, whose input is the batch of all"
    assert digests(group.runs) == digests(apart.runs) == digests(alone)


def test_rows_of_other_bits_are_noticed(monkeypatch):
    """A product of many rows that is rounded otherwise, as by a machine with another kernel for them."""
    multiply = torch.mm

    def by_another_kernel(left, right):
        found = multiply(left, right)
        return found * (1.0 + 1e-6) if len(left) > 64 else found

    sizes = ((4, 32, 16), 8, False, False)
    where = (torch.float32, torch.device("cpu"), 1, False)
    assert rules_matmul._rows_agree.__wrapped__(*sizes, where)
    monkeypatch.setattr(torch, "mm", by_another_kernel)
    assert not rules_matmul._rows_agree.__wrapped__(*sizes, where)


def test_running_means_that_training_writes_are_each_trials_own():
    group, _ = trained(HeadOnConvolutions(), 2)
    assert all("running" not in name and "num_batches" not in name for name in group.model.shared)
    group, _ = trained(HeadOnConvolutionsInEvalMode(), 2)
    assert sum("running" in name for name in group.model.shared) == 12
    assert len(group.model.stacks) == 2


def test_a_base_that_is_another_in_each_trial_is_stacked():
    group, alone = trained(FreshBase())
    assert not group.model.shared
    assert digests(group.runs) == digests(alone)


@pytest.mark.parametrize("written", WRITTEN, ids=lambda how: how.__name__)
def test_a_frozen_teacher_that_the_loss_writes_is_each_trials_own(written):
    workload = type("Taught", (Averaged,), {"written": staticmethod(written)})
    group, alone = trained(workload())
    assert set(group.model.shared) == {"encoder.weight", "encoder.bias"}
    assert digests(group.runs) == digests(alone)
    teachers = [run.model.teacher.weight for run in group.runs]
    assert not torch.equal(teachers[0], teachers[1])


@pytest.mark.parametrize("written", WRITTEN, ids=lambda how: how.__name__)
def test_what_a_trial_alone_did_not_show_is_seen_while_it_is_recorded(written, monkeypatch):
    monkeypatch.setattr(recording, "written", lambda *asked: set())
    monkeypatch.setattr("tuner.fused.group.written", lambda *asked: set())
    workload = type("Taught", (Averaged,), {"written": staticmethod(written)})
    group, alone = trained(workload(), 2)
    assert set(group.model.shared) == {"encoder.weight", "encoder.bias"}
    assert digests(group.runs) == digests(alone)


def test_unguarded_a_written_teacher_would_be_shared(monkeypatch):
    """Both guards off: the self-check would refuse the group."""
    monkeypatch.setattr("tuner.fused.group.written", lambda *asked: set())
    monkeypatch.setattr("tuner.fused.stacking.StackedModel._check_shared", lambda *asked: None)
    monkeypatch.setattr("tuner.fused.group.Group._settle", lambda group: False)
    workload = type("Taught", (Averaged,), {"written": staticmethod(lambda teacher, student: teacher.mul_(0.9))})
    with pytest.raises(NotFusible):
        exact_group(runs_of(workload(), 2, SPACE))


class Averaging(torch.optim.SGD):
    """An optimizer of the user's that writes a frozen teacher, from its third step on."""

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            group["made"] = group.get("made", 0) + 1
            for parameter in group["params"] if group["made"] > 3 else ():
                vars(parameter)["teacher"].mul_(0.9).add_(parameter, alpha=0.1)


class TaughtByTheOptimizer(Averaged):
    written = staticmethod(lambda teacher, student: None)

    def model(self, point):
        model = Student()
        for name, parameter in model.student.named_parameters():
            vars(parameter)["teacher"] = model.teacher.get_parameter(name)
        return model


def test_what_an_optimizer_writes_in_the_middle_of_training_is_each_trials_own_from_then_on():
    changes = {"optimizer": optimizer_named(Averaging)}
    group, alone = trained(TaughtByTheOptimizer(), steps=12, **changes)
    assert isinstance(group.optimizer, OwnSteps)
    assert digests(group.runs) == digests(alone)
    assert set(group.model.shared) == {"encoder.weight", "encoder.bias"}


class CountsEvaluations(HeadOnly):
    """Metrics that write into a frozen parameter, which training reads."""

    def model(self, point):
        model = super().model(point)
        model.register_parameter("seen", nn.Parameter(torch.ones(()), requires_grad=False))
        return model

    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0]) * model.seen, batch[1])

    def metrics(self, model, batch):
        model.seen.mul_(1.1)
        return super().metrics(model, batch)


def test_what_an_evaluation_writes_is_that_trials_alone(tmp_path):
    study = tiny_study(space=SPACE, num_trials=3, batch_size=32)
    trials = planned_trials(study)
    folders = [tmp_path / "together", tmp_path / "alone"]
    together = trained_together(setting_for(study, folders[0], CountsEvaluations()), trials)
    alone = trained_alone(setting_for(study, folders[1], CountsEvaluations()), trials)
    for trial in trials:
        assert meaning(together, folders[0], trial) == meaning(alone, folders[1], trial)


class WideLora(LoraMlp):
    """A base that is large enough for a file of its own."""

    widths = (64, 160, 160, 10)


def test_a_group_that_was_stopped_goes_on_alone_or_together_to_the_same_bits(tmp_path):
    study = tiny_study(space=SPACE, num_trials=4, batch_size=32)
    trials = planned_trials(study)
    folders = [tmp_path / "together", tmp_path / "alone"]
    alone = trained_alone(setting_for(study, folders[1], WideLora()), trials)
    recorder = trained_together(setting_for(study, folders[0], WideLora(), stop=StopAt(14)), trials)
    assert {recorder.of(trial)[-1].step for trial in trials} == {13}
    trained_alone(setting_for(study, folders[0], WideLora()), trials[:1], recorder)
    trained_together(setting_for(study, folders[0], WideLora()), trials[1:], recorder)
    for trial in trials:
        assert meaning(recorder, folders[0], trial) == meaning(alone, folders[1], trial)


def test_a_trial_that_is_handed_back_trains_on_alone():
    group, alone = trained(LoraMlp())
    group.retire(1)
    for run in (group.runs[1], *alone):
        run.advance(STEPS + 3)
    assert digests(group.runs[1:2]) == digests(alone[1:2])
    group.advance(3)
    assert digests(group.runs[::2]) == digests(alone[::2])


def held_by(group):
    """Bytes of all that a group holds, each memory once: models, stacks, gradients, and states of the optimizers."""
    model = group.model
    own = [*model.stacks.values(), *model.shared.values(), *group.gradients, *group.optimizer.changing]
    for each in [model.template, *(run.model for run in group.runs)]:
        own += [one for one in (*each.parameters(), *each.buffers()) if type(one) in (torch.Tensor, nn.Parameter)]
    starts = {address(one) - one.storage_offset() * one.element_size(): one.untyped_storage().nbytes() for one in own}
    return sum(starts.values())


class LargeBase(LoraMlp):
    widths = (64, 512, 512, 512, 10)


def test_sixteen_adapters_take_the_memory_of_one_base():
    group = make_group(runs_of(LargeBase(), 16, SPACE))
    group.advance(1)
    base = sum(one.nbytes for one in constants(group.runs[0].model).values())
    adapters = sum(one.nbytes for one in (*group.model.stacks.values(), *group.gradients, *group.optimizer.changing))
    assert group.model.shared_bytes == sum(constants(group.runs[0].model)[name].nbytes for name in group.model.shared)
    assert held_by(group) < 1.2 * (base + adapters)
    assert base < group.num_bytes_once < 1.5 * base


def test_the_memory_of_a_base_counts_once_however_many_trials_there_are(tmp_path, monkeypatch):
    study = tiny_study(space=SPACE, num_trials=4, batch_size=32)
    setting, trials = setting_for(study, tmp_path, LargeBase()), planned_trials(study)
    group = Group(runs_of(LargeBase(), 2, SPACE))
    base = group.model.shared_bytes
    each = (group.num_bytes - group.num_bytes_once) / 2
    ratio = setting.evaluation_batch_size / 32 / 2 - 1
    each += max(0.0, ratio) * (group.pass_bytes - group.num_bytes_once) / 2
    monkeypatch.setattr(fusion, "free_bytes", lambda device: 2 * (1.5 * base + 20.5 * each))
    fitting = trials_that_fit(setting, trials)
    assert fitting == pytest.approx(20.5, abs=3.0)
    assert fitting > (1.5 * base + 20.5 * each) / (base + each), "so many there would be with a base for each"


def test_the_self_check_leaves_a_shared_base_as_it_was():
    runs = runs_of(LoraMlp(), 3, SPACE)
    before = digests(runs)
    assert first_difference(Group(runs)) is None
    assert digests(runs) == before


def test_the_fast_profile_shares_too():
    runs, alone = runs_of(HeadOnConvolutionsInEvalMode(), 3, SPACE), runs_of(LoraMlp(), 3, SPACE)
    for kind in (runs, alone):
        group = Group(kind, rules=rules_fast.TABLE)
        assert group.model.shared
        assert far_from_alone(group) is None


def test_parts_of_one_memory_are_not_taken_for_each_other():
    whole = torch.zeros(8)
    whole[4:] = 1.0
    assert not same_bits(whole[:4], whole[4:])
    assert address(whole[4:]) == whole[4:].data_ptr()
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert same_bits(torch.tensor([float("nan")]), torch.tensor([float("nan")]))


def test_memory_that_is_not_torchs_own_is_shared_as_well():
    """Weights that a model shows of an array of NumPy's: copied once."""
    array = np.ones((10, 64), np.float32)

    class OfNumpy(HeadOnly):
        def model(self, point):
            model = super().model(point)
            model[0][0].weight.data = torch.from_numpy(array).repeat(7, 1)[:64]
            model[2].register_parameter("scale", nn.Parameter(torch.from_numpy(array), requires_grad=False))
            return model

    group, alone = trained(OfNumpy(), 2)
    assert "2.scale" in group.model.shared
    assert digests(group.runs) == digests(alone)


class ShowsItsEncoder(HeadOnly):
    """The frozen decoder shows the weight of the trained encoder, and follows it."""

    def model(self, point):
        model = super().model(point)
        shown = model[0][0].weight
        shown.requires_grad_(True)
        model.register_parameter("decoder", nn.Parameter(shown.data.t(), requires_grad=False))
        return model

    def loss(self, model, batch, point):
        return super().loss(model, batch, point) + model.decoder.square().mean()


class WritesByAnotherName(HeadOnly):
    """The loss moves the frozen body by a buffer that shows its weight."""

    def model(self, point):
        model = super().model(point)
        model.register_buffer("body", model[0][0].weight.data)
        return model

    def loss(self, model, batch, point):
        model.body.mul_(0.99)
        return super().loss(model, batch, point)


class WritesAnArray(WritesByAnotherName):
    """The same through NumPy, which counts no version."""

    def model(self, point):
        model = HeadOnly.model(self, point)
        model.body = model[0][0].weight.detach().numpy()
        return model

    def loss(self, model, batch, point):
        model.body *= 0.99
        return HeadOnly.loss(self, model, batch, point)


@pytest.mark.parametrize("workload", [ShowsItsEncoder, WritesByAnotherName, WritesAnArray])
def test_frozen_tensors_that_show_other_memory_of_the_model_stay_with_it(workload):
    with pytest.raises(NotFusible, match=r"not those of each trial alone|writes into"):
        trained(workload())


def test_frozen_values_that_are_conjugated_are_no_others_bits():
    one = torch.tensor([1 + 2j])
    assert not same_bits(one.conj(), one)
    assert not same_bits(one.conj(), one.conj())
