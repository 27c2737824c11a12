"""The backend that trains in worker processes, each of which claims trials from the Ledger itself.

The coordinator trains nothing: it renews the leases of its workers, watches whether they move, replaces those
that die, and tells the listener. Results do not depend on the number of workers.
"""

import logging
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch

from tuner import signals
from tuner.design.hyperparameters import Value
from tuner.design.identity import Identity
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.errors import (
    InputError,
    Interrupted,
    Paused,
    StorageError,
    StudyChanged,
    TrialsFailed,
    TunerError,
    WorkloadError,
)
from tuner.execution.backend import Listener
from tuner.execution.heartbeat import BEATS, renew
from tuner.execution.in_process import InProcess, stop_at_the_same_failure
from tuner.execution.member import Member
from tuner.execution.nursery import Nursery, worker_environment
from tuner.execution.orders import STALL_SECONDS, Message, Order, Place
from tuner.fused.choice import Choice
from tuner.records import Checkpoint, Claim, Price, State, TrialUpdate
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow

_log = logging.getLogger(__name__)
POLL_SECONDS = 0.2
PAUSE_SECONDS = 5.0  # between two looks at the workers: this process did not run
_INPUT_ERRORS = {known.__name__: known for known in (WorkloadError, StudyChanged, StorageError)}
DEATHS_AT_START = 3  # workers that die before they are ready, one after the other


class Workers:
    """Trains in `count` processes; None: in as many as pay, or in this one where none does.

    `local` prices and checks in this process; `place` says where workers work; a `nursery` may have been opened before
    torch was imported here. Raises InputError for more workers than the GPUs are to be shared by.
    """

    def __init__(
        self,
        local: InProcess,
        place: Place,
        count: int | None,
        stall_seconds: float = STALL_SECONDS,
        workers_per_gpu: int = 1,
        nursery: Nursery | None = None,
    ) -> None:
        self.local = local
        self.place = place
        self.count = count
        self.workers_per_gpu = workers_per_gpu
        self._places(count or 1)
        self.stall_seconds = stall_seconds
        self.crew: list[Member] = []
        self.nursery = nursery if self._forks else None

    def fingerprint(self) -> str:
        return self.local.fingerprint()

    def weaker_fingerprint(self) -> str:
        return self.local.weaker_fingerprint()

    def workload_parts(self) -> Mapping[str, str]:
        return self.local.workload_parts()

    def identity(self, study: Study, points: Sequence[Mapping[str, Value]] | None = None) -> Identity:
        return self.local.identity(study, points)

    def check_repeatable(self, study: Study, looked_at: Identity) -> None:
        self.local.check_repeatable(study, looked_at)

    def work_in(self, root: Path) -> None:
        """Write checkpoints to this folder from now on, here and in workers that start later."""
        self.local.work_in(root)
        self.place = replace(self.place, checkpoint_root=str(root.resolve()))

    def check(self, study: Study, trial: Trial) -> None:
        self.local.check(study, trial)

    def look_at_validation(self, study: Study, trial: Trial, most_seconds: float | None = None) -> bool:
        return self.local.look_at_validation(study, trial, most_seconds)

    def check_room(self, study: Study, trial: Trial) -> None:
        self.local.check_room(study, trial, self.count or 1)

    def check_switched_off(self, study: Study, trial: Trial) -> None:
        self.local.check_switched_off(study, trial)

    def price(self, study: Study, trial: Trial) -> Price:
        return self.local.price(study, trial)

    def fusion(self, study: Study, trials: Sequence[Trial]) -> Choice:
        return self.local.fusion(study, trials)

    def saved_steps(self, ledger: Ledger, study: Study, trials: Sequence[Trial]) -> list[int]:
        return self.local.saved_steps(ledger, study, trials)

    def tidy(self, ledger: Ledger, row: StudyRow) -> None:
        self.local.tidy(ledger, row)

    def run(self, ledger: Ledger, row: StudyRow, listener: Listener, stop: Callable[[], bool]) -> None:
        count = self.count or len(self.crew) or self.local.processes(ledger, row)
        if count == 1 and self.count is None:
            if self.nursery is not None:
                self.nursery.kill()  # it may hold memory for long, and another is soon there
            self.local.run(ledger, row, listener, stop)
            return
        if not self.crew:
            self.nursery = self.nursery or self._nursery()
            self.crew = [Member(place, self.nursery) for place in self._places(count)]
        more = [asdict(one) for one in self.local.identifier.more_code(row.study.name)]
        order = Order(row.campaign, row.study.name, self.local.known.as_json(), more)
        shift = _Shift(ledger, row, listener, self.crew, self.stall_seconds)
        try:
            with signals.ENDING.in_hand(shift.give_back):
                shift.work(order, stop)
        except BaseException:
            with suppress(Exception):  # a database that is away has leases that end
                shift.cut_short()
            self.close()
            raise

    def _places(self, count: int) -> list[Place]:
        """Where each worker works: every GPU has its share of them."""
        devices = devices_of(count, self.place.device, torch.cuda.device_count(), self.workers_per_gpu)
        return [replace(self.place, device=device, crew=count) for device in devices]

    def _nursery(self) -> Nursery | None:
        """Workers on the CPU are forked, where the system can: on Linux."""
        return Nursery(worker_environment(self.place.threads), self.place.study_file) if self._forks else None

    @property
    def _forks(self) -> bool:
        return sys.platform == "linux" and self.local.device.type == "cpu"

    def close(self) -> None:
        """End all workers."""
        crew, self.crew = self.crew, []
        for member in crew:
            if member.busy:
                member.kill()
        for member in crew:  # all of them before the first wait: they end at once
            member.dismiss()
        for member in crew:
            member.close()
        if self.nursery is not None:
            self.nursery.close()


