"""A workload that is trained elsewhere: by a script that asks for trials and tells what came out (`tuner.asking`).

Nothing of it is loaded, tried or trained by this program, so nothing is promised of it, and of its identity only the
declaration is known. The strategy is not told apart: its backend hands out the study that is due by an exception, and
the strategy runs again once those trials have ended. What is done costs nothing, as after an interruption.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import cast

import torch

from tuner.design.hyperparameters import Value
from tuner.design.identity import TRAINED_ELSEWHERE, Identity
from tuner.design.own_loop import OwnLoop
from tuner.design.stages import START_FROM
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.design.workload import Trainable
from tuner.errors import DeclarationError
from tuner.execution.backend import Job, Listener, Stop
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.records import Price, Promises
from tuner.training.engine import Asked, Engine, Inspection


class HandedOut(Exception):
    """A study whose trials are due now."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.row.study.name)
        self.job = job


class HandsOut:
    """The backend that trains nothing: it raises `HandedOut` with the study."""

    def run(self, job: Job, listener: Listener, stop: Stop) -> None:
        """Raises HandedOut."""
        raise HandedOut(job)


class _NothingTried:
    """The engine of what cannot be tried here: an inspection finds nothing, and costs nothing."""

    def __init__(self, promises: Promises) -> None:
        self.promises = promises

    def inspect(self, trials: Sequence[Trial], asked: Asked) -> Inspection:
        return Inspection(price=Price(0.0, 0.0, 0, 0) if asked.price else None)


class Elsewhere(LoadedWorkload):
    """A workload of which only the declaration is used. follows_schedule: what the asking script says of itself.

    Threads, kernels and memory of this process stay as they are, because its training is not ours. Raises
    DeclarationError for a workload that this program trains itself.
    """

    def __init__(self, workload: Trainable, machine: Machine, study_file: Path | None, follows_schedule: bool) -> None:
        if not isinstance(workload, OwnLoop):
            raise DeclarationError(
                f"{type(workload).__name__} is a Workload, which `tuner launch` trains; a campaign whose trials are "
                'trained elsewhere has OwnLoop(select_by=minimize("validation/loss")) in its place'
            )
        self.workload = workload
        self.machine = machine
        self.study_file = study_file
        self.device = torch.device("cpu")
        self.inspected = set()
        self.inherited = None
        self._promises = Promises(follows_schedule=follows_schedule)

    @property
    def trains_itself(self) -> bool:
        """No: nothing is measured of what is not run here."""
        return False

    @property
    def trained_by(self) -> Mapping[str, str]:
        """The script: what the workload says of itself is about a training that does not take place."""
        return {"door": "asking"}

    def measured(self, study: Study) -> None:
        """Nothing."""

    @cached_property
    def identity(self) -> Identity:
        """That it is trained elsewhere: neither code nor data are known."""
        return TRAINED_ELSEWHERE

    def fingerprint(self, study: Study | None = None) -> str:
        """The digest of that identity, and of the weights that the trials of a study start from."""
        return (self.identity if study is None else self.identity_of(study)).fingerprint

    def weaker_fingerprint(self) -> str:
        """None: tuner 0.1 knew no such studies."""
        return ""

    def identity_of(self, study: Study, points: Sequence[Mapping[str, Value]] | None = None) -> Identity:
        """The identity of all its studies, with the weights that the trials of this one start from."""
        inherited = self.inherited_by(study)
        if inherited is None:
            return self.identity
        return replace(self.identity, arguments={**self.identity.arguments, START_FROM: inherited.identity})

    def check_repeatable(self, study: Study, looked_at: Identity) -> None:
        """Nothing is called, so nothing can differ."""

    def promises(self, study: Study) -> Promises:
        """Nothing but what the script says of itself."""
        return self._promises

    def engine_for(self, study: Study) -> Engine:
        """An engine that inspects, and finds nothing."""
        return cast(Engine, _NothingTried(self._promises))
