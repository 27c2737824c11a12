"""The engine of trials whose models are in shards, at rank 0, and what the other ranks do for it."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tuner.design.trial import Trial
from tuner.training.checkpoints import state_in, write_state_to
from tuner.training.fsdp_run import ShardFollower, ShardLead
from tuner.training.gang import Gang
from tuner.training.gang_command import Said
from tuner.training.gang_follower import Decode, Follower, Stop
from tuner.training.gang_run import Ganged, GangRun
from tuner.training.setup import TrainingSetup


class InShards(Ganged):
    """The engine of trials whose models are in shards, at rank 0."""

    def made(self, trial: Trial) -> ShardLead:
        """The trial before its first step, at rank 0."""
        return ShardLead(self, trial)


class FollowerInShards(Follower):
    """What a rank other than 0 does of them."""

    def __init__(self, setup: TrainingSetup, gang: Gang, stop: Stop, decode: Decode) -> None:
        super().__init__(setup, gang, stop, decode)
        self.commands |= {"part": self.part, "weights": self.weights}

    @property
    def in_shards(self) -> ShardFollower:
        run = self.run
        if not isinstance(run, ShardFollower):
            raise TypeError("a trial in shards was begun otherwise")
        return run

    def made(self, trial: Trial) -> GangRun:
        """The trial before its first step."""
        return ShardFollower(self.setup, trial, self.gang)

    def load(self, heard: Mapping[str, Any], said: Said) -> None:
        content = self.gang.received()
        self.in_shards.load_told(state_in(content))
        self.forget()

    def evaluate(self, heard: Mapping[str, Any], said: Said) -> None:
        file = io.BytesIO()
        write_state_to(file, self.in_shards.evaluated_here())
        said.data = file.getvalue()

    def part(self, heard: Mapping[str, Any], said: Said) -> None:
        said.data = json.dumps(asdict(self.in_shards.written_part(heard["place"], heard["fence"]))).encode()

    def weights(self, heard: Mapping[str, Any], said: Said) -> None:
        self.in_shards.gathered_weights()
