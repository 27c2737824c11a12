"""The backend that trains in this process, one trial after the other."""

import hashlib
import re
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.design.workload import Workload
from tuner.errors import DeviceLost, Interrupted, LeaseLost, Paused, TunerError, WorkloadError
from tuner.execution.backend import Listener
from tuner.execution.heartbeat import BEATS, heartbeat
from tuner.execution.patience import PatientRecorder, patiently
from tuner.records import Claim, Price, State, TrialUpdate
from tuner.storage.claims import worker_id
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.storage.verify import delete_strays
from tuner.training.fingerprint import workload_fingerprint
from tuner.training.numerics import choose_device, prepare_numerics
from tuner.training.preflight import check_switched_off, check_workload, measured_price
from tuner.training.setting import COMMIT_SECONDS, Data, Setting
from tuner.training.trainer import Trainer

LEASE_SECONDS = 120.0
POLL_SECONDS = 0.5
SAME_FAILURES = 3  # so many trials failing alike, with none that went well, are a bug and not bad luck


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a claim holds without a heartbeat, and whether this process is the one to renew it."""

    seconds: float = LEASE_SECONDS
    renewed_here: bool = True


class InProcess:
    """Trains the trials of one workload on one device.

    device: "cpu", "cuda", "cuda:1"; None takes CUDA where there is one. threads: torch's, 1 by default, because
    small models lose time with more (and the number decides the bits).
    """

    def __init__(
        self,
        workload: Workload,
        checkpoint_root: Path,
        *,
        device: str | None = None,
        threads: int = 1,
        commit_seconds: float = COMMIT_SECONDS,
        lease: Lease = Lease(),
    ) -> None:
        self.workload = workload
        self.checkpoint_root = checkpoint_root
        self.device = choose_device(device)
        self.commit_seconds = commit_seconds
        self.lease = lease
        prepare_numerics(self.device, threads)

    @cached_property
    def data(self) -> Data:
        return Data.of(self.workload, self.device)

    def fingerprint(self) -> str:
        return workload_fingerprint(self.workload, self.data)

    def check(self, study: Study, trial: Trial) -> None:
        check_workload(self._setting(study, "check", _never), trial)

    def check_switched_off(self, study: Study, trial: Trial) -> None:
        check_switched_off(self._setting(study, "check", _never), trial)

    def price(self, study: Study, trial: Trial) -> Price:
        return measured_price(self._setting(study, "price", _never), trial)

    def run(self, ledger: Ledger, row: StudyRow, listener: Listener, stop: Callable[[], bool]) -> None:
        place = checkpoint_place(row.campaign, row.study.name)
        trainer = Trainer(self._setting(row.study, place, stop), PatientRecorder(ledger, stop), listener.trial_stepped)
        failures: list[str] = []
        worker = worker_id()
        while not stop():
            claims = patiently(lambda: self._claimed(ledger, row, worker), stop)
            for claim in claims:
                self._train(ledger, trainer, claim, listener, failures)
            if not claims:
                if not patiently(lambda: ledger.state_counts(row.study_id), stop).get(State.RUNNING):
                    delete_strays(ledger, row.study_id, self.checkpoint_root, place)
                    return
                time.sleep(POLL_SECONDS)  # another worker has the rest; should it die, its trials come to us
        raise Interrupted("stopped; everything up to the last step is saved, run the same command again to go on")

    def _claimed(self, ledger: Ledger, row: StudyRow, worker: str) -> list[Claim]:
        """The next trial, those of workers that died first."""
        ledger.forget_dead_workers(row.study_id)
        return ledger.claim(row.study_id, worker=worker, lease_seconds=self.lease.seconds)

    def _train(self, ledger: Ledger, trainer: Trainer, claim: Claim, listener: Listener, failures: list[str]) -> None:
        listener.trial_started(claim)
        try:
            with heartbeat(ledger, [claim], self.lease.seconds / BEATS) if self.lease.renewed_here else nullcontext():
                update = trainer.train(claim)
        except LeaseLost:
            return
        except (TunerError, OSError) as error:
            counts = isinstance(error, DeviceLost)
            with suppress(TunerError):
                ledger.release([claim], count_attempt=counts, reason=f"lost its device: {error}" if counts else "")
            raise error if isinstance(error, TunerError) else _paused(error, self.checkpoint_root) from error
        if update.state is State.RUNNING:
            ledger.release([claim])
        listener.trial_ended(claim, update)
        stop_at_the_same_failure(update, failures)

    def _setting(self, study: Study, place: str, stop: Callable[[], bool]) -> Setting:
        return Setting(
            study=study,
            workload=self.workload,
            data=self.data,
            device=self.device,
            checkpoint_root=self.checkpoint_root,
            checkpoint_place=place,
            commit_seconds=self.commit_seconds,
            stop=stop,
        )


def checkpoint_place(campaign: str, study_name: str) -> str:
    """The folder of a study below the checkpoint folder: never the user's text itself (RELIABILITY 56)."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", campaign).strip("-")[:60]
    if plain != campaign:
        plain = f"{plain}-{hashlib.sha256(campaign.encode()).hexdigest()[:8]}".lstrip("-")
    return f"{plain}/{study_name}"


def stop_at_the_same_failure(update: TrialUpdate, failures: list[str]) -> None:
    if update.state is not State.FAILED:
        failures.clear()
        return
    failures.append(update.reason.split(":")[0])
    if len(failures) >= SAME_FAILURES and len(set(failures)) == 1:
        raise WorkloadError(
            f"{len(failures)} trials in a row failed alike, the last with: {update.reason}; "
            "mend the workload and launch again with --retry-failed"
        )


def _paused(error: OSError, folder: Path) -> Paused:
    return Paused(
        f"{error.strerror or error} at {error.filename or folder}: no trial is to blame and nothing committed is "
        "lost; make room or mend the disk, then run the same command again"
    )


def _never() -> bool:
    return False


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