class _Shift:
    """The workers on one study, from the order until none has anything left to do."""

    def __init__(
        self, ledger: Ledger, row: StudyRow, listener: Listener, crew: Sequence[Member], stall_seconds: float
    ) -> None:
        self.ledger = ledger
        self.row = row
        self.listener = listener
        self.crew = crew
        self.stall_seconds = stall_seconds
        self.failures: list[str] = []
        self.deaths_at_start = 0
        self.somebody_stopped = False
        self.stopping = False  # whether all were asked to
        self.renewed = self.looked = time.monotonic()

    def work(self, order: Order, stop: Callable[[], bool]) -> None:
        for member in self.crew:
            member.order(order)
        while any(member.busy for member in self.crew) and not (stop() or self.somebody_stopped):
            self._hear()
            for member in self.crew:
                self._look_after(member, order, stop)
            self._renew()
            self._leave_out_pauses()
        if self.somebody_stopped or any(member.busy for member in self.crew):
            self._stop()

    def _look_after(self, member: Member, order: Order, stop: Callable[[], bool]) -> None:
        """Replace a worker that died or stalled; one that a signal ended, or dies together with us, ends the work."""
        if self.somebody_stopped:
            return
        if member.busy and self._is_dead(member):
            code = member.process.returncode or 0
            if member.was_told_to_end or (code >= 0 and signals.soon(stop)):
                self.somebody_stopped = True
            else:
                self._replace(member, order, f"lost: its worker {_ending(code)}")
        elif member.is_stalled(self.stall_seconds):
            member.kill()
            awaited = "step" if member.claims else "sign of life"
            self._replace(member, order, f"stalled: no {awaited} for {self.stall_seconds:g} s")

    def _leave_out_pauses(self) -> None:
        """Who stopped this process for a while (Ctrl-Z) stopped its workers, too: they have not stalled."""
        now = time.monotonic()
        pause, self.looked = now - self.looked, now
        if pause > PAUSE_SECONDS:
            for member in self.crew:
                member.moved += pause

    def _is_dead(self, member: Member) -> bool:
        """Whether it ended in the middle of its work. Its last words are heard first."""
        if member.process.poll() is None:
            return False
        for message in member.messages():
            self._act(member, message)
        return member.busy

    def _hear(self) -> None:
        """Wait a little for messages, and act on them."""
        readable, _, _ = select.select([member.descriptor for member in self.crew], [], [], POLL_SECONDS)
        for member in self.crew:
            if member.descriptor in readable:
                for message in member.messages():
                    self._act(member, message)
        if all(member.process.poll() is not None for member in self.crew):
            time.sleep(0.01)  # ended pipes are always readable

    def _act(self, member: Member, message: Message) -> None:
        kind = message["is"]
        if kind == "ready":
            member.ready, self.deaths_at_start = True, 0
        elif kind == "started":
            member.claims[message["trial"]] = claim = self._claim(message)
            self.listener.trial_started(claim)
        elif kind == "stepped" and message["trial"] in member.claims:
            self.listener.trial_stepped(member.claims[message["trial"]], message["step"])
        elif kind == "ended" and message["trial"] in member.claims:
            claim = member.claims.pop(message["trial"])
            update = _update(claim, message)
            self.listener.trial_ended(claim, update)
            if update.state.finished and not self.stopping:
                stop_at_the_same_failure(update, self.failures)
        elif kind in ("idle", "stopped"):
            member.busy, member.claims = False, {}
            self.somebody_stopped |= kind == "stopped"
        elif kind == "fault":
            self._fault(message)

    def _fault(self, message: Message) -> None:
        """Raise what a worker could not deal with; one whose device is lost ends, and is replaced."""
        kind, text = message["kind"], message["text"]
        if self.stopping:  # what a signal ended beside the worker may have failed it
            _log.warning("a worker that was told to stop: %s", text)
            return
        if kind == "input":
            raise _INPUT_ERRORS.get(message["name"], InputError)(text)
        if kind == "failed":
            raise TrialsFailed(text)
        if kind == "paused":
            raise Paused(text)
        if kind == "fault":
            raise TunerError(f"a worker ended unexpectedly: {text}")

    def _claim(self, message: Message) -> Claim:
        record = self.ledger.trial(self.row.study_id, message["trial"])
        trial = record.readable_trial()
        resumed = (Checkpoint("latest", message["step"], "", "", 0),) if message["step"] else ()
        return Claim(message["trial_id"], message["fence"], trial, message["attempt"], resumed)

    def _replace(self, member: Member, order: Order, reason: str) -> None:
        """Hand back what a dead worker held, its attempt counted, and start another."""
        _log.warning("a worker is replaced, %s", reason)
        if not member.ready:
            self.deaths_at_start += 1
        if self.deaths_at_start >= DEATHS_AT_START:
            raise Paused(f"{DEATHS_AT_START} workers ended while they started, the last one {reason}")
        with suppress(TunerError):
            if member.claims:
                self.ledger.release(list(member.claims.values()), count_attempt=True, reason=reason)
            self.ledger.forget_dead_workers(self.row.study_id)
        for claim in member.claims.values():
            stopped = TrialUpdate(claim.trial_id, claim.fence, 0, state=State.RUNNING, reason=reason)
            self.listener.trial_ended(claim, stopped)
        member.restart()
        member.order(order)

    def _renew(self) -> None:
        if time.monotonic() - self.renewed >= self.crew[0].place.lease_seconds / BEATS:
            self.renewed = time.monotonic()
            renew(self.ledger, [claim for member in self.crew for claim in member.claims.values()])

    def _stop(self) -> None:
        """Let every worker finish its step and save; what is not saved in time is handed back as it was committed.

        Raises Interrupted in the end.
        """
        self.stopping = True
        for member in self.crew:
            member.ask_to_stop()
        end = time.monotonic() + signals.SAVE_SECONDS - signals.HANDING_OVER_SECONDS / 2
        while any(member.busy and not self._is_dead(member) for member in self.crew) and time.monotonic() < end:
            self._hear()
            self._renew()
        given_up = sum(len(member.claims) for member in self.crew)
        self.give_back()
        if given_up:
            raise Interrupted(
                f"stopped, {given_up} trials without their last steps, for which {signals.SAVE_SECONDS:g} s "
                "were not enough; run the same command again to go on from the last commit"
            )
        raise Interrupted("stopped; everything up to the last step is saved, run the same command again to go on")

    def cut_short(self) -> None:
        """After an error: hand back what busy workers hold, also what they claimed without having been heard yet."""
        busy = [member for member in self.crew if member.busy]
        for member in busy:
            member.kill()
        for member in busy:
            for message in member.messages():
                if message["is"] == "started":
                    member.claims[message["trial"]] = self._claim(message)
                elif message["is"] == "ended":
                    member.claims.pop(message["trial"], None)
        self.give_back()

    def give_back(self) -> None:
        """End the workers that are not through, and hand back what they held; no attempt is counted."""
        for member in self.crew:
            if member.busy:
                with suppress(OSError, ValueError):  # two threads may be at it
                    member.kill()
        held = [claim for member in self.crew for claim in member.claims.values()]
        if held:
            self.ledger.release(held)


