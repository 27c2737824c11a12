"""When a captured update is used, and when not: the rules, on the CPU, with a graph that is only played."""

from dataclasses import replace
from itertools import cycle

import pytest
import torch
from support.fusible import Mlp, MlpWithDropout, runs_of

from tuner import SearchSpace, log_uniform
from tuner.fused import cuda_graph
from tuner.fused.cuda_graph import WARM_UP, Captured, CapturedUpdates
from tuner.fused.group import Group
from tuner.training.checkpoints import canonical_digest
from tuner.training.trial_run import _as_kernels_read_them


class Played:
    """In place of a graph: does the update that was captured, and perhaps something wrong as well."""

    def __init__(self, work, spoil=lambda: None):
        self.work, self.spoil, self.replays = work, spoil, 0

    def replay(self):
        self.replays += 1
        self.work()
        self.spoil()


class Descent:
    """Weights [2] that lose rate * batch at each update; the losses are the weights before it."""

    def __init__(self, monkeypatch, spoil=lambda: None, seconds=(2.0, 1.0)):
        self.weights = torch.tensor([1.0, 2.0])
        self.spoil = spoil
        self.updates = CapturedUpdates()
        self.played = None
        times = iter(seconds)
        monkeypatch.setattr(cuda_graph, "_timed", lambda work, device: (work(), next(times)))
        monkeypatch.setattr(cuda_graph, "_capture", self.capture)

    def capture(self, leaves, rates, apply):
        places, given = [leaf.clone() for leaf in leaves], torch.tensor(rates)
        losses = torch.zeros(2)
        self.played = Played(lambda: losses.copy_(apply(places, given.unbind(0))), self.spoil)
        return Captured(self.played, places, given, losses)

    def apply(self, leaves, rates):
        before = self.weights.clone()
        self.weights -= torch.stack([torch.as_tensor(rate) for rate in rates]) * leaves[0]
        return before

    def update(self, batch, rates, key="one"):
        return self.updates.update(key, [torch.tensor(batch)], rates, self.apply, [self.weights])


def by_hand(steps):
    """Weights after updates with batch n and rates (1/8, 1/4): sums of eighths, exact in float32."""
    total = sum(range(steps))
    return [1.0 - total / 8, 2.0 - total / 4]


def test_a_graph_takes_over_after_the_warm_up_and_follows_batch_and_rates(monkeypatch):
    descent = Descent(monkeypatch)
    for step in range(WARM_UP + 4):
        assert descent.update(float(step), [0.125, 0.25]).tolist() == by_hand(step)
    assert descent.weights.tolist() == by_hand(WARM_UP + 4)
    assert descent.updates.in_use
    assert descent.played.replays == 4  # one was for comparison, of the update that was made without it


def test_another_key_is_another_graph_and_all_can_be_forgotten(monkeypatch):
    descent = Descent(monkeypatch, seconds=(2.0, 1.0, 2.0, 1.0))
    for key in ("one", "two"):
        for _ in range(WARM_UP + 2):
            descent.update(1.0, [0.125, 0.25], key)
    first = descent.played
    descent.updates.forget()
    assert not descent.updates.in_use
    descent.update(1.0, [0.125, 0.25])
    assert descent.played is first


def break_weights(descent):
    descent.weights += 1.0


@pytest.mark.parametrize("kind", ["other bits", "slower", "refused by CUDA"])
def test_a_graph_that_is_wrong_slow_or_impossible_changes_nothing(kind, monkeypatch):
    descent = Descent(monkeypatch, seconds=(1.0, 3.0) if kind == "slower" else (2.0, 1.0))
    if kind == "other bits":
        descent.spoil = lambda: break_weights(descent)
    if kind == "refused by CUDA":

        def fail(*arguments):
            descent.weights += 5.0
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

        monkeypatch.setattr(cuda_graph, "_capture", fail)
    for step in range(WARM_UP + 4):
        assert descent.update(float(step), [0.125, 0.25]).tolist() == by_hand(step)
    assert descent.weights.tolist() == by_hand(WARM_UP + 4)
    assert not descent.updates.in_use
    told = {"other bits": "bits are not", "slower": "not faster (3000.00 ms", "refused by CUDA": "not permitted"}
    assert told[kind] in descent.updates.refused


