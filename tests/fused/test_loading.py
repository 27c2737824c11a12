"""Trials that train together take their batches from the same loading processes, with the bits of each alone."""

from dataclasses import replace

import pytest
import torch
from support.drawing import Drawing, OfDrawing
from support.fusing import TrialsRecorder, meaning, trained_alone, trained_together
from support.tiny import StopAt, setting_for, tiny_study

from tuner import Workload
from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.loading_processes import LoadingProcesses

STUDY = tiny_study(num_trials=4)
TRIALS = planned_trials(STUDY)


class Augmented(OfDrawing):
    """Draws from three generators in its dataset, and changes its batches."""

    data_workers = 2

    def __init__(self, processes=2):
        super().__init__(Drawing)
        self.data_workers = processes

    def augment(self, batch, point, generator):
        x, y = super().augment(batch, point, generator)
        batch[0].zero_()  # in place: no mate may see it
        return x, y


class Shared(Augmented):
    """Without augmentation: a batch is the same for all trials."""

    augment = Workload.augment


def with_seeds(*seeds):
    return [replace(trial, data_seed=seed) for trial, seed in zip(TRIALS, seeds, strict=True)]


@pytest.mark.parametrize("workload", [Augmented, Shared])
@pytest.mark.parametrize("seeds", [(5, 5, 5, 5), (5, 6, 5, 7)])
def test_a_group_that_loads_ahead_has_the_bits_of_each_trial_alone_without(workload, seeds, tmp_path):
    trials, folders = with_seeds(*seeds), (tmp_path / "together", tmp_path / "alone")
    setup = setting_for(STUDY, folders[0], workload())
    together = trained_together(setup, trials)
    alone = trained_alone(setting_for(STUDY, folders[1], workload(0)), trials)
    assert {together.state(trial) for trial in trials} == {State.COMPLETE}
    for trial in trials:
        assert meaning(together, folders[0], trial) == meaning(alone, folders[1], trial), f"trial {trial.number}"
    assert setup.data.loading.pids == []


@pytest.mark.parametrize("workload", [Augmented, Shared])
def test_a_group_whose_trials_go_on_from_different_steps_has_the_same_bits(workload, tmp_path):
    trials, folders = with_seeds(5, 5, 5, 5), (tmp_path / "together", tmp_path / "alone")
    together = TrialsRecorder()
    for trial, question in zip(trials, (3, 9, 14, 20), strict=True):
        trained_alone(setting_for(STUDY, folders[0], workload(), stop=StopAt(question)), [trial], together)
    trained_together(setting_for(STUDY, folders[0], workload(3)), trials, together)
    alone = trained_alone(setting_for(STUDY, folders[1], workload(0)), trials)
    for trial in trials:
        assert meaning(together, folders[0], trial) == meaning(alone, folders[1], trial), f"trial {trial.number}"


def test_one_fetch_serves_all_trials_of_one_order(tmp_path, monkeypatch):
    taken = []
    before = LoadingProcesses.taken
    monkeypatch.setattr(LoadingProcesses, "taken", lambda self, source: taken.append(source) or before(self, source))
    for workload in (Shared, Augmented):
        taken.clear()
        trained_together(setting_for(STUDY, tmp_path / workload.__name__, workload()), with_seeds(5, 5, 5, 5))
        training = max({id(source): taken.count(source) for source in taken}.values())
        assert training <= STUDY.budget.max_train_steps, "not once for each trial"
        assert len(taken) < 3 * STUDY.budget.max_train_steps + 4 * 5 * 7


def test_nothing_is_loaded_for_a_place_that_the_trials_have_left():
    processes = LoadingProcesses([lambda step: torch.tensor(step)], 2)
    try:
        first = processes.ahead((0, (step,)) for step in range(100))
        next(first)
        first.close()
        second = processes.ahead((0, (step,)) for step in range(200, 300))
        assert [int(next(second)) for _ in range(20)] == list(range(200, 220))
        assert first._source.held <= 1
    finally:
        processes.close()
