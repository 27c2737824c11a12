"""Batches in slices: the gradient of the whole batch, in an order that does not depend on how it is computed."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.drawing import Drawing, numpys, of_all, pythons
from support.tiny import CPU, Tiny, setting_for, tiny_study
from torch import nn

from tuner import SearchSpace, Splits, Stream, Workload, log_uniform, padded
from tuner.errors import WorkloadError
from tuner.rounds.plan import planned_trials
from tuner.sources.running import Seen
from tuner.training.checkpoints import canonical_digest
from tuner.training.first_look import first_look
from tuner.training.slices import Slices, WeightedSum, check_totals, shares_of
from tuner.training.tree_sum import halves, tree_sum
from tuner.training.trial_run import TrialRun
from tuner.training.update import Draws, Update, draw_seed

STEPS = 7


def run_of(workload, slices, *, space=None, device=CPU, **changes):
    changes = {"batch_size": workload.batch_size, "slices": slices, **changes}
    study = tiny_study(**({"space": space} if space else {}), **changes)
    return TrialRun(setting_for(study, None, workload, device), planned_trials(study)[0])


def trained(workload, slices, steps=STEPS, **changes):
    run = run_of(workload, slices, **changes)
    with run.setup.loading():
        run.advance(steps)
    return run


def digest_of(run):
    return canonical_digest(run.state())


class Plain(Tiny):
    """Nothing that is random, and nothing that looks across a batch; in float64."""

    augment = Workload.augment

    def data(self):
        splits = super().data()
        return Splits(*((x.double(), y) for x, y in (splits.training, splits.validation)))

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 2)).double()


def differentiated(run, update, step=0):
    """The loss of a batch, as an update makes it; the parameters have its gradients."""
    batch = run.batch_at(step)
    if isinstance(batch, Slices):
        return update.by_slices(batch, run.point, step)
    update.prepare(step, host_draws=False)
    loss = update.loss(run.model, batch, run.point)
    update.backward(loss)
    return loss.detach()


def gradients_of(run, step=0):
    update = Update(run.setup, run.rule, run.model, run.parameters, run.optimizer)
    loss = differentiated(run, update, step)
    return loss, torch.cat([parameter.grad.flatten() for parameter in run.parameters])


def one_batch(workload, slices):
    """The same loss of the whole batch as one, cut into nothing."""
    run = run_of(workload, slices)
    parts = [run.slice_at(0, part) for part in range(slices)]
    loss = run.setup.workload.loss(run.model, whole_of(parts), run.point)
    gradients = torch.autograd.grad(loss, run.parameters)
    return loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])


def whole_of(parts):
    return tuple(torch.cat(same) for same in zip(*parts, strict=True))


def apart(one, other):
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("slices", [2, 4, 8])
def test_the_sum_over_slices_is_the_gradient_of_the_whole_batch(slices):
    loss, gradient = gradients_of(run_of(Plain(), slices))
    whole_loss, whole = gradients_of(run_of(Plain(), 1))
    assert apart(gradient, whole) < 1e-12
    assert abs(float(loss - whole_loss)) < 1e-12
    assert apart(gradient, one_batch(Plain(), slices)[1]) < 1e-12


IGNORED = -100


class Tokens(Plain):
    """Sequences of different lengths, whose loss is a mean over the tokens that are there."""

    batch_size = 2

    def data(self):
        generator = torch.Generator().manual_seed(3)
        lengths = [11, 101]
        examples = [torch.randint(0, 5, (length,), generator=generator) for length in lengths]
        return Splits(training=[(one,) for one in examples], validation=[(one,) for one in examples])

    def collate(self, examples):
        return (padded([one for (one,) in examples], value=IGNORED),)

    def model(self, point):
        return nn.Embedding(5, 5).double()

    def loss(self, model, batch, point):
        (ids,) = batch
        logits = model(ids.clamp(min=0))
        return F.cross_entropy(logits.flatten(0, 1), ids.flatten(), ignore_index=IGNORED)

    def metrics(self, model, batch):
        return {"loss": torch.zeros(len(batch[0])), "error_rate": torch.zeros(len(batch[0]))}

    def weight(self, batch):
        return (batch[0] != IGNORED).sum()


def test_means_over_tokens_are_those_of_11_and_101_tokens_by_hand():
    run = run_of(Tokens(), 2)
    loss, gradient = gradients_of(run)
    table = run.model.weight.detach()
    examples = [run.slice_at(0, part)[0][0] for part in range(2)]
    assert sorted(len(one) for one in examples) == [11, 101]
    tokens = torch.cat(examples)
    each = -torch.log_softmax(table[tokens], 1).gather(1, tokens[:, None]).flatten()
    assert abs(float(loss) - math.fsum(each.tolist()) / 112) < 1e-12
    by_hand = torch.zeros_like(table)
    for token in tokens.tolist():
        by_hand[token] += (torch.softmax(table[token], 0) - F.one_hot(torch.tensor(token), 5)) / 112
    assert apart(gradient, by_hand.flatten()) < 1e-12


def test_a_mean_of_means_is_another_gradient():
    """What the weights are for: without them each example counts alike, however many tokens it has."""

    class Unweighted(Tokens):
        weight = Workload.weight

    assert apart(gradients_of(run_of(Unweighted(), 2))[1], gradients_of(run_of(Tokens(), 2))[1]) > 1e-2


@pytest.mark.parametrize("share", [0.0, torch.zeros((), dtype=torch.float64)], ids=["number", "on a device"])
def test_a_slice_of_no_weight_adds_nothing_though_its_mean_is_nan(share):
    class OneEmpty(Tokens):
        def data(self):
            splits = super().data()
            empty = torch.full((4,), IGNORED)
            return Splits(training=[*splits.training, (empty,), (empty,)], validation=splits.validation)

    run = run_of(OneEmpty(), 4, batch_size=4)
    loss, gradient = gradients_of(run)
    whole = run.setup.workload.collate([(run.slice_at(0, part)[0][0],) for part in range(4)])
    wanted = run.setup.workload.loss(run.model, whole, run.point)
    assert abs(float(loss - wanted.detach())) < 1e-12
    assert apart(gradient, torch.autograd.grad(wanted, run.parameters)[0].flatten()) < 1e-12
    nan = torch.tensor(math.nan)
    none = WeightedSum.of(nan, [nan.repeat(3), nan.repeat(2).to_sparse(), None], share)
    assert float(none.loss) == 0.0
    assert [one if one is None else one.to_dense().tolist() for one in none.gradients] == [[0.0] * 3, [0.0] * 2, None]


class TinyBy(Tiny):
    batch_size = 16

    def __init__(self, micro=None, workers=0):
        self.micro_batch_size = micro
        self.data_workers = workers


@pytest.mark.parametrize("micro", [2, 4, 8, 16])
def test_how_many_slices_are_computed_at_a_time_changes_no_bit(micro):
    """With batch norm, dropout and augmentation."""
    assert digest_of(trained(TinyBy(micro), 8)) == digest_of(trained(TinyBy(), 8))


def test_slices_decide_the_bits():
    assert len({digest_of(trained(TinyBy(), slices)) for slices in (1, 2, 4, 8)}) == 4


def test_micro_batches_are_made_together():
    made = []
    slices = Slices(8, lambda number: made.append(number) or number, together=2)
    assert slices[0] == 0
    assert made == [0, 1]
    assert (slices[1], slices[2]) == (1, 2)
    assert made == [0, 1, 2, 3]


@pytest.mark.parametrize("slices", [2, 4])
def test_a_resumed_trial_is_the_one_that_ran_through(slices):
    through, first = trained(Tiny(), slices, 9), trained(Tiny(), slices, 4)
    again = run_of(Tiny(), slices)
    again.load(first.state())
    again.advance(9)
    assert digest_of(again) == digest_of(through)


def test_each_slice_has_its_own_seeds_and_the_first_those_of_a_whole_batch():
    seeds = [draw_seed(draws, 7, 3, part) for draws in Draws for part in range(64)]
    assert len(set(seeds)) == len(seeds)
    assert draw_seed(Draws.LOSS, 7, 3) == draw_seed(Draws.LOSS, 7, 3, 0)


class Drawn(Tiny):
    """A loss that draws from Python's and NumPy's generators besides torch's."""

    drawn: list

    def loss(self, model, batch, point):
        self.drawn.append(of_all())
        return super().loss(model, batch, point)


