"""Which way a gang trains: every rank with the whole model, or each with its shards of it (FSDP2).

FSDP takes a second to be imported, so it is where models are in shards alone.
"""

from importlib import import_module
from typing import Any

from tuner.design.trial import Trial
from tuner.training.gang import Gang
from tuner.training.gang_follower import Decode, Follower, Stop
from tuner.training.gang_run import Encode, Ganged
from tuner.training.setup import TrainingSetup


def engine_of(setup: TrainingSetup, gang: Gang, encode: Encode) -> Ganged:
    """What trains the trials of a study by a gang, at rank 0."""
    if not setup.shard:
        return Ganged(setup, gang, encode)
    found: Ganged = _fsdp("run").InShards(setup, gang, encode)
    return found


def follower_of(setup: TrainingSetup, gang: Gang, stop: Stop, decode: Decode) -> Follower:
    """What trains the trials of a study by a gang, at the other ranks."""
    if not setup.shard:
        return Follower(setup, gang, stop, decode)
    found: Follower = _fsdp("run").FollowerInShards(setup, gang, stop, decode)
    return found


def check_shards(setup: TrainingSetup, trial: Trial) -> None:
    """Raise WorkloadError, naming it, for what of a trial cannot be in shards. Builds its model on the CPU."""
    _fsdp("units").model_and_units(setup, trial)


def _fsdp(name: str) -> Any:
    return import_module(f"tuner.training.fsdp_{name}")
