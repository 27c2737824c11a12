"""The backend that trains in this process."""

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress

from tuner.errors import DeviceLost, Interrupted, LeaseLost, Paused, StudyChanged, TrialsFailed, TunerError
from tuner.execution.backend import Job, Listener, Stop
from tuner.execution.fusing import Fusing
from tuner.execution.leases import BEATS, RetryingRecorder, heartbeat, retried
from tuner.execution.quota import keep_within
from tuner.records import Claim, State, TrialUpdate
from tuner.records.conclusions import StudyProfile
from tuner.shown import shown
from tuner.signals import SHUTDOWN
from tuner.storage.liveness import worker_id
from tuner.storage.ownership import ensure_claimed, refuse_if_lost
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.training.alone import Alone
from tuner.training.determinism import settle_determinism
from tuner.training.numerics import Profile
from tuner.training.supervisor import Supervisor

_log = logging.getLogger(__name__)
POLL_SECONDS = 0.5  # at most; at first a tenth of the time that was waited
FIRST_POLL_SECONDS = 0.02
LONG_WAIT_SECONDS = 5.0  # after which the user is told what is waited for
LONGEST_REASON = 500  # characters of it in a message
SAME_FAILURES = 3  # so many trials failing alike, with none that went well, are a bug and not bad luck


class InProcess:
    """Trains the trials of a study in this process, one after the other or as stacked models."""

    def run(self, job: Job, listener: Listener, stop: Stop) -> None:
        root = job.workload.machine.checkpoint_root
        folder_identity = retried(lambda: ensure_claimed(job.ledger, root), stop)
        check_profile(job.ledger, job.row, job.workload.machine.profile)
        _Run(job, listener, stop).train_all(folder_identity)


class _Run:
    """A study on its way in this process."""

    def __init__(self, job: Job, listener: Listener, stop: Stop) -> None:
        self.job, self.ledger, self.row = job, job.ledger, job.row
        self.machine = job.workload.machine
        self.listener = listener
        self.stop = stop
        self.failures: list[str] = []  # reasons of the last trials, where these failed
        self.finder = job.workload.finder(job.ledger, job.row.study)
        fingerprint = job.workload.fingerprint(job.row.study)
        self.setting = job.workload.setting(job.row.study, job.checkpoint_place, stop, fingerprint)

    def train_all(self, folder_identity: str) -> None:
        ledger, row, stop = self.ledger, self.row, self.stop
        supervisor = Supervisor(Alone(self.setting), RetryingRecorder(ledger, stop), self.listener.trial_stepped)
        fusing = Fusing(self.machine.fuse, ledger, row, self.setting, self.machine.worker_count or 1)
        worker, waited = worker_id(), 0.0
        held: list[Claim] = []
        with SHUTDOWN.in_hand(lambda: ledger.release(held)):
            while not stop():
                refuse_if_lost(self.machine.checkpoint_root, folder_identity)
                held[:] = claims = retried(lambda: self._claimed(worker, fusing.claim_size()), stop)
                if claims:
                    self._train(fusing, supervisor, claims)
                    retried(self._keep_within_quota, stop)
                    waited = 0.0
                elif retried(lambda: ledger.state_counts(row.study_id), stop).get(State.RUNNING):
                    waited = self._wait(waited)
                else:
                    self.job.delete_strays()
                    return
            raise Interrupted("stopped; everything up to the last step is saved, run the same command again to go on")

    def _claimed(self, worker: str, most_trials: int) -> list[Claim]:
        """The next trials, those of workers that died first."""
        seconds = self.machine.lease.seconds
        self.ledger.forget_dead_workers(self.row.study_id)
        return self.ledger.claim(self.row.study_id, worker=worker, lease_seconds=seconds, max_trials=most_trials)

    def _keep_within_quota(self) -> None:
        if self.machine.quota is not None:
            keep_within(self.machine.quota, self.finder, self.row, self.machine.checkpoint_root)

    def _wait(self, waited: float) -> float:
        """Wait a little: other workers hold the rest, which is ours should they die. Returns all seconds waited."""
        pause = min(POLL_SECONDS, FIRST_POLL_SECONDS + waited / 10)
        time.sleep(pause)
        lease = self.machine.lease
        if lease.renewed_here and waited <= LONG_WAIT_SECONDS < waited + pause:
            _log.warning(
                "waiting for trials that other workers hold; if those have died where that cannot be seen from here, "
                "their leases end in at most %g s",
                lease.seconds,
            )
        return waited + pause

    def _train(self, fusing: Fusing, supervisor: Supervisor, claims: Sequence[Claim]) -> None:
        """Train claimed trials; whatever happens, those that are not finished are released."""
        for claim in claims:
            self.listener.trial_started(claim)
        lease = self.machine.lease
        beats = heartbeat(self.ledger, claims, lease.seconds / BEATS) if lease.renewed_here else nullcontext()
        try:
            with beats:
                settle_determinism(self.setting, claims[0].trial)
                offered = retried(lambda: self.finder.offered(claims), self.stop)
                updates = fusing.train(supervisor, offered)
        except LeaseLost:
            return
        except (TunerError, OSError) as error:
            counts = isinstance(error, DeviceLost)
            with suppress(TunerError):
                self.ledger.release(claims, count_attempt=counts, reason=f"lost its device: {error}" if counts else "")
            raise error if isinstance(error, TunerError) else self._paused(error) from error
        ended = {update.trial_id for update in updates if update.state.finished}
        self.ledger.release([claim for claim in claims if claim.trial_id not in ended])
        self._report(claims, updates)

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
