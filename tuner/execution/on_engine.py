"""The backend over any engine: it asks for seats, and sees in the Ledger alone how the trials go.

It may be killed and started again at any time: what the seats of the killed command held comes back by its lease, as of
any worker that died.
"""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tuner import signals
from tuner.errors import (
    InputError,
    Interrupted,
    Paused,
    TunerError,
)
from tuner.execution.backend import Job, Listener, Stop
from tuner.execution.channel import error_of
from tuner.execution.engines import MOST_SEATS, Needs, Seat, SeatEngine, SeatEvent
from tuner.execution.in_process import stop_at_the_same_failure
from tuner.execution.leases import retried
from tuner.execution.remote_job import Setup, StudyTask, setup_of, task_of
from tuner.execution.shipping import shipped_files
from tuner.records import Checkpoint, Claim, State, TrialUpdate
from tuner.storage.engine import parsed_url
from tuner.storage.reading import TrialProgress
from tuner.storage.store import Ledger
from tuner.stores.places import OWNER_FILE

_log = logging.getLogger(__name__)
EVENT_SECONDS = 0.5
LOOK_SECONDS = 1.0  # between two looks at the Ledger
DEATHS_IN_A_ROW = 5  # of seats, while no trial got on
HANDED_BACK_SECONDS = 0.5  # less than a command has to save: what it says must get out


@dataclass(frozen=True, slots=True)
class SeatPlan:
    """How many seats a command asks for at most (0: as many as there is room for), and what each is.

    world: the ranks of each, which train a trial together; cpus and gpus are those of a rank.
    """

    count: int
    cpus: float = 1.0
    gpus: float = 0.0
    world: int = 1

    def seat(self, number: int) -> Seat:
        """The seat of this number."""
        return Seat(number, self.cpus, self.gpus, self.world)

    @property
    def seats(self) -> list[Seat]:
        return [self.seat(number) for number in range(self.count)]


class OnEngine:
    """Has the trials of a study trained by seats of an engine. url: of the records, for the workers."""

    def __init__(self, url: str, engine: SeatEngine, plan: SeatPlan) -> None:
        self.url = url
        self.engine = engine
        self.plan = plan

    def check(self, study_file: Path | None) -> None:
        """Reach the engine. Raises InputError where it can never have such seats."""
        if study_file is None:
            raise InputError("other machines load a workload from its study file, and this campaign has none")
        room = self.engine.check(self.plan.seat(0), study_file)
        self.plan = replace(self.plan, count=self.plan.count or max(1, min(room, MOST_SEATS)))

    def run(self, job: Job, listener: Listener, stop: Stop) -> None:
        machine = job.workload.machine
        device = machine.device or ("cuda" if self.plan.gpus else "cpu")
        setup = setup_of(job.workload, self.url, machine.for_worker(device, self.plan.count))
        self.engine.compare(replace(needs_of(job, self.url), seats=self.plan.count))
        run = _Run(job, self.engine, self.plan, setup, stop)
        run.watch = LedgerWatch(job.ledger, job.row.study_id, listener)
        with signals.SHUTDOWN.in_hand(self.engine.close):
            try:
                run.work()
            except BaseException:
                with suppress(TunerError):
                    run.end_all()
                raise
        job.delete_strays()

    def close(self) -> None:
        self.engine.close()


def needs_of(job: Job, url: str) -> Needs:
    """What each machine must have that trains a study."""
    loaded = job.workload
    folder = (loaded.study_file or Path()).resolve().parent
    shipped = {folder / one.path for one in shipped_files(folder)}
    files = {label: file for label, file in loaded.identifier.files.items() if file.suffix == ".py"}
    outside = {_module(label): str(file) for label, file in files.items() if file not in shipped}
    parsed = parsed_url(url)
    local = (Path(parsed.database or ""),) if parsed.get_backend_name() == "sqlite" else ()
    root = loaded.machine.checkpoint_root
    shared = (root.resolve() / OWNER_FILE,) if isinstance(root, Path) else ()  # all see an object store
    return Needs(dict(loaded.identifier.packages), outside, shared, local)


def _module(label: str) -> str:
    return label.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


