"""The backend that trains in this process, one trial after the other."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from tuner.design.hyperparameters import Value
from tuner.design.identity import Identity
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.design.workload import Workload
from tuner.errors import DeviceLost, Infeasible, Interrupted, LeaseLost, Paused, StudyChanged, TrialsFailed, TunerError
from tuner.execution.backend import Listener
from tuner.execution.fusing import Fuse, Fusing
from tuner.execution.heartbeat import BEATS, heartbeat
from tuner.execution.identifying import Identifier
from tuner.execution.patience import PatientRecorder, patiently
from tuner.execution.prefixes import Finder, saved_steps
from tuner.execution.processes import num_processes, work_ahead
from tuner.execution.quota import Quota, keep_within
from tuner.fused.fusion import look_at
from tuner.records import Claim, Price, State, TrialUpdate
from tuner.shown import shown
from tuner.signals import ENDING
from tuner.storage.identity import checkpoint_place
from tuner.storage.living import worker_id
from tuner.storage.ownership import ensure_claimed, refuse_if_lost
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.storage.verify import clear_strays
from tuner.training.alone import Alone
from tuner.training.determinism import settle_determinism
from tuner.training.endings import is_out_of_memory
from tuner.training.engine import Fusion
from tuner.training.finite import check_validation, warn_of_training
from tuner.training.memory import keep_freed_memory
from tuner.training.numerics import Profile, choose_device, numerics, prepare_numerics
from tuner.training.preflight import check_switched_off, check_workload, measured_price, warn_of_ignored
from tuner.training.random_examples import random_example
from tuner.training.room import check_room
from tuner.training.setup import COMMIT_SECONDS, Data, TrainingSetup
from tuner.training.supervisor import Supervisor
from tuner.training.unread import unread
from tuner.training.workload_parts import workload_parts

_log = logging.getLogger(__name__)
LEASE_SECONDS = 120.0
POLL_SECONDS = 0.5  # at most; at first a tenth of the time that was waited
FIRST_POLL_SECONDS = 0.02
LONG_WAIT_SECONDS = 5.0  # after which it is said what is waited for
LONGEST_REASON = 500  # characters of it in a message
SAME_FAILURES = 3  # so many trials failing alike, with none that went well, are a bug and not bad luck


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a claim holds without a heartbeat, and whether this process is the one to renew it."""

    seconds: float = LEASE_SECONDS
    renewed_here: bool = True


