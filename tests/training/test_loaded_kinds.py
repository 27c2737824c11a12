"""Loading processes make batches of every kind: collated, by length, of a stream; the bits are those without them."""

import pytest
import torch
from support.drawing import disturb
from support.fusing import meaning, trained_alone, trained_together
from support.tiny import CPU, setting_for, tiny_study
from training.test_collate import Cropping, Mixing, Noisy
from training.test_lengths import Sentences
from training.test_streams import Drawing, Streaming

from tuner.records import State
from tuner.rounds.plan import planned_trials
from tuner.training.batches import TrainingBatches
from tuner.training.containers import taken_apart
from tuner.training.setup import Data

KINDS = [Noisy, Mixing, Cropping, Sentences, Streaming, Drawing]
STEPS = 13


def bits(batch):
    return [leaf.tolist() for leaf in taken_apart(batch)[0]]


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_every_kind_are_the_same_bits_for_any_number_of_processes_and_from_every_step(kind):
    data = Data.of(kind(), CPU)
    alone = [bits(TrainingBatches(data.training, 8, 5).at(step)) for step in range(STEPS)]
    evaluated = [(bits(batch), count) for batch, count in data.validation.in_order(16)]
    for processes in (1, 3):
        data = Data.of(kind(), CPU)
        with data.loading.at_work(processes, 8, pin=False):
            for start in range(STEPS):
                batches = TrainingBatches(data.training, 8, 5)
                disturb()
                assert [bits(batches.at(step)) for step in range(start, STEPS)] == alone[start:], f"from step {start}"
                batches.rewind()
            assert [(bits(batch), count) for batch, count in data.validation.in_order(16)] == evaluated


@pytest.mark.parametrize("kind", [Noisy, Sentences, Drawing])
@pytest.mark.parametrize("augment", [False, True])
def test_trials_together_with_loading_processes_have_the_bits_of_each_alone(kind, augment, tmp_path):
    class Augmented(kind):  # type: ignore[misc, valid-type]
        def augment(self, batch, point, generator):
            if not isinstance(batch, tuple):
                return batch
            return batch[0] + 0.1 * torch.randn(batch[0].shape, generator=generator), batch[1]

    study = tiny_study(augment=augment)
    trials = planned_trials(study)
    found = []
    for train, processes in ((trained_alone, 0), (trained_together, 2)):
        workload = Augmented()
        workload.data_workers = processes
        folder = tmp_path / str(processes)
        recorder = train(setting_for(study, folder, workload), trials)
        assert {recorder.state(trial) for trial in trials} == {State.COMPLETE}
        found.append([meaning(recorder, folder, trial) for trial in trials])
    assert found[0] == found[1]
