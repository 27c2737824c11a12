"""Rank 0 of a gang in its worker process: it joins the others, and has them load each study that it trains."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from tuner.errors import GangLost, InputError
from tuner.execution.backend import Job
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.execution.remote_job import StudyTask
from tuner.signals import SHUTDOWN
from tuner.storage.codec import study_text, trial_text
from tuner.training.alone import Alone
from tuner.training.engine import Engine
from tuner.training.gang import Gang, Spot, spot_from
from tuner.training.gang_command import lead_study
from tuner.training.setup import TrainingSetup
from tuner.training.sharding import engine_of

JOIN_SECONDS = 120.0  # at least: to import torch and to read the data on a busy machine
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
Stop = Callable[[], bool]


class GangLead:
    """The gang as rank 0 has it."""

    def __init__(self, gang: Gang, loaded: LoadedWorkload) -> None:
        self.gang = gang
        loaded.engine = self._engine

    def _engine(self, setup: Any) -> Engine:
        return engine_of(cast(TrainingSetup, setup), self.gang, trial_text)

    def stop(self, own: Stop) -> Stop:
        """Whether this process was told to end, or another rank was, which tells this one, too."""
        asked = self.gang.stops(own)

        def stop() -> bool:
            if not asked():
                return False
            if not SHUTDOWN.is_set():
                SHUTDOWN.tell()
            return True

        return stop

    def begin(self, job: Job, task: StudyTask) -> None:
        """Have the others load a study. Raises StudyChanged where one has another, and what it meets in loading it."""
        fingerprint = job.workload.fingerprint(job.row.study)
        setup = cast(TrainingSetup, job.workload.setup(job.row.study, job.checkpoint_place, fingerprint=fingerprint))
        told = {"task": task.as_json(), "study": study_text(job.row.study), "fingerprint": fingerprint}
        lead_study(self.gang, told | {"place": job.checkpoint_place}, setup.numerics)


@contextmanager
def leading(spot: dict[str, Any] | None, loaded: LoadedWorkload) -> Iterator[GangLead | None]:
    """The gang that this process leads until the block ends, or None where it trains alone.

    Raises GangLost where the others do not come, or are gone.
    """
    if spot is None:
        yield None
        return
    gang = joined(spot_from(spot), loaded)
    try:
        yield GangLead(gang, loaded)
    finally:
        with suppress(GangLost):
            gang.tell("end")
        gang.close()


def joined(spot: Spot, loaded: LoadedWorkload) -> Gang:
    """Meet the other ranks, once the workload is loaded. Raises InputError for an engine that no gang has, GangLost."""
    if loaded.engine is not Alone:
        raise InputError(
            f"--gang {spot.world} trains in torch as one process does, and this workload has an engine of its own: "
            "leave it out; --workers trains several trials at a time"
        )
    if spot.host.startswith("127.") or spot.host in ("localhost", "::1"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _LOOPBACK)  # nothing of it can be reached from other machines
    hook = sys.excepthook
    try:
        return Gang.joined(spot, loaded.device, waits_for(loaded.machine))
    finally:
        sys.excepthook = hook  # torch sets one that shows tracebacks in another way


def waits_for(machine: Machine) -> float:
    """Seconds that a rank waits for the others: in an exchange so long that its coordinator has ended all before."""
    return max(machine.stall_seconds, JOIN_SECONDS)