def test_a_loss_draws_other_numbers_for_each_slice_from_the_first_step_on():
    workload = Drawn()
    workload.drawn = []
    trained(workload, 4, 2)
    for drawn in zip(*workload.drawn, strict=True):
        assert len({repr(one) for one in drawn}) == 8


def test_an_augmentation_draws_other_numbers_for_each_slice():
    drawn = []

    class Noted(Tiny):
        def augment(self, batch, point, generator):
            drawn.append((generator.initial_seed(), float(torch.rand(())), pythons(), numpys()))
            return batch

    trained(Noted(), 4, 2)
    assert all(len(set(map(repr, same))) == 8 for same in zip(*drawn, strict=True))


def test_batch_norm_takes_its_statistics_from_each_slice_in_order():
    run = trained(Tiny(), 4, 1)
    fresh = run_of(Tiny(), 4)
    linear, norm = fresh.model[0], fresh.model[1]
    mean = torch.zeros(12)
    for part in range(4):
        mean = 0.9 * mean + 0.1 * linear(fresh.slice_at(0, part)[0]).mean(0).detach()
    assert torch.allclose(run.model[1].running_mean, mean, atol=1e-6)
    assert run.model[1].num_batches_tracked == 4
    assert norm.num_batches_tracked == 0


class OfDataset(TinyBy):
    """Examples that draw random numbers, collated by the user's code, which draws too."""

    def data(self):
        splits = super().data()
        return Splits(*(Drawing(part) for part in (splits.training, splits.validation)))

    def collate(self, examples):
        x, y = (torch.stack([torch.as_tensor(one[place]) for one in examples]) for place in range(2))
        return x + 1e-3 * torch.randn(x.shape), y


