"""Trials in shards, trained by gangs of forked processes."""

from torch import nn

from support.gangs import run_gang
from support.tiny import MemoryRecorder, Tiny, setting_for, tiny_study
from tuner.records import Claim
from tuner.rounds.plan import planned_trials
from tuner.storage.codec import trial_from, trial_text
from tuner.training.checkpoints import read_state
from tuner.training.fsdp_engine import engine_of, follower_of
from tuner.training.fsdp_state import whole_state_of
from tuner.training.gang_command import lead_study
from tuner.training.gang_follower import follow
from tuner.training.gang_run import GangSupervisor

CLAIM = 1  # the trial's id


class Normed(Tiny):
    """Rows that two ranks do not share evenly (13), dropout, augmentation, weights of slices, a layer norm."""

    def model(self, point):
        return nn.Sequential(nn.Linear(6, 13), nn.LayerNorm(13), nn.ReLU(), nn.Dropout(0.3), nn.Linear(13, 2))

    def weight(self, batch):
        return (batch[1] == 1).sum() + 0.5


def sharded_study(**changes):
    return tiny_study(**{"slices": 4, "num_trials": 1, **changes})


def the_trial(study):
    return planned_trials(study)[0]


def train_sharded(study, folder, *, world=2, claims=None, stop=None, shard="fsdp2", workload=Normed, during=None):
    """Train one trial by a gang; of each claim in turn the last update and what was recorded.

    claims: of the recorder, the next claim; None: one from the beginning. stop: made for each claim.
    """

    def made_setup(rank):
        stopping = stop() if stop is not None and rank == 0 else (lambda: False)
        own = workload(rank) if during else workload()
        return setting_for(study, folder, own, shard=shard, world=world, stop=stopping)

    def lead(gang):
        setup = made_setup(0)
        lead_study(gang, {}, setup.numerics)
        recorder = MemoryRecorder()
        engine = engine_of(setup, gang, trial_text)
        updates = []
        for claim in claims or [lambda recorder: Claim(CLAIM, 1, the_trial(study), 1)]:
            updates += GangSupervisor(engine, recorder, lambda claim, step: None).train([claim(recorder)])
        gang.tell("end")
        return updates, recorder.measurements

    def others(gang):
        setup = made_setup(gang.rank)
        follow(gang, lambda fields: setup, lambda: False, trial_from, follower_of=follower_of)

    return run_gang(world, lead, others)


def last_state(update, folder):
    """The whole of the last state of a trial."""
    (latest,) = [one for one in update.checkpoints if one.kind == "latest" and one.step == update.step]
    return whole_state_of(folder, read_state(folder, latest))
