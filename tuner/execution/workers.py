"""The backend that trains in worker processes, each of which claims trials from the Ledger itself.

The coordinator trains nothing: it renews the leases of its workers, watches whether they make progress, replaces those
that die, and reports to the listener. Results do not depend on the number of workers.
"""

import logging
import select
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import cast

import torch

from tuner import signals, system
from tuner.design.micro_batches import check_gang
from tuner.errors import (
    Interrupted,
    Paused,
    TunerError,
)
from tuner.execution.backend import Job, Listener, Stop
from tuner.execution.channel import Message, error_of
from tuner.execution.fork_server import ForkServer, worker_environment
from tuner.execution.fusing import trials_of
from tuner.execution.in_process import InProcess, stop_at_the_same_failure
from tuner.execution.launched_ranks import LaunchedRanks
from tuner.execution.leases import BEATS, renew
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine, check_cores, worker_devices
from tuner.execution.other_numerics import OtherNumerics
from tuner.execution.recorded_fusions import RecordedFusions
from tuner.execution.remote_job import StudyTask, setup_of, task_of
from tuner.execution.worker_handle import Ranks, WorkerHandle
from tuner.fused.fusion import best_fusion, evaluation_seconds, largest_group
from tuner.records import Checkpoint, Claim, State, TrialUpdate
from tuner.security import without_password
from tuner.storage.relay import Relay
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow
from tuner.training.engine import Asked, Engine
from tuner.training.numerics import choose_device
from tuner.training.setup import TrainingSetup

_log = logging.getLogger(__name__)
POLL_SECONDS = 0.2
PAUSE_SECONDS = 5.0  # between two looks at the workers: this process was stopped
START_SECONDS = {"cpu": 1.5, "cuda": 5.0}  # until workers train; on a CPU they are forked, which took 0.7 s
ENOUGH_SECONDS = 10.0  # of steps: two processes pay, whatever evaluations add
MOST_PROCESSES = 64
DEATHS_AT_START = 3  # workers that die before they are ready, one after the other


class Workers:
    """Trains in as many worker processes as the machine says; where it gives no number, in as many as pay.

    Where no second process pays, this process trains alone.

    url: of the records, for the workers. fork_server: one that was started before torch was imported here. launched:
    the other ranks of the one worker, where they were started together with this command.
    """

    def __init__(self, url: str, fork_server: ForkServer | None = None, launched: LaunchedRanks | None = None) -> None:
        self.url = url
        self.fork_server = fork_server
        self.launched = launched
        self.workers: list[WorkerHandle] = []
        self.relay: Relay | None = None

    def run(self, job: Job, listener: Listener, stop: Stop) -> None:
        loaded = job.workload
        check_gang(job.row.study, loaded.machine.gang)
        count = loaded.machine.worker_count or len(self.workers) or best_worker_count(job)
        if count == 1 and loaded.machine.worker_count is None and loaded.machine.gang == 1:
            if self.fork_server is not None:
                self.fork_server.kill()  # it would hold its memory for long, and another starts quickly
            InProcess().run(job, listener, stop)
            return
        if not self.workers:
            self.relay = job.ledger.relay()
            self.workers = self.started(loaded, count)
        coordinator = Coordinator(job.ledger, job.row, loaded.machine, listener, self.workers)
        coordinator.others = _numerics_of(job, self.workers)
        try:
            for others in coordinator.others.values():
                others.check()
            with signals.SHUTDOWN.in_hand(coordinator.give_back):
                coordinator.work(task_of(job), stop)
        except BaseException:
            with suppress(Exception):  # where the database is away, its leases end
                coordinator.cut_short()
            self.close()
            raise

    def started(self, loaded: LoadedWorkload, count: int) -> list[WorkerHandle]:
        """Workers that begin to load the workload; on the CPU they are forked, where the system can do that."""
        machine = loaded.machine
        gangs = self._devices(machine, count)
        url = self.url if self.relay is None else without_password(self.url)
        setups = [setup_of(loaded, url, machine.for_worker(ranks[0], count)) for ranks in gangs]
        if self.relay is not None:
            setups = [replace(setup, relay=str(self.relay.folder)) for setup in setups]
        if not (system.FORKS_WHOLE and loaded.device.type == "cpu"):
            self.fork_server = None
        elif self.fork_server is None:
            self.fork_server = ForkServer(worker_environment(machine.threads), str(setups[0].study_file))
        each = zip(setups, gangs, strict=True)
        return [
            WorkerHandle(setup, self.fork_server, Ranks(devices=ranks[1:], launched=self.launched))
            for setup, ranks in each
        ]

    def _devices(self, machine: Machine, count: int) -> list[Sequence[str | None]]:
        """Of each worker the devices of the ranks that are started here."""
        num_gpus = torch.cuda.device_count()
        if self.launched is not None:
            return [[self.launched.place.device(machine.device, num_gpus)]]
        devices = worker_devices(machine, count, num_gpus)
        return [devices[first : first + machine.gang] for first in range(0, len(devices), machine.gang)]

    def close(self) -> None:
        """End all workers."""
        workers, self.workers = self.workers, []
        for worker in workers:
            if worker.busy:
                worker.kill()
        for worker in workers:  # all of them before the first wait: they end at the same time
            worker.end()
        for worker in workers:
            worker.close()
        if self.fork_server is not None:
            self.fork_server.close()
        if self.relay is not None:
            self.relay.close()
            self.relay = None