@pytest.fixture
def played(monkeypatch):
    """Graphs that are only played, for groups on the CPU that take it for a GPU; `spoil` may be added to one."""
    spoils = []

    def capture(leaves, rates, apply):
        places, given, losses = [leaf.clone() for leaf in leaves], torch.tensor(rates), torch.zeros(len(rates))
        work = Played(lambda: losses.copy_(apply(places, given.unbind(0))), lambda: [spoil() for spoil in spoils])
        return Captured(work, places, given, losses)

    times = cycle((2.0, 1.0))
    monkeypatch.setattr(cuda_graph, "_timed", lambda work, device: (work(), next(times)))
    monkeypatch.setattr(cuda_graph, "_capture", capture)
    return spoils


def prepared(workload, optimizer="adamw", slices=1, **hyperparameters):
    space = SearchSpace(learning_rate=log_uniform(1e-4, 1e-1), dropout=0.1, label_smoothing=0.1, **hyperparameters)
    runs = runs_of(workload(), 3, space, optimizer=optimizer, slices=slices)
    for run in runs:
        run.rule = replace(run.rule, rates=_as_kernels_read_them(run.rates))
    return runs


def on_a_gpu(runs):
    group = Group(runs)
    group.setup = replace(group.setup, device=torch.device("cuda"))
    return group


class Weighed(MlpWithDropout):
    """Slices of other weights at each step: a graph that froze them would be seen."""

    def weight(self, batch):
        return (batch[1] < 4).sum()


class Drawn(Weighed):
    """Each trial has its own batches, and so its own weights."""

    def augment(self, batch, point, generator):
        return batch[0], torch.randint(0, 10, batch[1].shape, generator=generator)


CASES = [
    (Mlp, "adamw", {"clip_norm": 0.5}),
    (MlpWithDropout, "adam", {}),
    (Mlp, "sgd", {"momentum": 0.9}),
    (MlpWithDropout, "adamw", {"slices": 4}),
    (Weighed, "adamw", {"slices": 8, "clip_norm": 0.5}),
    (Drawn, "sgd", {"slices": 2}),
]


@pytest.mark.parametrize(("workload", "optimizer", "hyperparameters"), CASES)
def test_a_group_by_graphs_gives_each_trial_its_own_batches_masks_and_rates(
    workload, optimizer, hyperparameters, played
):
    runs, alone = (prepared(workload, optimizer, **hyperparameters) for _ in range(2))
    group = on_a_gpu(runs)
    group.advance(WARM_UP + 4)
    assert group.graphs.in_use, group.graphs.refused
    group.retire(1)
    group.advance(WARM_UP + 4)
    assert group.graphs.in_use, group.graphs.refused
    for run in alone:
        run.advance(2 * WARM_UP + 8)
    for trial in (0, 2):
        assert canonical_digest(runs[trial].state()) == canonical_digest(alone[trial].state())


def test_a_graph_with_other_gradients_is_not_used_though_its_weights_are_the_same(played):
    group = on_a_gpu(prepared(Mlp))
    played.append(lambda: group.gradients[0].add_(1.0))
    group.advance(WARM_UP + 2)  # the first update, which begins the optimizers' states, is of another kind
    assert "bits are not those" in group.graphs.refused
    (alone, *_) = prepared(Mlp)
    alone.advance(WARM_UP + 2)
    assert group.runs[0].read_gradient_norm() == alone.read_gradient_norm()


def test_a_graph_with_other_norms_is_not_used_and_the_norms_are_those_of_each_alone(played):
    runs, alone = (prepared(Mlp, clip_norm=0.5) for _ in range(2))
    group = on_a_gpu(runs)
    played.append(lambda: group.norms.add_(1.0))
    group.advance(WARM_UP + 3)
    assert "bits are not those" in group.graphs.refused
    for run, other in zip(runs, alone, strict=True):
        other.advance(WARM_UP + 3)
        assert canonical_digest(run.state()) == canonical_digest(other.state())


def test_graphs_of_recordings_that_were_changed_are_forgotten(played):
    group = on_a_gpu(prepared(Mlp))
    group.advance(WARM_UP + 2)
    assert group.graphs.in_use
    group.transform(lambda recording: recording)
    assert not group.graphs.in_use
