"""The backend that trains in this process."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

from tuner.errors import (
    AttemptLost,
    DeviceLost,
    Interrupted,
    LeaseLost,
    NotFusible,
    Paused,
    StudyChanged,
    TrialsFailed,
    TunerError,
)
from tuner.execution.backend import Job, Listener, Stop
from tuner.execution.fusing import FusionPlanner, TrainingGroup
from tuner.execution.leases import BEATS, RetryingRecorder, heartbeat, retried
from tuner.execution.other_numerics import OtherNumerics
from tuner.execution.quota import keep_within
from tuner.execution.waiting import Waiting
from tuner.records import Claim, State, TrialUpdate
from tuner.records.conclusions import StudyProfile
from tuner.shown import shown
from tuner.signals import SHUTDOWN
from tuner.storage.liveness import worker_id
from tuner.storage.ownership import ensure_claimed, refuse_if_lost
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.training.settings import Profile

POLL_SECONDS = 0.5  # between two looks of a worker process for which too little time is left
_log = logging.getLogger(__name__)
LONGEST_REASON = 500  # characters of it in a message
SAME_FAILURES = 3  # so many trials failing alike, with none that went well, are a bug and not bad luck


class InProcess:
    """Trains the trials of a study in this process by the engine of its workload, one after the other or together."""

    def run(self, job: Job, listener: Listener, stop: Stop) -> None:
        root = job.workload.machine.checkpoint_root
        folder_identity = retried(lambda: ensure_claimed(job.ledger, root), stop)
        check_profile(job.ledger, job.row, job.workload.machine.profile)
        study = _Study(job, listener, stop)
        with SHUTDOWN.in_hand(study.release_all):
            study.others.check()
            while not stop() and study.has_time():
                refuse_if_lost(root, folder_identity)
                claims = study.claimed()
                if not claims:
                    if study.waiting.for_others():
                        continue
                    job.delete_strays()
                    return
                with study.training(claims) as group:
                    try:
                        group.updates = group.trainer.train(group.claims)
                    except (NotFusible, RuntimeError, MemoryError) as error:
                        if not study.planner.can_go_on(group, error):
                            raise
            if not stop() and study.is_over():
                job.delete_strays()
                return
            why = "" if stop() else ", because too little time is left to begin another trial"
            raise Interrupted(
                f"stopped{why}; everything up to the last step is saved, run the same command again to go on"
            )


class _Study:
    """The trials of a study as this process claims, trains and reports them."""

    def __init__(self, job: Job, listener: Listener, stop: Stop) -> None:
        self.job, self.ledger, self.row = job, job.ledger, job.row
        self.machine = job.workload.machine
        self.listener = listener
        self.stop = stop
        self.finder = job.workload.finder(job.ledger, job.row.study)
        fingerprint = job.workload.fingerprint(job.row.study)
        setup = job.workload.setup(job.row.study, job.checkpoint_place, stop, fingerprint)
        self.engine = job.workload.engine(setup)
        self.others = OtherNumerics(job, setup.numerics, tells=self.machine.lease.renewed_here)
        self.planner = FusionPlanner(job, self.engine, RetryingRecorder(job.ledger, stop), listener.trial_stepped)
        self.worker = worker_id()
        self.held: list[Claim] = []
        self.failures: list[str] = []  # reasons of the last trials, where these failed
        lease = self.machine.lease
        self.waiting = Waiting(job.ledger, self.row.study_id, stop, lease.seconds if lease.renewed_here else None)

    def release_all(self) -> None:
        self.ledger.release(self.held)

    def claimed(self) -> list[Claim]:
        """The next trials, those of workers that died first."""
        self.held = retried(self._claim, self.stop)
        if self.held:
            self._look_at_numerics()
        return self.held

    def _look_at_numerics(self) -> None:
        """Before a claimed trial is trained: whether the study is still trained under the Numerics here."""
        try:
            retried(self.others.check_claimed, self.stop)
            self.others.note(self.held)
        except TunerError:
            self.ledger.release(self.held)
            raise

    def _claim(self) -> list[Claim]:
        seconds, size = self.machine.lease.seconds, self.planner.claim_size()
        self.waiting.free_the_dead()
        return self.ledger.claim(
            self.row, worker=self.worker, lease_seconds=seconds, max_trials=size, numerics=self.others.numerics
        )

    def has_time(self) -> bool:
        """Whether another trial may be begun. A worker process waits for its coordinator then, which stops them all."""
        while not self.machine.may_begin:
            if self.machine.lease.renewed_here or self.stop() or self.is_over():
                return False
            time.sleep(POLL_SECONDS)
        return True

    def is_over(self) -> bool:
        """Whether all trials have ended, as far as the database answers."""
        try:
            return self.ledger.work_left(self.row.study_id).nothing
        except TunerError:
            return False

    @contextmanager
    def training(self, claims: Sequence[Claim]) -> Iterator[TrainingGroup]:
        """Hold claimed trials while the block trains the group of them that is given to it, then report.

        Whatever happens, the trials that are not finished are released.
        """
        for claim in claims:
            self.listener.trial_started(claim)
        lease = self.machine.lease
        beats = heartbeat(self.ledger, claims, lease.seconds / BEATS) if lease.renewed_here else nullcontext()
        try:
            with beats:
                self.engine.settle(claims[0].trial)
                group = self.planner.group(self._with_prefixes(claims))
                yield group
                self.planner.note_trained(group)
        except LeaseLost:
            pass
        except AttemptLost as error:
            _log.warning("trial %d is tried again: %s", claims[0].trial.number, error)
            self.ledger.release(claims, count_attempt=True, reason=str(error))
            self._report(claims, [])
        except (TunerError, OSError) as error:
            counts = isinstance(error, DeviceLost)
            with suppress(TunerError):
                self.ledger.release(claims, count_attempt=counts, reason=f"lost its device: {error}" if counts else "")
            raise error if isinstance(error, TunerError) else self._paused(error) from error
        else:
            ended = {update.trial_id for update in group.updates if update.state.finished}
            self.ledger.release([claim for claim in claims if claim.trial_id not in ended])
            self._report(claims, group.updates)
        retried(self._keep_within_quota, self.stop)
        self.waiting.over()

    def _with_prefixes(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        return retried(lambda: self.finder.offered(claims), self.stop) if self.engine.promises.prefixes else claims

    def _keep_within_quota(self) -> None:
        if self.machine.quota is not None:
            keep_within(self.machine.quota, self.finder, self.row, self.machine.checkpoint_root)

    def _report(self, claims: Sequence[Claim], updates: Sequence[TrialUpdate]) -> None:
        """Tell the listener how trials ended; raises TrialsFailed when they keep failing alike."""
        claim_of = {claim.trial_id: claim for claim in claims}
        for update in updates:
            self.listener.trial_ended(claim_of.pop(update.trial_id), update)
        for claim in claim_of.values():  # not trained this time
            self.listener.trial_ended(claim, TrialUpdate(claim.trial_id, claim.fence, 0))
        for update in updates:
            stop_at_the_same_failure(update, self.failures)

    def _paused(self, error: OSError) -> Paused:
        return Paused(
            f"{error.strerror or error} at {error.filename or self.machine.checkpoint_root}: no trial is to blame and "
            "nothing committed is lost; make room or mend the disk, then run the same command again"
        )


def check_profile(ledger: Ledger, row: StudyRow, profile: Profile) -> None:
    """Raise StudyChanged when the trials of a study would not be comparable: trained under another profile.

    The first who begins decides, in one transaction; of two who begin at once with two profiles one is refused.
    """
    counts = ledger.state_counts(row.study_id)  # before the conclusion, which others write before they begin
    begun = sum(count for state, count in counts.items() if state is not State.WAITING)
    chosen = StudyProfile("exact" if begun else profile)  # tuner 0.1 concluded nothing of an exact study
    known = ledger.conclusion(row.campaign, StudyProfile, row.study_id)
    before = (known or ledger.conclude_once(row.campaign, chosen, row.study_id)).profile
    if before != profile:
        raise StudyChanged(
            f"{row.study.name} of {row.campaign!r} was begun with --profile {before}, and trials of two profiles are "
            f"not comparable to the last bit: go on with --profile {before}, or give the campaign another name"
        )


def stop_at_the_same_failure(update: TrialUpdate, failures: list[str]) -> None:
    """Raise TrialsFailed when trials in a row fail alike; `failures` remembers the last ones."""
    if update.state is not State.FAILED:
        failures.clear()
        return
    failures.append(update.reason.split(":")[0])
    if len(failures) >= SAME_FAILURES and len(set(failures)) == 1:
        raise TrialsFailed(
            f"{len(failures)} trials in a row failed alike, the last with: {_on_one_line(update.reason)}; "
            "mend the workload, then the same command with --retry-failed"
        )


def _on_one_line(reason: str) -> str:
    """The first line of an error, cut where it is long, and the place in the code that `endings` wrote behind it."""
    first, _, others = reason.strip().partition("\n")
    place = f" ({others.rpartition(' (')[2]}" if others.endswith(")") and " (" in others else ""
    return f"{shown(first[:LONGEST_REASON])}{shown(place[:LONGEST_REASON])}"