class InProcess:
    """Trains the trials of one workload on one device.

    device: "cpu", "cuda", "cuda:1"; None takes CUDA where there is one. threads: torch's, 1 by default, because
    small models lose time with more (and the number decides the bits). fuse: how many trials train as one stacked
    model; "auto" finds out what is fastest, and "off" trains them one by one. The bits are the same. crew: how many
    processes like this one share a study. allow_inexact: trials may start from prefixes that were trained under other
    Numerics; they are marked. quota: how much room the checkpoints of a study may take; None: all they need.
    study_file: where the workload is declared; by default the file of its class. Raises WorkloadError for a workload
    that was made with what cannot be told apart, before any of its methods runs.
    """

    def __init__(  # noqa: PLR0913 - keywords with defaults
        self,
        workload: Workload,
        checkpoint_root: Path,
        *,
        device: str | None = None,
        threads: int = 1,
        commit_seconds: float = COMMIT_SECONDS,
        lease: Lease = Lease(),
        fuse: Fuse = "off",
        profile: Profile = "exact",
        crew: int = 1,
        allow_inexact: bool = False,
        quota: Quota | None = None,
        study_file: Path | None = None,
    ) -> None:
        self.workload = workload
        self.identifier = Identifier(workload, study_file)
        self.checkpoint_root = checkpoint_root
        self.device = choose_device(device)
        self.commit_seconds = commit_seconds
        self.lease = lease
        self.fuse = fuse
        self.profile: Profile = profile
        self.crew = crew
        self.allow_inexact = allow_inexact
        self.quota = quota
        self._asked: set[str] = set()  # studies whose hyperparameters were looked after
        self._checked: set[tuple[object, ...]] = set()  # studies whose first update was tried
        self._looked: set[str] = set()  # metrics that were finite for each validation example
        self._said = False  # what there is to say about the workload
        prepare_numerics(self.device, threads)
        keep_freed_memory()

    @cached_property
    def data(self) -> Data:
        return self.identifier.data(self.device)

    @cached_property
    def known(self) -> Identity:
        """What the workload is, as far as all studies of a campaign share it."""
        self._load()
        return self.identifier.whole

    def workload_parts(self) -> Mapping[str, str]:
        return self._parts

    @cached_property
    def _parts(self) -> Mapping[str, str]:
        return workload_parts(self.workload, self.known)

    def fingerprint(self) -> str:
        return self.known.fingerprint

    def weaker_fingerprint(self) -> str:
        self._load()
        return self.identifier.weaker_fingerprint()

    def identity(self, study: Study, points: Sequence[Mapping[str, Value]] | None = None) -> Identity:
        return self.identifier.of_study(self._setting(study, "look", _never), points)

    def check_repeatable(self, study: Study, looked_at: Identity) -> None:
        self.identifier.check_repeatable(self._setting(study, "look", _never), looked_at)

    def _fingerprint_of(self, study: Study) -> str:
        self._load()
        return self.identifier.fingerprint(study.name)

    def _load(self) -> None:
        """Have the data there, without which nothing is known."""
        _ = self.data

    def check(self, study: Study, trial: Trial) -> None:
        """Once a study and optimizer in this process: all of its trials train alike."""
        settled = study.name, study.budget.max_train_steps, trial.point.get("optimizer", study.optimizer)
        if settled in self._checked:
            return
        setting = self._setting(study, "check", _never)
        settle_determinism(setting, trial)
        check_workload(setting, trial)
        self._checked.add(settled)
        self._say_first(setting, trial)
        if study.kind == "round" and study.name not in self._asked:  # a sweep switches off what it does not need
            self._asked.add(study.name)
            for name in unread(self._setting(study, "check", _never), trial):
                _log.warning(
                    "nothing reads the hyperparameter %s of %s: it changes nothing; misspelt?", name, study.name
                )

    def _say_first(self, setting: TrainingSetup, trial: Trial) -> None:
        """What there is to say about a workload once, before anything is trained."""
        if not self._said:
            self._said = True
            warn_of_training(setting, trial)
            warn_of_ignored(setting, trial)
            if random_example(self.data.validation) is not None:
                _log.warning(
                    "the validation split draws random numbers: each of its examples is drawn once for all, and is "
                    "the same at every evaluation"
                )

    def look_at_validation(self, study: Study, trial: Trial, most_seconds: float | None = None) -> bool:
        metric = study.objective.metric
        if metric in self._looked:
            return True
        try:
            looked = check_validation(self._setting(study, "check", _never), trial, most_seconds)
        except Exception as error:
            if isinstance(error, Infeasible) or is_out_of_memory(error):
                return False  # of this point alone, and its trial will say so
            raise
        if looked:
            self._looked.add(metric)
        return looked

    def check_room(self, study: Study, trial: Trial, processes: int = 1) -> None:
        together = self.fuse if isinstance(self.fuse, int) else 1  # of "auto" it is not known yet
        at_once = min(study.num_trials, together * processes)
        with suppress(Infeasible):  # a point that the model rejects needs no room
            check_room(self._setting(study, "check", _never), trial, at_once)

    def check_switched_off(self, study: Study, trial: Trial) -> None:
        check_switched_off(self._setting(study, "check", _never), trial)

    def price(self, study: Study, trial: Trial) -> Price:
        return measured_price(self._setting(study, "price", _never), trial)

    def fusion(self, study: Study, trials: Sequence[Trial]) -> Fusion:
        return look_at(self._setting(study, "fusion", _never), trials)

    def work_in(self, root: Path) -> None:
        """Write checkpoints to this folder from now on."""
        self.checkpoint_root = root

    def processes(self, ledger: Ledger, row: StudyRow) -> int:
        """How many processes like this one pay for what is left of a study."""
        ahead = work_ahead(ledger, row, self._setting(row.study, "price", _never), fused=self.fuse != "off")
        return num_processes(ahead, self.device)

    def run(self, ledger: Ledger, row: StudyRow, listener: Listener, stop: Callable[[], bool]) -> None:
        place = checkpoint_place(row.campaign, row.study.name)
        identity = patiently(lambda: ensure_claimed(ledger, self.checkpoint_root), stop)
        setting = replace(self._setting(row.study, place, stop), fingerprint=self._fingerprint_of(row.study))
        check_profile(ledger, row, self.profile)
        supervisor = Supervisor(Alone(setting), PatientRecorder(ledger, stop), listener.trial_stepped)
        fusing = Fusing(self.fuse, ledger, row, setting, self.crew)
        told, worker, waited = _Told(listener), worker_id(), 0.0
        held: list[Claim] = []
        with ENDING.in_hand(lambda: ledger.release(held)):
            while not stop():
                refuse_if_lost(self.checkpoint_root, identity)
                held[:] = claims = patiently(lambda: self._claimed(ledger, row, worker, fusing.claim_size()), stop)
                if claims:
                    self._train(fusing, supervisor, claims, told)
                    patiently(lambda: self._make_room(ledger, row), stop)
                    waited = 0.0
                    continue
                if not patiently(lambda: ledger.state_counts(row.study_id), stop).get(State.RUNNING):
                    self.tidy(ledger, row)
                    return
                waited = self._wait(waited)
            raise Interrupted("stopped; everything up to the last step is saved, run the same command again to go on")

    def _wait(self, waited: float) -> float:
        """Wait a little: another worker has the rest, and should it die, its trials come to us. Returns all seconds."""
        pause = min(POLL_SECONDS, FIRST_POLL_SECONDS + waited / 10)
        time.sleep(pause)
        if self.lease.renewed_here and waited <= LONG_WAIT_SECONDS < waited + pause:
            _log.warning(
                "waiting for trials that other workers hold; if those have died where that cannot be seen from here, "
                "their leases end in at most %g s",
                self.lease.seconds,
            )
        return waited + pause

    def tidy(self, ledger: Ledger, row: StudyRow) -> None:
        clear_strays(ledger, row.study_id, self.checkpoint_root, checkpoint_place(row.campaign, row.study.name))

    def _make_room(self, ledger: Ledger, row: StudyRow) -> None:
        if self.quota is not None:
            keep_within(self.quota, self._finder(ledger, row.study), row, self.checkpoint_root)

    def saved_steps(self, ledger: Ledger, study: Study, trials: Sequence[Trial]) -> list[int]:
        return saved_steps(self._finder(ledger, study), trials)

    def _finder(self, ledger: Ledger, study: Study) -> Finder:
        known = numerics(self.device, self.profile, self.identifier.packages)
        return Finder(ledger, study, self._fingerprint_of(study), known, self.allow_inexact)

    def _claimed(self, ledger: Ledger, row: StudyRow, worker: str, most_trials: int) -> list[Claim]:
        """The next trials, those of workers that died first."""
        ledger.forget_dead_workers(row.study_id)
        return ledger.claim(row.study_id, worker=worker, lease_seconds=self.lease.seconds, max_trials=most_trials)

    def _train(self, fusing: Fusing, supervisor: Supervisor, claims: Sequence[Claim], told: "_Told") -> None:
        """Train claimed trials; whatever happens, none of them stays ours that is not finished."""
        told.started(claims)
        ledger = fusing.ledger
        every = self.lease.seconds / BEATS
        beats = heartbeat(ledger, list(claims), every) if self.lease.renewed_here else nullcontext()
        try:
            with beats:
                settle_determinism(supervisor.setup, claims[0].trial)
                finder = self._finder(ledger, supervisor.setup.study)
                offered = patiently(lambda: finder.offered(claims), supervisor.setup.stop)
                updates = fusing.train(supervisor, offered)
        except LeaseLost:
            return
        except (TunerError, OSError) as error:
            counts = isinstance(error, DeviceLost)
            with suppress(TunerError):
                ledger.release(claims, count_attempt=counts, reason=f"lost its device: {error}" if counts else "")
            raise error if isinstance(error, TunerError) else _paused(error, self.checkpoint_root) from error
        ended = {update.trial_id for update in updates if update.state.finished}
        ledger.release([claim for claim in claims if claim.trial_id not in ended])
        told.ended(claims, updates)

    def _setting(self, study: Study, place: str, stop: Callable[[], bool]) -> TrainingSetup:
        return TrainingSetup(
            study=study,
            workload=self.workload,
            data=self.data,
            device=self.device,
            checkpoint_root=self.checkpoint_root,
            checkpoint_place=place,
            commit_seconds=self.commit_seconds,
            profile=self.profile,
            stop=stop,
            packages=self.identifier.packages,
        )


