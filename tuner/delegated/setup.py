"""What all trials of a study share that a loop trains: no data and no optimizer, which are the loop's."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tuner.delegated.first_steps import Looks
from tuner.design.own_loop import OwnLoop
from tuner.design.study import Study
from tuner.records import Numerics, Promises
from tuner.stores.places import StoredPath
from tuner.training.inherited import StartWeights
from tuner.training.numerics import numerics
from tuner.training.settings import COMMIT_SECONDS, Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSetup:
    """As `TrainingSetup`. `looks`: what first looks at the loop have shown, shared by all setups of its workload.

    study_file: where it is declared; None: typed in. threads: of each process that trains. stall_seconds: a loop that
    says nothing for so long has stalled.
    """

    study: Study
    workload: OwnLoop
    device: torch.device
    checkpoint_root: StoredPath
    checkpoint_place: str
    commit_seconds: float = COMMIT_SECONDS
    profile: Profile = "exact"
    stop: Callable[[], bool] = field(default=lambda: False)
    fingerprint: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    inherited: StartWeights | None = None
    trainers: int = 1
    looks: Looks = field(default_factory=Looks)
    study_file: Path | None = None
    threads: int = 1
    stall_seconds: float = math.inf

    @property
    def promises(self) -> Promises:
        """What may be relied on, as a first look measured it; nothing before one."""
        return self.looks.promises(self.study.augment)

    @property
    def numerics(self) -> Numerics:
        return numerics(self.device, self.profile, self.packages)
