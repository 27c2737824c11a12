"""A trial that the ranks of a gang train together: rank 0 has it as any trial, and the others follow.

All ranks hold the whole model and the whole state of the optimizer, with the same bits, and make the same steps of it;
only slices and evaluations are shared out. So rank 0 alone saves, and a saved state says nothing of the number of
ranks.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tuner.design.trial import Trial
from tuner.errors import DeviceLost, GangLost, Interrupted, StudyChanged, TunerError
from tuner.records import Claim, Promises, Recorder, TrialUpdate
from tuner.training.alone import Alone
from tuner.training.checkpoints import write_state_to
from tuner.training.compiled import start_afresh
from tuner.training.engine import Measured, OnStep
from tuner.training.evaluation import Tally
from tuner.training.gang import Flag, Gang, MateFailed
from tuner.training.gang_command import Said, command
from tuner.training.gang_evaluation import Sharing, joined_evaluation, part_of_evaluation, whole_evaluation
from tuner.training.gang_look import state_checksum
from tuner.training.gang_sums import payload_of
from tuner.training.loss_scale import Untouched
from tuner.training.setup import TrainingSetup
from tuner.training.supervisor import Supervisor
from tuner.training.trial_run import TrialRun

Encode = Callable[[Trial], str]


class GangRun(TrialRun):
    """A trial as each rank has it: model, optimizer and step are the same on all."""

    gang: Gang

    def __init__(self, setup: TrainingSetup, trial: Trial, gang: Gang) -> None:
        super().__init__(setup, trial)
        self.gang = gang
        self.batches.take_only(gang.share(self.rule.slices))
        gang.open(payload_of(len(self.parameters), self.rule.slices // gang.world))

    def note_initial(self) -> None:
        """As that of a trial alone; what it compiles is compiled again."""
        if self.compiler:
            start_afresh()
        super().note_initial()

    def say_initial(self, said: Said) -> None:
        """Say from what the trial starts: all ranks have to start from the same."""
        said.same |= {"initial weights": self.initial, "the loss of the first batch": self.first_loss}

    def say_state(self, said: Said) -> None:
        """Say what the trial is now, as a checksum: all ranks have to have the same."""
        said.same["state"] = f"step {self.step}, {state_checksum(self)}"

    def stops(self) -> bool:
        """Whether all leave now, because one was told to end."""
        return self.gang.leaving is Flag.STOP

    def advance_together(self, until: int, wish: Callable[[], Flag]) -> bool:
        """Train up to step `until` or to where a rank wishes to leave; whether that was to stop.

        Raises MateFailed where another rank has failed.
        """
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
    """The same at rank 0, which the supervisor trains. sharing: who evaluates it, as far as is known."""

    sharing = Sharing.SHARED

    def __init__(self, engine: "Ganged", trial: Trial) -> None:
        super().__init__(engine.setup, trial, engine.gang)
        self.engine = engine
        self._agreed_at = 0  # the step at which all ranks were seen to have the same state

    def fresh(self) -> "LeadRun":
        """The same trial at its first step, on all ranks."""
        return self.engine.trainee(self.trial)

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, on all ranks."""
        file = io.BytesIO()
        write_state_to(file, state)  # before the others wait for it
        with command(self.gang, "load") as said:
            self.gang.send(file.getbuffer())
            del file
            super().load(state)
            self.say_state(said)
        self._check_alike(said)

    def advance(self, until: int, pause: Callable[[], bool] = lambda: False) -> bool:
        """As that of a trial alone; leaves an update later where it is to stop or to pause."""
        stop = self.setup.stop
        if pause():
            return False
        if stop():
            return True
        self._agreed_at = -1
        with command(self.gang, "advance", until=until):
            stopped = self.advance_together(until, lambda: Flag.STOP if stop() else Flag(int(pause())))
        return stopped

    def evaluated(self, stop: Callable[[], bool] | None = None) -> tuple[Measured, list[Tally]]:
        """As that of a trial alone. Raises Interrupted where any rank was told to stop."""
        if self.sharing is Sharing.SHARED:
            with command(self.gang, "evaluate") as said:
                self.say_state(said)
                said.data = part_of_evaluation(self, self.gang)
            self._check_alike(said)
            self.sharing, found = joined_evaluation(self, [one.data for one in said.of_all])
            if found is not None:
                return found
        if self.sharing is Sharing.LEAD:
            return super().evaluated(stop)  # the others wait for the next command, for any length of time
        before = Untouched(self.model, parameters=False)
        try:
            with command(self.gang, "evaluate all") as said:
                self.say_state(said)
                found = whole_evaluation(self, self.gang)
        except Interrupted:  # of some ranks: others may have come to the end, and changed what metrics change
            with command(self.gang, "evaluated in vain"):
                before.put_back()
            raise
        self._check_alike(said)
        self._agreed_at = -1  # on what the metrics have changed
        return found

    def state(self) -> dict[str, Any]:
        """What is saved: rank 0's, once all ranks are known to have the same."""
        if self._agreed_at != self.step:
            with command(self.gang, "compare") as said:
                self.say_state(said)
            self._check_alike(said)
        return super().state()

    def _check_alike(self, said: Said) -> None:
        """Raise GangLost where ranks have drifted apart: what rank 0 holds may be wrong, too, and is not saved."""
        others = said.differing("state")
        if not others:
            self._agreed_at = self.step
            return
        raise GangLost(
            f"{ranks_in_words(others)} of the gang came to other weights than rank 0 by step {self.step:,} of trial "
            f"{self.trial.number}: a fault of the hardware, or code whose result depends on the process or the time "
            "(loss(), augment(), the data); nothing that was trained since the last commit is kept"
        )