def _numerics_of(job: Job, workers: Sequence[WorkerHandle]) -> dict[str | None, OtherNumerics]:
    """The Numerics of workers, by device; what follows from them is said here, once for all of them."""
    on = {worker.setup.machine.device for worker in workers}
    return {
        device: OtherNumerics(job, job.workload.numerics_on(choose_device(device), job.row.study), tells=True)
        for device in on
    }


def check_workers(machine: Machine) -> None:
    """Raise InputError where so many worker processes cannot be started here."""
    system.refuse_workers()
    worker_devices(machine, machine.worker_count or 1, torch.cuda.device_count())
    if machine.gang > 1 and (machine.device == "cpu" or not torch.cuda.is_available()):
        words = check_cores(machine.gang, system.num_cores(), machine.worker_count or 1)
        if words:
            _log.warning("%s", words)


@dataclass(frozen=True, slots=True)
class Remaining:
    """The work that is left of a study: trials, and seconds in one process, evaluations included."""

    num_trials: int
    seconds: float


def best_worker_count(job: Job) -> int:
    """How many processes pay for what is left of a study."""
    loaded = job.workload
    engine = loaded.engine_for(job.row.study)
    if engine.promises.fusing:
        setup = cast(TrainingSetup, engine.setup)
        fused = loaded.machine.fuse != "off" and loaded.machine.gang == 1
        left = remaining_work(job.ledger, job.row, setup, fused=fused)
    else:
        left = priced_work(job, engine)
    return num_processes(left, loaded.device, loaded.machine.gang)


def priced_work(job: Job, engine: Engine) -> Remaining:
    """Estimate the work by the price that the engine gives a trial; no time where it gives none."""
    left = trials_of([one for one in job.ledger.trials(job.row.study_id) if not one.state.finished])
    price = engine.inspect(left[:1], Asked(job.workload.inspected, None, price=True)).price if left else None
    if price is None:
        return Remaining(len(left), 0.0)
    budget = job.row.study.budget
    of_one = budget.max_train_steps * price.step_ms + len(budget.evaluation_steps) * price.evaluation_ms
    return Remaining(len(left), len(left) * of_one / 1e3)


def remaining_work(ledger: Ledger, row: StudyRow, setup: TrainingSetup, *, fused: bool) -> Remaining:
    """Estimate the work by a probe, which is made now where the Ledger has none.

    Evaluations are timed where the steps are few; the evaluations of fused trials take less than that.
    """
    left = trials_of([one for one in ledger.trials(row.study_id) if not one.state.finished])
    if not left:
        return Remaining(0, 0.0)
    alike = [trial for trial in left if trial.shape_group == left[0].shape_group]
    recorded = RecordedFusions(ledger, row, setup.numerics)
    fusion = recorded.of(left[0].shape_group) if fused else None
    if fusion is None and fused:
        fusion = best_fusion(setup, alike[: largest_group(setup.device)], len(left))
        recorded.keep(left[0].shape_group, fusion)
    if fusion is None or not fusion.seconds:
        fusion = best_fusion(setup, alike[:1], len(left))
    budget = row.study.budget
    steps = fusion.seconds * budget.max_train_steps * len(left)
    if steps > ENOUGH_SECONDS:
        return Remaining(len(left), steps)
    evaluations = len(budget.evaluation_steps) * len(left)
    return Remaining(len(left), steps + evaluations * evaluation_seconds(setup, left))