def devices_of(count: int, asked: str | None, num_gpus: int, workers_per_gpu: int) -> list[str | None]:
    """The device of each worker: a GPU of its own, unless GPUs are to be shared or a single device was asked for.

    Raises InputError when there are not enough GPUs.
    """
    if asked not in (None, "cuda") or not num_gpus:
        return [asked] * count
    if count > num_gpus * workers_per_gpu:
        raise InputError(
            f"{count} workers, {num_gpus} GPU{'s' * (num_gpus > 1)} and {workers_per_gpu} worker"
            f"{'s' * (workers_per_gpu > 1)} on each do not go together: say --workers {num_gpus * workers_per_gpu}, "
            f"or --workers-per-gpu {-(-count // num_gpus)} (they share its memory and its time)"
        )
    return [f"cuda:{number % num_gpus}" for number in range(count)]


def _update(claim: Claim, message: Message) -> TrialUpdate:
    best = message["best"]
    kept = None if best is None else (Checkpoint("best", best[0], "", "", 0, best[1]),)
    state, reason = State(message["state"]), message["reason"]
    return TrialUpdate(claim.trial_id, claim.fence, message["step"], (), kept, state, reason)


def _ending(code: int) -> str:
    """How a process ended, in words."""
    if code == -signal.SIGKILL:
        return "was killed by signal 9 (by somebody, or because memory ran out)"
    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
