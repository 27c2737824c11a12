"""A trial that the ranks of a gang train together: rank 0 has it as any trial, and the others follow.

Rank 0 tells what is done next, a command; each rank does it, and then reports how that went. So an error on any rank is
that of the trial, and all ranks are at the same place again.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tuner.design.trial import Trial
from tuner.errors import GangLost, Paused
from tuner.records import State
from tuner.training.alone import Alone
from tuner.training.checkpoints import state_in, write_state_to
from tuner.training.compiled import start_afresh
from tuner.training.denormals import denormals_as_zero
from tuner.training.determinism import settle_determinism
from tuner.training.endings import RankFailed, ending
from tuner.training.gang import Flag, Gang, MateFailed
from tuner.training.randomness import callers_generators_restored
from tuner.training.setup import TrainingSetup
from tuner.training.trial_run import TrialRun

Encode = Callable[[Trial], str]
Decode = Callable[[str], Trial]


class GangRun(TrialRun):
    """A trial as each rank has it: model, optimizer and step are the same on all."""

    gang: Gang

    def __init__(self, setup: TrainingSetup, trial: Trial, gang: Gang) -> None:
        super().__init__(setup, trial)
        self.gang = gang
        gang.open(max(len(self.parameters), 8 * (self.rule.slices // gang.world)))

    def stops(self) -> bool:
        """Whether all leave now, because one was told to end."""
        return self.gang.leaving is Flag.STOP

    def advance_together(self, until: int, wish: Callable[[], Flag]) -> bool:
        """Train up to step `until` or to where a rank wishes to leave; whether that was to stop."""
        gang = self.gang
        gang.leaving, gang.wish = Flag.GO, wish
        try:
            stopped = super().advance(until, lambda: gang.leaving is Flag.PAUSE)
            gang.exchanged(Flag.DONE)
        except (MateFailed, GangLost):
            raise
        except Exception:
            gang.exchanged(Flag.FAILED)  # the others are in an update, or at the end of the block
            raise
        return stopped


class LeadRun(GangRun):
    """The same at rank 0, which the supervisor trains."""

    def __init__(self, engine: "Ganged", trial: Trial) -> None:
        super().__init__(engine.setup, trial, engine.gang)
        self.engine = engine

    def fresh(self) -> "LeadRun":
        """The same trial at its first step, on all ranks."""
        return self.engine.trainee(self.trial)

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, on all ranks."""
        with self.engine.command("load"):
            file = io.BytesIO()
            write_state_to(file, state)
            self.gang.send(file.getvalue())
            super().load(state)

    def advance(self, until: int, pause: Callable[[], bool] = lambda: False) -> bool:
        """As that of a trial alone; leaves an update later where it is to stop or to pause."""
        stop = self.setup.stop
        if pause():
            return False
        if stop():
            return True
        with self.engine.command("advance", until=until):
            stopped = self.advance_together(until, lambda: Flag.STOP if stop() else Flag(int(pause())))
        return stopped


class Ganged(Alone):
    """The engine of a trial that several ranks train, at rank 0. encode: a trial as text for the other ranks."""

    def __init__(self, setup: TrainingSetup, gang: Gang, encode: Encode) -> None:
        super().__init__(setup)
        self.gang = gang
        self.encode = encode

    def trainee(self, trial: Trial) -> LeadRun:
        """The trial before its first step, on all ranks."""
        with self.command("begin", trial=self.encode(trial)):
            run = LeadRun(self, trial)
            if run.compiler:
                start_afresh()
            run.note_initial()
        return run

    @contextmanager
    def command(self, do: str, **fields: object) -> Iterator[None]:
        """Tell the others to do what the block does here. Raises the error of this rank, or of another one."""
        self.gang.tell(do, **fields)
        failure: Exception | None = None
        try:
            yield
        except GangLost:
            raise
        except Exception as error:
            failure = error
        reports = self.gang.gathered(b"{}")
        if failure is not None and not isinstance(failure, MateFailed):
            raise failure
        for rank, report in enumerate(reports):
            told = json.loads(report)
            if told:
                raise _error_of(rank, told)


def _error_of(rank: int, told: Mapping[str, Any]) -> Exception:
    text = f"on rank {rank}: {told['text']}"
    return RankFailed(State(told["state"]), text) if told["state"] else Paused(text)


def report_of(error: Exception | None) -> bytes:
    """What a rank that follows says at the end of a command."""
    if error is None or isinstance(error, MateFailed):
        return b"{}"
    try:
        state, text = ending(error)
    except Exception as machines:
        return json.dumps({"state": "", "text": str(machines)}).encode()
    return json.dumps({"state": state.value, "text": text}).encode()


class Follower:
    """What a rank other than 0 does: as it is told. stop: whether this process was told to end."""

    def __init__(self, gang: Gang, stop: Callable[[], bool], decode: Decode) -> None:
        self.gang = gang
        self.stop = stop
        self.decode = decode
        self.run: GangRun | None = None

    def follow(self, setup: TrainingSetup) -> dict[str, Any]:
        """Train the trials of a study; returns the first command that is none of a trial."""
        device = setup.device
        with callers_generators_restored(device), denormals_as_zero(device), setup.loading():
            while True:
                told = self.gang.hear(self.stop)
                do = getattr(self, f"_{told['do']}", None)
                if do is None:
                    return told
                failure: Exception | None = None
                try:
                    do(setup, told)
                except GangLost:
                    raise
                except Exception as error:
                    failure = error
                self.gang.gathered(report_of(failure))

    def _begin(self, setup: TrainingSetup, told: Mapping[str, Any]) -> None:
        trial = self.decode(told["trial"])
        settle_determinism(setup, trial)
        self.run = GangRun(setup, trial, self.gang)
        if self.run.compiler:
            start_afresh()
        self.run.note_initial()

    def _load(self, setup: TrainingSetup, told: Mapping[str, Any]) -> None:
        content = self.gang.received()
        if self.run is not None:
            self.run.load(state_in(content))

    def _advance(self, setup: TrainingSetup, told: Mapping[str, Any]) -> None:
        if self.run is not None:
            self.run.advance_together(told["until"], lambda: Flag.STOP if self.stop() else Flag.GO)
            self.run.losses, self.run.norms = [], []
            self.run.totals.clear()
