"""Trials in shards, trained by gangs of forked processes."""

from torch import nn

from support.gangs import run_gang
from support.tiny import MemoryRecorder, StopAt, Tiny, setting_for, tiny_study
from tuner.records import Claim
from tuner.rounds.plan import planned_trials
from tuner.storage.codec import trial_from, trial_text
from tuner.training.checkpoints import read_state
from tuner.training.fsdp_state import whole_state_of
from tuner.training.gang_command import lead_study
from tuner.training.gang_follower import follow
from tuner.training.gang_run import GangSupervisor
from tuner.training.sharding import engine_of, follower_of

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


def train_sharded(study, folder, *, world=2, claim=None, stop_after=0, shard="fsdp2", workload=Normed, act=None):
    """Train one trial by a gang of processes; its last update, and the curve that was recorded.

    stop_after: rank 0 is told to stop at so many-th question. act(setup, gang): what a rank does before.
    """

    def made_setup(gang):
        stop = gang.stops(StopAt(stop_after) if stop_after and gang.rank == 0 else (lambda: False))
        return setting_for(study, folder, workload(), shard=shard, world=world, stop=stop)

    def lead(gang):
        setup = made_setup(gang)
        if act is not None:
            act(setup, gang)
        lead_study(gang, {}, setup.numerics)
        recorder = MemoryRecorder()
        supervisor = GangSupervisor(engine_of(setup, gang, trial_text), recorder, lambda claim, step: None)
        try:
            (update,) = supervisor.train([claim or Claim(CLAIM, 1, the_trial(study), 1)])
        finally:
            gang.tell("end")
        return update, recorder.measurements

    def others(gang):
        setup = made_setup(gang)
        if act is not None:
            act(setup, gang)
        follow(gang, lambda fields: setup, lambda: False, trial_from, follower_of=follower_of)

    return run_gang(world, lead, others)


def going_on(update, study):
    """The claim with which another process goes on from an update."""
    return Claim(CLAIM, update.fence + 1, the_trial(study), 1, update.checkpoints, farthest=update.step)


def last_state(update, folder):
    """The whole of the last state of a trial."""
    (latest,) = [one for one in update.checkpoints if one.kind == "latest" and one.step == update.step]
    return whole_state_of(folder, read_state(folder, latest))