def num_processes(remaining: Remaining, device: torch.device, gang: int = 1) -> int:
    """As many as there are processors (or GPUs) and trials, if they save more time than they take to start.

    Of gangs that is how many gangs.
    """
    places = (torch.cuda.device_count() if device.type == "cuda" else system.num_cores()) // gang
    count = max(1, min(places, remaining.num_trials, MOST_PROCESSES))
    return count if remaining.seconds * (1.0 - 1.0 / count) > START_SECONDS[device.type] else 1


class Coordinator:
    """Watches the workers on one study, from its task until none has anything left to do."""

    def __init__(
        self, ledger: Ledger, row: StudyRow, machine: Machine, listener: Listener, workers: Sequence[WorkerHandle]
    ) -> None:
        self.ledger, self.row = ledger, row
        self.machine = machine
        self.listener = listener
        self.workers = workers
        self.others: dict[str | None, OtherNumerics] = {}  # by the device of a worker
        self.failures: list[str] = []
        self.deaths_at_start = 0
        self.worker_stopped = False
        self.stopping = False  # whether all were asked to
        self.renewed = self.looked = time.monotonic()

    def work(self, task: StudyTask, stop: Stop) -> None:
        for worker in self.workers:
            worker.assign(task)
        while any(worker.busy for worker in self.workers) and not (stop() or self.worker_stopped):
            self._read()
            for worker in self.workers:
                self._look_after(worker, task, stop)
            self._renew()
            self._leave_out_pauses()
        if self.worker_stopped or any(worker.busy for worker in self.workers):
            self._stop()

    def _look_after(self, worker: WorkerHandle, task: StudyTask, stop: Stop) -> None:
        """Replace a worker that died or stalled. Stop all work where a signal ended it, or ends us together with it."""
        if self.worker_stopped:
            return
        if worker.busy and self._is_dead(worker):
            if worker.was_told_to_end or (worker.lost.code >= 0 and signals.soon(stop)):
                self.worker_stopped = True
            else:
                self._replace(worker, task, f"lost: {worker.lost.words}")
        elif worker.is_stalled(self.machine.stall_seconds):
            worker.kill()
            awaited = "step" if worker.claims else "sign of life"
            self._replace(worker, task, f"stalled: no {awaited} for {self.machine.stall_seconds:g} s")

    def _leave_out_pauses(self) -> None:
        """A pause of this process (Ctrl-Z) was one of its workers, too: they have not stalled."""
        now = time.monotonic()
        pause, self.looked = now - self.looked, now
        if pause > PAUSE_SECONDS:
            for worker in self.workers:
                worker.moved += pause

    def _is_dead(self, worker: WorkerHandle) -> bool:
        """Whether a worker ended in the middle of its work. Its last messages are read first."""
        if not worker.has_ended():
            return False
        for message in worker.messages():
            self._handle(worker, message)
        return worker.busy

    def _read(self) -> None:
        """Wait a moment for messages, and handle them."""
        watched = [one for worker in self.workers for one in worker.descriptors]
        readable, _, _ = select.select(watched, [], [], POLL_SECONDS)
        for worker in self.workers:
            if not set(worker.descriptors).isdisjoint(readable):
                for message in worker.messages():
                    self._handle(worker, message)
        if all(worker.process.poll() is not None for worker in self.workers):
            time.sleep(0.01)  # a pipe whose other end is closed is always readable

    def _handle(self, worker: WorkerHandle, message: Message) -> None:
        kind = message["is"]
        if kind == "ready":
            worker.ready, self.deaths_at_start = True, 0
        elif kind == "started":
            self._started(worker, self._claim(message))
        elif kind == "stepped" and message["trial"] in worker.claims:
            self.listener.trial_stepped(worker.claims[message["trial"]], message["step"])
        elif kind == "ended" and message["trial"] in worker.claims:
            claim = worker.claims.pop(message["trial"])
            update = _update(claim, message)
            self.listener.trial_ended(claim, update)
            if update.state.finished and not self.stopping:
                stop_at_the_same_failure(update, self.failures)
        elif kind in ("idle", "stopped"):
            worker.busy, worker.claims = False, {}
            self.worker_stopped |= kind == "stopped"
        elif kind == "fault":
            self._fault(worker, message)

    def _started(self, worker: WorkerHandle, claim: Claim) -> None:
        worker.claims[claim.trial.number] = claim
        if worker.setup.machine.device in self.others:
            self.others[worker.setup.machine.device].note([claim])
        self.listener.trial_started(claim)

    def _fault(self, worker: WorkerHandle, message: Message) -> None:
        """Raise the error of a worker. A worker whose device is lost ends and is replaced."""
        kind, text = message["kind"], message["text"]
        if self.stopping:  # the same signal may have ended what the worker needs
            _log.warning("a worker that was told to stop: %s", text)
            return
        if kind != "device":
            raise error_of(kind, message.get("name", ""), text)
        worker.said[message.get("rank", 0)] = text

    def _claim(self, message: Message) -> Claim:
        record = self.ledger.trial(self.row.study_id, message["trial"])
        trial = record.readable_trial()
        resumed = (Checkpoint("latest", message["step"], "", "", 0),) if message["step"] else ()
        under = message["begun_under"]
        return Claim(message["trial_id"], message["fence"], trial, message["attempt"], resumed, begun_under=under)

    def _replace(self, worker: WorkerHandle, task: StudyTask, reason: str) -> None:
        """Release the claims of a dead worker, counting the attempt, and start another."""
        if worker.may_restart:
            _log.warning("a worker is replaced, %s", reason)
        if not worker.ready:
            self.deaths_at_start += 1
        if self.deaths_at_start >= DEATHS_AT_START:
            raise Paused(f"{DEATHS_AT_START} workers ended while they started, the last one {reason}")
        with suppress(TunerError):
            if worker.claims:
                self.ledger.release(list(worker.claims.values()), count_attempt=True, reason=reason)
            self.ledger.forget_dead_workers(self.row.study_id)
        for claim in worker.claims.values():
            stopped = TrialUpdate(claim.trial_id, claim.fence, 0, state=State.RUNNING, reason=reason)
            self.listener.trial_ended(claim, stopped)
        if not worker.may_restart:
            raise Paused(
                f"{reason}; the attempt is counted, and what was committed before is kept: start all ranks again"
            )
        worker.restart()
        worker.assign(task)

    def _renew(self) -> None:
        if time.monotonic() - self.renewed >= self.machine.lease.seconds / BEATS:
            self.renewed = time.monotonic()
            renew(self.ledger, [claim for worker in self.workers for claim in worker.claims.values()])

    def _stop(self) -> None:
        """Let every worker finish its step and save, then raise Interrupted.

        Trials that are not saved in time are released as they were last committed.
        """
        self.stopping = True
        for worker in self.workers:
            worker.ask_to_stop()
        end = time.monotonic() + signals.SAVE_SECONDS - signals.HANDING_OVER_SECONDS / 2
        while any(worker.busy and not self._is_dead(worker) for worker in self.workers) and time.monotonic() < end:
            self._read()
            self._renew()
        given_up = sum(len(worker.claims) for worker in self.workers)
        self.give_back()
        if given_up:
            raise Interrupted(
                f"stopped, {given_up} trials without their last steps, for which {signals.SAVE_SECONDS:g} s "
                "were not enough; run the same command again to go on from the last commit"
            )
        raise Interrupted("stopped; everything up to the last step is saved, run the same command again to go on")

    def cut_short(self) -> None:
        """After an error: release what busy workers hold, also claims whose message was not read yet."""
        busy = [worker for worker in self.workers if worker.busy]
        for worker in busy:
            worker.kill()
        for worker in busy:
            for message in worker.messages():
                if message["is"] == "started":
                    worker.claims[message["trial"]] = self._claim(message)
                elif message["is"] == "ended":
                    worker.claims.pop(message["trial"], None)
        self.give_back()

    def give_back(self) -> None:
        """End the workers that still train, and release their claims; no attempt is counted."""
        for worker in self.workers:
            if worker.busy:
                with suppress(OSError, ValueError):  # two threads may do so at once
                    worker.kill()
        held = [claim for worker in self.workers for claim in worker.claims.values()]
        if held:
            self.ledger.release(held)


def _update(claim: Claim, message: Message) -> TrialUpdate:
    best = message["best"]
    kept = None if best is None else (Checkpoint("best", best[0], "", "", 0, best[1]),)
    state, reason = State(message["state"]), message["reason"]
    return TrialUpdate(claim.trial_id, claim.fence, message["step"], (), kept, state, reason)