class LedgerWatch:
    """Tells a listener how trials go, from what the Ledger says of them now and then."""

    def __init__(self, ledger: Ledger, study_id: int, listener: Listener) -> None:
        self.ledger, self.study_id, self.listener = ledger, study_id, listener
        self.claims: dict[int, Claim] = {}  # of trials that run, by number
        self.steps: dict[int, int] = {}
        self.ended = {one.number for one in ledger.progress(study_id) if one.state.finished}
        self.since = 0.0  # when the last of them ended
        self.failures: list[str] = []
        self.moved = 0  # grows whenever a trial does

    def look(self) -> None:
        """Read once. Raises TrialsFailed when trials in a row fail alike."""
        found = self.ledger.progress(self.study_id, self.since)
        running = {one.number: one for one in found if one.state is State.RUNNING}
        for number, one in running.items():
            known = self.claims.get(number)
            if known is None or known.fence != one.fence:
                self._started(one)
            if self.steps.get(number) != one.step:
                self.moved += 1
                self.steps[number] = one.step
                self.listener.trial_stepped(self.claims[number], one.step)
        for one in found:
            if one.finished is not None and one.state.finished:
                self.since = max(self.since, one.finished)
                if one.number not in self.ended:
                    self._ended(one.number)
        for number in [number for number in self.claims if number not in running]:
            claim = self.claims.pop(number)
            self.listener.trial_ended(claim, TrialUpdate(claim.trial_id, claim.fence, self.steps.pop(number, 0)))

    def _started(self, one: TrialProgress) -> None:
        record = self.ledger.trial(self.study_id, one.number)
        resumed = (Checkpoint("latest", one.step, "", "", 0),) if one.step else ()
        claim = Claim(record.trial_id, one.fence, record.readable_trial(), record.attempt, resumed)
        self.claims[one.number] = claim
        self.listener.trial_started(claim)

    def _ended(self, number: int) -> None:
        self.moved += 1
        self.ended.add(number)
        record = self.ledger.trial(self.study_id, number)
        claim = self.claims.pop(number, None)
        if claim is None:  # it was short
            claim = Claim(record.trial_id, 0, record.readable_trial(), record.attempt)
            self.listener.trial_started(claim)
        self.steps.pop(number, None)
        kept, state, reason = record.checkpoints, record.state, record.reason
        update = TrialUpdate(record.trial_id, claim.fence, record.step, (), kept, state, reason)
        self.listener.trial_ended(claim, update)
        stop_at_the_same_failure(update, self.failures)


class _Run:
    """The seats of one study, from its first to its last trial."""

    watch: LedgerWatch

    def __init__(self, job: Job, engine: SeatEngine, plan: SeatPlan, setup: Setup, stop: Stop) -> None:
        self.ledger, self.study_id = job.ledger, job.row.study_id
        self.engine, self.setup, self.stop = engine, setup, stop
        self.task: StudyTask = task_of(job)
        self.free = plan.seats  # those that hold no room of a machine, the first ones first
        self.taken: dict[int, Seat] = {}
        self.deaths, self.moved = 0, 0
        self.looked = 0.0

    def work(self) -> None:
        while not self.stop():
            if time.monotonic() - self.looked >= LOOK_SECONDS:
                self.looked = time.monotonic()
                left = self._left()
                if not left and not self.taken:
                    return
                self._ask_for(left)
            for event in self.engine.events(EVENT_SECONDS):
                self._handle(event)
        self._stop_all()

    def _left(self) -> tuple[int, int] | None:
        """Trials that wait, and those that run; None where none is left."""
        retried(self.watch.look, self.stop)
        counts = retried(lambda: self.ledger.state_counts(self.study_id), self.stop)
        waiting, running = counts.get(State.WAITING, 0), counts.get(State.RUNNING, 0)
        return (waiting, running) if waiting or running else None

    def _ask_for(self, left: tuple[int, int] | None) -> None:
        """Take as many seats as there are trials for; where trials only run, one seat stays to take over from the dead.

        What is asked for and has no room yet is what an engine grows by.
        """
        if left is None:
            return
        waiting, running = left
        wanted = waiting + running if waiting else 1
        while self.free and len(self.taken) < wanted:
            seat = self.free.pop(0)
            self.taken[seat.number] = seat
            self.engine.start(seat, self.setup, self.task)

    def _handle(self, event: SeatEvent) -> None:
        seat = self.taken.get(event.seat)
        if seat is None:
            return
        if event.kind == "waiting":
            _log.warning("%s", event.text)
        elif event.kind == "draining":
            when = f" in {event.seconds:.0f} s" if event.seconds else ""
            _log.warning("a machine goes down%s: what its worker trains is saved, and goes on elsewhere", when)
            self.engine.ask_to_stop(seat)
        elif event.kind == "fault":
            self._give_back(seat)
            raise error_of(event.family, event.name, event.text)
        else:
            if event.kind == "died":
                self._count_death(event.text)
            self._give_back(seat)

    def _give_back(self, seat: Seat) -> None:
        self.engine.end(seat)
        del self.taken[seat.number]
        self.free.append(seat)

    def _count_death(self, text: str) -> None:
        """Raise Paused where seats die again and again, while no trial gets on."""
        if self.watch.moved != self.moved:
            self.deaths, self.moved = 0, self.watch.moved
        self.deaths += 1
        _log.warning("a worker is replaced: %s", text)
        if self.deaths >= DEATHS_IN_A_ROW:
            raise Paused(f"{self.deaths} workers died while no trial got on, the last one: {text}")

    def _stop_all(self) -> None:
        """Let every worker finish its step and save, then raise Interrupted."""
        for seat in self.taken.values():
            self.engine.ask_to_stop(seat)
        end = time.monotonic() + signals.SAVE_SECONDS - HANDED_BACK_SECONDS
        while self.taken and time.monotonic() < end:
            for event in self.engine.events(EVENT_SECONDS):
                if event.seat in self.taken and event.kind in ("idle", "stopped", "died", "fault"):
                    self._give_back(self.taken[event.seat])
        given_up = len(self.taken)
        if given_up:
            raise Interrupted(
                f"stopped, {given_up} workers without their last steps, for which {signals.SAVE_SECONDS:g} s were not "
                "enough; run the same command again to go on from the last commit"
            )
        raise Interrupted("stopped; everything up to the last step is saved, run the same command again to go on")

    def end_all(self) -> None:
        """End every seat."""
        for seat in list(self.taken.values()):
            self._give_back(seat)
