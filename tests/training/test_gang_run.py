"""A trial that a gang trains has the bits of one that one process trains."""

import pytest
from support.gangs import run_gang
from support.tiny import MemoryRecorder, Tiny, setting_for, tiny_study
from torch import nn

from tuner.records import Claim
from tuner.rounds.plan import planned_trials
from tuner.storage.codec import trial_from, trial_text
from tuner.training.alone import Alone
from tuner.training.checkpoints import canonical_digest, read_state
from tuner.training.gang_command import lead_study
from tuner.training.gang_follower import follow
from tuner.training.gang_run import Ganged


class Plain(Tiny):
    """Without batch norms."""

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))


def trained(engine, trial):
    """Curves, and a digest of the last state."""
    recorder = MemoryRecorder()
    (update,) = engine.trainer(recorder, lambda claim, step: None).train([Claim(1, 1, trial, 1)])
    (state,) = [one for one in update.checkpoints if one.kind == "latest"]
    return recorder.measurements, canonical_digest(read_state(engine.setup.checkpoint_root, state))


@pytest.mark.parametrize("world", [2, 4])
def test_a_gang_has_the_bits_of_one_process(world, tmp_path):
    study = tiny_study(slices=4, num_trials=1)
    (trial,) = planned_trials(study)
    alone = trained(Alone(setting_for(study, tmp_path / "alone", Plain())), trial)

    def lead(gang):
        setup = setting_for(study, tmp_path / "gang", Plain())
        lead_study(gang, {}, setup.numerics)
        found = trained(Ganged(setup, gang, trial_text), trial)
        gang.tell("end", code=3)
        return found

    def others(gang):
        told = follow(gang, lambda fields: setting_for(study, tmp_path / "none", Plain()), lambda: False, trial_from)
        assert told == {"do": "end", "code": 3}

    assert run_gang(world, lead, others) == alone
