"""The engine that trains each trial for itself: the reference for the bits of every other way."""

from collections.abc import Callable, Mapping, Sequence

from tuner.design.trial import Trial
from tuner.records import Promises, Recorder
from tuner.training.compiled import start_afresh
from tuner.training.determinism import settle_determinism
from tuner.training.engine import Asked, Inspection, Measured, OnStep
from tuner.training.inspection import inspected
from tuner.training.numerics import is_repeatable
from tuner.training.setup import TrainingSetup
from tuner.training.supervisor import Supervisor
from tuner.training.trial_run import TrialRun


class Alone:
    """Trains one trial at a time in torch, with the optimizers and schedules of the study."""

    def __init__(self, setup: TrainingSetup) -> None:
        self.setup = setup

    @property
    def promises(self) -> Promises:
        """On a device that repeats its results everything, on others no bits."""
        same_bits = is_repeatable(self.setup.device)
        return Promises(
            exact_resume=same_bits, prefixes=True, fusing=True, follows_schedule=True, deterministic=same_bits
        )

    def inspect(self, trials: Sequence[Trial], asked: Asked) -> Inspection:
        """Try a whole update of throw-away copies, and answer what is asked."""
        return inspected(self.setup, trials, asked)

    def settle(self, trial: Trial) -> None:
        """Allow operations without a deterministic kernel where the trial cannot be trained without."""
        settle_determinism(self.setup, trial)

    def trainer(self, recorder: Recorder, on_step: OnStep) -> Supervisor:
        """A supervisor of trials that train one at a time."""
        return Supervisor(self, recorder, on_step)

    def trainee(self, trial: Trial) -> TrialRun:
        """The trial before its first step, with digests of its initial weights and its first loss."""
        run = TrialRun(self.setup, trial)
        if run.compiler:
            start_afresh()
        run.note_initial()
        return run

    def begin(self, trainees: Sequence[TrialRun]) -> "CohortOfOne":
        """A cohort of the first trainee."""
        return CohortOfOne(trainees[0])


class CohortOfOne:
    """A trial that trains alone."""

    def __init__(self, run: TrialRun) -> None:
        self.trainees = [run]
        self.live = [0]

    def advance(self, updates: int, pause: Callable[[], bool]) -> bool:
        """Make so many updates; True where the setup says stop."""
        run = self.trainees[0]
        return run.advance(run.step + updates, pause)

    def evaluate(self, members: Sequence[int]) -> Mapping[int, Measured]:
        """Nothing: the supervisor evaluates the trial by itself."""
        return {}

    def retire(self, member: int) -> None:
        """The trial has ended."""
        self.live.remove(member)