class Streamed(TinyBy):
    def data(self):
        splits = super().data()
        x, y = splits.training

        def at(start):
            return ((x[place % 50], y[place % 50]) for place in range(start, 10_000))

        return Splits(training=Stream(at), validation=splits.validation)

    training_evaluation_examples = 10


class Lengths(OfDataset):
    def lengths(self):
        return [place * 7 % 50 for place in range(50)]


@pytest.mark.parametrize("workload", [OfDataset, Streamed, Lengths])
@pytest.mark.parametrize("workers", [1, 2])
def test_loading_processes_give_the_same_bits(workload, workers):
    assert digest_of(trained(workload(workers=workers), 4, 9)) == digest_of(trained(workload(), 4, 9))


@pytest.mark.parametrize("workload", [OfDataset, Streamed, Lengths])
def test_slices_are_the_examples_of_the_batch_in_their_order(workload):
    cut, whole = run_of(workload(), 4).batches, run_of(workload(), 1).batches
    for step in (0, 6, 13):
        parts = [cut.wanted(step, part)[0] for part in range(4)]
        assert torch.equal(torch.cat(parts), whole.wanted(step)[0])
        assert {len(part) for part in parts} == {4}


def test_tensors_in_memory_are_cut_along_their_first_dimension():
    cut, whole = run_of(Tiny(), 4), run_of(Tiny(), 1)
    parts = [cut.batches.at(8, part) for part in range(4)]
    assert all(torch.equal(one, other) for one, other in zip(whole_of(parts), whole.batches.at(8), strict=True))


class Sparse(Plain):
    """Rows that come several times in a slice, and a parameter that only some slices need."""

    def model(self, point):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.table = nn.Embedding(3, 2, sparse=True, dtype=torch.float64)
                self.extra = nn.Parameter(torch.ones(2, dtype=torch.float64))
                self.unused = nn.Parameter(torch.ones(2))

        return Net()

    def loss(self, model, batch, point):
        x, y = batch
        rows = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
        logits = model.table(rows)
        if bool((x[:, 2] > 0).all()):
            logits = logits * model.extra
        return F.cross_entropy(logits, y)

    def metrics(self, model, batch):
        return {"loss": torch.zeros(len(batch[0])), "error_rate": torch.zeros(len(batch[0]))}


def test_sparse_gradients_are_added_up_and_unused_parameters_have_none():
    found = {}
    for slices in (1, 8):
        run = run_of(Sparse(), slices, optimizer="sgd")
        update = Update(run.setup, run.rule, run.model, run.parameters, run.optimizer)
        differentiated(run, update)
        assert run.model.unused.grad is None
        assert run.model.table.weight.grad.is_sparse
        found[slices] = run.model.table.weight.grad.to_dense()
        run.advance(3)
    assert found[1].shape == found[8].shape
    extra_slices = [bool((run.slice_at(0, part)[0][:, 2] > 0).all()) for part in range(8)]
    assert any(extra_slices)
    assert not all(extra_slices)


def test_a_gradient_is_clipped_once_after_the_sum():
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1e-1), clip_norm=1e-3)
    run = trained(Plain(), 4, 3, space=space)
    assert len(run.norms) == 3
    assert abs(float(torch.cat([p.grad.flatten() for p in run.parameters]).norm()) - 1e-3) < 1e-8
    _, gradient = gradients_of(run_of(Plain(), 4, space=space))
    assert abs(float(run.norms[0]) - float(gradient.norm())) < 1e-12


def test_the_tree_is_halved_from_the_top_and_the_first_half_has_one_more():
    def shown(count):
        return tree_sum(str, range(count), lambda one, other: f"({one}+{other})")

    assert [shown(count) for count in (1, 2, 3)] == ["0", "(0+1)", "((0+1)+2)"]
    assert shown(7) == "(((0+1)+(2+3))+((4+5)+6))"
    assert halves(range(7)) == (range(4), range(4, 7))


