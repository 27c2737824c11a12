"""Datasets that draw random numbers: the same bits however a trial was interrupted, and whatever was drawn before."""

import itertools
import random
from typing import Any

import numpy as np
import pytest
import torch
from support.drawing import DRAWS, MAKES, Batched, Drawing, OfDrawing, disturb, none
from support.fusing import meaning, trained_alone, trained_together
from support.tiny import CPU, MemoryRecorder, StopAt, Tiny, setting_for, tiny_study, train_alone
from torch import nn

from tuner import Splits
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training import fetching
from tuner.training.batches import Split, TrainingBatches
from tuner.training.data_checks import random_example
from tuner.training.evaluation import evaluate
from tuner.training.host_generators import HOST
from tuner.training.models import build_model
from tuner.training.randomness import callers_generators_restored, epoch_seed, example_seeds, examples_seed
from tuner.training.trial_run import TrialRun

STUDY = tiny_study()
TRIAL = planned_trials(STUDY)[0]
TENSORS = Tiny().data().training


def states():
    return torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state(legacy=False)["state"])


def bits(batch):
    return [part.tolist() for part in batch]


def results(run, steps):
    """Losses and metrics of a trial, some steps further."""
    run.advance(steps)
    return [float(loss) for loss in run.losses], run.evaluate()


@pytest.mark.parametrize("kind", MAKES)
def test_a_trial_resumed_in_the_midst_of_an_epoch_has_the_bits_of_one_that_ran_through(kind, tmp_path):
    workload = OfDrawing(MAKES[kind])
    whole = results(TrialRun(setting_for(STUDY, tmp_path, workload), TRIAL), 24)
    for stop in (1, 9, 13):
        first = TrialRun(setting_for(STUDY, tmp_path, workload), TRIAL)
        first.advance(stop)
        disturb()
        second = TrialRun(setting_for(STUDY, tmp_path, workload), TRIAL)
        second.load(first.state())
        disturb(3)
        assert results(second, 24) == whole, f"stopped at step {stop}"


@pytest.mark.parametrize("kind", MAKES)
def test_whether_a_dataset_was_known_to_draw_makes_no_difference(kind):
    fresh, known = (Split("training", MAKES[kind](TENSORS), CPU) for _ in range(2))
    known._fetcher.draws = True
    batches = [TrainingBatches(split, 8, 5) for split in (fresh, known)]
    for step in (0, 3, 4, 17):
        disturb(step)
        assert bits(batches[0].at(step)) == bits(batches[1].at(step))
    assert bits(fresh.first(50)) == bits(known.first(50))
    assert fresh._fetcher.draws, "it was seen to draw"


@pytest.mark.parametrize("draw", ["torch", "python", "numpy"])
def test_no_two_examples_and_no_two_epochs_share_what_they_draw(draw):
    one = {"torch": lambda: torch.rand((), dtype=torch.float64), "python": random.random, "numpy": np.random.rand}
    data = Drawing((torch.zeros(40, dtype=torch.float64), torch.zeros(40)), one[draw])
    split = Split("training", data, CPU)
    batches = TrainingBatches(split, 40, 5)
    seen = [batches.at(epoch)[0].tolist() for epoch in range(20)]
    assert len(set(itertools.chain(*seen))) == 20 * 40
    assert bits(TrainingBatches(split, 40, 6).at(0)) != bits(batches.at(0))


def test_seeds_of_examples_are_never_the_same_nor_those_of_torch_and_numpy():
    base = examples_seed(3)
    seeds = [example_seeds(epoch_seed(base, epoch), index) for epoch in range(100) for index in range(300)]
    words = [of_torch for of_torch, _, _ in seeds] + [of_numpy for _, _, of_numpy in seeds]
    assert len(set(words)) == 2 * len(seeds)
    assert len({of_python for _, of_python, _ in seeds}) == len(seeds)
    far = [epoch_seed(base, epoch) & 0xFFFFFFFF for epoch in range(300)]
    gaps = np.diff(np.sort(np.array(far, dtype=np.uint64)))
    assert gaps.min() > 4_000_000, "so many examples, and no two epochs share a seed"


def test_a_dataset_that_draws_nothing_keeps_its_bits_and_is_fetched_once_and_whole():
    data = Batched(TENSORS, none)
    batches = TrainingBatches(Split("training", data, CPU), 8, 5)
    plain = TrainingBatches(Split("training", TENSORS, CPU), 8, 5)
    for step in range(13):
        assert bits(batches.at(step)) == bits(plain.at(step))
    assert data.asked == [8] * 13


