"""A study in a Ledger that processes train, one alone or the ranks of a gang, and what they left, bit for bit."""

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from support.bench import Heard
from support.patience import wait_for
from tuner import failpoints
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.design.workload import Workload
from tuner.execution.backend import Job
from tuner.execution.gang_store import LOCAL, hosted_store
from tuner.execution.in_process import InProcess
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.rounds.plan import planned_trials
from tuner.storage.codec import trial_from, trial_text
from tuner.storage.store import open_ledger
from tuner.storage.verify import study_problems
from tuner.training.alone import Alone
from tuner.training.checkpoints import canonical_digest, read_state, read_weights
from tuner.training.gang import Gang, Spot
from tuner.training.gang_command import lead_study
from tuner.training.gang_follower import follow
from tuner.training.gang_run import Ganged

SECONDS = 60.0  # of an exchange
ENDING = 30.0  # for the others once rank 0 has ended, before the test ends them as a coordinator does


def never() -> bool:
    return False


@dataclass
class Ended:
    """How a process ended: its exit code, and the error it raised, by its class, with its text."""

    code: int
    error: str = ""
    text: str = ""
    heard: list[Any] = field(default_factory=list)


@dataclass
class GangBench:
    """A study in a folder. seconds: of an exchange. ending: see `Killer`. inherited: weights that models start from."""

    folder: Path
    study: Study
    workload: Workload
    trials: list[Trial] | None = None
    seconds: float = SECONDS
    ending: float = ENDING
    options: Mapping[str, Any] = field(default_factory=dict)
    inherited: Any = None

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/tuner.sqlite"

    @property
    def root(self) -> Path:
        return self.folder / "checkpoints"

    def loaded(self, engine: Any = Alone) -> LoadedWorkload:
        found = LoadedWorkload(self.workload, Machine(self.root, "cpu", **self.options), None, engine)
        found.inherited = self.inherited
        return found

    def run(
        self,
        world: int,
        *,
        stops: Mapping[int, Callable[[], bool]] | None = None,
        armed: Mapping[int, str] | None = None,
    ) -> list[Ended]:
        """Train what is left of the study by so many ranks, each a process.

        stops: what a rank answers when it is asked whether it was told to end. armed: failpoints of a rank.
        """
        self.folder.mkdir(exist_ok=True, parents=True)
        store, port = hosted_store(LOCAL)
        lives = []
        for rank in range(world):
            spot = Spot(rank, world, port=port) if world > 1 else None
            lives.append(Life(self, spot, (stops or {}).get(rank, never), (armed or {}).get(rank, "")))
        killed = Killer(lives, self.ending)
        wait_for(killed.all_ended, moves=lambda: len(killed.left))
        del store
        return [life.ended() for life in lives]

    def meaning(self) -> list[Any]:
        """All that the trials leave behind, to the last bit; nothing is wrong with what is recorded."""
        with open_ledger(self.url) as ledger:
            row = ledger.study("tiny", self.study.name)
            assert study_problems(ledger, row, self.root, f"tiny/{self.study.name}") == []
            found: list[Any] = []
            for record in ledger.trials(row.study_id):
                curve = [(m.step, m.metric, m.value.hex()) for m in ledger.measured_until(record.trial_id, record.step)]
                files = [
                    (kept.kind, kept.step, kept.value, canonical_digest(_content(self.root, kept)))
                    for kept in record.checkpoints
                    if kept.kind != "trunk"
                ]
                found.append((record.number, record.state, record.step, record.numerics, curve, files))
            return found

    def records(self) -> list[Any]:
        with open_ledger(self.url) as ledger:
            return list(ledger.trials(ledger.study("tiny", self.study.name).study_id))


class Life:
    """A forked process that is a rank, or that trains alone."""

    def __init__(self, bench: GangBench, spot: Spot | None, stop: Callable[[], bool], armed: str) -> None:
        fork = multiprocessing.get_context("fork")
        self.answers, theirs = fork.Pipe(duplex=False)
        self.process = fork.Process(target=_life, args=(bench, spot, stop, armed, theirs))
        self.process.start()
        theirs.close()
        self.answer: tuple[str, str, list[Any]] | None = None

    def is_over(self) -> bool:
        if self.answer is None and self.answers.poll(0.01):
            with suppress(EOFError):
                self.answer = self.answers.recv()
        return not self.process.is_alive()

    def ended(self) -> Ended:
        self.is_over()
        return Ended(self.process.exitcode or 0, *(self.answer or ("", "", [])))


class Killer:
    """Ends the others so many seconds after the first one has ended, as a coordinator does."""

    def __init__(self, lives: list[Life], seconds: float) -> None:
        self.left, self.seconds, self.first = list(lives), seconds, 0.0

    def all_ended(self) -> bool:
        left = [life for life in self.left if not life.is_over()]
        if len(left) < len(self.left):
            self.first = self.first or time.monotonic()
        self.left = left
        if self.first and time.monotonic() > self.first + self.seconds:
            for life in left:
                life.process.kill()
        return not left


def _content(root: Path, kept: Any) -> Any:
    return (read_weights if kept.kind == "best" else read_state)(root, kept)


def _life(bench: GangBench, spot: Spot | None, stop: Callable[[], bool], armed: str, answers: Connection) -> None:
    torch.set_num_threads(1)
    code, answer = 0, ("", "", [])
    heard = Heard()
    try:
        gang = None if spot is None else Gang.joined(spot, torch.device("cpu"), bench.seconds)
        if armed:
            failpoints.arm(armed)
        if gang is None:
            _train(bench, Alone, stop, heard)
        elif gang.rank == 0:
            try:
                _train(bench, lambda setup: Ganged(setup, gang, trial_text), gang.stops(stop), heard, gang)
            finally:
                gang.tell("end")
        else:
            follow(gang, lambda fields: bench.loaded().setup(bench.study, **fields), stop, trial_from)
        if gang is not None:
            gang.close()
    except Exception as error:
        code, answer = 1, (type(error).__name__, str(error), [])
        if os.environ.get("GANG_TRACES"):
            sys.stderr.write(f"rank {spot and spot.rank}: {traceback.format_exc()}")
    ended = [(number, state, reason) for number, state, reason in heard.ended]
    answers.send((*answer[:2], ended))
    sys.stderr.flush()
    os._exit(code)


def _train(bench: GangBench, engine: Any, stop: Callable[[], bool], heard: Heard, gang: Gang | None = None) -> None:
    with open_ledger(bench.url) as ledger:
        local = bench.loaded(engine)
        row = ledger.start_study("tiny", bench.study, local.fingerprint())
        ledger.plan_trials(row.study_id, bench.trials or planned_trials(bench.study))
        if gang is not None:
            setup = local.setup(bench.study)
            lead_study(gang, {"fingerprint": local.fingerprint(bench.study)}, setup.numerics)
        InProcess().run(Job(ledger, row, local), heard, stop)