class Ganged(Alone):
    """The engine of a trial that several ranks train, at rank 0. encode: a trial as text for the other ranks."""

    def __init__(self, setup: TrainingSetup, gang: Gang, encode: Encode) -> None:
        super().__init__(setup)
        self.gang = gang
        self.encode = encode

    @property
    def promises(self) -> Promises:
        """Those of a trial alone; ranks and groups exclude each other."""
        return replace(super().promises, fusing=False)

    def trainer(self, recorder: Recorder, on_step: OnStep) -> Supervisor:
        """A supervisor of trials that all ranks train together, one at a time."""
        return GangSupervisor(self, recorder, on_step)

    def trainee(self, trial: Trial) -> LeadRun:
        """The trial before its first step, on all ranks. Raises StudyChanged where one would start from another."""
        with command(self.gang, "begin", trial=self.encode(trial)) as said:
            run = self.made(trial)
            run.note_initial()
            run.say_initial(said)
        for what in (what for what, mine in said.same.items() if mine):
            others = [rank for rank in said.differing(what) if said.of_all[rank].same.get(what)]  # "": the step reports
            if others:
                raise StudyChanged(
                    f"rank 0 and {ranks_in_words(others)} of the gang differ in {what}, in trial {trial.number} of "
                    f"{self.setup.study.name}: {type(self.setup.workload).__name__} makes something of the process, "
                    "the time or the machine; draw from global generators only, and give all machines the same files"
                )
        return run

    def made(self, trial: Trial) -> LeadRun:
        """The trial before its first step, at rank 0."""
        return LeadRun(self, trial)


class GangSupervisor(Supervisor):
    """A supervisor whose trials end on all ranks."""

    def __init__(self, engine: Ganged, recorder: Recorder, on_step: OnStep) -> None:
        super().__init__(engine, recorder, on_step)
        self.gang = engine.gang
        self.processes = engine.gang.world

    def train(self, claims: Sequence[Claim]) -> list[TrialUpdate]:
        """As that of a trial alone. Afterwards no rank holds anything of it."""
        try:
            updates = super().train(claims)
        except DeviceLost:  # of this rank or another one, or of the gang: no process of it goes on
            raise
        except Exception:
            with suppress(TunerError):
                self._rest()
            raise
        self._rest()
        return updates

    def _rest(self) -> None:
        with command(self.gang, "rest"):
            pass


def ranks_in_words(ranks: Sequence[int]) -> str:
    """Like "rank 2" or "ranks 1 and 3"."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"