def test_a_dataset_that_draws_is_fetched_example_by_example_once_that_is_known():
    data = Batched(TENSORS)
    split = Split("training", data, CPU)
    split.first(4)
    split.first(3)
    assert data.asked == [4, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("kind", ["all", "reseeding", "rarely"])
def test_the_generators_are_left_as_they_were(kind):
    split = Split("training", MAKES[kind](TENSORS), CPU)
    for _ in range(3):
        disturb(3)
        np.random.normal()  # leaves half a pair behind
        before = states()
        split.first(20)
        assert states() == before
    np.random.seed(0)
    first = np.random.normal(size=3)
    np.random.seed(0)
    again = [np.random.normal(), (split.first(5), np.random.normal())[1], np.random.normal()]
    assert again == first.tolist()


def test_an_example_that_fails_leaves_the_generators_as_they_were():
    def fails():
        np.random.rand()
        raise ValueError("no such file")

    before = states()
    with pytest.raises(ValueError, match="no such file"):
        Split("training", Drawing(TENSORS, fails), CPU).first(2)
    assert states() == before


def test_an_example_is_the_same_at_every_evaluation_and_alone_or_in_a_batch():
    split = Split("validation", Drawing(TENSORS), CPU)
    whole = split.take(torch.arange(50))[0]
    disturb()
    parts = torch.cat([batch[0] for batch, _ in split.in_order(16)])
    assert torch.equal(whole, parts)
    assert torch.equal(split.take(torch.tensor([31]))[0][0], whole[31])


class DrawsInLoss(Tiny):
    """The loss draws from Python's and NumPy's generator, in some steps only."""

    def loss(self, model, batch, point):
        loss = super().loss(model, batch, point)
        if float(batch[1].float().mean()) > 0.5:
            loss = loss * (1.0 + 0.2 * random.random() + 0.2 * np.random.rand())
        return loss


class DrawsInAugmentation(Tiny):
    def augment(self, batch, point, generator):
        noise = torch.from_numpy(np.random.normal(size=batch[0].shape)).float() + random.random()
        return batch[0] + 0.1 * noise + 0.1 * torch.randn(batch[0].shape), batch[1]


class DrawsInMetrics(Tiny):
    def metrics(self, model, batch):
        found = super().metrics(model, batch)
        return found | {"loss": found["loss"] * random.random() * np.random.rand() * torch.rand(())}


class DrawsInModel(Tiny):
    def model(self, point):
        model = super().model(point)
        with torch.no_grad():
            model[0].weight.add_(torch.from_numpy(np.random.normal(size=(12, 6))).float() * random.random())
        return model


@pytest.mark.parametrize("kind", [DrawsInLoss, DrawsInAugmentation, DrawsInMetrics, DrawsInModel])
def test_whoever_else_draws_is_seeded_too(kind, tmp_path):
    def trained(folder, stops):
        recorder = MemoryRecorder()
        for stop in [*stops, None]:
            disturb()
            changes = {} if stop is None else {"stop": StopAt(stop + 1)}
            train_alone(setting_for(STUDY, folder, kind(), **changes), recorder, recorder.claim(TRIAL))
        assert recorder.updates[-1].state is State.COMPLETE
        return recorder.measurements

    whole = trained(tmp_path / "whole", [])
    for stop in (1, 6, 13):
        assert trained(tmp_path / f"{stop}", [stop, 2]) == whole


def test_a_loss_draws_other_numbers_in_each_step(tmp_path):
    seen = []

    class Kept(Tiny):
        def loss(self, model, batch, point):
            seen.append((random.random(), np.random.rand()))
            return super().loss(model, batch, point)

    TrialRun(setting_for(STUDY, tmp_path, Kept()), TRIAL).advance(24)
    assert len(set(itertools.chain(*seen))) == 48


def test_metrics_draw_the_same_whether_their_dataset_was_known_to_draw(tmp_path):
    setting = setting_for(STUDY, tmp_path, DrawsInMetrics())
    model = build_model(setting, TRIAL)
    found = []
    for known in (False, True):
        split = Split("validation", Drawing(TENSORS, rarely=True), CPU)
        split._fetcher.draws = known
        HOST.seed(3)
        torch.manual_seed(3)
        found.append(evaluate(setting.workload, model, split, batch_size=4))
    assert found[0] == found[1]


def test_a_training_leaves_the_callers_generators_alone(tmp_path):
    disturb()
    before = states()
    with callers_generators_restored(CPU):
        run = TrialRun(setting_for(STUDY, tmp_path, OfDrawing()), TRIAL)
        run.advance(5)
        disturb()
    assert states() == before
    recorder = MemoryRecorder()
    train_alone(setting_for(STUDY, tmp_path, DrawsInLoss()), recorder, recorder.claim(TRIAL))
    assert states() == before


@pytest.mark.parametrize("augmentation", [Tiny, DrawsInAugmentation])
@pytest.mark.parametrize("kind", ["all", "rarely", "subset"])
def test_trials_together_have_the_bits_of_each_alone(kind, augmentation: Any, tmp_path):
    class Workload(augmentation):
        evaluation_batch_size = 40

        def data(self):
            splits = super().data()
            return Splits(training=MAKES[kind](splits.training), validation=MAKES[kind](splits.validation))

        def model(self, point):
            return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2))

    trials = planned_trials(STUDY)
    setting = setting_for(STUDY, tmp_path / "alone", Workload())
    alone = trained_alone(setting, trials)
    disturb()
    together = trained_together(setting_for(STUDY, tmp_path / "together", Workload()), trials)
    for trial in trials:
        assert alone.state(trial) is State.COMPLETE
        assert meaning(together, tmp_path / "together", trial) == meaning(alone, tmp_path / "alone", trial)


def test_a_random_example_is_found_and_others_are_not():
    assert random_example(Split("training", TENSORS, CPU)) is None
    assert random_example(Split("training", Drawing(TENSORS, none), CPU)) is None
    for draw in DRAWS.values():
        assert random_example(Split("training", Drawing(TENSORS, draw), CPU)) is not None
    drawn_in_vain = Drawing(TENSORS, lambda: 0.0 * random.random())
    assert random_example(Split("training", drawn_in_vain, CPU)) is None


def test_torchs_generator_is_watched_by_its_state_where_its_memory_is_not_known(monkeypatch):
    assert fetching._position() is not None, "this version of torch is known"
    monkeypatch.setattr(fetching, "_position", lambda: None)
    for kind in ("torch", "seeding last"):
        fresh, known = (Split("training", MAKES[kind](TENSORS), CPU) for _ in range(2))
        known._fetcher.draws = True
        assert bits(fresh.first(5)) == bits(known.first(5))
    quiet = Split("training", Drawing(TENSORS, none), CPU)
    quiet.first(5)
    assert not quiet._fetcher.draws