def check_profile(ledger: Ledger, row: StudyRow, profile: Profile) -> None:
    """Raise StudyChanged when the trials of a study would not be comparable: trained under another profile.

    The first who begins decides, in one transaction; of two who begin at once with two profiles one is refused.
    """
    counts = ledger.state_counts(row.study_id)  # before the conclusion, which others write before they begin
    begun = sum(count for state, count in counts.items() if state is not State.WAITING)
    chosen = {"profile": "exact" if begun else profile}  # tuner 0.1 concluded nothing of an exact study
    known = ledger.conclusion(row.campaign, "profile", row.study_id)
    known = known or ledger.conclude_once(row.campaign, "profile", chosen, row.study_id)
    before = known["profile"]
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


class _Told:
    """Tells a listener what happens to trials, and stops the study when they keep failing alike."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.failures: list[str] = []

    def started(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self.listener.trial_started(claim)

    def ended(self, claims: Sequence[Claim], updates: Sequence[TrialUpdate]) -> None:
        claim_of = {claim.trial_id: claim for claim in claims}
        for update in updates:
            self.listener.trial_ended(claim_of.pop(update.trial_id), update)
        for claim in claim_of.values():  # not trained this time
            self.listener.trial_ended(claim, TrialUpdate(claim.trial_id, claim.fence, 0))
        for update in updates:
            stop_at_the_same_failure(update, self.failures)


def _paused(error: OSError, folder: Path) -> Paused:
    return Paused(
        f"{error.strerror or error} at {error.filename or folder}: no trial is to blame and nothing committed is "
        "lost; make room or mend the disk, then run the same command again"
    )


def _never() -> bool:
    return False
