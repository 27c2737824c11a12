"""The engine that trains trials of one shape as one stacked model, with the bits of each trial alone."""

from collections.abc import Callable, Mapping, Sequence

import torch

from tuner.design.trial import Trial
from tuner.errors import NotFusible
from tuner.fused.evaluation import GroupEvaluation
from tuner.fused.likeness import difference_of, largest_kind
from tuner.fused.making import make_group
from tuner.fused.obstacles import check_obstacles, refusal
from tuner.fused.sharing import tie, tied
from tuner.records import Promises, Recorder
from tuner.training.alone import Alone, CohortOfOne
from tuner.training.engine import Asked, Inspection, Measured, OnStep
from tuner.training.setup import TrainingSetup
from tuner.training.supervisor import Supervisor
from tuner.training.trial_run import TrialRun


class Fused:
    """Trains trials together.

    unlike: what differs between the models, where no two are alike. ways: how the operations of the last cohort were
    run.
    """

    def __init__(self, setup: TrainingSetup) -> None:
        self.setup = setup
        self.unlike = ""
        self.ways: dict[str, str] = {}
        self._alone = Alone(setup)
        self._base: Mapping[str, torch.Tensor] = {}  # what is frozen in the first trial's model

    @property
    def promises(self) -> Promises:
        """Those of a trial alone."""
        return self._alone.promises

    def inspect(self, trials: Sequence[Trial], asked: Asked) -> Inspection:
        """As for a trial alone."""
        return self._alone.inspect(trials, asked)

    def settle(self, trial: Trial) -> None:
        """As for a trial alone."""
        self._alone.settle(trial)

    def trainer(self, recorder: Recorder, on_step: OnStep) -> Supervisor:
        """A supervisor of trials that train together."""
        return Supervisor(self, recorder, on_step)

    def trainee(self, trial: Trial) -> TrialRun:
        """The trial before its first step. What is frozen and equal to the first trial's lies in the memory of that."""
        run = self._alone.trainee(trial)
        self._base = self._base or tied([run.model])
        tie(run.model, self._base)
        return run

    def begin(self, trainees: Sequence[TrialRun]) -> "CohortOfOne | FusedCohort":
        """A cohort of those whose models are alike, the most there are. Raises NotFusible."""
        models = [run.model for run in trainees]
        self._base = {}
        if len(models) > 1:
            check_obstacles(models[0], self.setup.workload.loss)  # compiled models are never alike: said by its name
        chosen = [trainees[place] for place in largest_kind(models, len(models))]
        if len(chosen) == 1:
            self.unlike = difference_of(models)
            return CohortOfOne(chosen[0])
        cohort = FusedCohort(chosen)
        self.ways = dict(cohort.ways)
        return cohort


class FusedCohort:
    """Trials as one stacked model; it becomes smaller when half of them have ended, and the last one trains alone."""

    def __init__(self, runs: Sequence[TrialRun]) -> None:
        self.trainees = list(runs)
        self.live = list(range(len(runs)))
        self._stack()

    @property
    def ways(self) -> Mapping[str, str]:
        """How each operation is run."""
        return self._group.ways

    def _stack(self) -> None:
        self._members = list(self.live)  # by their place in the group
        runs = [self.trainees[member] for member in self._members]
        left = len(runs[0].rates) - min(run.step for run in runs)
        self._group = make_group(runs, steps=left)
        self._evaluation = GroupEvaluation(self._group)
        self._evaluated: set[int] = set()

    def advance(self, updates: int, pause: Callable[[], bool]) -> bool:
        """Make so many updates of each live trial; True where the setup says stop.

        Raises NotFusible. After any other error no trial is live: half an update may have been made.
        """
        if len(self.live) == 1:
            run = self.trainees[self.live[0]]
            return run.advance(run.step + updates, pause)
        if len(self.live) <= len(self._members) // 2:
            self._stack()
        for member in self._evaluated.intersection(self.live):
            self._group.reclaim(self._members.index(member))
        self._evaluated.clear()
        try:
            return self._group.advance(updates) < updates
        except NotFusible:
            raise
        except Exception as error:
            self.live.clear()
            raise refusal(error, "while it was trained") from error

    def evaluate(self, members: Sequence[int]) -> Mapping[int, Measured]:
        """Metrics of the members, where evaluating them together is faster and has the same bits."""
        self._evaluated.update(members)
        if len(self.live) == 1:
            return {}
        places = [self._members.index(member) for member in members]
        return {self._members[place]: measured for place, measured in self._evaluation.of(places).items()}

    def retire(self, member: int) -> None:
        """A trial has ended; its mates do not notice."""
        self.live.remove(member)
        self._group.retire(self._members.index(member))