@pytest.mark.parametrize(("count", "processes"), [(8, 2), (8, 4), (12, 4), (12, 2), (20, 4)])
def test_processes_that_divide_the_slices_have_whole_subtrees(count, processes):
    values = torch.rand(count, generator=torch.Generator().manual_seed(1)).mul(1e3).tolist()
    each = count // processes
    of_each = [tree_sum(values.__getitem__, range(at, at + each), float.__add__) for at in range(0, count, each)]
    together = tree_sum(of_each.__getitem__, range(processes), float.__add__)
    assert together == tree_sum(values.__getitem__, range(count), float.__add__)


@pytest.mark.parametrize("count", [8, 13, 16])
def test_few_gradients_are_kept_at_a_time(count):
    alive, most = set(), 0

    def leaf(number):
        nonlocal most
        alive.add(number)
        most = max(most, len(alive))
        return number

    def add(one, other):
        alive.remove(other)
        return one

    tree_sum(leaf, range(count), add)
    assert 3 < most <= 1 + math.ceil(math.log2(count))


def test_a_sum_writes_into_its_own_memory():
    one = WeightedSum.of(torch.tensor(1.0), [torch.ones(3), None], 0.5)
    other = WeightedSum.of(torch.tensor(3.0), [torch.ones(3), torch.ones(2)], 0.5)
    both = one.plus(other)
    assert both.gradients[0] is one.gradients[0]
    assert float(both.loss) == 2.0
    assert [gradient.tolist() for gradient in both.gradients] == [[1.0] * 3, [0.5] * 2]


class Weightless(Tokens):
    """Nothing counts in one of three batches."""

    def data(self):
        splits = super().data()
        nothing = (torch.full((4,), IGNORED),)
        return Splits(training=[*splits.training, *splits.training, nothing, nothing], validation=splits.validation)

    def loss(self, model, batch, point):
        (ids,) = batch
        logits = model(ids.clamp(min=0)).flatten(0, 1)
        return F.cross_entropy(logits, ids.flatten(), ignore_index=IGNORED, reduction="sum")


def test_a_batch_in_which_nothing_counts_is_an_error_that_names_the_step_and_changes_nothing():
    run = run_of(Weightless(), 2, batch_size=2)
    run.batches.order._known = 0, torch.tensor([0, 1, 4, 5, 2, 3])
    with pytest.raises(WorkloadError, match="all slices of the batch of step 2 are 0"):
        run.advance(3)
    assert run.step == 1
    assert digest_of(run) == digest_of(replaced_and_trained(1))


def replaced_and_trained(steps):
    run = run_of(Weightless(), 2, batch_size=2)
    run.batches.order._known = 0, torch.tensor([0, 1, 4, 5, 2, 3])
    run.advance(steps)
    return run


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0, -2.0], "returned -2"), ([float("nan"), 1.0], "returned nan"), ([0, torch.tensor(0)], "step 5 are 0")],
)
def test_weights_that_are_none_are_refused(weights, message):
    with pytest.raises(WorkloadError, match=message):
        shares_of(weights, 2, 4)


def test_weights_on_a_device_are_looked_at_later():
    check_totals([torch.tensor(3.0), torch.tensor(2.0)], [0, 1])
    with pytest.raises(WorkloadError, match="step 9 are 0"):
        check_totals([torch.tensor(3.0), torch.tensor(0.0)], [7, 8])
    with pytest.raises(WorkloadError, match="returned nan"):
        check_totals([torch.tensor(float("nan"))], [0])


def test_examples_that_collate_leaves_out_have_no_weight():
    class Counted(Plain):
        def num_examples(self, batch):
            return int((batch[1] == 0).sum())

        def loss(self, model, batch, point):
            chosen = batch[1] == 0
            return F.cross_entropy(model(batch[0][chosen]), batch[1][chosen], reduction="sum") / max(1, chosen.sum())

        def metrics(self, model, batch):
            return {"loss": torch.zeros(self.num_examples(batch))}

    assert apart(gradients_of(run_of(Counted(), 8))[1], one_batch(Counted(), 8)[1]) < 1e-12


def test_a_study_of_one_slice_is_what_it_was():
    run = run_of(Tiny(), 1)
    assert not isinstance(run.batch_at(0), Slices)
    assert run.draws is False
    assert replace(run.rule, slices=1) == run.rule


def test_no_more_than_a_slice_is_computed_before_and_beside_the_training():
    """Not by the first look, not by an evaluation: more would not fit."""
    sizes = []

    class Small(TinyBy):
        evaluation_batch_size = 1

        def loss(self, model, batch, point):
            sizes.append(len(batch[0]))
            return super().loss(model, batch, point)

        def metrics(self, model, batch):
            sizes.append(len(batch[0]))
            return super().metrics(model, batch)

    run = run_of(Small(), 4)
    run.note_initial()
    first_look(run.setup, [dict(run.trial.point)], Seen())
    run.advance(2)
    run.evaluate()
    assert max(sizes) == 4
